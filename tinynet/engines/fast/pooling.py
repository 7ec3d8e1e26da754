"""Max-pooling over images (c, h, w, n), with the ReLU after it. NumPy bodies: `tinynet.layers.pooling`.

Forward notes which pixel of each window is the largest, as a byte, so backward need not look for it.
"""

from typing import Any

import numpy as np

from tinynet.engines.fast.arrays import alike, dense
from tinynet.engines.fast.compile import kernel, loop
from tinynet.support.types import Array

Pair = tuple[int, int]  # down and across

_NONE = 255  # no pixel has won, as ReLU lets nothing through; a window has fewer


@loop
def max_pool(images: Array, windows: Any, y: Array, buffer: Any, rectify: bool) -> Any:
    if not _keeps_winners(windows, images, y):
        return NotImplemented
    winners = np.empty(y.shape, np.uint8) if buffer is None else buffer("winners", y.shape, np.uint8)
    size, strides, before = _axes(windows)
    if size == strides == (2, 2) and before == (0, 0):
        _max_pool_2x2(images, rectify, y, winners)
    else:
        _max_pool(images, size, strides, before, rectify, y, winners)
    return None


@kernel
def _max_pool(
    images: Array, size: Pair, strides: Pair, before: Pair, rectify: bool, y: Array, winners: Array
) -> None:
    """y = max over u, v of images[c, i s + u, j t + v]; ``winners`` keeps which pixel it was, number u width + v.

    Padding never counts, NaN counts as the largest, and the first of equals wins.
    """
    channels, height, width, count = images.shape
    for c in range(channels):
        for i in range(y.shape[1]):
            top = i * strides[0] - before[0]
            for j in range(y.shape[2]):
                left = j * strides[1] - before[1]
                best, winner = y[c, i, j], winners[c, i, j]
                winner[:] = _NONE
                for u in range(max(0, -top), min(size[0], height - top)):
                    for v in range(max(0, -left), min(size[1], width - left)):
                        pixels, place = images[c, top + u, left + v], np.uint8(u * size[1] + v)
                        for n in range(count):
                            larger = winner[n] == _NONE or _beats(pixels[n], best[n])
                            winner[n] = place if larger else winner[n]
                            best[n] = pixels[n] if larger else best[n]
                if rectify:
                    for n in range(count):
                        winner[n] = winner[n] if best[n] > 0 else _NONE
                        best[n] = 0 if best[n] <= 0 else best[n]


@kernel
def _max_pool_2x2(images: Array, rectify: bool, y: Array, winners: Array) -> None:
    """`_max_pool` for windows of 2 x 2 side by side, as nearly all are, in one pass: four times as fast."""
    for c in range(len(y)):
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                a, b = images[c, 2 * i, 2 * j], images[c, 2 * i, 2 * j + 1]
                d, e = images[c, 2 * i + 1, 2 * j], images[c, 2 * i + 1, 2 * j + 1]
                best, winner = y[c, i, j], winners[c, i, j]
                for n in range(len(best)):
                    right, lower_right = _beats(b[n], a[n]), _beats(e[n], d[n])
                    upper, lower = b[n] if right else a[n], e[n] if lower_right else d[n]
                    below = _beats(lower, upper)
                    largest = lower if below else upper
                    place = (3 if lower_right else 2) if below else (1 if right else 0)
                    if rectify:
                        place = place if largest > 0 else _NONE
                        largest = 0 if largest <= 0 else largest
                    best[n], winner[n] = largest, place


@kernel
def _beats(pixel: float, best: float) -> bool:
    """Whether a pixel is larger than the best before it; NaN is larger than all but NaN."""
    return not (pixel <= best) and best == best


@loop
def max_pool_backward(
    dy: Array, x: Array, y: Array, windows: Any, dx: Array, buffer: Any, rectified: bool
) -> Any:
    if not (_keeps_winners(windows, x, y) and alike(y, dy) and alike(x, dx)):
        return NotImplemented
    add = windows.overlap or any(axis.pixels != axis.outputs * axis.size for axis in windows)
    _max_pool_backward(dy, buffer("winners", y.shape, np.uint8), *_axes(windows), add, dx)
    return None


@kernel
def _max_pool_backward(
    dy: Array, winners: Array, size: Pair, strides: Pair, before: Pair, add: bool, dx: Array
) -> None:
    """dx = sum of dy over the windows that the pixel has won; without ``add``, each pixel is in one window."""
    _, height, width, count = dx.shape
    if add:
        dx[:] = 0
    for c in range(len(dx)):
        for i in range(dy.shape[1]):
            top = i * strides[0] - before[0]
            for j in range(dy.shape[2]):
                left = j * strides[1] - before[1]
                gradient, winner = dy[c, i, j], winners[c, i, j]
                for u in range(max(0, -top), min(size[0], height - top)):
                    for v in range(max(0, -left), min(size[1], width - left)):
                        pixels, place = dx[c, top + u, left + v], np.uint8(u * size[1] + v)
                        for n in range(count):
                            won = gradient[n] * (winner[n] == place)
                            pixels[n] = pixels[n] + won if add else won


def _keeps_winners(windows: Any, images: Array, y: Array) -> bool:
    """Whether `max_pool` has noted each window's winner for `max_pool_backward`."""
    return bool(windows.area < _NONE) and dense(images, y)


def _axes(windows: Any) -> tuple[Pair, Pair, Pair]:
    """Size, stride and padding before, each down and across."""
    down, across = windows
    return (down.size, across.size), (down.stride, across.stride), (down.before, across.before)
