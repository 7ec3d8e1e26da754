"""Rescale: brings pixels to numbers near one."""

import numpy as np

from tinynet.layers.base import Layer
from tinynet.support.checks import check_number
from tinynet.support.types import Array


class Rescale(Layer):
    """A fixed scale and offset; as a layer, they apply in training and prediction alike.

    Forward:   y = scale x + offset
    Backward:  dx = scale dy

    Shapes: x, y (n, ...)
    Cached for backward: nothing
    Args: scale, offset: numbers; `Rescale(1/255)` maps bytes to 0..1.
    """

    gives = "real numbers"

    def __init__(self, scale: float, offset: float = 0.0) -> None:
        super().__init__()
        self.scale = check_number("Rescale scale", scale, -np.inf, np.inf)
        self.offset = check_number("Rescale offset", offset, -np.inf, np.inf)

    def forward(self, x: Array, training: bool = False) -> Array:
        y = np.multiply(x, self.scale, out=self.buffer("y", x.shape, x.dtype, like=x) if training else None)
        if self.offset:
            y += self.offset
        return y

    def backward(self, dy: Array) -> Array:
        return np.multiply(dy, self.scale, out=self.buffer("dx", dy.shape, dy.dtype, like=dy))
