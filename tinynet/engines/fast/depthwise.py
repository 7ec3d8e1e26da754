"""Depthwise convolution over images (c, h, w n), each row flat. NumPy bodies: `tinynet.layers.depthwise`."""

from typing import Any

import numpy as np

from tinynet.engines.fast.arrays import dense
from tinynet.engines.fast.compile import kernel, loop, reordered
from tinynet.engines.fast.windows import flat, runs_under
from tinynet.support.types import Array


@loop
def depthwise(x: Array, W: Array, b: Array | None, windows: Any, y: Array, memory: Any) -> Any:
    if b is None:
        b = np.zeros(y.shape[:2], y.dtype)
    if not (_fit(x, W, windows, y) and dense(y, b) and b.size == len(y) * y.shape[1]):
        return NotImplemented
    down, across = windows
    place = x.shape[3], down.stride, down.before, runs_under(across)
    _depthwise(flat(x), W, b.reshape(y.shape[:2]), *place, flat(y))
    return None


@kernel
def _depthwise(x: Array, W: Array, b: Array, n: int, stride: int, before: int, runs: Array, y: Array) -> None:
    """y[c, m, i, j] = b[c, m] + sum over u, v of x[c, i s + u, j s + v] W[u, v, c, m]"""
    for c in range(len(y)):
        for m in range(y.shape[1]):
            for i in range(y.shape[2]):
                top, sums = i * stride - before, y[c, m, i]
                sums[:] = b[c, m]
                for u in range(max(0, -top), min(len(W), x.shape[1] - top)):
                    row = x[c, top + u]
                    for r in range(len(runs)):
                        w = W[u, runs[r, 0], c, m]
                        pixels, part = row[runs[r, 1] * n :], sums[runs[r, 2] * n :]
                        for k in range(runs[r, 3] * n):
                            part[k] += w * pixels[k]


@loop
def depthwise_dw(dy: Array, x: Array, windows: Any, dW: Array) -> Any:
    if not _fit(x, dW, windows, dy):
        return NotImplemented
    down, across = windows
    place = x.shape[3], down.stride, down.before, runs_under(across)
    _depthwise_dw(flat(dy), flat(x), *place, dW)
    return None


@reordered
def _depthwise_dw(dy: Array, x: Array, n: int, stride: int, before: int, runs: Array, dW: Array) -> None:
    """dW[u, v, c, m] = sum over i, j of x[c, i s + u, j s + v] dy[c, m, i, j]"""
    total = np.empty(dW.shape[:2])
    for c in range(len(dy)):
        for m in range(dy.shape[1]):
            total[:] = 0
            for i in range(dy.shape[2]):
                top, gradient = i * stride - before, dy[c, m, i]
                for u in range(max(0, -top), min(len(dW), x.shape[1] - top)):
                    row = x[c, top + u]
                    for r in range(len(runs)):
                        pixels, part = row[runs[r, 1] * n :], gradient[runs[r, 2] * n :]
                        product = 0.0
                        for k in range(runs[r, 3] * n):
                            product += pixels[k] * part[k]
                        total[u, runs[r, 0]] += product
            dW[:, :, c, m] = total


@loop
def depthwise_dx(dy: Array, W: Array, windows: Any, dx: Array, memory: Any) -> Any:
    if not _fit(dx, W, windows, dy):
        return NotImplemented
    down, across = windows
    place = dx.shape[3], down.stride, down.before, runs_under(across)
    _depthwise_dx(flat(dy), W, *place, flat(dx))
    return None


@kernel
def _depthwise_dx(dy: Array, W: Array, n: int, stride: int, before: int, runs: Array, dx: Array) -> None:
    """dx[c, i s + u, j s + v] = sum over i, u, j, v that give this pixel, and m, of dy[c, m, i, j] W[u, v, c, m]"""
    for c in range(len(dx)):
        dx[c] = 0
        for m in range(dy.shape[1]):
            for i in range(dy.shape[2]):
                top, gradient = i * stride - before, dy[c, m, i]
                for u in range(max(0, -top), min(len(W), dx.shape[1] - top)):
                    row = dx[c, top + u]
                    for r in range(len(runs)):
                        w = W[u, runs[r, 0], c, m]
                        pixels, part = row[runs[r, 1] * n :], gradient[runs[r, 2] * n :]
                        for k in range(runs[r, 3] * n):
                            pixels[k] += w * part[k]


def _fit(x: Array, W: Array, windows: Any, y: Array) -> bool:
    """Whether the shapes of images, kernels and outputs belong together, or those of their gradients."""
    (down, across), (c, n), multiplier = windows, (len(x), x.shape[3]), W.shape[3]
    return (
        x.shape == (c, down.pixels, across.pixels, n)
        and W.shape == (down.size, across.size, c, multiplier)
        and y.shape == (c, multiplier, down.outputs, across.outputs, n)
        and dense(x, W, y)
    )
