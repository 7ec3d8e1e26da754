"""The formulas of a layer, a loss or an optimizer with its settings: as MathML, or as its docstring gives them."""

import html

from tinynet import layers, losses, optimizers
from tinynet.losses import Loss
from tinynet.optimizers import SGD, Optimizer
from tinynet.study.tracing.events import docstring_formulas
from tinynet.study.tracing.formulas import FORMULAS, mathml
from tinynet.study.tracing.records import LayerTrace


def library_class(owner: type, method: str) -> str | None:
    """The library class whose method of that name runs; None if the method is the user's own."""
    used = getattr(owner, method)
    known = (
        kind
        for kind in owner.__mro__
        if any(getattr(module, kind.__name__, None) is kind for module in (layers, losses, optimizers))
    )
    return next((kind.__name__ for kind in known if vars(kind).get(method) is used), None)


def layer_formulas(record: LayerTrace, direction: str) -> list[str]:
    """The layer's formulas for "forward" or "backward" as HTML."""
    name = library_class(type(record.layer), direction)
    if name is None or name not in FORMULAS:
        return _docstring(type(record.layer), direction)
    if name == "BatchNorm" and not record.layer.trainable:
        name = "BatchNorm, frozen"
    formulas = getattr(FORMULAS[name], direction)
    if name in ("Dense", "Conv2D", "DepthwiseConv2D") and "b" not in record.parameters:
        formulas = [formula.partition(" + b")[0] for formula in formulas if not formula.startswith("db")]
    return [mathml(formula) for formula in formulas]


def loss_formulas(loss: Loss, direction: str) -> list[str]:
    """The loss's formulas for "forward" or "backward" as HTML."""
    kind = type(loss)
    name = library_class(kind, direction)
    if name is None or name not in FORMULAS:
        return _docstring(type(loss), direction)
    return [mathml(formula) for formula in getattr(FORMULAS[name], direction)]


def update_formulas(optimizer: Optimizer) -> list[str]:
    """The optimizer's formulas as HTML: what happens to the gradient first, then the update."""
    name = library_class(type(optimizer), "update")
    if isinstance(optimizer, SGD) and optimizer.momentum and name == "SGD":
        name = "SGD with Nesterov momentum" if optimizer.nesterov else "SGD with momentum"
    lines = []
    if optimizer.weight_decay and not optimizer.decoupled:
        lines.append("dW := dW + weight_decay W")
    if optimizer.clip_norm is not None:
        lines.append(
            "g := frac{clip_norm}{norm(g)} g `if the norm of g, all gradients together, exceeds` clip_norm"
        )
    if optimizer.weight_decay and optimizer.decoupled:
        lines.append("W := W - learning_rate weight_decay W `, then`")
    if name is None or name not in FORMULAS:
        return [*map(mathml, lines), *_docstring(type(optimizer), "update")]
    return [mathml(formula) for formula in (*lines, *FORMULAS[name].forward)]


def _docstring(owner: type, direction: str) -> list[str]:
    lines = docstring_formulas(owner, direction.capitalize())
    return [f"<code>{html.escape(line)}</code>" for line in lines]
