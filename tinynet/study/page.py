"""A training step as one HTML page: text, pictures, every array, and the script that sums. Nothing is fetched."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np

from tinynet import __version__
from tinynet.files import PathLike, write_bytes
from tinynet.layers import (
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    MaxPool2D,
    Rescale,
    Reshape,
)
from tinynet.layers.windows import windows
from tinynet.study import cards
from tinynet.study.encoding import ArrayStore
from tinynet.study.events import Event
from tinynet.study.gradient_check import gradcheck
from tinynet.study.gradient_report import ElementCheck
from tinynet.study.tracing import LayerTrace, Trace
from tinynet.types import Array

SCRIPTS = ("arrays.js", "sums.js", "layersums.js", "losssums.js", "heatmap.js", "inspector.js", "page.js")
MOST_EXACT = 120_000  # elements of an activation or an update; larger ones are kept to three digits
MOST_PRODUCT = 20_000  # elements of a weight gradient; of larger ones the page sums the product itself
MOST_CHECKED = 4  # elements of each parameter
CHECK_WORK = 120_000_000  # multiply-adds of a forward pass of the batch that allow one element each

_BEFORE_IMAGES_CHANGE = (Rescale, Flatten, Reshape, Dropout, BatchNorm)


def write(
    step: Trace,
    path: PathLike,
    *,
    class_names: Sequence[str] | None = None,
    title: str = "One training step",
    about: Sequence[str] = (),
    look_at: Sequence[str] = (),
    sections: str = "",
    checks: int | None = None,
) -> None:
    """Write the page, completely or not at all.

    Args:
        class_names: the name of each class; without it the numbers are shown.
        title, about: the heading, and paragraphs below it.
        look_at: what to look at, as a list; HTML.
        sections: more HTML, before the cards.
        checks: how many elements of each parameter's gradient to check against the measured slope; 0 for none, None
            for as many as take seconds.
    Raises: OSError: if the file can't be written.
    """
    write_bytes(path, render(step, class_names, title, about, look_at, sections, checks).encode())


def render(
    step: Trace,
    class_names: Sequence[str] | None = None,
    title: str = "One training step",
    about: Sequence[str] = (),
    look_at: Sequence[str] = (),
    sections: str = "",
    checks: int | None = None,
) -> str:
    """The page as text."""
    store = ArrayStore(MOST_EXACT)
    if checks is None:
        work = max(step.model.multiply_adds() * len(step.x), 1)
        checks = min(max(CHECK_WORK // work, 1), MOST_CHECKED)
    found = check_elements(step, checks) if checks and step.updated else {}
    layers = list(step.walk())
    data = {
        "layers": [layer_data(layer, step, store) for layer in layers],
        "loss": loss_data(step, store),
        "images": images_data(step, store),
        "classNames": None if class_names is None else list(class_names),
        "frames": [_frame(event) for event in step.events()],
    }
    body = "".join(cards.layer_card(layer, found) for layer in layers)
    return fill(
        "page.html",
        title=html.escape(title),
        about="".join(f"<p>{html.escape(text)}</p>" for text in about),
        look_at=_look_at(look_at),
        facts=_facts(step),
        sections=sections,
        cards=body + cards.loss_card(step) + cards.update_card(step),
        style=asset("page.css"),
        data=_script_json(data),
        arrays="".join(f'<script type="text/array">{text}</script>' for text in store.texts),
        script="\n".join(asset(name) for name in SCRIPTS),
        version=__version__,
        most_exact=f"{MOST_EXACT:,}",
        most_product=f"{MOST_PRODUCT:,}",
    )


def fill(name: str, **parts: str) -> str:
    """The page of that name with each ``{{part}}`` put in."""
    page = asset(name)
    for key, value in parts.items():
        page = page.replace("{{" + key + "}}", value)
    return page


def asset(name: str) -> str:
    """A file of the page's."""
    return resources.files("tinynet.study").joinpath("assets", name).read_text(encoding="utf-8")


def check_elements(step: Trace, elements: int) -> dict[str, tuple[ElementCheck, ...]]:
    """The slope of the loss, measured at the weights before the step, beside backward's: some elements of each."""
    model = step.model.copy()
    for layer in step.walk():
        for name, parameter in layer.parameters.items():
            model.named_params()[f"{layer.path}.{name}"][...] = parameter.value
    if (
        step.loss.fused
    ):  # on the logits: behind a Softmax, a probability may round to 0 and the loss be infinite
        model.layers = model.layers[:-1]
    with np.errstate(all="ignore"):
        report = gradcheck(model, step.x, step.y, step.loss.loss, max_elements=elements, seed=step.model.seed)
    return {tensor.name: tensor.elements for tensor in report.tensors if tensor.name != "x"}


# -- what the script is told -----------------------------------------------------------------------------


