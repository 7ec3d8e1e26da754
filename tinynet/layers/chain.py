"""A sequence of layers: building it, and the two passes through it."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

from tinynet.layers.activations import ReLU
from tinynet.layers.base import Layer
from tinynet.layers.dense import Dense
from tinynet.layers.pooling import MaxPool2D
from tinynet.support.types import Array, Shape


def walk(layers: Sequence[Layer], prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """Every layer with its path, layers inside layers included: ``("0", ...), ("5", ...), ("5.1", ...)``."""
    for index, layer in enumerate(layers):
        yield f"{prefix}{index}", layer
        yield from walk(layer.children, f"{prefix}{index}.")


def set_up(layers: Sequence[Layer], shape: Shape, dtype: Any, name: str = "layer {}") -> Shape:
    """Build the layers, each for the output of the one before it, and return the last one's output shape.

    Raises: ValueError: naming the layer that can't take its input; all layers stay usable.
    """
    for index, layer in enumerate(layers):
        try:
            shape = layer.setup(shape, dtype)
        except BaseException as error:  # Ctrl-C too
            for built in layers[:index]:
                built.unbuild()
            if not isinstance(error, ValueError):
                raise
            raise ValueError(f"{name.format(index)} ({type(layer).__name__}): {error}") from None
    return shape


class Watcher(Protocol):
    """Runs the passes in place of the functions below, as `tinynet.study.trace` does to keep every array."""

    def forward(self, layers: Sequence[Layer], x: Array, training: bool) -> Array: ...

    def backward(self, layers: Sequence[Layer], dy: Array) -> Array | None: ...


watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


def forward_through(layers: Sequence[Layer], x: Array, training: bool) -> Array:
    """The last layer's y. Dense or MaxPool2D and a ReLU after it are computed together, in one pass over memory."""
    watching = watcher.get()
    if watching is not None:
        return watching.forward(layers, x, training)
    done = False
    for layer, following in itertools.zip_longest(layers, layers[1:]):
        if done:
            done = False
        elif type(following) is ReLU and type(layer) in _WITH_RELU:
            x, done = _WITH_RELU[type(layer)](layer, following, x, training), True
        else:
            x = layer.forward(x, training)
    return x


def _dense_and_relu(dense: Dense, relu: ReLU, x: Array, training: bool) -> Array:
    x = dense.forward(x, training, add_bias=False)
    return relu.forward(x, training, dense.b if dense.use_bias else None)


def _pool_and_relu(pool: MaxPool2D, relu: ReLU, x: Array, training: bool) -> Array:
    y = pool.forward(x, training, rectify=True)
    if training:
        relu._y = y  # if someone calls its backward
    return y


_WITH_RELU: dict[type, Callable[..., Array]] = {Dense: _dense_and_relu, MaxPool2D: _pool_and_relu}


def backward_through(layers: Sequence[Layer], dy: Array, needs_input_grad: bool) -> Array | None:
    """Write every trainable parameter's gradient, and return the first layer's dx, or None if it is not needed."""
    first = plan_gradients(layers, needs_input_grad)
    gradient: Array | None = dy
    watching = watcher.get()
    if watching is not None:
        gradient = watching.backward(layers[first:], dy)
    else:
        for index in range(len(layers) - 1, first - 1, -1):
            assert gradient is not None
            if not (type(layers[index]) is ReLU and layers[index - 1].rectified):
                gradient = layers[index].backward(gradient)
    return gradient if needs_input_grad else None


def plan_gradients(layers: Sequence[Layer], needs_input_grad: bool) -> int:
    """Tell each layer whether its dx is needed, and return the index of the layer where the backward pass ends."""
    first = 0
    if not needs_input_grad:
        while first < len(layers) and not trains(layers[first]):
            first += 1
    for index, layer in enumerate(layers):
        needed = needs_input_grad or index != first
        if layer.needs_input_grad is not needed:  # setting a layer's attribute is slower than reading it
            layer.needs_input_grad = needed
    return first


def trains(layer: Layer) -> bool:
    """Whether the layer or one inside it has trainable parameters."""
    return bool(layer.trainable and layer.param_specs) or any(map(trains, layer.children))
