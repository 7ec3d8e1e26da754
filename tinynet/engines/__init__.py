"""Where the computing happens: in NumPy, in loops that Numba has compiled, or on a GPU.

Layers, losses and optimizers don't know. They call NumPy and *operations*: functions with a NumPy body, written next to
the layer that needs it, for which an engine may have a loop or a kernel.
"""

from typing import Any

from tinynet.engines.choice import about_numba, current, use

__all__ = ["about_numba", "current", "gpu", "use"]


def __getattr__(name: str) -> Any:
    if name == "gpu":
        import importlib

        return importlib.import_module("tinynet.engines.gpu")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
