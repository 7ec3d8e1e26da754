"""Kinks: the corners in a network's function, and on which side of each of them a forward pass was.

ReLU has a corner at 0, and max-pooling one wherever another pixel of a window becomes the largest. Between them
backward gives the slope. A central difference that reaches across one mixes the slopes of both sides, and says nothing
about backward.

All of it is read from what the layers keep for their backward. A layer of your own that has corners is not known here,
unless it derives from one of these and keeps what that one keeps.
"""

import functools
from collections.abc import Sequence
from typing import Self

import numpy as np

from tinynet.engines.devices import to_host
from tinynet.layers import Layer, LeakyReLU, MaxPool2D, ReLU
from tinynet.model.sequential import Sequential
from tinynet.support.types import Array

# Numbers closer than this share of the layer's largest count as equal: which of them is larger is a matter of rounding,
# as it is for the pixels of a plain background, and going from one to the other changes no slope.
ROUNDING = 1e-13


class Kinks:
    """The kinks of one layer, as of one forward pass."""

    def crossed(self, other: Self) -> bool:
        """Whether one of them lies between this pass and another of the same layer."""
        raise NotImplementedError


class UnitKinks(Kinks):
    """On which side of its corner each unit of a ReLU or LeakyReLU was.

    Args:
        side (n, ...): any number that tells, such as whether x was above 0.
        y (n, ...): the outputs, where they are known; a change of sides within rounding then counts as none.
    """

    def __init__(self, side: Array, y: Array | None = None) -> None:
        self.side, self.y = side, y

    def crossed(self, other: Self) -> bool:
        flipped = self.side != other.side
        if self.y is None or other.y is None:
            return bool(flipped.any())
        return bool((np.abs(self.y - other.y)[flipped] > _rounding(self.y, other.y)).any())


class PoolKinks(Kinks):
    """Which pixel was the largest of each window of a max-pool.

    Args: layer: which knows its windows; x (c, h, w, n), y (c, down, across, n): as the layer keeps them.
    """

    def __init__(self, layer: MaxPool2D, x: Array, y: Array) -> None:
        self.layer, self.x, self.y = layer, x, y

    @functools.cached_property
    def winners(self) -> Array:
        """The place in its window of each largest pixel, as `winners` gives it."""
        return winners(self.layer, self.x, self.y)

    def crossed(self, other: Self) -> bool:
        # That is, whether a pixel that was the largest of its window is there smaller than another.
        tolerance = _rounding(self.y, other.y)
        for place, (_, (down, across), (rows, columns)) in enumerate(self.layer.windows.taps()):
            behind = other.y[:, down, across] - other.x[:, rows, columns]
            if (behind[self.winners[:, down, across] == place] > tolerance).any():
                return True
        return False


def winners(layer: MaxPool2D, x: Array, y: Array) -> Array:
    """Where in its window each largest pixel sits, counted row by row from 0; of equal ones the first.

    Shapes: x (c, h, w, n)  y, and what is returned, (c, down, across, n); -1 where nothing equals the largest, a NaN
    """
    place = np.full(y.shape, -1)
    for number, (_, (down, across), (rows, columns)) in enumerate(layer.windows.taps()):
        here = place[:, down, across]
        here[(here < 0) & (x[:, rows, columns] == y[:, down, across])] = number
    return place


def kink_pattern(model: Sequential) -> list[Kinks]:
    """The kinks of every layer, layers in layers too, as of the model's last forward pass in training."""
    found = (_kinks(layer) for _, layer in model.walk())
    return [kinks for kinks in found if kinks is not None]


def crossed(one: Sequence[Kinks], other: Sequence[Kinks]) -> bool:
    """Whether a kink lies between two passes of one model."""
    return any(a.crossed(b) for a, b in zip(one, other, strict=True))


def _kinks(layer: Layer) -> Kinks | None:
    # Copies, as what layers keep are buffers that the next forward pass fills anew.
    if isinstance(layer, ReLU) and layer._y is not None:
        y = np.array(to_host(layer._y))
        return UnitKinks(y > 0, y)
    if isinstance(layer, LeakyReLU) and layer._slope is not None:
        return UnitKinks(np.array(to_host(layer._slope)))
    if isinstance(layer, MaxPool2D) and layer._x is not None and layer._y is not None:
        return PoolKinks(layer, *(np.array(to_host(array)) for array in (layer._x, layer._y)))
    return None


def _rounding(*outputs: Array) -> float:
    return ROUNDING * max(float(np.abs(y).max(initial=0)) for y in outputs)
