"""Learning-rate schedules: each function here returns a function of the step (0, 1, 2, ...).

Pass one to an optimizer: ``Adam(learning_rate=schedules.cosine(0.001, steps=9_380))``. As each is a plain
function of the step, an optimizer that is resumed at a step has the learning rate of that step. Steps are
batches, not epochs: a run has ``epochs * ceil(examples / batch_size)`` of them.
"""

import math

from tinynet.support.checks import check_number, check_positive_int
from tinynet.support.types import Schedule


def step_decay(learning_rate: float, every: int, factor: float = 0.1) -> Schedule:
    """learning_rate * factor ** (step // every)."""
    learning_rate, every = _rate(learning_rate), check_positive_int("every", every)
    factor = check_number("factor", factor, 0, 1)
    return lambda step: learning_rate * factor ** (step // every)


def exponential(learning_rate: float, every: int, factor: float = 0.96) -> Schedule:
    """learning_rate * factor ** (step / every): the same decay as `step_decay`, but smooth."""
    learning_rate, every = _rate(learning_rate), check_positive_int("every", every)
    factor = check_number("factor", factor, 0, 1)
    return lambda step: learning_rate * factor ** (step / every)


def cosine(learning_rate: float, steps: int, final: float = 0.0) -> Schedule:
    """Half a cosine wave, from learning_rate down to final in ``steps`` steps; constant after that.

    Source: Loshchilov & Hutter 2017.
    """
    learning_rate, steps, final = _rate(learning_rate), check_positive_int("steps", steps), _rate(final)

    def schedule(step: int) -> float:
        return final + (learning_rate - final) * (1 + math.cos(math.pi * min(step / steps, 1))) / 2

    return schedule


def one_cycle(
    max_learning_rate: float,
    steps: int,
    warm_up_share: float = 0.3,
    start: float = 1 / 25,
    final: float = 1e-4,
) -> Schedule:
    """Rise to max_learning_rate in the first ``warm_up_share`` of the steps, then fall, both along a cosine.

    Args:
        max_learning_rate: the peak.
        steps: the number of steps in the whole cycle.
        warm_up_share: the share of steps in which it rises, in [0, 1).
        start, final: the first and last learning rates, as shares of the peak.
    Source: Smith & Topin 2019.
    """
    peak, steps = _rate(max_learning_rate), check_positive_int("steps", steps)
    up = check_number("warm_up_share", warm_up_share, 0, 1, open_high=True) * steps
    low, end = peak * check_number("start", start, 0, 1), peak * check_number("final", final, 0, 1)

    def schedule(step: int) -> float:
        if step < up:
            return low + (peak - low) * (1 - math.cos(math.pi * step / up)) / 2
        return end + (peak - end) * (1 + math.cos(math.pi * min((step - up) / (steps - up), 1))) / 2

    return schedule


def warm_up(schedule: float | Schedule, steps: int) -> Schedule:
    """The schedule (or constant rate), with a linear warm-up over the first ``steps`` steps.

    The wrapped schedule keeps its own count of steps: during the warm-up it is scaled by (step + 1) / steps.
    Source: Goyal et al. 2017.
    """
    steps = check_positive_int("steps", steps)
    if callable(schedule):
        after = schedule
    else:
        constant = _rate(schedule)

        def after(step: int) -> float:
            return constant

    return lambda step: after(step) * min((step + 1) / steps, 1)


def _rate(value: float) -> float:
    return check_number("learning rate", value, 0, math.inf)
