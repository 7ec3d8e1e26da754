"""Activations: elementwise functions, and the two softmax layers.

At a kink the derivative is defined by convention: ReLU'(0) = 0 and LeakyReLU'(0) = negative_slope.
"""

from collections.abc import Callable

import numpy as np

from tinynet.engines.operation import operation
from tinynet.layers.base import Layer
from tinynet.support.checks import check_number
from tinynet.support.types import Array


class ReLU(Layer):
    """Rectified linear unit.

    Forward:   y = max(x, 0)
    Backward:  dx = dy where y > 0, else 0

    Shapes: x, y (n, ...)
    Cached for backward: y
    Source: Nair & Hinton 2010.
    """

    gives = "real numbers"
    cache_names = ("_y", "_zeros")
    _y: Array
    _zeros: Array

    def forward(self, x: Array, training: bool = False, bias: Array | None = None) -> Array:
        """y = max(x + bias, 0), where bias is that of a Dense layer before this one, which left it to be added here."""
        if not training:
            return rectify(x, bias, None, None)
        y = self._y = rectify(x, bias, self.buffer("y", x.shape, x.dtype, like=x), self._zeros_like)
        return y

    def backward(self, dy: Array) -> Array:
        y = self._y
        return rectify_backward(dy, y, self.buffer("dx", dy.shape, dy.dtype, like=dy), self.buffer)

    def _zeros_like(self, x: Array) -> Array:
        zeros: Array | None = self.__dict__.get("_zeros")
        if zeros is None or zeros.shape != x.shape or zeros.dtype != x.dtype:
            zeros = self._zeros = np.zeros_like(x)
        return zeros


@operation
def rectify(x: Array, bias: Array | None, out: Array | None, zeros: Callable[[Array], Array] | None) -> Array:
    """out = max(x + bias, 0), in a new array if out is None.

    Args: zeros: returns zeros like x; NumPy's maximum is three times as fast with an array as with the number 0.
    """
    if bias is not None:
        x = out = np.add(x, bias, out=out)
    y: Array = np.maximum(x, 0 if zeros is None else zeros(x), out=out)
    return y


@operation
def rectify_backward(dy: Array, y: Array, out: Array, buffer: Callable[..., Array]) -> Array:
    """out = dy where y > 0, else 0."""
    passes = np.greater(y, 0, out=buffer("passes", y.shape, np.bool_, like=y))
    return np.multiply(dy, passes, out=out)


class LeakyReLU(Layer):
    """Rectified linear unit with a small slope below zero.

    Forward:   y = x where x > 0, else negative_slope x
    Backward:  dx = dy where x > 0, else negative_slope dy

    Shapes: x, y (n, ...)
    Cached for backward: slope (n, ...), each element 1 or negative_slope
    Args: negative_slope: a non-negative number.
    Source: Maas, Hannun & Ng 2013.
    """

    gives = "real numbers"
    cache_names = ("_slope",)
    _slope: Array

    def __init__(self, negative_slope: float = 0.3) -> None:
        super().__init__()
        self.negative_slope = check_number("LeakyReLU negative_slope", negative_slope, 0, np.inf)

    def forward(self, x: Array, training: bool = False) -> Array:
        slope = np.where(x > 0, x.dtype.type(1), x.dtype.type(self.negative_slope))
        if training:
            self._slope = slope
        y: Array = np.multiply(x, slope, out=self.buffer("y", x.shape, x.dtype, like=x) if training else None)
        return y

    def backward(self, dy: Array) -> Array:
        return np.multiply(dy, self._slope, out=self.buffer("dx", dy.shape, dy.dtype, like=dy))


