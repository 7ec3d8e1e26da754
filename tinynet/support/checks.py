"""Argument checks that several modules share."""

import math
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tinynet.support.types import Shape

MAX_AXES = 63  # of an example: NumPy arrays have at most 64, and one is the batch axis


def batch_shape(shape: Shape) -> str:
    """Format a shape for error messages: ``(batch, 28, 28)``."""
    return f"(batch{''.join(f', {size}' for size in shape)})"


def check_name(owner: object, name: str, known: Iterable[str], elsewhere: Mapping[str, str]) -> None:
    """Raise AttributeError if a new attribute's name can only be a mistake for one that is known.

    Classes from outside the library may have attributes of their own, so of those only one letter may be wrong.

    Args: elsewhere: the names that other libraries use, and what they are called here.
    """
    outside = not type(owner).__module__.startswith("tinynet.")
    import difflib  # only here, as importing it takes some milliseconds

    close = difflib.get_close_matches(name, known, 1, cutoff=0.9 if outside else 0.8)
    meant = (None if outside else elsewhere.get(name)) or (close[0] if close else None)
    if meant is not None and meant != name:
        raise AttributeError(f"{type(owner).__name__} has no attribute {name!r}; did you mean {meant!r}?")


def check_positive_int(name: str, value: Any) -> int:
    """Return the value as an int; raise ValueError unless it is a whole number from 1 to the largest possible size."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= sys.maxsize:
        raise ValueError(f"{name}: expected a positive int, got {value!r}")
    return int(value)


def check_shape(name: str, value: Any) -> Shape:
    """Return an example's shape as a tuple; raise ValueError unless an array can have it."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        hint = f"; pass ({value},)" if isinstance(value, (int, np.integer)) else ""
        raise ValueError(f"{name}: expected a tuple, got {value!r}{hint}")
    sizes = tuple(value)
    if len(sizes) > MAX_AXES:
        raise ValueError(f"{name}: expected at most {MAX_AXES} axes, got {len(sizes)}")
    shape = tuple(check_positive_int(name, size) for size in sizes)
    if math.prod(shape) > sys.maxsize:
        raise ValueError(f"{name}: no array can have as many elements as {shape}")
    return shape


def check_number(name: str, value: Any, low: float, high: float, *, open_high: bool = False) -> float:
    """Return the value as a float; raise ValueError unless it is within the bounds."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ValueError(f"{name}: expected a number, got {value!r}")
    inside = low <= value < high if open_high else low <= value <= high
    if not inside or not math.isfinite(value):
        bracket = ")" if open_high else "]"
        raise ValueError(f"{name}: expected a number in [{low:g}, {high:g}{bracket}, got {value!r}")
    return float(value)


def check_path(name: str, value: Any) -> str:
    """Return the path of a file as a string; raise TypeError if it is anything else, bytes included."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        raise TypeError(f"{name}: expected the path of a file, got {value!r}; use a str or a pathlib.Path")
    return path


def check_bool(name: str, value: Any, hint: str = "") -> bool:
    """Return the value as a bool; raise ValueError, with the hint, for anything else."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name}: expected True or False, got {value!r}{hint}")
    return bool(value)


def check_dtype(dtype: Any) -> np.dtype[Any]:
    """Return float32 or float64 as a dtype; raise ValueError for others."""
    try:
        checked: np.dtype[Any] = np.dtype(dtype)
    except TypeError:  # not the name of a dtype
        checked = np.dtype(object)
    if dtype is None or checked not in (np.float32, np.float64):
        raise ValueError(f"dtype: expected 'float32' or 'float64', got {str(dtype)!r}")
    return checked
