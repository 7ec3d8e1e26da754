"""Compare tinynet's gradients with those of PyTorch or Keras, for the same weights and the same batch."""

import copy
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from tinynet.layers import Dropout
from tinynet.losses import Loss
from tinynet.model.sequential import Sequential
from tinynet.study.comparison import keras_twin, torch_twin
from tinynet.support.types import Array, Library, Shape
from tinynet.training.inputs import check_inputs

_TOLERANCE = {"float32": 1e-4, "float64": 1e-6}
"""Relative to a tensor's largest gradient. Rounding is far smaller, but some libraries round single numbers to float32,
such as the slope of a LeakyReLU."""


class GradientDifference(NamedTuple):
    """The comparison of one tensor's gradient."""

    name: str  # "2.W"
    shape: Shape
    max_difference: float  # largest |ours - theirs|
    relative_difference: float  # max_difference / the largest |gradient| of the tensor
    verdict: str  # in plain words
    ok: bool


class Comparison(NamedTuple):
    """The result of `compare`; ``print`` it as a table."""

    against: str  # "PyTorch 2.13.0"
    dtype: str
    examples: int
    loss: float  # tinynet's
    other_loss: float
    rows: list[GradientDifference]
    notes: list[str]  # what was done to make both compute the same

    @property
    def ok(self) -> bool:
        """Whether the losses and all gradients agree, and there was something to compare."""
        return bool(self.rows) and self.losses_agree and all(row.ok for row in self.rows)

    @property
    def losses_agree(self) -> bool:
        """Whether the two losses are the same up to rounding."""
        return bool(abs(self.loss - self.other_loss) <= _TOLERANCE[self.dtype] * max(1.0, abs(self.loss)))

    def __str__(self) -> str:
        other, _, _ = self.against.partition(" ")
        digits = 6 if self.dtype == "float32" else 12
        same = "the same up to rounding" if self.losses_agree else "NOT the same"
        width = max(10, *(len(row.name) + 2 for row in self.rows), 0)
        lines = [
            f"tinynet compared with {self.against}: the same weights, {self.examples} examples, {self.dtype}",
            f"loss: tinynet {self.loss:.{digits}g}, {other} {self.other_loss:.{digits}g}, {same}",
            *self.notes,
            f"{'gradient':<{width}}{'shape':<18}{'largest difference':>18}{'relative':>11}  verdict",
        ]
        for row in self.rows:
            lines.append(
                f"{row.name:<{width}}{row.shape!s:<18}{row.max_difference:>18.2e}"
                f"{row.relative_difference:>11.1e}  {row.verdict}"
            )
        return "\n".join(lines)


_ONLY_FLOAT32 = (
    "float32 alone can't tell a mistake from rounding that decides between two pixels; to compare in float64, set "
    "KERAS_BACKEND=tensorflow"
)
_TWINS = {"torch": torch_twin, "keras": keras_twin}


def compare(model: Sequential, x: Any, y: Any, loss: Loss, against: Library = "torch") -> Comparison:
    """Compare the gradients of a training step with those of another library.

    The model stays unchanged. Layers are in training mode. Both libraries use the same dropout mask, the one that the
    model's next training step draws.

    If two pixels are equal up to rounding, max-pooling decides by that rounding, and each library rounds differently.
    So in float32, gradients of convolutional networks may be several percent apart. Gradients that differ in float32
    are therefore compared again in float64.

    Args:
        x, y: a batch, as for `Sequential.fit`.
        loss: one of tinynet's own losses.
        against: "torch" or "keras"; Keras runs on its configured backend, set for example by ``KERAS_BACKEND``.
    Raises:
        ValueError: if a layer or the loss has no counterpart in the other library, naming it; if nothing trains; or for
            soft targets.
        ModuleNotFoundError: if the other library is not installed, with the command that installs it.
    """
    if against not in _TWINS:
        raise ValueError(f'against: expected "torch" or "keras", got {against!r}')
    if not model.trainable_ranges():
        raise ValueError("model: expected a trainable layer with parameters, found none")
    y = loss.check_targets(y, model.output_shape)
    if loss.is_classification and y.ndim > 1:
        raise ValueError("y: the comparison takes class labels instead of soft targets; give y.argmax(1)")
    twin = _TWINS[against]
    twin.check(model, loss)
    x = check_inputs(x, model.input_shape, model.dtype)
    dtype = twin.dtype(str(model.dtype))
    found = _compared(twin, model, x, y, loss, dtype)
    if dtype == "float64" or all(row.ok for row in found.rows):
        return found
    if twin.dtype("float64") != "float64":
        return found._replace(notes=[*found.notes, _ONLY_FLOAT32])
    exact = _compared(twin, model, x, y, loss, "float64")
    return found._replace(rows=settled(found.rows, exact.rows))


