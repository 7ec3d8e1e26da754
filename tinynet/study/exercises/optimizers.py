"""The exercises on optimizers: the data to try them on, and common mistakes."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinynet.optimizers import SGD, Adam, Optimizer
from tinynet.study.exercises.exercise import Mistake, StepExercise, Trial
from tinynet.support.types import Array


def _path(optimizer: Optimizer, t: Trial) -> dict[str, Array]:
    """The params after each step of a library optimizer, (steps, size)."""
    params, path = t.params.copy(), []
    for grads in t.gradients:
        optimizer.step(params, grads)
        path.append(params.copy())
    return {"params": np.stack(path)}


def _trials(rng: np.random.Generator, *settings: dict[str, float]) -> list[Trial]:
    """For each of the settings: gradients of either sign, and gradients above 0 only."""
    trials = []
    for index, setting in enumerate(settings):
        gradients = rng.standard_normal((5, 4 + index))
        for signed in (gradients, np.abs(gradients)):
            params = rng.standard_normal(gradients.shape[1])
            trials.append(Trial(params=params, gradients=signed, smooth=False, **setting))
    return trials


def _unmoved(t: Trial) -> Array:
    return np.repeat(t.params[None], len(t.gradients), axis=0)


_REBOUND = (
    "does not change: params = params + ... makes a new array, and the caller keeps the old one; write into the "
    "old one with += or params[...] ="
)


def _rolled(
    velocity: Callable[[Trial, Any, Array], Array], move: Callable[[Trial, Array, Array], Array] | None = None
) -> Any:
    """The params after each step, with these functions of (trial, velocity, grads); None moves by the velocity."""

    def gives(t: Trial) -> Array:
        v, p, path = np.zeros_like(t.params), t.params, []
        for g in t.gradients:
            v = velocity(t, v, g)
            p = p + (v if move is None else move(t, v, g))
            path.append(p)
        return np.stack(path)

    return gives


def _velocity(t: Trial, v: Array, g: Array) -> Array:
    return t.momentum * v - t.learning_rate * g  # type: ignore[no-any-return]


MOMENTUM = StepExercise(
    name="momentum",
    title="a step of gradient descent with momentum",
    kind="Momentum",
    library="SGD.update in tinynet/optimizers.py",
    constructor=("learning_rate", "momentum"),
    trials=lambda rng: _trials(
        rng, {"learning_rate": 0.1, "momentum": 0.9}, {"learning_rate": 0.03, "momentum": 0.6}
    ),
    solve=lambda t: _path(SGD(t.learning_rate, t.momentum), t),
    formulas={"params": "velocity = momentum velocity - learning_rate grads, params = params + velocity"},
    mistakes=(
        Mistake("params", _REBOUND, _unmoved),
        Mistake(
            "params",
            "moves as if the velocity were not kept between steps: set self.velocity",
            _rolled(lambda t, v, g: -t.learning_rate * g),
        ),
        Mistake(
            "params",
            "moves up the gradient: the sign of learning_rate grads is wrong",
            _rolled(lambda t, v, g: t.momentum * v + t.learning_rate * g),
        ),
        Mistake(
            "params",
            "moves by momentum velocity - learning_rate grads, as in Nesterov's method; here it moves by velocity",
            _rolled(_velocity, lambda t, v, g: _velocity(t, v, g)),
        ),
        Mistake(
            "params",
            "applies the learning rate twice: in the velocity and in the move",
            _rolled(_velocity, lambda t, v, g: t.learning_rate * v),
        ),
        Mistake("params", "moves without the learning rate", _rolled(lambda t, v, g: t.momentum * v - g)),
        Mistake(
            "params",
            "multiplies grads by 1 - momentum, as for a mean; here the gradient counts in full",
            _rolled(lambda t, v, g: t.momentum * v - (1 - t.momentum) * t.learning_rate * g),
        ),
        Mistake(
            "params",
            "keeps all of the velocity: the factor momentum is missing",
            _rolled(lambda t, v, g: v - t.learning_rate * g),
        ),
        Mistake(
            "params",
            "also multiplies the new gradient by momentum: only the old velocity should be",
            _rolled(lambda t, v, g: t.momentum * (v - t.learning_rate * g)),
        ),
        Mistake(
            "params",
            "slows down where it should keep going: the sign of momentum velocity is wrong",
            _rolled(lambda t, v, g: -t.momentum * v - t.learning_rate * g),
        ),
        Mistake(
            "params",
            "moves by the velocity of the previous step: update the velocity first, then move",
            _rolled(_velocity, lambda t, v, g: (v + t.learning_rate * g) / t.momentum),
        ),
    ),
)

_Moments = Callable[[Trial, Array, Array, Array], tuple[Array, Array]]
_Move = Callable[[Trial, Array, Array, Any], Array]


def _moments(t: Trial, m: Array, v: Array, g: Array) -> tuple[Array, Array]:
    return t.beta_1 * m + (1 - t.beta_1) * g, t.beta_2 * v + (1 - t.beta_2) * g**2


def _correction(t: Trial, count: Any) -> Any:
    return np.sqrt(1 - t.beta_2**count) / (1 - t.beta_1**count)


def _move(t: Trial, m: Array, v: Array, count: Any) -> Array:
    return t.learning_rate * _correction(t, count) * m / (np.sqrt(v) + t.epsilon)  # type: ignore[no-any-return]


def _adapted(moments: _Moments = _moments, move: _Move = _move, first: int = 1) -> Callable[[Trial], Array]:
    """The params after each step, with these moments, and this move subtracted; steps are counted from ``first``."""

    def gives(t: Trial) -> Array:
        m = v = np.zeros_like(t.params)
        p, path = t.params, []
        for count, g in enumerate(t.gradients, first):
            m, v = moments(t, m, v, g)
            # A NumPy number divides by 0 without an exception.
            p = p - move(t, m, v, np.float64(count))
            path.append(p)
        return np.stack(path)

    return gives


ADAM = StepExercise(
    name="adam",
    title="a step of Adam",
    kind="Adam",
    library="Adam.update in tinynet/optimizers.py",
    constructor=("learning_rate", "beta_1", "beta_2", "epsilon"),
    trials=lambda rng: _trials(
        rng,
        {
            "learning_rate": 0.1,
            "beta_1": 0.8,
            "beta_2": 0.95,
            "epsilon": 0.05,
        },  # epsilon is large enough to show where it is added
        {"learning_rate": 0.02, "beta_1": 0.9, "beta_2": 0.99, "epsilon": 0.01},
    ),
    solve=lambda t: _path(Adam(t.learning_rate, t.beta_1, t.beta_2, t.epsilon), t),
    formulas={
        "params": "params moves by - learning_rate sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon)"
    },
    errors={
        "ZeroDivisionError": "In the first step, t is 1: count before you divide by 1 - beta_1^t, which is 0 for t = 0"
    },
    mistakes=(
        Mistake(
            "params",
            "is Adam with epsilon added to the root of the corrected v, as in Kingma & Ba's Algorithm 1 and PyTorch; "
            "the library and Keras add it to the root of the uncorrected v",
            _adapted(
                move=lambda t, m, v, count: (
                    t.learning_rate
                    * m
                    / (1 - t.beta_1**count)
                    / (np.sqrt(v / (1 - t.beta_2**count)) + t.epsilon)
                )
            ),
            accepted=True,
        ),
        Mistake("params", _REBOUND, _unmoved),
        Mistake(
            "params",
            "has no bias correction: m and v start at 0 and are too small at first",
            _adapted(move=lambda t, m, v, count: t.learning_rate * m / (np.sqrt(v) + t.epsilon)),
        ),
        Mistake(
            "params",
            "corrects the bias of m, but not that of v: sqrt(1 - beta_2^t) is missing",
            _adapted(
                move=lambda t, m, v, count: (
                    t.learning_rate / (1 - t.beta_1**count) * m / (np.sqrt(v) + t.epsilon)
                )
            ),
        ),
        Mistake(
            "params",
            "corrects the bias of v, but not that of m: 1 / (1 - beta_1^t) is missing",
            _adapted(
                move=lambda t, m, v, count: (
                    t.learning_rate * np.sqrt(1 - t.beta_2**count) * m / (np.sqrt(v) + t.epsilon)
                )
            ),
        ),
        Mistake(
            "params",
            "adds epsilon inside the root: it belongs outside",
            _adapted(
                move=lambda t, m, v, count: (
                    t.learning_rate * _correction(t, count) * m / np.sqrt(v + t.epsilon)
                )
            ),
        ),
        Mistake(
            "params",
            "adds epsilon inside the root: it belongs outside",
            _adapted(
                move=lambda t, m, v, count: (
                    t.learning_rate
                    * m
                    / (1 - t.beta_1**count)
                    / np.sqrt(v / (1 - t.beta_2**count) + t.epsilon)
                )
            ),
        ),
        Mistake(
            "params",
            "is NaN from the first step on, as it counts steps from 0, and 1 - beta_1^0 is 0; the first step has t = 1",
            _adapted(first=0),
        ),
        Mistake("params", "counts steps from 2: the first step has t = 1", _adapted(first=2)),
        Mistake(
            "params",
            "uses t = 1 in every step: self.t must count the steps",
            _adapted(move=lambda t, m, v, count: _move(t, m, v, 1)),
        ),
        Mistake(
            "params",
            "swaps m and v: it moves by v / sqrt(m)",
            _adapted(move=lambda t, m, v, count: _move(t, v, m, count)),
        ),
        Mistake(
            "params",
            "swaps beta_1 and beta_2: beta_1 belongs to the mean of g, beta_2 to that of g^2",
            _adapted(
                lambda t, m, v, g: (
                    t.beta_2 * m + (1 - t.beta_2) * g,
                    t.beta_1 * v + (1 - t.beta_1) * g**2,
                )
            ),
        ),
        Mistake(
            "params",
            "swaps m and v: m is the mean of g, v that of g^2",
            _adapted(
                lambda t, m, v, g: (
                    t.beta_1 * m + (1 - t.beta_1) * g**2,
                    t.beta_2 * v + (1 - t.beta_2) * g,
                )
            ),
        ),
        Mistake(
            "params",
            "computes v as the mean of g instead of g^2",
            _adapted(
                lambda t, m, v, g: (t.beta_1 * m + (1 - t.beta_1) * g, t.beta_2 * v + (1 - t.beta_2) * g)
            ),
        ),
        Mistake(
            "params",
            "divides by v instead of its square root",
            _adapted(
                move=lambda t, m, v, count: t.learning_rate * _correction(t, count) * m / (v + t.epsilon)
            ),
        ),
        Mistake(
            "params",
            "computes m as a sum: the new gradient needs the factor 1 - beta_1",
            _adapted(lambda t, m, v, g: (t.beta_1 * m + g, _moments(t, m, v, g)[1])),
        ),
        Mistake(
            "params",
            "computes v as a sum: the new square needs the factor 1 - beta_2",
            _adapted(lambda t, m, v, g: (_moments(t, m, v, g)[0], t.beta_2 * v + g**2)),
        ),
        Mistake(
            "params",
            "computes m and v as sums: the new terms need the factors 1 - beta_1 and 1 - beta_2",
            _adapted(lambda t, m, v, g: (t.beta_1 * m + g, t.beta_2 * v + g**2)),
        ),
        Mistake(
            "params",
            "moves as if m were not kept between steps: set self.m",
            _adapted(lambda t, m, v, g: ((1 - t.beta_1) * g, _moments(t, m, v, g)[1])),
        ),
        Mistake(
            "params",
            "moves as if v were not kept between steps: set self.v",
            _adapted(lambda t, m, v, g: (_moments(t, m, v, g)[0], (1 - t.beta_2) * g**2)),
        ),
        Mistake(
            "params",
            "moves as if m and v were not kept between steps: set self.m and self.v",
            _adapted(lambda t, m, v, g: ((1 - t.beta_1) * g, (1 - t.beta_2) * g**2)),
        ),
        Mistake(
            "params", "moves up the gradient: the sign is wrong", _adapted(move=lambda *args: -_move(*args))
        ),
        Mistake(
            "params",
            "moves without the learning rate",
            _adapted(move=lambda t, *args: _move(t, *args) / t.learning_rate),
        ),
    ),
)

EXERCISES = (MOMENTUM, ADAM)
