"""Dropout: zeroes a random share of the units in each training step."""

import math

import numpy as np

from tinynet.engines.operation import operation
from tinynet.layers.base import Layer
from tinynet.support import random
from tinynet.support.checks import check_number
from tinynet.support.types import Array

_LEVELS = 1 << 16  # a unit is dropped if its 16 random bits are below rate * 2^16


class Dropout(Layer):
    """Inverted dropout.

    Forward:   y = x mask      mask = 1 / (1 - rate) where a unit is kept, else 0; outside training, y = x
    Backward:  dx = dy mask

    Shapes: x, y, mask (n, ...)
    Cached for backward: mask
    Args:
        rate: the share of units to drop, in [0, 1); rounded to the nearest 1/65536.
        seed: the layer's own seed; None uses the model's.
    Source: Srivastava et al. 2014; counter-based random numbers: Salmon et al. 2011 (Philox).

    The mask is a function of seed, place in the model, ``step`` and row. It can be drawn again without
    saving anything, and a batch split into parts (``first_row``) gets the same mask as the whole.
    `Sequential` counts ``step``; two forward passes at the same step drop the same units.
    """

    gives = "real numbers"
    cache_names = ("_mask",)
    _mask: Array

    def __init__(self, rate: float, seed: int | None = None) -> None:
        super().__init__()
        self.rate = check_number("Dropout rate", rate, 0, 1, open_high=True)
        self.seed = None if seed is None else random.check_seed(seed)
        self.key = random.dropout_key(self.seed or 0, 0)  # the model sets a separate key for each place
        self.step = 0
        self.first_row = 0

    def forward(self, x: Array, training: bool = False) -> Array:
        if not training:
            return x
        mask, y = (self.buffer(name, x.shape, x.dtype, like=x) for name in ("mask", "y"))
        drop(x, self.key, self.first_row, self.step, self.threshold, mask, y)
        self._mask = mask
        return y

    def backward(self, dy: Array) -> Array:
        return np.multiply(dy, self._mask, out=self.buffer("dx", dy.shape, dy.dtype, like=dy))

    @property
    def threshold(self) -> int:
        """A unit is dropped if its random number, from 0 to 65535, is below this."""
        return min(round(self.rate * _LEVELS), _LEVELS - 1)


@operation
def drop(
    x: Array, key: tuple[int, int], first_row: int, step: int, threshold: int, mask: Array, y: Array
) -> None:
    """mask = 1 / (1 - rate) where a unit's 16 random bits are at least the threshold, else 0     y = x mask"""
    units = math.prod(x.shape[1:])
    bits = random.dropout_bits(key, first_row, step, len(x), units)[:, :units]
    keep = (bits >= threshold).reshape(x.shape)
    np.multiply(keep, np.asarray(1 / (1 - threshold / _LEVELS), x.dtype), out=mask)
    np.multiply(x, mask, out=y)
