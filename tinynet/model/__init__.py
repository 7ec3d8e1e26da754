"""The network: a chain of layers, their parameters in one vector, and the functions that use them."""

from tinynet.model.sequential import Sequential, load_model

__all__ = ["Sequential", "load_model"]
