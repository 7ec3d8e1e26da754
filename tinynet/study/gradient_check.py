"""The gradient check: every backward against the slope that forward shows.

In float64, for each element p of each parameter and of the input, the central difference
(f(p + epsilon) - f(p - epsilon)) / (2 epsilon) is compared with the gradient that backward gives. f is a loss, or the
sum of the outputs times a fixed random cotangent. A cotangent of ones, as it is often used, would be blind: softmax
and batch-norm have outputs whose sum does not depend on the input at all, so a backward of zeros would pass.
"""

import copy
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinynet import random
from tinynet.checks import batch_shape
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.model import Sequential
from tinynet.parameters import walk
from tinynet.types import Array, Shape


class TensorCheck(NamedTuple):
    """The comparison of one tensor."""

    name: str  # "2.W", or "x"
    shape: Shape
    compared: int  # elements
    max_error: float  # largest |numeric - analytic|
    max_relative_error: float  # largest |numeric - analytic| / (|numeric| + |analytic|), above atol only
    worst_index: tuple[int, ...]
    worst_numeric: float
    worst_analytic: float
    ok: bool


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
        """The report itself; raises AssertionError, with the table, if a gradient is wrong."""
        if not self.ok:
            raise AssertionError(f"a gradient is wrong:\n{self}")
        return self

    def __str__(self) -> str:
        lines = [
            f"gradient check in float64: central differences, epsilon {self.epsilon:g}, "
            f"rtol {self.rtol:g}, atol {self.atol:g}",
            f"{'tensor':<14}{'shape':<18}{'compared':>9}{'max error':>12}{'relative':>11}  verdict",
        ]
        for tensor in self.tensors:
            verdict = "ok" if tensor.ok else "WRONG"
            if not tensor.ok and tensor.compared:
                verdict += (
                    f" at {tensor.worst_index}: numeric {tensor.worst_numeric:.6g}, "
                    f"analytic {tensor.worst_analytic:.6g}"
                )
            lines.append(
                f"{tensor.name:<14}{tensor.shape!s:<18}{tensor.compared:>9,}{tensor.max_error:>12.2e}"
                f"{tensor.max_relative_error:>11.2e}  {verdict}"
            )
        return "\n".join(lines)


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
) -> GradientReport:
    """Compare analytic with numeric gradients, for every parameter and for dx.

    The check runs on a float64 copy, in training mode; what is handed in stays as it is. An element agrees when
    |numeric - analytic| <= atol + rtol max(|numeric|, |analytic|), where atol grows with the size of f, as
    the rounding of f does.

    Args:
        model_or_layer: a `Sequential`, or a `Layer`, built or not.
        x: inputs (n, ...). For layers with kinks (ReLU, max-pool) keep them away from the kinks by more than epsilon.
        y, loss: targets and a `Loss` to differentiate; without them, outputs times a random cotangent.
        max_elements: how many elements per tensor to compare, drawn by ``seed``; None compares all.
        seed: also draws the cotangent.
    Returns: a check per tensor, and one more for each gradient that changes when the first layer's dx is not asked for.
    Raises: ValueError: if only one of y and loss is given, or x does not fit.
    """
    if (y is None) != (loss is None):
        raise ValueError("give both y and loss, or neither")
    if not isinstance(model_or_layer, (Sequential, Layer)):
        raise TypeError(f"gradcheck: expected a Sequential or a Layer object, got {model_or_layer!r}")
    if not epsilon > 0:
        raise ValueError(f"epsilon: expected a number above 0, got {epsilon!r}")
    x = np.array(x, np.float64)
    model = _float64_copy(model_or_layer, x, seed)
    if x.shape[1:] != model.input_shape:
        raise ValueError(f"x: expected shape {batch_shape(model.input_shape)}, got {x.shape}")
    # A stream of its own: were the cotangent the very numbers that the caller drew x from, x^T dy would be symmetric
    # and a transposed gradient would pass.
    rng = random.generator(seed, random.GRADIENT_CHECK)
    loss = copy.copy(loss)

    def outputs() -> Array:
        return _forward(model, x)

    value, gradient_of_outputs = _objective(outputs(), y, loss, rng)
    state = {name: array.copy() for name, array in model.named_state().items()}

    def f() -> float:
        result = value(outputs())
        for name, array in model.named_state().items():  # running statistics move in every forward
            array[...] = state[name]
        return result

    base = f()
    dx = _backward(model, gradient_of_outputs(outputs()))
    analytic = {name: array.copy() for name, array in model.named_grads().items() if _is_trained(model, name)}
    analytic["x"] = dx.copy()
    failed = _without_input_gradient(model, gradient_of_outputs(outputs()), analytic)
    tensors = {name: array for name, array in model.named_params().items() if name in analytic} | {"x": x}
    # f is known to about 1e-16 |f|, so the difference to about 1e-16 |f| / epsilon.
    floor = atol + 4 * np.finfo(np.float64).eps * abs(base) / epsilon
    checks = [
        _compare(name, tensor, analytic[name], f, epsilon, rtol, floor, max_elements, rng)
        for name, tensor in tensors.items()
    ]
    return GradientReport(checks + failed, epsilon, rtol, atol)


