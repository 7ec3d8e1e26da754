"""The numeric gradient's error against its step size: the V.

A central difference with step h has two errors. Cutting off f's series costs f''' h^2 / 6. Rounding costs about
1e-16 |f| / h, because f is known to 16 digits and the difference of two close numbers loses most of them. So the error
falls with h, and rises again when h is too small. In between, at h = 1e-6 to 1e-5, up to ten digits can be compared.

A wrong backward shows no V: its error stays the same, whatever the step.
"""

import itertools
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.model.sequential import Sequential
from tinynet.study.gradients.check import index_of
from tinynet.study.gradients.objective import Objective
from tinynet.support import random
from tinynet.support.types import Array, Shape

EPSILONS = tuple(10.0**-digits for digits in range(1, 13))

# Elements are drawn from those whose gradient is at least this share of their tensor's largest. Near 0, the relative
# error is only rounding.
_SIZEABLE = 0.1

# Candidates per wanted element. Some sit on a kink and have no slope, such as a pixel of a plain background, which is
# as large as its neighbours in a max-pool window.
_TRIES = 5

# If all gradients of a tensor are smaller, they are only rounding, as for a bias before batch-norm.
_ZERO = 1e-12


class TensorErrors(NamedTuple):
    """One tensor's relative errors |numeric - analytic| / max(|numeric|, |analytic|)."""

    name: str
    shape: Shape
    errors: Array  # (steps, elements)
    crossed: Array  # (steps, elements), whether the difference crossed a kink
    rounding: float  # the expected error from rounding f, times epsilon

    @property
    def medians(self) -> Array:
        """The median error for each step, (steps,)."""
        medians: Array = np.median(self.errors, axis=1)
        return medians


class StepSizes(NamedTuple):
    """The result of `step_sizes`; ``print`` it as a table."""

    epsilons: tuple[float, ...]
    tensors: list[TensorErrors]
    left_out: list[str]  # tensors whose gradient is 0 up to rounding, which has no relative error

    @property
    def best(self) -> float:
        """The epsilon with the smallest error, the median over all tensors of their medians."""
        return self.epsilons[int(np.argmin(self._all_medians()))]

    def _all_medians(self) -> Array:
        medians: Array = np.median([tensor.medians for tensor in self.tensors], axis=0)
        return medians

    def __str__(self) -> str:
        if not self.tensors:
            return "every gradient is 0 up to rounding, so there is no relative error to measure"
        elements = max(tensor.errors.shape[1] for tensor in self.tensors)
        lines = [
            f"relative error of the numeric gradient by step size epsilon; median of up to {elements} elements",
            f"{'tensor':<14}" + "".join(f"{epsilon:>8.0e}" for epsilon in self.epsilons),
        ]
        rows = [(tensor.name, tensor.medians) for tensor in self.tensors]
        rows.append(("all", self._all_medians()))
        lines += [f"{name:<14}" + "".join(f"{error:>8.0e}" for error in errors) for name, errors in rows]
        words = (
            f"Smallest at {self.best:.0e}. Larger steps miss more of the function's curvature and cross more kinks. "
            "With smaller steps, rounding takes over."
        )
        lines += textwrap.wrap(words, 110)
        if self.left_out:
            lines.append(f"Without {', '.join(self.left_out)}: gradients that are 0 up to rounding.")
        return "\n".join(lines)


def step_sizes(
    model_or_layer: Sequential | Layer,
    x: Any,
    y: Any = None,
    loss: Loss | None = None,
    *,
    epsilons: Sequence[float] = EPSILONS,
    max_elements: int = 8,
    seed: int = 0,
) -> StepSizes:
    """Measure how much numeric and analytic gradients differ, for each of many step sizes.

    In a tensor of large numbers, such as pixels from 0 to 255, steps are in units of its root mean square.

    Args:
        model_or_layer, x, y, loss: as in `gradcheck`.
        epsilons: the steps.
        max_elements: how many elements per tensor, drawn by ``seed`` from those whose gradient is not small. Elements
            on a kink are taken only if there are no others.
    Raises: ValueError: as `gradcheck`.
    """
    if not len(epsilons) or not all(epsilon > 0 for epsilon in epsilons):
        raise ValueError(f"epsilons: expected numbers above 0, got {epsilons!r}")
    rng = random.generator(seed, random.GRADIENT_CHECK)
    objective = Objective(model_or_layer, x, y, loss, seed, rng)
    measured, left_out = [], []
    for name, analytic in objective.analytic.items():
        size = np.abs(analytic)
        if not size.size or not size.max() * objective.scale(name) > _ZERO:
            left_out.append(name)
            continue
        sizeable = np.flatnonzero(size >= _SIZEABLE * size.max())
        candidates = rng.permutation(sizeable)[: _TRIES * max_elements]
        smooth = (flat for flat in candidates if not _is_kink(objective, name, int(flat), min(epsilons)))
        chosen = list(itertools.islice(smooth, max_elements)) or candidates[:max_elements]
        measured.append(_measure(objective, name, np.sort(chosen), epsilons))
    return StepSizes(tuple(epsilons), measured, left_out)


def _is_kink(objective: Objective, name: str, flat: int, epsilon: float) -> bool:
    tensor = objective.tensors[name]
    return objective.slope(
        tensor, index_of(flat, tensor), epsilon * objective.scale(name), watch_kinks=True
    ).crossed


def _measure(objective: Objective, name: str, chosen: Array, epsilons: Sequence[float]) -> TensorErrors:
    tensor, scale = objective.tensors[name], objective.scale(name)
    errors = np.empty((len(epsilons), len(chosen)))
    crossed = np.empty(errors.shape, bool)
    analytic = objective.analytic[name].ravel()[chosen]
    for column, flat in enumerate(chosen):
        index = index_of(int(flat), tensor)
        for row, epsilon in enumerate(epsilons):
            numeric, crossed[row, column] = objective.slope(tensor, index, epsilon * scale, watch_kinks=True)
            larger = max(abs(numeric), abs(analytic[column]))
            errors[row, column] = abs(numeric - analytic[column]) / larger
    rounding = np.finfo(np.float64).eps * abs(objective.base) / np.median(np.abs(analytic) * scale)
    return TensorErrors(name, tensor.shape, errors, crossed, float(rounding))
