"""What a gradient check found: of each element, of each tensor, and in plain words."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tinynet.support.types import Shape

FINE, CROSSED, SUSPICIOUS, WRONG = "fine", "crossed a kink", "suspicious", "wrong"
NOT_COMPARED = "not compared"  # a tensor of which every element crossed a kink
BANDS = (CROSSED, FINE, SUSPICIOUS, WRONG)
"""What crossed a kink could not be compared; the others from good to bad."""

SUSPICIOUS_UP_TO = 1e-3


def band(numeric: float, analytic: float, rtol: float, floor: float) -> str:
    """How well two gradients of one element agree: "fine", "suspicious" or "wrong".

    fine        |numeric - analytic| <= floor + rtol size, where size is the larger of the two: what rounding and
                the central difference's own error explain.
    suspicious  <= 10 floor + 1e-3 size: three digits agree, and more do not. A term may be missing that is small
                here; or the function bends so strongly that another epsilon is needed.
    wrong       above that, or not finite. A sign, a factor or a sum is missing.

    Near 0 the share of size says nothing, as a gradient of 1e-17 has no digits that could agree: there the floor
    decides.

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
    analytic: float  # what backward gave
    error: float  # |numeric - analytic|
    relative_error: (
        float  # |numeric - analytic| / (|numeric| + |analytic|), 0 where rounding explains the error
    )
    crossed: bool  # whether the central difference reached across a kink, however small the step; then it says nothing
    band: str  # one of BANDS


def check_element(
    index: tuple[int, ...], numeric: float, analytic: float, rtol: float, floor: float, crossed: bool = False
) -> ElementCheck:
    """Two gradients of an element, compared; ``crossed`` counts only where they differ."""
    error = abs(numeric - analytic)
    relative = 0.0 if error <= floor else error / max(abs(numeric) + abs(analytic), 1e-300)
    found = band(numeric, analytic, rtol, floor)
    crossed = crossed and found != FINE
    return ElementCheck(index, numeric, analytic, error, relative, crossed, CROSSED if crossed else found)


class TensorCheck(NamedTuple):
    """The comparison of one tensor."""

    name: str  # "2.W", or "x"
    shape: Shape
    compared: int  # elements, those that crossed a kink not counted
    max_error: float  # largest |numeric - analytic|
    max_relative_error: float  # largest |numeric - analytic| / (|numeric| + |analytic|), above atol only
    worst_index: tuple[int, ...]
    worst_numeric: float
    worst_analytic: float
    ok: bool
    elements: tuple[ElementCheck, ...] = ()  # in order of index; of very many, the worst
    crossed: int = 0  # elements that crossed a kink

    @property
    def band(self) -> str:
        """That of the worst element; "not compared" if all crossed a kink."""
        if self.ok:
            return FINE
        if not self.compared and self.crossed:
            return NOT_COMPARED
        found = {element.band for element in self.elements}
        return SUSPICIOUS if SUSPICIOUS in found and WRONG not in found else WRONG

    @property
    def verdict(self) -> str:
        """What is amiss, with the worst element; or "ok"."""
        if self.ok:
            return "ok"
        if not self.compared:
            return "NOT COMPARED: all crossed a kink" if self.crossed else "WRONG: nothing to compare"
        return (
            f"{self.band.upper()} at {self.worst_index}: numeric {self.worst_numeric:.6g}, "
            f"analytic {self.worst_analytic:.6g}"
        )


class GradientReport(NamedTuple):
    """What `gradcheck` found; ``print`` it as a table."""

    tensors: list[TensorCheck]
    epsilon: float
    rtol: float
    atol: float

    @property
    def ok(self) -> bool:
        """Whether every tensor agrees, and something was compared in each."""
        return bool(self.tensors) and all(tensor.ok for tensor in self.tensors)

    def check(self) -> "GradientReport":
        """The report itself; raises AssertionError, with the table, if a gradient is not fine."""
        if not self.ok:
            raise AssertionError(f"gradients are WRONG or suspicious:\n{self}")
        return self

    def in_words(self) -> str:
        """What was found, a sentence or two for each kind."""
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
                f"Fine: for {_count(compared, 'element')} of {_count(len(self.tensors), 'tensor')}, backward gives "
                "the slope that forward shows."
            )
        if named[WRONG]:
            nearest = next((name for name in reversed(named[WRONG]) if name != "x"), "x")
            lines.append(
                f"Wrong: {', '.join(named[WRONG])}. A wrong dx spoils every gradient of the layers before it: begin "
                f"with {nearest}, which is nearest to the output, and the layers behind it."
            )
        if named[SUSPICIOUS]:
            lines.append(
                f"Suspicious: {', '.join(named[SUSPICIOUS])}. Some digits agree, fewer than should: a small term may "
                "be missing, or another epsilon is needed."
            )
        if named[NOT_COMPARED]:
            lines.append(
                f"Not compared: {', '.join(named[NOT_COMPARED])}. Take more elements, or other inputs."
            )
        if crossed:
            lines.append(
                f"Crossed a kink, the corner of a ReLU or max-pool, whatever the step: {_count(crossed, 'element')}. "
                "There is no slope to compare there, so they count neither way."
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
    """Of those that were compared the one that agrees least; None if none was."""
    return max((element for element in elements if not element.crossed), key=badness, default=None)


def badness(element: ElementCheck) -> tuple[int, float]:
    """Elements sorted by this are sorted from the best to the worst, those that crossed a kink before all."""
    return BANDS.index(element.band), element.error if np.isfinite(element.error) else np.inf
