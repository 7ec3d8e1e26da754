"""A training step as one HTML page with its text, pictures, arrays and script. The page loads nothing else."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np

from tinynet.files.atomic import write_bytes
from tinynet.layers import Dropout
from tinynet.study.gradients.check import gradcheck
from tinynet.study.gradients.report import ElementCheck
from tinynet.study.tracing import cards
from tinynet.study.tracing.encoding import ArrayStore
from tinynet.study.tracing.events import events
from tinynet.study.tracing.page_data import MOST_PRODUCT, frame_data, images_data, layer_data, loss_data
from tinynet.study.tracing.records import Step
from tinynet.support.types import PathLike
from tinynet.version import __version__

SCRIPTS = ("arrays.js", "sums.js", "layersums.js", "losssums.js", "heatmap.js", "inspector.js", "page.js")
MOST_EXACT = 120_000  # elements of an activation or an update; larger ones are kept to three digits
MOST_CHECKED = 4  # elements of each parameter
CHECK_WORK = 120_000_000  # elements checked per parameter times multiply-adds of the batch's forward pass


def write(step: Step, path: PathLike, **options: Any) -> None:
    """Write the whole page or nothing. Options and ValueError as `render`; OSError if it can't be written."""
    write_bytes(path, render(step, **options).encode())


def render(
    step: Step,
    class_names: Sequence[str] | None = None,
    title: str = "One training step",
    about: Sequence[str] = (),
    look_at: Sequence[str] = (),
    sections: str = "",
    checks: int | None = None,
) -> str:
    """The page as text.

    Args:
        class_names: the name of each class; None shows the class numbers.
        title, about: the heading, and the paragraphs below it.
        look_at: the items of the list "What to look at", as HTML.
        sections: more HTML, placed before the cards.
        checks: how many elements of each parameter's gradient to check against the measured slope. 0 checks none;
            None checks as many as take a few seconds.
    Raises: ValueError: for class names or checks that don't fit.
    """
    names = _check_names(class_names, step)
    if step.loss.loss.is_classification and np.ndim(step.y) > 1:
        raise ValueError(
            "the page shows class labels; trace a step with labels instead of soft targets: y.argmax(1)"
        )
    if checks is not None and (isinstance(checks, bool) or not isinstance(checks, int) or checks < 0):
        raise ValueError(f"checks: expected a whole number of elements, 0 or more, or None; got {checks!r}")
    store = ArrayStore(MOST_EXACT)
    if checks is None:
        work = max(step.model.multiply_adds() * len(step.x), 1)
        checks = min(max(CHECK_WORK // work, 1), MOST_CHECKED)
    found = check_elements(step, checks) if checks and step.updated else {}
    records = list(step.walk())
    data = {
        "layers": [layer_data(record, step, store) for record in records],
        "loss": loss_data(step, store),
        "images": images_data(step, store),
        "classNames": names,
        "frames": [frame_data(event) for event in events(step)],
    }
    body = "".join(cards.layer_card(record, found, step.updated) for record in records)
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
        dtype=str(step.model.dtype),
        most_exact=f"{MOST_EXACT:,}",
        most_product=f"{MOST_PRODUCT:,}",
    )


def fill(name: str, **parts: str) -> str:
    """The page template of that name with each ``{{part}}`` filled in."""
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], asset(name))


def asset(name: str) -> str:
    """The text of a file in the assets folder."""
    return resources.files("tinynet.study").joinpath("assets", name).read_text(encoding="utf-8")


def _check_names(class_names: Sequence[str] | None, step: Step) -> list[str] | None:
    if class_names is None:
        return None
    are_names = not isinstance(class_names, str) and isinstance(class_names, Sequence)
    if not are_names or not all(isinstance(name, str) for name in class_names):
        raise ValueError(f"class_names: expected a list of strings, got {class_names!r}")
    classes = step.loss.outputs.shape[-1]
    if step.loss.probabilities is not None and len(class_names) != classes:
        raise ValueError(f"class_names: expected {classes} names, one for each class, got {len(class_names)}")
    return list(class_names)


def check_elements(step: Step, elements: int) -> dict[str, tuple[ElementCheck, ...]]:
    """Check some elements of each gradient against the slope of the loss at the weights before the step."""
    model = step.model.copy()
    for layer in step.walk():
        for name, parameter in layer.parameters.items():
            model.named_params()[f"{layer.path}.{name}"][...] = parameter.value
    for _, inner in model.walk():
        if isinstance(inner, Dropout):  # use this step's masks even if the model has trained on since
            inner.step, inner.first_row = step.step, 0
    # Check on the logits: after a Softmax a probability may round to 0, and the loss would be infinite.
    if step.loss.fused:
        model.layers = model.layers[:-1]
    with np.errstate(all="ignore"):
        chosen = {"max_elements": elements, "seed": step.model.seed}
        report = gradcheck(model, step.x, step.y, step.loss.loss, move_biases=False, **chosen)
    return {tensor.name: tensor.elements for tensor in report.tensors if tensor.name != "x"}


# -- HTML ------------------------------------------------------------------------------------------------


def _facts(step: Step) -> str:
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
    """JSON that can't close the script element around it; NaN and infinity become null."""
    text = json.dumps(_finite(data), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
