"""The same step in PyTorch and in Keras."""
