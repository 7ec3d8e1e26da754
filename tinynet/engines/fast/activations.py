"""ReLU and log-softmax. NumPy bodies: `tinynet.layers.activations`."""

import math
from typing import Any

import numpy as np

from tinynet.engines.fast.arrays import alike, dense, vectors
from tinynet.engines.fast.compile import kernel, loop
from tinynet.support.types import Array


@loop
def rectify(x: Array, bias: Array | None, out: Array | None, zeros: Any) -> Any:
    y = np.empty_like(x) if out is None else out
    if bias is None and alike(x, y):
        _rectify(x.reshape(-1), y.reshape(-1))
    elif bias is not None and x.ndim == 2 and alike(x, y) and vectors(x, bias):
        _rectify_biased(x, bias, y)
    else:
        return NotImplemented
    return y


@kernel
def _rectify(x: Array, y: Array) -> None:
    """y = max(x, 0); NaN stays."""
    for i in range(x.size):
        y[i] = 0 if x[i] <= 0 else x[i]


@kernel
def _rectify_biased(x: Array, bias: Array, y: Array) -> None:
    """y = max(x + bias, 0), for rows (n, features)."""
    for n in range(len(x)):
        for j in range(x.shape[1]):
            z = x[n, j] + bias[j]
            y[n, j] = 0 if z <= 0 else z


@loop
def rectify_backward(dy: Array, y: Array, out: Array, buffer: Any) -> Any:
    if not alike(dy, y, out):
        return NotImplemented
    _rectify_backward(dy.reshape(-1), y.reshape(-1), out.reshape(-1))
    return out


@kernel
def _rectify_backward(dy: Array, y: Array, dx: Array) -> None:
    """dx = dy where y > 0, else 0; where dy is NaN or infinite, so is dx, as in NumPy's product."""
    for i in range(dy.size):
        dx[i] = dy[i] * (y[i] > 0)


@loop
def log_softmax(x: Array) -> Any:
    if x.ndim != 2 or not x.shape[1] or not dense(x):
        return NotImplemented
    y = np.empty_like(x)
    _log_softmax(x, y)
    return y


@kernel
def _log_softmax(x: Array, y: Array) -> None:
    """y_i = x_i - log sum_j exp(x_j)"""
    for n in range(len(x)):
        largest = x[n, 0]
        for j in range(1, x.shape[1]):
            largest = x[n, j] if x[n, j] > largest else largest  # a NaN makes the sum below NaN
        total = 0.0
        for j in range(x.shape[1]):
            y[n, j] = x[n, j] - largest
            total += math.exp(y[n, j])
        logarithm = math.log(total)
        for j in range(x.shape[1]):
            y[n, j] -= logarithm