def _float64_copy(model_or_layer: Sequential | Layer, x: Array, seed: int) -> Sequential:
    if isinstance(model_or_layer, Sequential):
        return model_or_layer.copy("float64")
    layer = copy.deepcopy(model_or_layer)
    values = {
        f"{path}.{name}": getattr(inner, name)
        for path, inner in (walk([layer]) if layer.output_shape is not None else ())
        for name in (*inner.param_specs, *inner.state_names)
    }
    layer.unbuild()
    model = Sequential([layer], input_shape=x.shape[1:], seed=0, dtype="float64")
    for name, value in values.items():
        model.named_weights()[name][...] = value
    if not values:
        # At their initial values parameters hide mistakes: a gamma of 1 may be left out, a bias of 0 too.
        rng = random.generator(seed, random.GRADIENT_CHECK, 1)
        for array in model.named_weights().values():
            array += rng.uniform(0.1, 0.6, array.shape)
    return model


def _is_trained(model: Sequential, path: str) -> bool:
    return dict(model.walk())[path.rpartition(".")[0]].trainable


def _forward(model: Sequential, x: Array) -> Array:
    """Every layer in training mode, at one step of dropout; not the fused head, which has a test of its own."""
    for layer in model.layers:
        x = layer.forward(x, training=True)
    return x


def _backward(model: Sequential, dy: Array) -> Array:
    for _, layer in model.walk():
        layer.needs_input_grad = True
    for index, layer in reversed(list(enumerate(model.layers))):
        dy.flags.writeable = False  # a backward that writes into dy is found out
        dx = layer.backward(dy)
        if dx is None:
            raise ValueError(
                f"layer {index} ({type(layer).__name__}): its backward returned None where dx is needed"
            )
        dy = dx.view()
    return dy


def _without_input_gradient(model: Sequential, dy: Array, expected: dict[str, Array]) -> list[TensorCheck]:
    """A failed check for each gradient that differs where the first layer's dx is not asked for, as in training."""
    model.grads.fill(np.nan)
    model.backward(dy)
    failed = []
    for name, found in model.named_grads().items():
        if name in expected and not np.array_equal(found, expected[name]):
            error = np.abs(found - expected[name])
            worst = tuple(map(int, np.unravel_index(np.argmax(error), error.shape)))
            numbers = float(error[worst]), np.inf, worst, float(expected[name][worst]), float(found[worst])
            failed.append(TensorCheck(f"{name}, no dx", found.shape, found.size, *numbers, False))
    return failed


def _objective(
    outputs: Array, y: Any, loss: Loss | None, rng: np.random.Generator
) -> tuple[Callable[[Array], float], Callable[[Array], Array]]:
    """The number to differentiate as a function of the outputs, and its gradient with respect to them."""
    if loss is None:
        cotangent = rng.standard_normal(outputs.shape)
        return lambda out: float(np.vdot(out, cotangent)), lambda out: cotangent.copy()

    def gradient(out: Array) -> Array:
        loss.forward(out, y)
        return loss.backward()

    return lambda out: loss.forward(out, y), gradient


def _compare(
    name: str,
    tensor: Array,
    analytic: Array,
    f: Callable[[], float],
    epsilon: float,
    rtol: float,
    atol: float,
    max_elements: int | None,
    rng: np.random.Generator,
) -> TensorCheck:
    indices = list(itertools.product(*map(range, tensor.shape)))
    if max_elements is not None and len(indices) > max_elements:
        indices = [indices[i] for i in sorted(rng.choice(len(indices), max_elements, replace=False))]
    if not indices or analytic.shape != tensor.shape:
        return TensorCheck(name, tensor.shape, 0, np.inf, np.inf, (), np.nan, np.nan, False)
    numeric = np.array([_slope(tensor, index, f, epsilon) for index in indices])
    found = np.array([analytic[index] for index in indices])
    error = np.abs(numeric - found)
    size = np.maximum(np.abs(numeric), np.abs(found))
    excess = error - (atol + rtol * size)
    excess[~np.isfinite(error)] = np.inf
    worst = int(np.argmax(excess))
    relative = np.where(error > atol, error / np.maximum(np.abs(numeric) + np.abs(found), 1e-300), 0.0)
    return TensorCheck(
        name,
        tensor.shape,
        len(indices),
        float(error.max()),
        float(relative.max()),
        indices[worst],
        float(numeric[worst]),
        float(found[worst]),
        bool(excess[worst] <= 0),
    )


def _slope(tensor: Array, index: tuple[int, ...], f: Callable[[], float], epsilon: float) -> float:
    """The central difference of f in one element, which is put back afterwards."""
    value = tensor[index]
    tensor[index] = value + epsilon
    above = f()
    tensor[index] = value - epsilon
    below = f()
    tensor[index] = value
    return (above - below) / (2 * epsilon)
