"""Pooling over images (c, h, w, n), and the ReLU after a max-pool. NumPy bodies: `tinynet.layers.pooling`.

A max-pool's forward notes which pixel of each window is the largest, as a byte, so backward need not look for it.
"""

from typing import Any

import numpy as np

from tinynet.engines.fast.arrays import alike, dense
from tinynet.engines.fast.compile import kernel, loop
from tinynet.engines.fast.windows import flat, runs_under
from tinynet.support.types import Array

Pair = tuple[int, int]  # down and across

_NONE = 255  # no pixel has won, as ReLU lets nothing through; a window has fewer


@loop
def max_pool(images: Array, windows: Any, y: Array, buffer: Any, rectify: bool) -> Any:
    if not _keeps_winners(windows, images, y):
        return NotImplemented
    winners = np.empty(y.shape, np.uint8) if buffer is None else buffer("winners", y.shape, np.uint8)
    size, strides, before = _axes(windows)
    if size == strides == (2, 2) and not any(axis.before or axis.after for axis in windows):
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
    return windows.area < _NONE and _are_pooled(images, windows, y)


@loop
def average_pool(images: Array, windows: Any, y: Array, memory: Any) -> Any:
    if not _are_pooled(images, windows, y):
        return NotImplemented
    down, across = windows
    place = images.shape[3], down.size, down.stride, down.before, runs_under(across)
    _average_pool(flat(images), *place, flat(y))
    return None


@kernel
def _average_pool(images: Array, n: int, size: int, stride: int, before: int, runs: Array, y: Array) -> None:
    """y = 1 / k sum over u, v of images[c, i s + u, j s + v], where k pixels of the window are not padding.

    First the rows under the windows are added up, all of their length.
    """
    row, columns = np.empty_like(images[0, 0]), _columns(runs, n, y[0, 0])
    for c in range(len(y)):
        for i in range(y.shape[1]):
            first, last = max(0, i * stride - before), min(images.shape[1], i * stride - before + size)
            row[:] = 0
            for p in range(first, last):
                pixels = images[c, p]
                for k in range(len(row)):
                    row[k] += pixels[k]
            mean, rows = y[c, i], y.dtype.type(last - first)
            mean[:] = 0
            for r in range(len(runs)):
                pixels, part = row[runs[r, 1] * n :], mean[runs[r, 2] * n :]
                for k in range(runs[r, 3] * n):
                    part[k] += pixels[k]
            for k in range(len(mean)):
                mean[k] /= rows * columns[k]


@loop
def average_pool_backward(dy: Array, windows: Any, dx: Array, memory: Any) -> Any:
    if not _are_pooled(dx, windows, dy):
        return NotImplemented
    down, across = windows
    place = dx.shape[3], down.size, down.stride, down.before, runs_under(across)
    _average_pool_backward(flat(dy), *place, flat(dx))
    return None


@kernel
def _average_pool_backward(
    dy: Array, n: int, size: int, stride: int, before: int, runs: Array, dx: Array
) -> None:
    """dx = sum of dy / k over the windows that hold the pixel: the steps of `_average_pool`, from last to first."""
    row, share, columns = np.empty_like(dx[0, 0]), np.empty_like(dy[0, 0]), _columns(runs, n, dy[0, 0])
    for c in range(len(dx)):
        dx[c] = 0
        for i in range(dy.shape[1]):
            first, last = max(0, i * stride - before), min(dx.shape[1], i * stride - before + size)
            gradient, rows = dy[c, i], dy.dtype.type(last - first)
            for k in range(len(share)):
                share[k] = gradient[k] / (rows * columns[k])
            row[:] = 0
            for r in range(len(runs)):
                pixels, part = row[runs[r, 1] * n :], share[runs[r, 2] * n :]
                for k in range(runs[r, 3] * n):
                    pixels[k] += part[k]
            for p in range(first, last):
                pixels = dx[c, p]
                for k in range(len(row)):
                    pixels[k] += row[k]


@kernel
def _columns(runs: Array, n: int, like: Array) -> Array:
    """For each number of a row of windows, how many columns of pixels its window has, not counting the padding."""
    columns = np.zeros_like(like)
    for r in range(len(runs)):
        columns[runs[r, 2] * n : (runs[r, 2] + runs[r, 3]) * n] += 1
    return columns


def _are_pooled(images: Array, windows: Any, y: Array) -> bool:
    """Whether images and outputs have the windows' shapes: a layer from outside may give images of another size."""
    (down, across), (c, n) = windows, (len(images), images.shape[3])
    return (
        images.size > 0
        and images.shape == (c, down.pixels, across.pixels, n)
        and y.shape == (c, down.outputs, across.outputs, n)
        and dense(images, y)
    )


@loop
def global_average(x: Array) -> Any:
    images = x.swapaxes(0, 3)
    if not images.size or not dense(images):
        return NotImplemented
    y = np.empty((len(x), len(images)), x.dtype)
    _global_average(images.reshape(len(images), -1, len(x)), y)
    return y


@kernel
def _global_average(images: Array, y: Array) -> None:
    """y = sum over pixels of images (c, pixels, n) / pixels, in float64"""
    total = np.empty(len(y))
    for c in range(len(images)):
        total[:] = 0
        for p in range(images.shape[1]):
            for n in range(len(total)):
                total[n] += images[c, p, n]
        for n in range(len(total)):
            y[n, c] = total[n] / images.shape[1]


@loop
def global_average_backward(dy: Array, dx: Array) -> Any:
    if dy.shape != (dx.shape[3], len(dx)) or not dx.size or not dense(dx, dy):
        return NotImplemented
    _global_average_backward(dy, dx.reshape(len(dx), -1, len(dy)))
    return None


@kernel
def _global_average_backward(dy: Array, dx: Array) -> None:
    share = np.empty(len(dy), dy.dtype)
    for c in range(len(dx)):
        for n in range(len(share)):
            share[n] = dy[n, c] / dx.shape[1]
        for p in range(dx.shape[1]):
            for n in range(len(share)):
                dx[c, p, n] = share[n]


def _axes(windows: Any) -> tuple[Pair, Pair, Pair]:
    """Size, stride and padding before, each down and across."""
    down, across = windows
    return (down.size, across.size), (down.stride, across.stride), (down.before, across.before)
