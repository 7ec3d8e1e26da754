"""Residual: layers whose output is added to their input."""

from typing import Any

import numpy as np

from tinynet.checks import batch_shape
from tinynet.layers.base import Layer
from tinynet.layers.chain import backward_through, forward_through
from tinynet.types import Array, Shape


class Residual(Layer):
    """A block of layers with a shortcut around it.

    Forward:   y = p(x) + f(x)      f: the layers in sequence; p: the projection; without one, y = x + f(x)
    Backward:  dx = p'(dy) + f'(dy)      where f'(dy) is what f's backward returns

    Shapes: x (n, ...)  y (n, ...), the shape that both f and p must give
    Cached for backward: nothing of its own
    Args:
        layers: `Layer` objects. In a `Sequential`, their parameters are named "5.0.W" for the first, and so on.
        projection: a layer that brings x to the shape of f(x), such as ``Conv2D(64, 1, strides=2)``.
    Raises: ValueError: if a layer can't take its input, or the two shapes differ.
    Source: He, Zhang, Ren & Sun 2016.
    """

    def __init__(self, *layers: Layer, projection: Layer | None = None) -> None:
        super().__init__()
        for layer in (*layers, *([] if projection is None else [projection])):
            if not isinstance(layer, Layer):
                raise TypeError(f"Residual: expected Layer objects such as Conv2D(64, 3), got {layer!r}")
        if not layers:
            raise ValueError("Residual: expected at least one layer, got none")
        self.layers = layers
        self.projection = projection
        self.children = layers if projection is None else (*layers, projection)

    def build(self, input_shape: Shape) -> Shape:
        shape, cut = input_shape, input_shape
        built: list[Layer] = []
        try:
            for index, layer in enumerate(self.layers):
                shape = _set_up(f"layer {index}", layer, shape, self.dtype)
                built.append(layer)
            if self.projection is not None:
                cut = _set_up("projection", self.projection, input_shape, self.dtype)
                built.append(self.projection)
            if cut != shape:
                raise ValueError(
                    f"its layers give {batch_shape(shape)} and the shortcut {batch_shape(cut)}, which can't be added; "
                    "give padding='same' to the convolutions, or projection=Conv2D(...)"
                )
        except Exception:
            for layer in built:
                layer.unbuild()  # so that they can be used again
            raise
        return shape

    def forward(self, x: Array, training: bool = False) -> Array:
        y = forward_through(self.layers, x, training)
        cut = x if self.projection is None else self.projection.forward(x, training)
        return np.add(cut, y, out=self.buffer("y", y.shape, y.dtype, like=y) if training else None)

    def backward(self, dy: Array) -> Array | None:
        through = backward_through(self.layers, dy, self.needs_input_grad)
        cut: Array | None = dy
        if self.projection is not None:
            cut = backward_through((self.projection,), dy, self.needs_input_grad)
        if through is None or cut is None:
            return None
        return np.add(cut, through, out=self.buffer("dx", through.shape, through.dtype, like=through))


def _set_up(name: str, layer: Layer, shape: Shape, dtype: Any) -> Shape:
    try:
        return layer.setup(shape, dtype)
    except ValueError as error:
        raise ValueError(f"{name} ({type(layer).__name__}): {error}") from None
