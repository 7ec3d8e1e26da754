"""A model as plain data: what a model file stores in addition to the arrays."""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tinynet import layers, losses
from tinynet.engines.devices import as_array, device_of, to_host
from tinynet.layers import Layer
from tinynet.layers.chain import set_up, walk
from tinynet.protocols import Model
from tinynet.support.checks import check_bool, check_number, check_shape
from tinynet.support.errors import ModelFileError
from tinynet.support.types import Array, Shape

MAX_LAYERS = 1000  # in a file, including layers inside layers

ERRORS = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What making a model from a description can raise, as it may hold anything."""

_LAYERS: dict[str, type[Layer]] = {name: getattr(layers, name) for name in layers.__all__ if name != "Layer"}


def contents(model: Model) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return what a model file holds: the description and the arrays, on the host. Raises: as `describe`."""
    return describe(model), {name: to_host(array) for name, array in model.named_weights().items()}


def describe(model: Model) -> dict[str, Any]:
    """Return the model without its arrays, as JSON data. A custom loss is left out.

    Raises: ModelFileError: if it has more layers than a file may have.
    """
    trainable = [layer.trainable for _, layer in model.walk()]
    if len(trainable) > MAX_LAYERS:
        raise ModelFileError(
            f"the model has {len(trainable):,} layers; a file can have at most {MAX_LAYERS:,}"
        )
    known = {} if model.fitted_magnitude is None else {"fitted_magnitude": model.fitted_magnitude}
    loss = model.loss if type(model.loss) in losses.BY_NAME.values() else None
    return {
        "layers": [_describe_layer(layer) for layer in model.layers],
        "trainable": trainable,
        "input_shape": list(model.input_shape),
        "seed": model.seed,
        "dtype": str(model.dtype),
        "loss": None if loss is None else {"type": type(loss).__name__, "config": loss.config()},
        "fitted_on_bytes": model.fitted_on_bytes,
        **known,
        "step": model.step,
        "epoch": model.epoch,
    }


def _describe_layer(layer: Layer) -> dict[str, Any]:
    return {
        "type": type(layer).__name__,
        "config": {name: _describe_argument(value) for name, value in layer.config().items()},
        "custom": type(layer) not in _LAYERS.values(),
    }


def _describe_argument(value: Any) -> Any:
    """Return a layer's argument as JSON data; layers in it are described like the model's own."""
    if isinstance(value, Layer):
        return {"layer": _describe_layer(value)}
    if isinstance(value, np.generic):
        return value.item()  # np.float32(2) is written as 2.0
    if isinstance(value, dict):
        return {name: _describe_argument(item) for name, item in value.items()}
    return [_describe_argument(item) for item in value] if isinstance(value, (tuple, list)) else value


def make_layers(
    description: Mapping[str, Any], arrays: Mapping[str, Array], custom_layers: Mapping[str, type[Layer]]
) -> list[Layer]:
    """Return new, unbuilt layers from a description, checked to match the arrays' names, dtypes and shapes.

    Raises: one of ERRORS: if a layer is unknown or can't be made, or an array does not fit.
    """
    _check_arrays(_make_layers(description, custom_layers), description, arrays)
    return _make_layers(description, custom_layers)


def _make_layers(description: Mapping[str, Any], custom_layers: Mapping[str, type[Layer]]) -> list[Layer]:
    made = 0

    def make(item: Mapping[str, Any]) -> Layer:
        nonlocal made
        made += 1
        if made > MAX_LAYERS:
            raise ValueError(f"expected at most {MAX_LAYERS:,} layers")
        # A custom layer called Dense is not the library's Dense.
        known = custom_layers if item["custom"] else _LAYERS
        if item["type"] not in known:
            raise ValueError(
                f"layer {item['type']!r} is not known; if it is your own, use load_model(path, custom_layers={{...}})"
            )
        return known[item["type"]].from_config(
            {name: argument(value) for name, value in item["config"].items()}
        )

    def argument(value: Any) -> Any:
        if isinstance(value, Mapping):
            inner = value.get("layer")  # other mappings are plain arguments of custom layers
            if isinstance(inner, Mapping) and "config" in inner:
                return make(inner)
            return {name: argument(item) for name, item in value.items()}
        return [argument(item) for item in value] if isinstance(value, list) else value

    return [make(item) for item in description["layers"]]


