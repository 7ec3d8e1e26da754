"""Structured pruning: remove whole units and channels, which gives a smaller and faster model.

A unit is removed together with the next layer's weights for it. The path between the two may lead through activations,
batch-norm, dropout, pooling, depthwise convolution and Flatten. A layer whose path does not reach another Dense or
Conv2D is left alone: the output layer; a layer that feeds or ends a Residual, because of the shortcut's addition; and a
layer that feeds Reshape or Softmax.
"""

import copy
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tinynet import layers as library
from tinynet.engines.devices import to_host
from tinynet.layers import BatchNorm, Conv2D, Dense, DepthwiseConv2D, Flatten, Layer, Residual
from tinynet.layers.chain import walk
from tinynet.model.sequential import Sequential
from tinynet.support.checks import check_number
from tinynet.support.types import Array, Criterion

Removal = float | int | Sequence[int]

_EACH_UNIT_BY_ITSELF = (
    *(library.ReLU, library.LeakyReLU, library.Sigmoid, library.Tanh, library.Dropout, library.Rescale),
    *(library.MaxPool2D, library.AveragePool2D, library.GlobalAveragePool2D, library.GlobalMaxPool2D),
    *(BatchNorm, DepthwiseConv2D, Flatten),
)
_ENDS = (Residual, library.Reshape, library.Softmax, library.LogSoftmax)  # of a path, with nothing to prune
_SIZE = {Dense: "units", Conv2D: "filters"}
CRITERIA = ("auto", "l1", "gamma")


class _Prunable(NamedTuple):
    """A layer whose units can be removed."""

    layer: Layer  # Dense or Conv2D
    norm: BatchNorm | None  # that scales each of its units


def unit_scores(model: Sequential, criterion: Criterion = "auto") -> dict[str, Array]:
    """Return how much each unit matters, for every layer whose units can be removed: path to (units,) scores.

    Args: criterion:
        "l1": the sum of the magnitudes of the unit's weights (Li, Kadav, Durdanovic, Samet & Graf 2017).
        "gamma": |gamma| of the batch-norm after it (Liu et al. 2017).
        "auto": "gamma" where there is one, as it cancels the scale of the weights before it; otherwise "l1".
    Raises: ValueError: if a custom layer follows one, or if criterion is "gamma" and there is no batch-norm.
    """
    return {path: _scores(path, found, criterion) for path, found in _prunable(model).items()}


def prune_units(
    model: Sequential, remove: float | Mapping[str, Removal], criterion: Criterion = "auto"
) -> Sequential:
    """Return a new, smaller model without the units of Dense and the channels of Conv2D that matter least.

    It computes what the model would compute if the next layers' weights for those units were 0. It can be trained
    further, with a new optimizer. A `Residual` loses channels only inside it; its own shape stays.

    Args:
        remove: the share of each layer's units to remove, rounded down; or a mapping from layer paths to a share (a
            float), a number of units (an int), or the units themselves (a sequence of ints). At least one unit stays.
        criterion: how to score units, as in `unit_scores`.
    Raises: ValueError: if a path is not that of a layer that can be pruned, or the numbers are out of range.
    """
    if isinstance(remove, Mapping):
        wanted = {str(path): removal for path, removal in remove.items()}
        found = _prunable(model, wanted)
    else:
        found = _prunable(model)
        wanted = dict.fromkeys(found, check_number("remove", remove, 0, 1, open_high=True))
        if not found:
            raise ValueError(
                "the model has no layer whose units can be removed: a Dense or Conv2D followed by another"
            )
    wrong = [path for path in wanted if path not in found]
    if wrong:
        raise ValueError(
            f"layer {', '.join(wrong)}: expected a Dense or Conv2D whose units reach another one; the model's output, "
            "and the layer that a Residual adds its input to, keep their shape"
        )
    kept = {path: _kept(path, found[path], wanted[path], criterion) for path in wanted}
    return _smaller(model.copy(device="cpu"), kept).to(model.device.name)


# -- which layers --------------------------------------------------------------------------------------


def _chains(layers: Sequence[Layer], prefix: str = "") -> Iterator[tuple[str, Sequence[Layer]]]:
    """Yield the sequences of layers with their path prefix: the model's, and each Residual's."""
    yield prefix, layers
    for index, layer in enumerate(layers):
        if type(layer) is Residual:
            yield from _chains(layer.layers, f"{prefix}{index}.")


def _prunable(model: Sequential, paths: Iterable[str] | None = None) -> dict[str, _Prunable]:
    """Return every layer whose units can be removed, by path; only those among ``paths``, if given."""
    found = {}
    wanted = None if paths is None else set(paths)
    for prefix, layers in _chains(model.layers):
        for index, layer in enumerate(layers):
            path = f"{prefix}{index}"
            if type(layer) in _SIZE and (wanted is None or path in wanted):
                behind = _path_to_the_next(path, layers[index + 1 :])
                if behind is not None:
                    own = itertools.takewhile(lambda item: type(item) is not DepthwiseConv2D, behind)
                    norm = next((item for item in own if isinstance(item, BatchNorm)), None)
                    found[path] = _Prunable(layer, norm)
    return found


def _path_to_the_next(path: str, behind: Sequence[Layer]) -> list[Layer] | None:
    """Return the layers between one and the Dense or Conv2D that takes its units; None if there is none."""
    between: list[Layer] = []
    for layer in behind:
        if type(layer) in _SIZE:
            return between
        if type(layer) in _ENDS:
            return None
        if type(layer) not in _EACH_UNIT_BY_ITSELF:
            raise ValueError(
                f"it is not known what {type(layer).__name__} does with the units of layer {path}; "
                "pass remove={path: share} with the layers to prune, without that one"
            )
        between.append(layer)
    return None


