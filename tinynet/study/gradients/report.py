"""The results of a gradient check: by element, by tensor, and in plain words."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tinynet.support.types import Shape

FINE, CROSSED, SUSPICIOUS, WRONG = "fine", "crossed a kink", "suspicious", "wrong"
NOT_COMPARED = "not compared"  # for a tensor without elements, or whose elements all crossed a kink
BANDS = (CROSSED, FINE, SUSPICIOUS, WRONG)
"""First the elements that crossed a kink and could not be compared; then from good to bad."""

SUSPICIOUS_UP_TO = 1e-3


def band(numeric: float, analytic: float, rtol: float, floor: float) -> str:
    """How well two gradients of one element agree: "fine", "suspicious" or "wrong".

    fine        |numeric - analytic| <= floor + rtol size, where size is the larger of |numeric| and |analytic|:
                rounding and the central difference's own error explain the difference.
    suspicious  <= 10 floor + 1e-3 size: three digits agree, but no more. A term may be missing that is small
                here, or the function curves so strongly that another epsilon is needed.
    wrong       above that, or not finite. A sign, a factor or a sum is missing.

    Near 0 the floor decides: relative error means nothing there, as a gradient of 1e-17 has no digits that could agree.

    Args: rtol: relative tolerance; floor: absolute tolerance, about the rounding of the numeric gradient.
    """
    error = abs(numeric - analytic)
    size = max(abs(numeric), abs(analytic))
    if error <= floor + rtol * size < np.inf:
        return FINE
    return SUSPICIOUS if error <= 10 * floor + SUSPICIOUS_UP_TO * size < np.inf else WRONG


@dataclass(frozen=True, slots=True)
class ElementCheck:
    """The comparison of one element."""

    index: tuple[int, ...]
    numeric: float  # the central difference
    analytic: float  # the gradient from backward
    error: float  # |numeric - analytic|
    relative_error: (
        float  # |numeric - analytic| / (|numeric| + |analytic|), 0 where rounding explains the error
    )
    crossed: bool  # whether the central difference crossed a kink at every step size; then it says nothing
    band: str  # one of BANDS


def check_element(
    index: tuple[int, ...], numeric: float, analytic: float, rtol: float, floor: float, crossed: bool = False
) -> ElementCheck:
    """Compare two gradients of an element; ``crossed`` counts only if they differ."""
    error = abs(numeric - analytic)
    relative = 0.0 if error <= floor else error / max(abs(numeric) + abs(analytic), 1e-300)
    found = band(numeric, analytic, rtol, floor)
    crossed = crossed and found != FINE
    return ElementCheck(index, numeric, analytic, error, relative, crossed, CROSSED if crossed else found)


class TensorCheck(NamedTuple):
    """The comparison of one tensor."""

    name: str  # "2.W", or "x"
    shape: Shape
    compared: int  # elements, without those that crossed a kink
    max_error: (
        float  # largest |numeric - analytic|; nan if none was compared, inf if backward's has another shape
    )
    max_relative_error: float  # largest |numeric - analytic| / (|numeric| + |analytic|), of errors above atol
    worst_index: tuple[int, ...]
    worst_numeric: float
    worst_analytic: float
    ok: bool
    elements: tuple[ElementCheck, ...] = ()  # in order of index; of a large tensor only the worst
    crossed: int = 0  # elements that crossed a kink

    @property
    def band(self) -> str:
        """The worst element's band; "not compared" if there was nothing to compare."""
        if self.ok:
            return FINE
        if not self.compared and math.isnan(self.max_error):
            return NOT_COMPARED
        found = {element.band for element in self.elements}
        return SUSPICIOUS if SUSPICIOUS in found and WRONG not in found else WRONG

    @property
    def verdict(self) -> str:
        """What is wrong, with the worst element; or "ok"."""
        if self.ok:
            return "ok"
        if self.band == NOT_COMPARED:
            return f"NOT COMPARED: {'all crossed a kink' if self.crossed else 'there is nothing to compare'}"
        if not self.compared:
            return "WRONG: backward gives another shape"
        return (
            f"{self.band.upper()} at {self.worst_index}: numeric {self.worst_numeric:.6g}, "
            f"analytic {self.worst_analytic:.6g}"
        )