def layer_data(record: LayerTrace, step: Trace, store: ArrayStore) -> dict[str, Any]:
    """A layer's arrays, and the settings that its sums depend on."""
    arrays = {
        name: store.add(array) for name, array in record.arrays().items() if not _is_product(name, record)
    }
    for name, parameter in record.parameters.items():
        arrays[name] = store.add(parameter.value, exact=True)
        if _is_product(f"d{name}", record) and parameter.gradient is not None:
            arrays[f"d{name}"] = {"product": True, "shape": list(parameter.value.shape)}
    layer = record.layer
    data = {
        "path": record.path,
        "kind": record.kind,
        "arrays": arrays,
        "settings": {
            name: value
            for name, value in layer.__dict__.items()
            if isinstance(value, (int, float)) and name[0] != "_"
        },
        "children": [child.path for child in record.children],
        "imageShape": _image_shape(record, step),
    }
    if (
        isinstance(layer, (Conv2D, DepthwiseConv2D, MaxPool2D, AveragePool2D))
        and layer.input_shape is not None
    ):
        data["windows"] = _windows(layer)
    return data


def _is_product(name: str, record: LayerTrace) -> bool:
    """Whether it is a large dW that is a sum of products of two arrays that the page has."""
    return (
        name == "dW"
        and isinstance(record.layer, (Dense, Conv2D))
        and record.parameters["W"].value.size > MOST_PRODUCT
    )


def _windows(layer: Any) -> dict[str, dict[str, int]]:
    size = layer.kernel_size if isinstance(layer, (Conv2D, DepthwiseConv2D)) else None
    shape = layer.input_shape
    places = windows(shape, size, layer.strides, layer.padding, "kernel") if size else layer.windows
    return {
        name: {"size": axis.size, "stride": axis.stride, "before": axis.before}
        for name, axis in zip(("down", "across"), places, strict=True)
    }


def _image_shape(record: LayerTrace, step: Trace) -> list[int] | None:
    """(h, w), if the layer's inputs, one beside the other, are the pixels of the image."""
    shape = step.x.shape[1:]
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] != 1) or record.x.ndim != 2:
        return None
    if "." in record.path:
        return None
    below = step.layers[: int(record.path)]
    return list(shape[:2]) if all(isinstance(layer.layer, _BEFORE_IMAGES_CHANGE) for layer in below) else None


def loss_data(step: Trace, store: ArrayStore) -> dict[str, Any]:
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
        "value": loss.value,
        "settings": loss.loss.config(),
    }


def images_data(step: Trace, store: ArrayStore) -> dict[str, Any] | None:
    """The batch as pictures, if it is one of pictures."""
    shape = step.x.shape
    if not (len(shape) == 3 or (len(shape) == 4 and shape[3] == 1)) or min(shape[1:3]) < 4:
        return None
    pixels: Array = step.x.reshape(shape[:3])
    return {"pixels": store.add(pixels, exact=True), "low": float(pixels.min()), "high": float(pixels.max())}


def _frame(event: Event) -> dict[str, Any]:
    """What the step-through shows: which card, which array, and a sentence."""
    path = event.path or event.phase
    arrays = list(event.arrays)
    show = {
        "forward": ["y"],
        "loss": ["loss of each"],
        "backward": [name for name in ("dW", "dgamma", "dx", "dy") if name in arrays][:1],
        "update": [],
    }[event.phase]
    words = {
        "forward": "its output y is computed from x",
        "loss": "one number for the batch, and the gradient that starts the way back",
        "backward": "from dy it computes "
        + (" and ".join(name for name in arrays if name != "dy") or "nothing"),
        "update": "each parameter moves a little against its gradient",
    }[event.phase]
    return {"phase": event.phase, "path": path, "title": event.title, "show": show, "words": words}


# -- HTML ------------------------------------------------------------------------------------------------


def _facts(step: Trace) -> str:
    facts = [
        ("loss before", f"{step.loss_before:.5g}", ""),
        ("loss after", f"{step.loss_after:.5g}", "the same batch, the same dropout"),
        ("change", f"{step.change:+.4g}", "what happened"),
        ("predicted", f"{step.predicted_change:+.4g}", "gradient · update"),
        ("examples", f"{len(step.x)}", f"{type(step.optimizer).__name__}, rate {step.learning_rate:.3g}"),
    ]
    return "".join(
        f'<div><dt>{name}</dt><dd>{value.replace("-", "−")}</dd><dd class="small">{note}</dd></div>'
        for name, value, note in facts
    )


_MINUS = re.compile(r"(?<![\w-])-(?=\d)")


def _look_at(items: Sequence[str]) -> str:
    if not items:
        return ""
    lines = "".join(f"<li>{re.sub(_MINUS, '−', item)}</li>" for item in items)
    return f'<section class="look"><h2>What to look at</h2><ol>{lines}</ol></section>'


def _script_json(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it stands in; NaN and infinity as null."""
    text = json.dumps(_finite(data), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
