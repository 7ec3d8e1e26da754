"""One training step as data, frame by frame, and as a page."""
