"""The data for the page's script: each layer's arrays and settings, the loss, the images and the frames."""

from typing import Any

import numpy as np

from tinynet.layers import (
    AveragePool2D,
    BatchNorm,
    Conv2D,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    MaxPool2D,
    Rescale,
    Reshape,
)
from tinynet.layers.windows.geometry import channel_major, windows
from tinynet.study.gradients.kinks import winners
from tinynet.study.tracing.encoding import ArrayStore
from tinynet.study.tracing.events import Event
from tinynet.study.tracing.notation import library_class
from tinynet.study.tracing.records import LayerTrace, Step
from tinynet.support.types import Array

MOST_PRODUCT = 20_000  # elements of a weight gradient; the page computes larger ones itself

_SETTINGS = ("epsilon", "negative_slope", "offset", "scale")  # those that the page's sums need
_BEFORE_IMAGES_CHANGE = (Rescale, Flatten, Reshape, Dropout, BatchNorm)


def layer_data(record: LayerTrace, step: Step, store: ArrayStore) -> dict[str, Any]:
    """A layer's arrays, and the settings that its sums need."""
    arrays = {
        name: store.add(array, exact=name in record.parameters)
        for name, array in record.arrays().items()
        if not _is_product(name, record)
    }
    for name, parameter in record.parameters.items():
        if _is_product(f"d{name}", record) and parameter.gradient is not None:
            arrays[f"d{name}"] = {"product": True, "shape": list(parameter.value.shape)}
    layer = record.layer
    data = {
        "path": record.path,
        "kind": record.kind,
        "sums": {
            "forward": library_class(type(layer), "forward"),
            "backward": library_class(type(layer), "backward"),
        },
        "arrays": arrays,
        "settings": {name: vars(layer)[name] for name in _SETTINGS if name in vars(layer)},
        "imageShape": _image_shape(record, step),
    }
    if (
        isinstance(layer, (Conv2D, DepthwiseConv2D, MaxPool2D, AveragePool2D))
        and layer.input_shape is not None
    ):
        data["windows"] = _windows(layer)
    if isinstance(layer, MaxPool2D) and library_class(type(layer), "forward"):
        # After rounding, two different pixels may be equal, so the winners are stored too.
        y = record.y.reshape(len(record.y), *layer.windows.output_shape, -1)
        places = winners(layer, channel_major(record.x), channel_major(y))
        data["winners"] = store.add(channel_major(places).astype(np.int16))
    return data


def _is_product(name: str, record: LayerTrace) -> bool:
    """Whether the array is a large dW, which the page can compute from two arrays that it has."""
    if name != "dW" or library_class(type(record.layer), "backward") not in ("Dense", "Conv2D"):
        return False
    return record.parameters["W"].value.size > MOST_PRODUCT


def _windows(layer: Any) -> dict[str, dict[str, int]]:
    size = layer.kernel_size if isinstance(layer, (Conv2D, DepthwiseConv2D)) else None
    shape = layer.input_shape
    places = windows(shape, size, layer.strides, layer.padding, "kernel") if size else layer.windows
    return {
        name: {"size": axis.size, "stride": axis.stride, "before": axis.before}
        for name, axis in zip(("down", "across"), places, strict=True)
    }


def _image_shape(record: LayerTrace, step: Step) -> list[int] | None:
    """(h, w) if the layer's flat inputs are the pixels of the image, in order; else None."""
    shape = step.x.shape[1:]
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] != 1) or record.x.ndim != 2:
        return None
    if "." in record.path:
        return None
    below = step.layers[: int(record.path)]
    return list(shape[:2]) if all(isinstance(layer.layer, _BEFORE_IMAGES_CHANGE) for layer in below) else None


def loss_data(step: Step, store: ArrayStore) -> dict[str, Any]:
    """The loss's arrays and settings."""
    loss = step.loss
    outputs = "logits" if loss.fused else "outputs"
    arrays = {outputs: loss.outputs, f"d{outputs}": loss.gradient, "loss of each": loss.each}
    if loss.probabilities is not None:
        arrays["probabilities"] = loss.probabilities
    return {
        "path": "loss",
        "kind": type(loss.loss).__name__,
        "outputs": outputs,
        "arrays": {name: store.add(array, exact=True) for name, array in arrays.items()},
        "targets": np.asarray(step.y).tolist() if loss.loss.is_classification else None,
        "targetValues": None if loss.loss.is_classification else store.add(np.asarray(step.y, np.float32)),
        "settings": loss.loss.config(),
    }


def images_data(step: Step, store: ArrayStore) -> dict[str, Any] | None:
    """The batch as pictures, or None if its inputs are not pictures."""
    shape = step.x.shape
    if not (len(shape) == 3 or (len(shape) == 4 and shape[3] == 1)) or min(shape[1:3]) < 4:
        return None
    pixels: Array = step.x.reshape(shape[:3])
    return {"pixels": store.add(pixels, exact=True), "low": float(pixels.min()), "high": float(pixels.max())}


def frame_data(event: Event) -> dict[str, Any]:
    """What the step-through shows for a frame: the card, the array and a sentence."""
    path = event.path or event.phase
    arrays = list(event.arrays)
    show = {
        "forward": ["y"],
        "loss": ["loss of each"],
        "backward": [name for name in ("dW", "dgamma", "dx", "dy") if name in arrays][:1],
        "update": [],
    }[event.phase]
    words = {
        "forward": "from x it computes y",
        "loss": "one number for the batch, and the gradient where backward starts",
        "backward": "from dy it computes "
        + (" and ".join(name for name in arrays if name != "dy") or "nothing"),
        "update": "each parameter moves a little against its gradient",
    }[event.phase]
    return {"phase": event.phase, "path": path, "title": event.title, "show": show, "words": words}
