"""Kinks: the corners in a network's function, and the side of each corner on which a forward pass was.

ReLU has a corner at 0. Max-pooling has one wherever another pixel of a window becomes the largest. Between corners,
backward gives the slope. A central difference that crosses a corner mixes the slopes of both sides and says nothing
about backward.

The sides are read from what the layers keep for their backward. The corners of your own layers are unknown here,
unless a layer derives from one of these and keeps the same arrays.
"""

import functools
from collections.abc import Sequence
from typing import Self

import numpy as np

from tinynet.engines.devices import to_host
from tinynet.layers import Layer, LeakyReLU, MaxPool2D, ReLU
from tinynet.model.sequential import Sequential
from tinynet.support.types import Array

# Numbers that differ by less than this share of the layer's largest count as equal. Only rounding decides which of them
# is larger, as in a plain background, and switching from one to the other changes no slope.
ROUNDING = 1e-13


class Kinks:
    """The kinks of one layer, as seen in one forward pass."""

    def crossed(self, other: Self) -> bool:
        """Whether a kink lies between this pass and another one of the same layer."""
        raise NotImplementedError


class UnitKinks(Kinks):
    """The side of its corner on which each unit of a ReLU or LeakyReLU was.

    Args:
        side (n, ...): any value that identifies the side, such as whether x was above 0.
        y (n, ...): the outputs, if known; then a change of side within rounding does not count.
    """

    def __init__(self, side: Array, y: Array | None = None) -> None:
        self.side, self.y = side, y

    def crossed(self, other: Self) -> bool:
        flipped = self.side != other.side
        if self.y is None or other.y is None:
            return bool(flipped.any())
        return bool((np.abs(self.y - other.y)[flipped] > _rounding(self.y, other.y)).any())


class PoolKinks(Kinks):
    """Which pixel was the largest in each window of a max-pool.

    Args: layer: the layer, which knows its windows; x (c, h, w, n), y (c, down, across, n): as the layer keeps them.
    """

    def __init__(self, layer: MaxPool2D, x: Array, y: Array) -> None:
        self.layer, self.x, self.y = layer, x, y

    @functools.cached_property
    def winners(self) -> Array:
        """The position of each window's largest pixel, as in the function `winners`."""
        return winners(self.layer, self.x, self.y)

    def crossed(self, other: Self) -> bool:
        # A kink was crossed if a pixel that was the largest in its window is smaller than another in `other`.
        tolerance = _rounding(self.y, other.y)
        for place, (_, (down, across), (rows, columns)) in enumerate(self.layer.windows.taps()):
            behind = other.y[:, down, across] - other.x[:, rows, columns]
            if (behind[self.winners[:, down, across] == place] > tolerance).any():
                return True
        return False


def winners(layer: MaxPool2D, x: Array, y: Array) -> Array:
    """The position of the largest pixel in each window, counted row by row from 0; the first of equal ones.

    Shapes: x (c, h, w, n)  y and the result (c, down, across, n); -1 where y is NaN, which no pixel equals
    """
    place = np.full(y.shape, -1)
    for number, (_, (down, across), (rows, columns)) in enumerate(layer.windows.taps()):
        here = place[:, down, across]
        here[(here < 0) & (x[:, rows, columns] == y[:, down, across])] = number
    return place


def kink_pattern(model: Sequential) -> list[Kinks]:
    """The kinks of every layer, inner layers included, as of the model's last forward pass in training mode."""
    found = (_kinks(layer) for _, layer in model.walk())
    return [kinks for kinks in found if kinks is not None]


def crossed(one: Sequence[Kinks], other: Sequence[Kinks]) -> bool:
    """Whether a kink lies between two passes of the same model."""
    return any(a.crossed(b) for a, b in zip(one, other, strict=True))


def _kinks(layer: Layer) -> Kinks | None:
    # Copies, because the next forward pass overwrites the layers' buffers.
    if isinstance(layer, ReLU) and "_y" in vars(layer):
        y = np.array(to_host(layer._y))
        return UnitKinks(y > 0, y)
    if isinstance(layer, LeakyReLU) and "_slope" in vars(layer):
        return UnitKinks(np.array(to_host(layer._slope)))
    if isinstance(layer, MaxPool2D) and "_x" in vars(layer) and "_y" in vars(layer):
        return PoolKinks(layer, *(np.array(to_host(array)) for array in (layer._x, layer._y)))
    return None


def _rounding(*outputs: Array) -> float:
    return ROUNDING * max(float(np.abs(y).max(initial=0)) for y in outputs)
