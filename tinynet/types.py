"""The two types that every signature uses."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
"""A NumPy array of the model's dtype, unless the docstring says otherwise."""

Shape = tuple[int, ...]
"""Sizes of the axes; without the batch axis, unless the docstring says otherwise."""
