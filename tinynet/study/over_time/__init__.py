"""Training over time: what a model looked like every few steps, as a page."""
