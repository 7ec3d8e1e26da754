"""The gradient check: compare every backward with the measured slope of forward.

In float64, for each element p of each parameter and of the input, the central difference
(f(p + epsilon) - f(p - epsilon)) / (2 epsilon) is compared with the gradient from backward. f is a loss, or the sum of
the outputs times a fixed random cotangent. The usual cotangent of ones would be blind: the outputs of softmax and
batch-norm have a sum that does not depend on the input at all, so a backward of zeros would pass.
"""

import heapq
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.model.sequential import Sequential
from tinynet.study.gradients.objective import Objective
from tinynet.study.gradients.report import (
    FINE,
    ElementCheck,
    GradientReport,
    TensorCheck,
    badness,
    check_element,
    worst_of,
)
from tinynet.support import random
from tinynet.support.types import Array

# If an element disagrees and its central difference crossed a kink, it is tried again with these shares of the step.
SHARES_OF_STEP = (1.0, 0.1, 0.01)

MOST_ELEMENTS = 1_000  # kept in a report for each tensor


def gradcheck(
    model_or_layer: Sequential | Layer,
    x: Any,
    y: Any = None,
    loss: Loss | None = None,
    *,
    epsilon: float = 1e-6,
    rtol: float = 1e-6,
    atol: float = 1e-8,
    max_elements: int | None = None,
    seed: int = 0,
    move_biases: bool = True,
) -> GradientReport:
    """Compare analytic with numeric gradients, for every parameter and for x.

    The check runs on a float64 copy in training mode; the arguments stay unchanged. An element agrees if
    |numeric - analytic| <= atol + rtol max(|numeric|, |analytic|), where atol grows with the size of f, as the rounding
    of f does. See `band` for gradients that are only suspicious. In a tensor of large numbers, such as pixels from 0 to
    255, epsilon and atol are in units of its root mean square.

    An element that disagrees is tried again with smaller steps if its central difference crossed a kink of a ReLU,
    LeakyReLU or max-pool. If even the smallest step crosses one, the element is reported as crossed and counts neither
    way. A tensor passes if at least one element was compared and all compared elements agree. If none was compared,
    its verdict is "not compared", which is neither right nor wrong.

    Args:
        model_or_layer: a `Sequential`, or a `Layer`, built or not.
        x: inputs (n, ...). If your own layers have kinks, keep their inputs more than epsilon away from them.
        y, loss: targets and a `Loss` to differentiate; without them, outputs times a random cotangent.
        max_elements: how many elements per tensor to compare, drawn by ``seed``; None compares all.
        seed: also draws the cotangent.
        move_biases: whether to move biases, gammas and betas that are 0 or 1, as they are initially, a little in the
            copy: there they would hide mistakes, and black pixels would lie exactly on ReLU's kink.
    Returns: a check per tensor, and one more for each gradient that changes when the first layer's dx is not needed.
    Raises: ValueError: if only one of y and loss is given, or x does not fit.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon: expected a number above 0, got {epsilon!r}")
    # A separate stream: if the cotangent were the same numbers as the caller's x, x^T dy would be symmetric, and a
    # transposed gradient would pass.
    rng = random.generator(seed, random.GRADIENT_CHECK)
    objective = Objective(model_or_layer, x, y, loss, seed, rng, move_biases)
    failed = _without_input_gradient(objective)
    settings = _Settings(epsilon, rtol, atol)
    checks = [_check_tensor(objective, name, settings, max_elements, rng) for name in objective.tensors]
    return GradientReport(checks + failed, epsilon, rtol, atol)


class _Settings(NamedTuple):
    epsilon: float
    rtol: float
    atol: float


def _check_tensor(
    objective: Objective,
    name: str,
    settings: _Settings,
    max_elements: int | None,
    rng: np.random.Generator,
) -> TensorCheck:
    tensor, analytic = objective.tensors[name], objective.analytic[name]
    chosen = sample(tensor.size, max_elements, rng)
    if analytic.shape != tensor.shape:
        return TensorCheck(name, tensor.shape, 0, np.inf, np.inf, (), np.nan, np.nan, False)
    scale = objective.scale(name)
    errors = np.zeros((2, len(chosen)))  # absolute and relative
    crossed = np.zeros(len(chosen), bool)

    def elements() -> Iterator[ElementCheck]:
        for place, flat in enumerate(chosen):
            index = index_of(int(flat), tensor)
            element = _check_element(objective, tensor, index, float(analytic[index]), scale, settings)
            errors[:, place], crossed[place] = (element.error, element.relative_error), element.crossed
            yield element

    kept = heapq.nlargest(MOST_ELEMENTS, elements(), key=badness)  # never holds more elements than it returns
    in_order = tuple(sorted(kept, key=lambda element: element.index))
    worst = worst_of(kept)
    if worst is None:
        nothing = (0, np.nan, np.nan, (), np.nan, np.nan, False)
        return TensorCheck(name, tensor.shape, *nothing, in_order, len(chosen))
    error, relative = errors[:, ~crossed].max(axis=1)
    return TensorCheck(
        name,
        tensor.shape,
        int((~crossed).sum()),
        float(error),
        float(relative),
        worst.index,
        worst.numeric,
        worst.analytic,
        worst.band == FINE,
        in_order,
        int(crossed.sum()),
    )


def _check_element(
    objective: Objective,
    tensor: Array,
    index: tuple[int, ...],
    analytic: float,
    scale: float,
    settings: _Settings,
) -> ElementCheck:
    def attempt(share: float, watch_kinks: bool) -> ElementCheck:
        epsilon = share * settings.epsilon
        floor = (settings.atol + objective.rounding(epsilon)) / scale
        slope = objective.slope(tensor, index, epsilon * scale, watch_kinks)
        return check_element(index, slope.value, analytic, settings.rtol, floor, slope.crossed)

    element = attempt(1.0, watch_kinks=False)
    if element.band == FINE:
        return element
    for share in SHARES_OF_STEP:
        element = attempt(share, watch_kinks=True)
        if not element.crossed:
            break
    return element


def sample(size: int, count: int | None, rng: np.random.Generator) -> Array:
    """A sorted random sample of the numbers from 0 to size - 1; all of them if count is None or at least size."""
    if count is None or size <= count:
        return np.arange(size)
    return np.sort(rng.choice(size, count, replace=False))


def index_of(flat: int, tensor: Array) -> tuple[int, ...]:
    """The index of the element with this flat number, in NumPy's order."""
    return tuple(map(int, np.unravel_index(flat, tensor.shape)))


def _without_input_gradient(objective: Objective) -> list[TensorCheck]:
    """A failed check for each gradient that differs when the first layer's dx is not needed, as in training."""
    failed = []
    for name, found in objective.analytic_without_dx().items():
        expected = objective.analytic[name]
        if not np.array_equal(found, expected):
            error = np.abs(found - expected)
            worst = index_of(int(np.argmax(error)), error)
            numbers = float(error[worst]), math.inf, worst, float(expected[worst]), float(found[worst])
            failed.append(TensorCheck(f"{name}, no dx", found.shape, found.size, *numbers, False))
    return failed
