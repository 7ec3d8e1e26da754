"""A model as plain data: what a model file says of it beside its arrays."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tinynet import layers, losses
from tinynet.inputs import as_array
from tinynet.layers import Layer
from tinynet.protocols import Model
from tinynet.types import Array

_LAYERS: dict[str, type[Layer]] = {name: getattr(layers, name) for name in layers.__all__ if name != "Layer"}


def describe(model: Model) -> dict[str, Any]:
    """The model without its arrays, as JSON can hold it. A loss of the user's own is left out."""
    loss = model.loss if type(model.loss) in losses.BY_NAME.values() else None
    return {
        "layers": [_describe_layer(layer) for layer in model.layers],
        "trainable": [layer.trainable for _, layer in model.walk()],
        "input_shape": list(model.input_shape),
        "seed": model.seed,
        "dtype": str(model.dtype),
        "loss": None if loss is None else {"type": type(loss).__name__, "config": loss.config()},
        "fitted_on_bytes": model.fitted_on_bytes,
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
    """An argument of a layer; a layer that it is, or holds, is described as the model's own are."""
    if isinstance(value, Layer):
        return {"layer": _describe_layer(value)}
    return [_describe_argument(item) for item in value] if isinstance(value, (tuple, list)) else value


def make_layers(description: Mapping[str, Any], custom_layers: Mapping[str, type[Layer]]) -> list[Layer]:
    """The layers that a description names, new; raises ValueError for a name that is not known."""

    def make(item: Mapping[str, Any]) -> Layer:
        # A custom layer that is called Dense is not the library's Dense.
        known = custom_layers if item["custom"] else _LAYERS
        if item["type"] not in known:
            raise ValueError(
                f"layer {item['type']!r} is not known; if it is yours, give load_model(path, custom_layers={{...}})"
            )
        return known[item["type"]].from_config(
            {name: argument(value) for name, value in item["config"].items()}
        )

    def argument(value: Any) -> Any:
        if isinstance(value, Mapping):
            inner = value.get("layer")  # other mappings are a custom layer's argument as it is
            return make(inner) if isinstance(inner, Mapping) and "config" in inner else value
        return [argument(item) for item in value] if isinstance(value, list) else value

    return [make(item) for item in description["layers"]]


def restore(model: Model, description: Mapping[str, Any]) -> None:
    """Give a new model what a description says beside its layers."""
    for (_, layer), trainable in zip(model.walk(), description["trainable"], strict=True):
        layer.trainable = bool(trainable)
    loss = description["loss"]
    if loss is not None:
        if loss["type"] not in losses.BY_NAME:
            raise ValueError(f"loss {loss['type']!r} is not known")
        model.loss = losses.BY_NAME[loss["type"]](**loss["config"])
    model.fitted_on_bytes = bool(description["fitted_on_bytes"])
    model.step, model.epoch = int(description["step"]), int(description["epoch"])


def assign(targets: Mapping[str, Array], arrays: Mapping[str, Array]) -> None:
    """Copy arrays into targets of the same names, all or none; raises ValueError with every mismatch."""
    wrong = [f"{name} is missing" for name in targets.keys() - arrays.keys()]
    wrong += [f"{name} belongs to no layer" for name in arrays.keys() - targets.keys()]
    wrong += [
        f"{name}: expected {targets[name].dtype} {targets[name].shape}, got {arrays[name].dtype} {arrays[name].shape}"
        for name in targets.keys() & arrays.keys()
        if (arrays[name].shape, arrays[name].dtype) != (targets[name].shape, targets[name].dtype)
    ]
    if wrong:
        raise ValueError(f"the arrays don't fit the layers: {'; '.join(sorted(wrong))}")
    for name, target in targets.items():
        target[...] = arrays[name]


def assign_in_order(targets: Mapping[str, Array], weights: Sequence[Any]) -> None:
    """Copy weights into targets one by one, all or none; raises ValueError with every mismatch."""
    if not isinstance(weights, Iterable):
        raise ValueError(f"weights: expected a list of arrays, as get_weights gives it; got {weights!r}")
    arrays = [as_array(weight, f"weights[{index}]") for index, weight in enumerate(weights)]
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
        target[...] = array
