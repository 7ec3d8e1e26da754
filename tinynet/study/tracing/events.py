"""A training step frame by frame: forward, loss, backward, update. Each frame can be printed."""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from tinynet.optimizers import SGD, Optimizer
from tinynet.study.tracing.equations import equations
from tinynet.study.tracing.records import LayerTrace, Step
from tinynet.study.tracing.statistics import statistics
from tinynet.support.types import Array


@dataclass(frozen=True)
class Event:
    """One frame of a step; ``print`` it."""

    phase: str  # "forward", "loss", "backward" or "update"
    path: str  # the layer's, such as "2"; "" for the loss and the update
    title: str  # "Dense(units=128)"
    formulas: tuple[str, ...]  # from the class's docstring, and the equations of shapes
    arrays: dict[str, Array]  # what this frame computes, and what from
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = f"{self.phase:<9}{self.path + '  ' if self.path else ''}{self.title}"
        width = max((len(f"{name} {array.shape}") for name, array in self.arrays.items()), default=0)
        rows = [
            f"{f'{name} {array.shape}':<{width}}  {statistics(array)}" for name, array in self.arrays.items()
        ]
        return "\n  ".join([head, *self.formulas, *rows, *self.notes])


def events(step: Step) -> list[Event]:
    """The frames of a finished step."""
    layers = list(_in_order(step.layers))
    found = [_forward(layer) for layer in layers]
    found.append(_loss(step))
    found += [_backward(layer) for layer in reversed(layers) if layer.dy is not None]
    return [*found, _update(step)]


def _in_order(records: list[LayerTrace]) -> Iterator[LayerTrace]:
    """The layers in the order they finish: a layer made of layers comes after those inside it."""
    for record in records:
        yield from _in_order(record.children)
        yield record


def docstring(owner: type) -> str:
    """A class's docstring; under ``python -OO``, which drops docstrings, read from its source, if there is one."""
    if owner.__doc__ is not None or sys.flags.optimize < 2:
        return owner.__doc__ or ""
    try:
        definition = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
    except (OSError, TypeError, SyntaxError):  # typed into a console, say
        return ""
    return ast.get_docstring(definition) or ""  # type: ignore[arg-type]


def docstring_formulas(owner: type, heading: str) -> list[str]:
    """The lines after "Forward:" or "Backward:" in a class's docstring."""
    lines = docstring(owner).splitlines()
    start = next((i for i, line in enumerate(lines) if line.strip().startswith(f"{heading}:")), None)
    if start is None:
        return []
    found = [lines[start].strip().removeprefix(f"{heading}:").strip()]
    indent = len(lines[start]) - len(lines[start].lstrip())
    for line in lines[start + 1 :]:
        if not line.strip() or len(line) - len(line.lstrip()) <= indent:
            break
        found.append(line.strip())
    return found


def _forward(record: LayerTrace) -> Event:
    shapes = equations(record)
    lines = [*docstring_formulas(type(record.layer), "Forward"), *([str(shapes.forward)] if shapes else [])]
    parameters = {name: parameter.value for name, parameter in record.parameters.items()}
    arrays = {"x": record.x, **parameters, **record.cache, "y": record.y}
    return Event(
        "forward", record.path, repr(record.layer), tuple(lines), arrays, tuple(forward_notes(record))
    )


def _backward(record: LayerTrace) -> Event:
    shapes = equations(record)
    lines = [
        *docstring_formulas(type(record.layer), "Backward"),
        *(map(str, shapes.backward) if shapes else []),
    ]
    arrays = {} if record.dy is None else {"dy": record.dy}
    for name, parameter in record.parameters.items():
        if parameter.gradient is not None:
            arrays[f"d{name}"] = parameter.gradient
    if record.dx is not None:
        arrays["dx"] = record.dx
    return Event(
        "backward", record.path, repr(record.layer), tuple(lines), arrays, tuple(backward_notes(record))
    )


def forward_notes(record: LayerTrace) -> list[str]:
    """Remarks on a layer's output: dead or saturated units."""
    notes = []
    if record.dead_units:
        units = record.y.shape[-1]
        kind = "units" if record.y.ndim == 2 else "channels"
        notes.append(f"{record.dead_units} of {units} {kind} are dead: 0 for every example in this batch")
    if record.saturated is not None:
        notes.append(f"{record.saturated:.0%} of the outputs are saturated: the function is flat there")
    return notes


def backward_notes(record: LayerTrace) -> list[str]:
    """Why a gradient is missing."""
    notes = []
    if record.dx is None:
        notes.append("no dx: no earlier layer needs a gradient")
    frozen = [name for name, parameter in record.parameters.items() if parameter.gradient is None]
    if frozen:
        notes.append(f"frozen: no gradient for {', '.join(frozen)}")
    return notes


def _loss(step: Step) -> Event:
    loss = step.loss
    lines = [
        *docstring_formulas(type(loss.loss), "Forward"),
        *docstring_formulas(type(loss.loss), "Backward"),
        f"L = {loss.value:.6g}, the mean over {len(step.x)} examples",
    ]
    outputs = "logits" if loss.fused else "outputs"
    arrays = {outputs: loss.outputs, "loss of each": loss.each, f"d({outputs})": loss.gradient}
    return Event("loss", "", loss.name, tuple(lines), arrays)


def _update(step: Step) -> Event:
    if not step.updated:
        return Event("update", "", repr(step.optimizer), ("no update: the loss is not finite",), {})
    arrays = {
        f"{layer.path}.{name} update": parameter.update
        for layer in step.walk()
        for name, parameter in layer.parameters.items()
    }
    notes = [
        f"norm of update / norm of weight: {_ratios(step)} (about 1e-3 is usual)",
        _change_in_words(step),
    ]
    return Event("update", "", _optimizer(step), tuple(_update_formulas(step)), arrays, tuple(notes))


def _optimizer(step: Step) -> str:
    return f"{type(step.optimizer).__name__}, learning rate {step.learning_rate:.4g}"


def _update_formulas(step: Step) -> list[str]:
    optimizer = step.optimizer
    if isinstance(optimizer, SGD):
        used = "Nesterov" if optimizer.nesterov else "Momentum" if optimizer.momentum else "Update"
        needed = [used] if used != "Nesterov" else ["Momentum", "Nesterov"]
        return [line for heading in needed for line in docstring_formulas(SGD, heading)]
    kinds = [kind for kind in type(optimizer).__mro__ if kind not in (Optimizer, object)]
    lines = [line for kind in kinds for line in docstring(kind).splitlines()]
    return [line.strip() for line in lines if re.search(r" [-+]?= ", line)]


def _ratios(step: Step) -> str:
    found = [
        f"{layer.path}.{name} {parameter.ratio:.1e}"
        for layer in step.walk()
        for name, parameter in layer.parameters.items()
        if parameter.ratio is not None
    ]
    return ", ".join(found)


def _change_in_words(step: Step) -> str:
    """The loss before and after, and the change that the gradient predicted."""
    return (
        f"loss {step.loss_before:.6g} -> {step.loss_after:.6g}, a change of {step.change:+.4g}; "
        f"gradient . update predicted {step.predicted_change:+.4g}"
    )
