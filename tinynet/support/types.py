"""Types used in signatures."""

import os
from collections.abc import Callable
from typing import Any

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
