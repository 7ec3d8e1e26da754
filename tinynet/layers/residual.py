"""Residual: layers whose output is added to their input."""

import numpy as np

from tinynet.layers.base import Layer
from tinynet.layers.chain import backward_through, forward_through, set_up
from tinynet.support.checks import batch_shape
from tinynet.support.types import Array, Shape


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

    gives = "real numbers"

    def __init__(self, *layers: Layer, projection: Layer | None = None) -> None:
        super().__init__()
        self.layers = layers
        self.projection = projection
        self.children = (*layers, *self._short_cut)
        for layer in self.children:
            if not isinstance(layer, Layer):
                raise TypeError(f"Residual: expected Layer objects such as Conv2D(64, 3), got {layer!r}")
        if not layers:
            raise ValueError("Residual: expected at least one layer, got none")

    def build(self, input_shape: Shape) -> Shape:
        shape, built = set_up(self.layers, input_shape, self.dtype), self.layers
        try:
            cut, built = set_up(self._short_cut, input_shape, self.dtype, "projection"), self.children
            if cut != shape:
                raise ValueError(
                    f"its layers give {batch_shape(shape)} and the shortcut {batch_shape(cut)}, which can't be added; "
                    "give padding='same' to the convolutions, or projection=Conv2D(...)"
                )
        except BaseException:
            for layer in built:
                layer.unbuild()  # so that they can be used again
            raise
        return shape

    def forward(self, x: Array, training: bool = False) -> Array:
        y = forward_through(self.layers, x, training)
        cut = forward_through(self._short_cut, x, training)
        return np.add(cut, y, out=self.buffer("y", y.shape, y.dtype, like=y) if training else None)

    def backward(self, dy: Array) -> Array | None:
        through = backward_through(self.layers, dy, self.needs_input_grad)
        cut = backward_through(self._short_cut, dy, self.needs_input_grad)
        if through is None or cut is None:
            return None
        return np.add(cut, through, out=self.buffer("dx", through.shape, through.dtype, like=through))

    @property
    def _short_cut(self) -> tuple[Layer, ...]:
        return () if self.projection is None else (self.projection,)