# -- which units ---------------------------------------------------------------------------------------


def _scores(path: str, found: _Prunable, criterion: Criterion) -> Array:
    if criterion not in CRITERIA:
        raise ValueError(f"criterion: expected one of {', '.join(CRITERIA)}, got {criterion!r}")
    layer, norm = found
    if criterion == "l1" or (criterion == "auto" and norm is None):
        scores: Array = np.abs(to_host(layer.W)).reshape(-1, layer.W.shape[-1]).sum(axis=0)
        return scores
    if norm is None:
        raise ValueError(f"criterion 'gamma': no BatchNorm follows layer {path}; use 'auto' or 'l1'")
    # After Flatten a unit, which was a channel, has a gamma at each of its positions.
    gamma: Array = np.abs(to_host(norm.gamma)).reshape(-1, layer.W.shape[-1]).mean(axis=0)
    return gamma


def _kept(path: str, found: _Prunable, removal: Removal, criterion: Criterion) -> Array:
    """Return the indices of the units that stay, in order."""
    scores = _scores(path, found, criterion)
    units = scores.size
    stays = np.ones(units, bool)
    if isinstance(removal, (Sequence, np.ndarray)):
        indices = np.asarray(removal, dtype=np.intp if len(removal) == 0 else None)
        if indices.dtype.kind not in "iu" or indices.ndim != 1 or ((indices < 0) | (indices >= units)).any():
            raise ValueError(
                f"layer {path}: expected indices of units from 0 to {units - 1}, got {removal!r}"
            )
        stays[indices] = False
    elif isinstance(removal, (int, np.integer)) and not isinstance(removal, bool):
        if not 0 <= removal < units:
            raise ValueError(
                f"layer {path}: expected to remove 0 to {units - 1} of {units} units, got {removal}"
            )
        stays[np.argsort(scores, kind="stable")[:removal]] = False
    else:
        share = check_number(f"layer {path}: the share to remove", removal, 0, 1, open_high=True)
        stays[np.argsort(scores, kind="stable")[: math.floor(share * units)]] = False
    if not stays.any():
        raise ValueError(f"layer {path}: expected to leave at least one of its {units} units")
    return np.flatnonzero(stays)


# -- the smaller model ---------------------------------------------------------------------------------


def _smaller(model: Sequential, kept: Mapping[str, Array]) -> Sequential:
    """Return a copy of the model with only the units to keep, given by the paths of their layers."""
    layers = copy.deepcopy(model.layers)
    for layer in layers:
        layer.unbuild()
    by_path = dict(walk(layers))
    for path, units in kept.items():
        setattr(by_path[path], _SIZE[type(by_path[path])], len(units))
    smaller = Sequential(layers, model.input_shape, model.seed, model.dtype)
    smaller.loss, smaller.fitted_on_bytes = copy.copy(model.loss), model.fitted_on_bytes
    smaller.fitted_magnitude = model.fitted_magnitude
    smaller.step, smaller.epoch = model.step, model.epoch

    arrays = model.named_weights()
    for prefix, chain in _chains(model.layers):
        inputs: Array | None = None  # the features reaching the layer that stay; None: all
        for index, layer in enumerate(chain):
            path = f"{prefix}{index}"
            for name, array in _slices(layer, inputs, kept.get(path)).items():
                arrays[f"{path}.{name}"] = array
            inputs = _outputs(layer, inputs, kept.get(path))
    for path, target in smaller.named_weights().items():
        target[...] = arrays[path]
    return smaller


def _slices(layer: Layer, inputs: Array | None, units: Array | None) -> dict[str, Array]:
    """Return the layer's arrays without the removed inputs and units."""
    arrays = {name: getattr(layer, name) for name in (*layer.param_specs, *layer.state_names)}
    if type(layer) is DepthwiseConv2D:
        channels = _outputs(layer, inputs, None)
        return {
            name: _take(array, inputs, 2) if name == "W" else _take(array, channels, 0)
            for name, array in arrays.items()
        }
    if type(layer) is BatchNorm:
        return {name: _take(array, inputs, 0) for name, array in arrays.items()}
    if type(layer) in _SIZE:
        return {
            name: _take(_take(array, inputs, -2), units, -1) if name == "W" else _take(array, units, 0)
            for name, array in arrays.items()
        }
    return arrays


def _take(array: Array, indices: Array | None, axis: int) -> Array:
    return array if indices is None else array.take(indices, axis)


def _outputs(layer: Layer, inputs: Array | None, units: Array | None) -> Array | None:
    """Return which of the layer's output features stay; None: all."""
    if type(layer) in _SIZE:
        return units
    if inputs is None:
        return None
    if type(layer) is DepthwiseConv2D:  # channel c becomes the channels c multiplier + 0, 1, ...
        multiplier = layer.depth_multiplier
        return (inputs[:, None] * multiplier + np.arange(multiplier)).reshape(-1)
    if (
        type(layer) is Flatten
    ):  # channel c of h x w positions becomes the features c, c + channels, c + 2 channels, ...
        assert layer.input_shape is not None
        *places, channels = layer.input_shape
        return (np.arange(math.prod(places))[:, None] * channels + inputs).reshape(-1)
    return inputs
