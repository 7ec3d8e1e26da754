"""Flatten: images to vectors."""

import math

from tinynet.layers.base import Layer
from tinynet.types import Array, Shape


class Flatten(Layer):
    """Each example as one vector.

    Forward:   y = x, reshaped
    Backward:  dx = dy, reshaped back

    Shapes: x (n, ...)  y (n, product of the other axes)
    Cached for backward: the shape of x
    """

    _x_shape: Shape | None = None

    def build(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def forward(self, x: Array, training: bool = False) -> Array:
        if training:
            self._x_shape = x.shape
        return x.reshape(len(x), math.prod(x.shape[1:]))

    def backward(self, dy: Array) -> Array:
        return dy.reshape(self.cached(self._x_shape))
