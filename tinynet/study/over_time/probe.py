"""What a model in training computes for a few fixed examples: every layer's output and gradient, as histograms.

The examples run through a twin of the model, which shares only its parameters: training with a probe is
bit-identical to training without one. The probe has its own loop over the layers; they know nothing about it.
"""

import copy
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tinynet.engines.devices import to_host
from tinynet.layers import Conv2D, Dense, DepthwiseConv2D, Dropout, Flatten, Layer, Reshape, Residual
from tinynet.layers.chain import walk
from tinynet.losses import Loss
from tinynet.protocols import Model
from tinynet.support.types import Array

LEVELS = 64  # octaves of sizes
LOWEST = -48  # the first one starts at 2^-48, 3.6e-15
BINS = 2 * LEVELS + 1  # negative sizes, zero and tiny sizes, positive sizes
SAMPLED = 1024  # elements that a histogram counts; in larger arrays, the same random ones each time

_PATTERNS = 512  # bit patterns of a float32's sign and exponent
_FIRST = 127 + LOWEST  # the exponent of the first octave as stored
_EDGES = [side + edge for side in (0, 256) for edge in (0, *range(_FIRST, _FIRST + LEVELS))]

_WEIGHTED = (Dense, Conv2D, DepthwiseConv2D)  # these compute the same when frozen
_SAME_NUMBERS = (Flatten, Reshape)  # these only change the shape of their input


class Place(NamedTuple):
    """An array that is looked at repeatedly."""

    path: str  # of the layer: "2", or "5.1" inside a Residual
    name: str  # "y", its output; "dy", the gradient with respect to it; "dW", a parameter's gradient


class Look(NamedTuple):
    """What the probe saw once. Its arrays are valid until the next look."""

    loss: float
    outputs: dict[str, Array]  # by layer path, starting at the first layer with parameters
    gradients: dict[str, Array]  # with respect to these outputs


class Probe:
    """Fixed examples and a twin of the model to run them through, in training mode.

    Batch-norm uses the statistics of these examples; dropout drops the same units at each look.

    Args: x (n, *input_shape), y: as `tinynet.training.inputs.check_data` returns them; loss: the one used in training.
    """

    def __init__(self, model: Model, x: Array, y: Array, loss: Loss) -> None:
        self.loss, self.source = loss, model.params
        self.twin = model.device.on_host(model)._replica()
        self.y = y
        self.followers: list[tuple[Layer, Layer]] = []
        for (_, layer), (_, twin) in zip(model.walk(), self.twin.walk(), strict=True):
            twin.needs_input_grad = True
            for name in twin.state_names:
                twin.bind(name, getattr(twin, name).copy())
            if isinstance(twin, Dropout):
                twin.step = twin.first_row = 0
            if isinstance(twin, _WEIGHTED):
                twin.trainable = False  # the gradients of the twin's parameters are not needed
            elif twin.param_specs:
                self.followers.append((layer, twin))
        self.states = list(zip(self.twin.named_state().values(), model.named_state().values(), strict=True))
        self.first = next((i for i, layer in enumerate(model.layers) if _changes(layer)), 0)
        # The same at every look.
        self.input = _forward(self.twin.layers[: self.first], to_host(x).astype(model.dtype), "", {})

    def look(self) -> Look:
        """Run the examples forward and backward with the current parameters."""
        if self.twin.params is not self.source:  # the model is on the GPU
            self.twin.params[...] = to_host(self.source)
        for own, theirs in self.states:
            own[...] = to_host(theirs)
        for layer, twin in self.followers:
            twin.trainable = layer.trainable  # a frozen batch-norm computes something different
        layers, loss = self.twin._fuse(copy.copy(self.loss))
        outputs: dict[str, Array] = {}
        value = loss.forward(_forward(layers, self.input, "", outputs, self.first), self.y)
        gradients: dict[str, Array] = {}
        _backward(layers, loss.backward(), "", gradients, self.first, needs_dx=False)
        return Look(value, outputs, gradients)

    def watched(self, look: Look) -> list[str]:
        """The paths of the layers worth watching: their arrays change, and no other layer has the same ones."""
        return [
            path
            for path, layer in self.twin.walk()
            if path in look.gradients and not isinstance(layer, _SAME_NUMBERS)
        ]


def _changes(layer: Layer) -> bool:
    """Whether its output for the same input changes during training."""
    return any(inner.param_specs or inner.state_names for _, inner in walk([layer]))


