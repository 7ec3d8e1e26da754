"""Dropout, with random bits that NumPy draws. NumPy body: `tinynet.layers.dropout`."""

import math
from typing import Any

from tinynet.engines.fast.arrays import alike
from tinynet.engines.fast.compile import kernel, loop
from tinynet.support.random import dropout_bits
from tinynet.support.types import Array


@loop
def drop(
    x: Array, key: tuple[int, int], first_row: int, step: int, threshold: int, mask: Array, y: Array
) -> Any:
    if not alike(x, mask, y):
        return NotImplemented
    rows = len(x), math.prod(x.shape[1:])
    bits, scale = dropout_bits(key, first_row, step, *rows), x.dtype.type(1 / (1 - threshold / 65536))
    _drop(bits, threshold, scale, *[array.reshape(rows) for array in (x, mask, y)])
    return None


@kernel
def _drop(bits: Array, threshold: int, scale: float, x: Array, mask: Array, y: Array) -> None:
    """mask = scale where a unit's bits are at least the threshold, else 0     y = x mask"""
    for n in range(len(x)):
        for j in range(x.shape[1]):
            mask[n, j] = scale if bits[n, j] >= threshold else 0
            y[n, j] = x[n, j] * mask[n, j]
