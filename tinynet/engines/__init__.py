"""Who computes: NumPy, or a GPU.

Layers, losses and optimizers don't know. They call NumPy and *operations*, functions whose NumPy body stands beside
the layer that needs it; an engine may have a kernel for each.
"""

from typing import Any

__all__ = ["gpu"]


def __getattr__(name: str) -> Any:
    if name == "gpu":
        import importlib

        return importlib.import_module("tinynet.engines.gpu")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