def _compared(twin: ModuleType, model: Sequential, x: Array, y: Array, loss: Loss, dtype: Any) -> Comparison:
    """The comparison in one dtype."""
    ours, own_loss = model.copy(dtype, device="cpu"), copy.copy(loss)
    x = x.astype(dtype)
    y = y.astype(dtype) if y.dtype.kind == "f" else y
    value = ours.loss_and_gradients(x, y, own_loss)
    masks = {path: layer.cached(layer._mask) for path, layer in ours.walk() if isinstance(layer, Dropout)}
    library, other_value, gradients = twin.gradients(ours, x, y, loss, masks)
    trained = {
        f"{path}.{name}": getattr(layer, f"d{name}")
        for path, layer in ours.walk()
        if layer.trainable
        for name in layer.param_specs
    }
    notes = ["dropout: the same mask in both"] if masks else []
    if dtype == "float32" and model.dtype == "float64":
        notes.append(f"{library} computes in float32, so tinynet does too")
    rows = differences(trained, gradients, dtype)
    return Comparison(library, dtype, len(x), value, other_value, rows, notes)


def differences(
    ours: Mapping[str, Array], theirs: Mapping[str, Array], dtype: str
) -> list[GradientDifference]:
    """One row for each gradient; both mappings have the same names.

    A gradient may be 0 in theory and only rounding in practice, as for a bias before batch-norm, and no two libraries
    round alike. So a gradient smaller than the rounding of the largest gradient of all counts as 0.
    """
    largest = max((float(np.abs(array).max()) for array in theirs.values()), default=0.0)
    nothing = 1000 * float(np.finfo(dtype).eps) * largest
    return [_difference(name, array, theirs[name], dtype, nothing) for name, array in ours.items()]


def settled(rows: list[GradientDifference], exact: list[GradientDifference]) -> list[GradientDifference]:
    """The float32 rows. Where they differ but are the same in float64, the difference is float32's rounding."""
    return [
        row._replace(
            verdict=f"{100 * row.relative_difference:.2g}% apart by float32's rounding, the same in float64",
            ok=True,
        )
        if not row.ok and in_float64.ok
        else row
        for row, in_float64 in zip(rows, exact, strict=True)
    ]


def _difference(name: str, ours: Array, theirs: Array, dtype: str, nothing: float) -> GradientDifference:
    if ours.shape != theirs.shape:
        verdict = f"DIFFERENT: the other library's shape is {theirs.shape}"
        return GradientDifference(name, ours.shape, np.inf, np.inf, verdict, False)
    difference = float(np.abs(ours.astype(np.float64) - theirs).max())
    size = max(float(np.abs(ours).max()), float(np.abs(theirs).max()))
    relative = difference / size if size else difference
    if relative <= _TOLERANCE[dtype]:
        verdict, ok = "the same up to rounding", True
    elif size <= nothing:
        verdict, ok = "0 up to rounding in both", True
    else:  # also if one is NaN
        verdict, ok = f"DIFFERENT by {100 * relative:.3g}% of the largest gradient", False
    return GradientDifference(name, ours.shape, difference, relative, verdict, ok)