def _check_arrays(
    layers: Sequence[Layer], description: Mapping[str, Any], arrays: Mapping[str, Array]
) -> None:
    """Set up the layers, which allocates nothing, and compare the arrays with what they declare."""
    shape, dtype = check_shape("input_shape", description["input_shape"]), description["dtype"]
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype: expected 'float32' or 'float64', got {dtype!r}")
    if not layers:
        raise ValueError("layers: expected at least one layer, got none")
    set_up(layers, shape, dtype)
    _compare(_declared(layers, np.dtype(dtype)), arrays)


def _declared(layers: Sequence[Layer], dtype: np.dtype[Any]) -> dict[str, tuple[np.dtype[Any], Shape]]:
    """Return dtype and shape of every array that built layers declare, by path."""
    declared = {}
    for path, layer in walk(layers):
        for name in (*layer.param_specs, *layer.state_names):
            spec = layer.param_specs.get(name) or layer.state_specs.get(name)
            if spec is not None:
                declared[f"{path}.{name}"] = dtype, spec.shape
            else:  # a custom layer that makes its own state
                array = np.asarray(getattr(layer, name))
                declared[f"{path}.{name}"] = array.dtype, array.shape
    return declared


def restore(model: Model, description: Mapping[str, Any]) -> None:
    """Set everything in a description but the layers on a new model."""
    for (path, layer), trainable in zip(model.walk(), description["trainable"], strict=True):
        layer.trainable = check_bool(f"layer {path} trainable", trainable)
    loss = description["loss"]
    if loss is not None:
        if loss["type"] not in losses.BY_NAME:
            raise ValueError(f"loss {loss['type']!r} is not known")
        model.loss = losses.BY_NAME[loss["type"]](**loss["config"])
    model.fitted_on_bytes = check_bool("fitted_on_bytes", description["fitted_on_bytes"])
    magnitude = description.get("fitted_magnitude")  # earlier versions don't have it
    model.fitted_magnitude = (
        None if magnitude is None else check_number("fitted_magnitude", magnitude, 0, math.inf)
    )
    model.step, model.epoch = (_count(name, description[name]) for name in ("step", "epoch"))


def _count(name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value <= sys.maxsize:
        raise ValueError(f"{name}: expected a number of steps or epochs, got {value!r}")
    return value


def assign(targets: Mapping[str, Array], arrays: Mapping[str, Array]) -> None:
    """Copy arrays into targets of the same names, all or none; raise ValueError with every mismatch."""
    _compare({name: (target.dtype, target.shape) for name, target in targets.items()}, arrays)
    for name, target in targets.items():
        target[...] = device_of(target).asarray(arrays[name])


def assign_in_order(targets: Mapping[str, Array], weights: Sequence[Any]) -> None:
    """Copy weights into targets one by one, all or none; raise ValueError with every mismatch."""
    if not isinstance(weights, Iterable):
        raise ValueError(f"weights: expected a list of arrays, as returned by get_weights; got {weights!r}")
    arrays = [to_host(as_array(weight, f"weights[{index}]")) for index, weight in enumerate(weights)]
    if len(arrays) != len(targets):
        raise ValueError(f"expected {len(targets)} arrays ({', '.join(targets)}), got {len(arrays)}")
    wrong = [
        f"{name}: expected shape {target.shape}, got {array.shape} {array.dtype}"
        for (name, target), array in zip(targets.items(), arrays, strict=True)
        if array.shape != target.shape or array.dtype.kind not in "biuf"
    ]
    if wrong:
        raise ValueError("; ".join(wrong))
    for target, array in zip(targets.values(), arrays, strict=True):
        target[...] = device_of(target).asarray(array)


def _compare(expected: Mapping[str, tuple[np.dtype[Any], Shape]], arrays: Mapping[str, Array]) -> None:
    wrong = [f"{name} is missing" for name in expected.keys() - arrays.keys()]
    wrong += [f"{name} belongs to no layer" for name in arrays.keys() - expected.keys()]
    for name in expected.keys() & arrays.keys():
        (dtype, shape), array = expected[name], arrays[name]
        if (array.dtype, array.shape) != (dtype, shape):
            wrong.append(f"{name}: expected {dtype} {shape}, got {array.dtype} {array.shape}")
    if wrong:
        raise ValueError(f"the arrays don't fit the layers: {'; '.join(sorted(wrong))}")
