"""Types used in signatures."""

import os
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""A NumPy array of the model's dtype, unless the docstring says otherwise."""

Shape = tuple[int, ...]
"""The sizes of the axes; without the batch axis, unless the docstring says otherwise."""

Memory = Callable[[str, Shape], Array]
"""Returns an uninitialised work array, by name and shape."""

PathLike = str | os.PathLike[str]
"""The path of a file."""

Schedule = Callable[[int], float]
"""A learning rate for each step, 0, 1, ..."""

Decay = tuple[Any, int]
"""Weight decay in a step: the factor by which parameters shrink, and how many do, from the front of the range."""

# Options that are words, so that a type checker finds a misspelt one. They are checked when they are used, too.

Padding = Literal["valid", "same"]

DeviceName = Literal["cpu", "gpu", "auto"]

EngineName = Literal["auto", "numpy", "numba"]

FloatType = Literal["float32", "float64"] | np.dtype[Any] | type[np.float32] | type[np.float64] | type[float]
"""What ``dtype`` may be: a name, a dtype or a class."""

Monitor = Literal["loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds"]
"""A column of the history, for a callback to watch."""

Mode = Literal["auto", "min", "max"]

Scope = Literal["global", "layer"]

Criterion = Literal["auto", "l1", "gamma"]

Library = Literal["torch", "keras"]
