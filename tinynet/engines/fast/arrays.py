"""What a loop may be given: it has no bounds checks, and is compiled once for each kind of array that it meets.

So it gets one kind for each dtype, which NumPy calls "carray": in C order, aligned, and not read-only.
"""

import numpy as np

from tinynet.support.types import Array

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_INDICES = np.dtype(np.intp)


def dense(first: Array, *others: Array) -> bool:
    """Whether all are NumPy's own arrays, "carray", and of one dtype: the machine's float32 or float64."""
    dtype = first.dtype
    if dtype not in FLOATS or type(first) is not np.ndarray or not first.flags.carray:
        return False
    for x in others:  # noqa: SIM110 (a generator takes twice as long, and this is called in every step)
        if type(x) is not np.ndarray or x.dtype != dtype or not x.flags.carray:
            return False
    return True


def alike(first: Array, *others: Array) -> bool:
    """Whether all are dense and of one shape: the gradient that a layer from outside returns may have any."""
    shape = first.shape
    for x in others:
        if x.shape != shape:
            return False
    return dense(first, *others)


def vectors(rows: Array, *others: Array) -> bool:
    """Whether each of the others has an element for each feature of rows (n, features), in their dtype."""
    shape = rows.shape[1:]
    for x in others:
        if x.shape != shape:
            return False
    return others[0].dtype == rows.dtype and dense(*others)


def labels_of(labels: Array, rows: Array) -> bool:
    """Whether there is one index for each of the rows (n, classes); the loop sees to it that they are in range."""
    return (
        rows.ndim == 2
        and labels.shape == rows.shape[:1]
        and labels.dtype == _INDICES
        and type(labels) is np.ndarray
        and labels.flags.carray
    )