def _forward(
    layers: Sequence[Layer], x: Array, prefix: str, found: dict[str, Array], first: int = 0
) -> Array:
    for index in range(first, len(layers)):
        x = _forward_layer(layers[index], x, f"{prefix}{index}", found)
    return x


def _forward_layer(layer: Layer, x: Array, path: str, found: dict[str, Array]) -> Array:
    if type(layer) is Residual:  # like Residual.forward, but keeps the arrays in between
        y, cut = _forward(layer.layers, x, f"{path}.", found), x
        if layer.projection is not None:
            cut = _forward_layer(layer.projection, x, f"{path}.{len(layer.layers)}", found)
        y = np.add(cut, y)
    else:
        y = layer.forward(x, training=True)
    found[path] = y
    return y


def _backward(
    layers: Sequence[Layer],
    dy: Array,
    prefix: str,
    found: dict[str, Array],
    first: int = 0,
    needs_dx: bool = True,
) -> Array:
    for index in range(len(layers) - 1, first - 1, -1):
        layer, path = layers[index], f"{prefix}{index}"
        if index == first and not needs_dx and type(layer) is not Residual:
            found[path] = dy
        else:
            dy = _backward_layer(layer, dy, path, found)
    return dy


def _backward_layer(layer: Layer, dy: Array, path: str, found: dict[str, Array]) -> Array:
    found[path] = dy
    if type(layer) is Residual:
        through, cut = _backward(layer.layers, dy, f"{path}.", found), dy
        if layer.projection is not None:
            cut = _backward_layer(layer.projection, dy, f"{path}.{len(layer.layers)}", found)
        return np.add(cut, through)
    dx = layer.backward(dy)
    assert dx is not None
    return dx


class Histograms:
    """Counts of the elements of many arrays by sign and power of two, in a few passes over all of them.

    Args: sizes: sizes of the arrays, which come in this order each time.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        rng = np.random.default_rng(0)
        self.picks = [
            None if size <= SAMPLED else np.sort(rng.choice(size, SAMPLED, replace=False, shuffle=False))
            for size in sizes
        ]
        counted = [min(size, SAMPLED) for size in sizes]
        ends = list(itertools.accumulate(counted, initial=0))
        self.counted, self.starts = np.array(counted, np.intp), np.array(ends[:-1], np.intp)
        self.values = np.empty(ends[-1], np.float32)
        self.parts = [self.values[start:end] for start, end in itertools.pairwise(ends)]
        self.rows = np.repeat(np.arange(len(sizes), dtype=np.uint32) * _PATTERNS, self.counted)

    def count(self, arrays: Sequence[Array]) -> tuple[Array, Array]:
        """Counts (arrays, BINS) and root mean squares (arrays,).

        Bin ``LEVELS + k`` counts elements from 2^(LOWEST + k - 1) to twice that, bin ``LEVELS - k`` the negative ones.
        The middle bin counts zero and smaller ones; the first and last bins also count larger ones, infinity and NaN.
        """
        for array, picks, part in zip(arrays, self.picks, self.parts, strict=True):
            flat = array.ravel(order="K")  # a view, whatever the order of axes in memory
            part[...] = flat if picks is None else flat.take(picks)
        # A float32's first 9 bits are its sign and its exponent + 127: count these patterns, then put them in order.
        patterns = self.values.view(np.uint32) >> np.uint32(23)
        patterns += self.rows
        found = np.bincount(patterns, minlength=len(self.counted) * _PATTERNS).reshape(-1, _PATTERNS)
        # Zero and the levels of positive numbers, then zero and the levels of negative ones.
        found = np.add.reduceat(found, _EDGES, axis=1)
        counts = np.empty((len(found), BINS), np.uint16)
        counts[:, LEVELS:] = found[:, : LEVELS + 1]
        counts[:, LEVELS] += found[:, LEVELS + 1].astype(np.uint16)
        counts[:, :LEVELS] = found[:, : LEVELS + 1 : -1]
        squares = np.add.reduceat(np.square(self.values, dtype=np.float64), self.starts)
        return counts, np.sqrt(squares / self.counted)


def octave(bin_number: int) -> tuple[float, float]:
    """The two ends of a bin's sizes; for the middle bin, 0 and the start of the first octave."""
    level = abs(bin_number - LEVELS)
    return (math.ldexp(1, LOWEST + level - 1) if level else 0.0), math.ldexp(1, LOWEST + level)