class Sigmoid(Layer):
    """Logistic sigmoid.

    Forward:   y = 1 / (1 + exp(-x))
    Backward:  dx = dy y (1 - y)

    Shapes: x, y (n, ...)
    Cached for backward: y
    Source: Cox 1958. For x far below 0, exp(-x) overflows to infinity, and y is correctly 0.
    """

    gives = "independent probabilities"
    cache_names = ("_y",)
    _y: Array

    def forward(self, x: Array, training: bool = False) -> Array:
        y = np.negative(x, out=self.buffer("y", x.shape, x.dtype, like=x) if training else None)
        with np.errstate(over="ignore"):
            np.exp(y, out=y)
        y += 1
        np.reciprocal(y, out=y)
        if training:
            self._y = y
        return y

    def backward(self, dy: Array) -> Array:
        y = self._y
        dx = np.subtract(1, y, out=self.buffer("dx", dy.shape, dy.dtype, like=dy))
        dx *= y
        dx *= dy
        return dx


class Tanh(Layer):
    """Hyperbolic tangent.

    Forward:   y = tanh(x)
    Backward:  dx = dy (1 - y^2)

    Shapes: x, y (n, ...)
    Cached for backward: y
    Source: LeCun, Bottou, Orr & Mueller 1998.
    """

    gives = "real numbers"
    cache_names = ("_y",)
    _y: Array

    def forward(self, x: Array, training: bool = False) -> Array:
        y = np.tanh(x, out=self.buffer("y", x.shape, x.dtype, like=x) if training else None)
        if training:
            self._y = y
        return y

    def backward(self, dy: Array) -> Array:
        y = self._y
        dx = np.multiply(y, y, out=self.buffer("dx", dy.shape, dy.dtype, like=dy))
        np.subtract(1, dx, out=dx)
        dx *= dy
        return dx


class Softmax(Layer):
    """Probabilities from logits, over the last axis.

    Forward:   y_i = exp(x_i) / sum_j exp(x_j)      (max x is subtracted first: same y, no overflow)
    Backward:  dx_i = y_i (dy_i - sum_j dy_j y_j)   (the Jacobian diag(y) - y y^T times dy)

    Shapes: x, y (n, ..., classes)
    Cached for backward: y
    Source: Bridle 1990. `Sequential` trains a final Softmax with `CrossEntropy` as `SoftmaxCrossEntropy`.
    """

    gives = "probabilities"
    cache_names = ("_y",)
    _y: Array

    def forward(self, x: Array, training: bool = False) -> Array:
        y = softmax(x)
        if training:
            self._y = y
        return y

    def backward(self, dy: Array) -> Array:
        y = self._y
        dx = dy - np.add.reduce(dy * y, axis=-1, keepdims=True)
        dx *= y
        return dx


class LogSoftmax(Layer):
    """Log-probabilities from logits, over the last axis.

    Forward:   y_i = x_i - log sum_j exp(x_j)
    Backward:  dx_i = dy_i - exp(y_i) sum_j dy_j

    Shapes: x, y (n, ..., classes)
    Cached for backward: y
    Source: the logarithm of `Softmax`, exact even where the probabilities would round to 0.
    """

    gives = "log-probabilities"
    cache_names = ("_y",)
    _y: Array

    def forward(self, x: Array, training: bool = False) -> Array:
        y = log_softmax(x)
        if training:
            self._y = y
        return y

    def backward(self, dy: Array) -> Array:
        dx = np.exp(self._y)
        dx *= np.add.reduce(dy, axis=-1, keepdims=True)
        return np.subtract(dy, dx, out=dx)


@operation
def softmax(x: Array) -> Array:
    """exp(x_i) / sum_j exp(x_j) over the last axis, as a new array."""
    y = x - np.maximum.reduce(x, axis=-1, keepdims=True)
    np.exp(y, out=y)
    y /= np.add.reduce(y, axis=-1, keepdims=True)
    return y


@operation
def log_softmax(x: Array) -> Array:
    """x_i - log sum_j exp(x_j) over the last axis, as a new array."""
    y = x - np.maximum.reduce(x, axis=-1, keepdims=True)
    y -= np.log(np.add.reduce(np.exp(y), axis=-1, keepdims=True))
    return y
