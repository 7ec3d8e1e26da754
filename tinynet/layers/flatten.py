"""Flatten and Reshape: the same numbers in another shape."""

import math
from collections.abc import Sequence

import numpy as np

from tinynet.layers.base import AS_ITS_INPUT, Layer
from tinynet.support.checks import batch_shape, check_shape
from tinynet.support.types import Array, Shape


class Flatten(Layer):
    """Flattens each example into one vector.

    Forward:   y = x, reshaped
    Backward:  dx = dy, reshaped back

    Shapes: x (n, ...)  y (n, product of the other axes)
    Cached for backward: the shape of x
    """

    gives = AS_ITS_INPUT
    cache_names = ("_x_shape",)
    _x_shape: Shape

    def build(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def forward(self, x: Array, training: bool = False) -> Array:
        if training:
            self._x_shape = x.shape
        if x.flags.c_contiguous:
            return x.reshape(len(x), math.prod(x.shape[1:]))
        # Images from a convolution have the batch innermost in memory. If it stays there, the copy moves long runs.
        y = self.memory(x.dtype, training)("y", (math.prod(x.shape[1:]), len(x)))
        np.copyto(y.reshape(*x.shape[1:], len(x)), np.moveaxis(x, 0, -1))
        return y.T

    def backward(self, dy: Array) -> Array:
        return dy.reshape(self._x_shape)


class Reshape(Layer):
    """Reshapes each example: ``Reshape((28, 28, 1))`` turns a 28 x 28 array into an image with one channel.

    Forward:   y = x, reshaped
    Backward:  dx = dy, reshaped back

    Shapes: x (n, ...)  y (n, *target_shape)
    Cached for backward: the shape of x
    Args: target_shape: positive ints whose product is the number of elements in an example.
    Raises: ValueError: if the numbers of elements differ.
    """

    gives = AS_ITS_INPUT
    cache_names = ("_x_shape",)
    _x_shape: Shape

    def __init__(self, target_shape: Sequence[int]) -> None:
        super().__init__()
        self.target_shape = check_shape("Reshape target_shape", target_shape)

    def build(self, input_shape: Shape) -> Shape:
        if math.prod(input_shape) != math.prod(self.target_shape):
            raise ValueError(
                f"expected an input with {math.prod(self.target_shape)} elements, as {batch_shape(self.target_shape)} "
                f"has; got {batch_shape(input_shape)}, with {math.prod(input_shape)}"
            )
        return self.target_shape

    def forward(self, x: Array, training: bool = False) -> Array:
        if training:
            self._x_shape = x.shape
        return x.reshape(len(x), *self.target_shape)

    def backward(self, dy: Array) -> Array:
        return dy.reshape(self._x_shape)
