"""The function that a gradient check differentiates: a network as one number, depending on each parameter and on x."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinynet.engines.devices import device_of, to_host
from tinynet.engines.operation import loops
from tinynet.layers import Layer
from tinynet.layers.chain import walk
from tinynet.losses import Loss
from tinynet.model.sequential import Sequential
from tinynet.study.gradients.kinks import crossed, kink_pattern
from tinynet.support import random
from tinynet.support.checks import batch_shape
from tinynet.support.types import Array


class Slope(NamedTuple):
    """A central difference."""

    value: float
    crossed: bool  # whether it crossed a kink; also False if kinks were not watched


class Objective:
    """f, a model's loss on a batch or its outputs times a fixed random cotangent, and f's gradient by backward.

    It is computed on a float64 copy in training mode, with one fixed dropout step and, unless told otherwise, with
    biases, gammas and betas moved off their initial values; the arguments stay unchanged. For a model on the GPU, it is
    computed there.

    Args: as `gradcheck`; rng: draws the cotangent.
    Raises: ValueError, TypeError: for arguments that don't fit together.
    """

    tensors: dict[str, Array]
    """Every trainable parameter and x by name: "2.W", "x". Change them in place to change f."""

    analytic: dict[str, Array]
    """The gradient from backward for each of them."""

    base: float
    """f at the unchanged tensors."""

    def __init__(
        self,
        model_or_layer: Sequential | Layer,
        x: Any,
        y: Any,
        loss: Loss | None,
        seed: int,
        rng: np.random.Generator,
        move_biases: bool = True,
    ) -> None:
        if (y is None) != (loss is None):
            raise ValueError("expected both y and loss, or neither")
        if not isinstance(model_or_layer, (Sequential, Layer)):
            raise TypeError(f"gradcheck: expected a Sequential or a Layer object, got {model_or_layer!r}")
        self._x = np.array(to_host(x), np.float64)
        self.model = _float64_copy(model_or_layer, self._x, seed)
        if move_biases:
            _leave_initial_values(self.model)
        self._host: Sequential = self.model.device.on_host(self.model)  # holds the tensors that change
        if self._x.shape[1:] != self.model.input_shape:
            raise ValueError(f"x: expected shape {batch_shape(self.model.input_shape)}, got {self._x.shape}")
        self._of_outputs, self._gradient_of_outputs = _scalar(self._outputs(), y, copy.copy(loss), rng)
        self._state = [(array, array.copy()) for array in self.model.named_state().values()]

        self.base = self.f()
        self._pattern = kink_pattern(self.model)
        dx = _backward(self.model, self._gradient_of_outputs(self._outputs()))
        self.analytic = {
            name: np.array(to_host(array))
            for name, array in self.model.named_grads().items()
            if _is_trained(self.model, name)
        }
        self.tensors = {
            name: array for name, array in self._host.named_params().items() if name in self.analytic
        }
        self.analytic["x"], self.tensors["x"] = np.array(to_host(dx)), self._x

    def f(self) -> float:
        """f at the tensors' current values."""
        result = self._of_outputs(self._outputs())
        for array, before in self._state:  # every forward moves the running statistics
            array[...] = before
        return result

    def slope(self, tensor: Array, index: tuple[int, ...], step: float, watch_kinks: bool = False) -> Slope:
        """(f(p + step) - f(p - step)) / (2 step) for one element p of a tensor, which is restored afterwards."""
        value = tensor[index]
        ends, is_across = [], False
        for end in (value + step, value - step):
            tensor[index] = end
            ends.append(self.f())
            if watch_kinks and self._pattern:
                is_across |= crossed(self._pattern, kink_pattern(self.model))
        tensor[index] = value
        return Slope((ends[0] - ends[1]) / (2 * step), is_across)

    def scale(self, name: str) -> float:
        """The size of a tensor's numbers, their root mean square but at least 1; steps are in proportion to it.

        A step of 1e-6 suits weights, but for pixels from 0 to 255 it is so small that little but rounding is left.
        """
        tensor = self.tensors[name]
        return max(1.0, float(np.sqrt(np.mean(np.square(tensor))))) if tensor.size else 1.0

    def rounding(self, epsilon: float) -> float:
        """How much rounding can move a slope: f is known to about 1e-16 |f|, so the slope to that over epsilon."""
        return float(4 * np.finfo(np.float64).eps * abs(self.base) / epsilon)

    def analytic_without_dx(self) -> dict[str, Array]:
        """The parameters' gradients when the first layer's dx is not needed, as in training."""
        dy = self._gradient_of_outputs(self._outputs())
        self.model.grads.fill(np.nan)
        self.model.backward(dy)
        gradients = self.model.named_grads().items()
        return {name: to_host(array) for name, array in gradients if name in self.analytic}

    def _outputs(self) -> Array:
        """The outputs in training mode, with one fixed dropout step. Without the fused head, which has its own test."""
        x, device = self._x, self.model.device
        if self._host is not self.model:
            x, self.model.params[...] = device.asarray(x), device.asarray(self._host.params)
        for layer in self.model.layers:
            x = layer.forward(x, training=True)
        return x