class GradientReport(NamedTuple):
    """The result of `gradcheck`; ``print`` it as a table."""

    tensors: list[TensorCheck]
    epsilon: float
    rtol: float
    atol: float

    @property
    def ok(self) -> bool:
        """Whether there are tensors, every one agrees, and something was compared in each."""
        return self.verdict == FINE

    @property
    def verdict(self) -> str:
        """The worst tensor's band: "wrong", "suspicious", "not compared" (also without tensors) or "fine"."""
        found = {tensor.band for tensor in self.tensors} or {NOT_COMPARED}
        return next(band for band in (WRONG, SUSPICIOUS, NOT_COMPARED, FINE) if band in found)

    def check(self) -> "GradientReport":
        """Return the report itself; raises AssertionError with the table if a gradient is not fine."""
        if not self.ok:
            found = "were NOT COMPARED" if self.verdict == NOT_COMPARED else "are WRONG or suspicious"
            raise AssertionError(f"gradients {found}:\n{self}")
        return self

    def in_words(self) -> str:
        """The findings in a sentence or two for each kind."""
        compared, crossed = (
            sum(getattr(tensor, kind) for tensor in self.tensors) for kind in ("compared", "crossed")
        )
        named = {
            kind: [tensor.name for tensor in self.tensors if tensor.band == kind]
            for kind in (WRONG, SUSPICIOUS, NOT_COMPARED)
        }
        lines = []
        if self.ok:
            lines.append(
                f"Fine: for {_count(compared, 'element')} of {_count(len(self.tensors), 'tensor')}, backward agrees "
                "with the measured slope."
            )
        if named[WRONG]:
            nearest = next((name for name in reversed(named[WRONG]) if name != "x"), "x")
            lines.append(
                f"Wrong: {', '.join(named[WRONG])}. A wrong dx spoils every gradient of the layers before it. Start "
                f"with {nearest}, which is nearest to the output, and the layers after it."
            )
        if named[SUSPICIOUS]:
            lines.append(
                f"Suspicious: {', '.join(named[SUSPICIOUS])}. Some digits agree, but fewer than should. A small term "
                "may be missing, or another epsilon is needed."
            )
        if named[NOT_COMPARED]:
            lines.append(
                f"Not compared: {', '.join(named[NOT_COMPARED])}. That says nothing about backward, neither for it nor "
                "against it. Check more elements or use other inputs."
            )
        if crossed:
            lines.append(
                f"Crossed a kink at every step size tried: {_count(crossed, 'element')}. A kink is a corner of a ReLU "
                "or max-pool. It has no slope to compare with, so these count neither way."
            )
        return "\n".join(textwrap.fill(line, 110) for line in lines) if lines else "Nothing was compared."

    def __str__(self) -> str:
        lines = [
            f"gradient check in float64: central differences, epsilon {self.epsilon:g}, "
            f"rtol {self.rtol:g}, atol {self.atol:g}",
            f"{'tensor':<14}{'shape':<20}{'compared':>9}{'crossed':>9}{'max error':>11}{'relative':>10}"
            f"  {'band':<14}verdict",
        ]
        lines += [
            f"{tensor.name:<14}{tensor.shape!s:<20}{tensor.compared:>9,}{tensor.crossed:>9,}"
            f"{tensor.max_error:>11.2e}{_relative(tensor):>10}  {tensor.band:<14}{tensor.verdict}"
            for tensor in self.tensors
        ]
        return "\n".join([*lines, self.in_words()])


def _relative(tensor: TensorCheck) -> str:
    return f"{tensor.max_relative_error:.2e}" if tensor.max_relative_error else "rounding"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def worst_of(elements: Sequence[ElementCheck]) -> ElementCheck | None:
    """The compared element that agrees least; None if no element was compared."""
    return max((element for element in elements if not element.crossed), key=badness, default=None)


def badness(element: ElementCheck) -> tuple[int, float]:
    """A sort key from the best element to the worst; those that crossed a kink come first."""
    return BANDS.index(element.band), element.error if np.isfinite(element.error) else np.inf
