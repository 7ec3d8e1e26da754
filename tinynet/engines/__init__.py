"""Who computes: NumPy, or a GPU.

Layers, losses and optimizers don't know. They call NumPy and *operations*, functions whose NumPy body stands beside
the layer that needs it; an engine may have a kernel for each.
"""