def _float64_copy(model_or_layer: Sequential | Layer, x: Array, seed: int) -> Sequential:
    if isinstance(model_or_layer, Sequential):
        return model_or_layer.copy("float64")
    layer = copy.deepcopy(model_or_layer)
    values = {
        f"{path}.{name}": to_host(getattr(inner, name))
        for path, inner in (walk([layer]) if layer.output_shape is not None else ())
        for name in (*inner.param_specs, *inner.state_names)
    }
    layer.unbuild()
    device = model_or_layer.device.name
    model = Sequential([layer], input_shape=x.shape[1:], seed=0, dtype="float64")
    for name, value in values.items():
        model.named_weights()[name][...] = value
    if not values:
        # Initial values hide mistakes: a backward may leave out a gamma of 1 or a bias of 0.
        rng = random.generator(seed, random.GRADIENT_CHECK, 1)
        for array in model.named_weights().values():
            array += rng.uniform(0.1, 0.6, array.shape)
    return model.to(device)


def _leave_initial_values(model: Sequential) -> None:
    """Move biases, gammas and betas that are 0 or 1 a little, each by its own random number.

    There they hide mistakes: a backward that leaves them out would pass. And with a bias of 0, a black background is
    exactly on ReLU's kink.
    """
    vectors = model.params[model.decay_size :]  # the parameters without weight decay
    moves = random.generator(model.seed, random.GRADIENT_CHECK, 2).uniform(-0.1, 0.1, vectors.shape)
    vectors += model.device.asarray(np.where(np.isin(to_host(vectors), (0, 1)), moves, 0))


def _is_trained(model: Sequential, path: str) -> bool:
    return dict(model.walk())[path.rpartition(".")[0]].trainable


def _backward(model: Sequential, dy: Array) -> Array:
    for _, layer in model.walk():
        layer.needs_input_grad = True
    for index, layer in reversed(list(enumerate(model.layers))):
        if not loops.get():  # which take no read-only arrays
            device_of(dy).protect(dy)  # makes a backward that writes into dy fail
        dx = layer.backward(dy)
        if dx is None:
            raise ValueError(
                f"layer {index} ({type(layer).__name__}): its backward returned None; expected dx, the gradient of x"
            )
        dy = dx.view()
    return dy


def _scalar(
    outputs: Array, y: Any, loss: Loss | None, rng: np.random.Generator
) -> tuple[Callable[[Array], float], Callable[[Array], Array]]:
    """f as a function of the outputs, and its gradient with respect to them."""
    if loss is None:
        cotangent = rng.standard_normal(outputs.shape)
        return (
            lambda out: float(np.vdot(to_host(out), cotangent)),
            lambda out: device_of(out).asarray(cotangent.copy()),
        )

    def gradient(out: Array) -> Array:
        loss.forward(out, y)
        return loss.backward()

    return lambda out: float(loss.forward(out, y)), gradient
