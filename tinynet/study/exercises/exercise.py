"""What an exercise is: a class with a blank, data to try it on, the library's answer, and the common mistakes."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from tinynet.layers import Layer
from tinynet.model.sequential import Sequential
from tinynet.support.types import Array

_EPSILON = 1e-6

Trial = SimpleNamespace
"""Arrays and settings by name: ``trial.x``, ``trial.dy``. ``right`` holds the library's results for them, ``n`` is the
batch size, and ``smooth`` says whether central differences are valid there."""


class Mistake(NamedTuple):
    """A mistake, and the wrong result that it gives.

    Args:
        tensor: the result it shows in, such as "dW".
        words: what to say about it, as in "it is transposed"; ``{found}`` and ``{right}`` stand for shapes.
        gives: computes the wrong result; raises ValueError or IndexError for shapes where the mistake can't happen.
        fits: whether a result looks like this mistake, if the result depends on chance; None compares with ``gives``.
        accepted: whether the answer is just as good and only needs a remark.
    """

    tensor: str
    words: str
    gives: Callable[[Trial], Any]
    fits: Callable[[Trial, Array], bool] | None = None
    accepted: bool = False


class Ran(NamedTuple):
    """What an answer gave for a trial."""

    found: dict[str, Any]
    again: dict[str, Any]  # results of a second backward after the same forward
    changed: list[str]  # inputs it wrote into


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """A class that lacks its ``backward``.

    Args:
        name: name of the exercise and of its file.
        title: one line.
        kind: name of the class.
        library: where to find the library's own version.
        trials: draws data to try it on.
        solve: the library's results for a trial, with the keys of ``formulas``.
        formulas: one line per result: what forward gives, what backward returns, what backward sets.
        mistakes: common mistakes; those that any gradient can have need not be listed.
        constructor, inputs, upstream: names of the arguments of the class, of its forward and of its backward.
        errors: what to say when an exception with that name is raised.
    """

    name: str
    title: str
    kind: str
    library: str
    trials: Callable[[np.random.Generator], list[Trial]]
    solve: Callable[[Trial], dict[str, Array]]
    formulas: dict[str, str]
    mistakes: tuple[Mistake, ...]
    constructor: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("x",)
    upstream: tuple[str, ...] = ("dy",)
    errors: Mapping[str, str] = field(default_factory=dict)
    blank = "backward"  # the method to write

    @property
    def output(self) -> str:
        """The name of what forward gives: "y"."""
        return next(iter(self.formulas))

    @property
    def gradients(self) -> list[str]:
        """The names of what backward gives: first what it returns, then what it sets."""
        return list(self.formulas)[1:]

    def calls(self) -> str:
        """How the class is used, in words."""
        constructor, inputs, upstream = (
            ", ".join(names) for names in (self.constructor, self.inputs, self.upstream)
        )
        return f"{self.kind}({constructor}), forward({inputs}), backward({upstream})"

    def arguments(self) -> tuple[str, ...]:
        """The names of everything that an answer gets."""
        return (*self.constructor, *self.inputs, *self.upstream)

    def draw(self, seed: int) -> list[Trial]:
        """The trials for a seed, with the right results."""
        trials = self.trials(np.random.default_rng(seed))
        for trial in trials:
            trial.n = len(getattr(trial, self.inputs[0]))
            trial.right = self.solve(trial)
        return trials

    def run(self, module: ModuleType, trial: Trial) -> Ran:
        """What the answer in a module gives. Exceptions of the answer are passed on."""
        given = self._given(trial)
        layer = self._make(module, given)
        output = copy.deepcopy(layer.forward(*(given[name] for name in self.inputs)))
        found, again = (self._backward(layer, given) for _ in range(2))
        changed = [
            name
            for name, value in given.items()
            if isinstance(value, np.ndarray) and not np.array_equal(value, getattr(trial, name))
        ]
        return Ran({self.output: output} | found, again, changed)

    def slope(self, module: ModuleType, trial: Trial, gradient: str, index: tuple[int, ...]) -> float:
        """The central difference of the loss, or of the sum of y dy, for one number, from the answer's own forward."""
        name = gradient.removeprefix("d")
        sums = []
        for step in (_EPSILON, -_EPSILON):
            moved = getattr(trial, name).copy()
            moved[index] += step
            given = self._given(trial) | {name: moved}
            output = self._make(module, given).forward(*(given[name] for name in self.inputs))
            sums.append(float(np.vdot(output, getattr(trial, "dy", 1.0))))
        return (sums[0] - sums[1]) / (2 * _EPSILON)

    def place(self, tensor: str, index: tuple[int, ...]) -> str:
        """The name of one number in a result: "dW[1, 0]"."""
        return f"{tensor}[{', '.join(map(str, index))}]" if index else tensor

    def _given(self, trial: Trial) -> dict[str, Any]:
        return {name: copy.deepcopy(getattr(trial, name)) for name in self.arguments()}

    def _make(self, module: ModuleType, given: dict[str, Any]) -> Any:
        return getattr(module, self.kind)(**{name: given[name] for name in self.constructor})

    def _backward(self, layer: Any, given: dict[str, Any]) -> dict[str, Any]:
        returned, *set_by_it = self.gradients
        found = {returned: layer.backward(*(given[name] for name in self.upstream))}
        return copy.deepcopy(found | {name: getattr(layer, name, None) for name in set_by_it})


@dataclass(frozen=True, kw_only=True)
class StepExercise(Exercise):
    """A class that lacks its ``step(params, grads)``; its only result is params after each of several steps.

    A trial has ``params`` and ``gradients`` of shape (steps, size).
    """

    inputs: tuple[str, ...] = ("params",)
    upstream: tuple[str, ...] = ("gradients",)
    blank = "step"

    @property
    def output(self) -> str:
        return ""

    @property
    def gradients(self) -> list[str]:
        return list(self.formulas)

    def calls(self) -> str:
        return f"{self.kind}({', '.join(self.constructor)}), then step(params, grads) several times"

    def run(self, module: ModuleType, trial: Trial) -> Ran:
        given = self._given(trial)
        optimizer, params, path = self._make(module, given), given["params"], []
        for grads in given["gradients"]:
            optimizer.step(params, grads)
            path.append(params.copy())
        changed = [] if np.array_equal(given["gradients"], trial.gradients) else ["grads"]
        return Ran({"params": np.stack(path)}, {}, changed)

    def place(self, tensor: str, index: tuple[int, ...]) -> str:
        return f"{tensor}[{index[1]}] after step {index[0] + 1}"


def library_results(layer: Layer, trial: Trial, *params: str) -> dict[str, Array]:
    """What a library layer gives for ``trial.x`` and ``trial.dy``, with the trial's values of these params."""
    Sequential([layer], input_shape=trial.x.shape[1:], seed=0, dtype="float64")
    for name in params:
        setattr(layer, name, getattr(trial, name))
    y, dx = layer.forward(trial.x, training=True), layer.backward(trial.dy)
    assert dx is not None
    results = {"y": y, "dx": dx} | {f"d{name}": getattr(layer, f"d{name}") for name in params}
    return {name: np.array(array, order="C") for name, array in results.items()}
