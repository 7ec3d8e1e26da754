"""The two flat vectors of parameters and gradients; every layer's W and dW are views into them."""

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinynet.engines.devices import Device
from tinynet.layers import Layer
from tinynet.layers.chain import walk
from tinynet.support import random
from tinynet.support.types import Array, Shape


class Place(NamedTuple):
    """One parameter's part of the vectors."""

    path: str  # "2.W"
    layer: Layer
    name: str  # "W"
    shape: Shape
    part: slice


class Parameters:
    """The values and the gradients of all parameters, each in one contiguous vector, allocated once.

    Parameters that weight decay applies to come first, so that decay is one slice; each group is in layer order.

    Args: layers: built layers; dtype: of both vectors; seed: for the initial values, drawn layer by layer.
    """

    def __init__(self, layers: Sequence[Layer], dtype: np.dtype[Any], seed: int) -> None:
        declared = [
            (path, layer, spec) for path, layer in walk(layers) for spec in layer.param_specs.values()
        ]
        self.decay_size = sum(math.prod(spec.shape) for _, _, spec in declared if spec.decay)
        self.places: list[Place] = []  # layer by layer
        ends = {True: 0, False: self.decay_size}
        for path, layer, spec in declared:
            part = slice(ends[spec.decay], ends[spec.decay] + math.prod(spec.shape))
            ends[spec.decay] = part.stop
            self.places.append(Place(f"{path}.{spec.name}", layer, spec.name, spec.shape, part))
        self._ranges_for: list[bool] | None = None
        self._ranges: list[tuple[int, int]] = []
        self.values = np.zeros(ends[False], dtype)
        self.grads = np.zeros(ends[False], dtype)
        self.bind()
        for _, layer in walk(layers):
            layer.make_state()
        rng = random.generator(seed, random.INITIAL_VALUES)
        for place, (_, layer, spec) in zip(self.places, declared, strict=True):
            setattr(layer, place.name, spec.initializer(spec.shape, rng))

    def bind(self) -> None:
        """Make every ``layer.W`` and ``layer.dW`` a view into the vectors."""
        for place in self.places:
            place.layer.bind(place.name, self.values[place.part].reshape(place.shape))
            place.layer.bind("d" + place.name, self.grads[place.part].reshape(place.shape))

    def replica(self, layers: Sequence[Layer]) -> "Parameters":
        """The same values for other layer objects of the same kinds, with separate gradients."""
        twin, by_path = copy.copy(self), dict(walk(layers))
        twin.places = [place._replace(layer=by_path[place.path.rpartition(".")[0]]) for place in self.places]
        twin.grads = np.zeros_like(self.grads)
        twin.bind()
        return twin

    def named(self, prefix: str = "") -> dict[str, Array]:
        """The views by path, layer by layer; with ``prefix="d"`` the gradients, by the same paths."""
        return {place.path: getattr(place.layer, prefix + place.name) for place in self.places}

    def trainable_ranges(self) -> list[tuple[int, int]]:
        """The (start, stop) ranges of the vectors that train, merged where they touch."""
        trainable = [place.layer.trainable for place in self.places]
        if trainable == self._ranges_for:  # called in every step
            return self._ranges
        parts = sorted((place.part.start, place.part.stop) for place in self.places if place.layer.trainable)
        ranges: list[tuple[int, int]] = []
        for start, stop in parts:
            if ranges and ranges[-1][1] == start:
                ranges[-1] = (ranges[-1][0], stop)
            else:
                ranges.append((start, stop))
        self._ranges_for, self._ranges = trainable, ranges
        return ranges

    def clear_frozen(self) -> None:
        """Set the gradients of what is frozen to 0; backward passes leave them as they were."""
        for place in self.places:
            if not place.layer.trainable:
                self.grads[place.part] = 0

    def move(self, dtype: np.dtype[Any], device: Device) -> None:
        """Convert both vectors, and every view, to another dtype or device."""
        values, grads = (device.asarray(vector.astype(dtype)) for vector in (self.values, self.grads))
        self.values, self.grads = values, grads
        self.bind()
