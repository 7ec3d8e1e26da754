"""What `fit` does, from the first check of its arguments to the last callback."""
