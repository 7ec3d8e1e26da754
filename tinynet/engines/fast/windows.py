"""Pixels under windows, and max-pooling, over images (c, h, w, n). NumPy: `tinynet.layers.windows`, `pooling`."""

from typing import Any

import numpy as np

from tinynet.engines.fast.arrays import alike, dense
from tinynet.engines.fast.compile import kernel, loop
from tinynet.support.types import Array

Pair = tuple[int, int]  # down and across

_NONE = 255  # no pixel of the window has been seen; a window has fewer


@loop
def take_windows(padded: Array, windows: Any, rows: slice, columns: Array) -> Any:
    return _move_windows(_take_windows, padded, windows, rows, columns)


@kernel
def _take_windows(padded: Array, top: int, down: int, across: int, columns: Array) -> None:
    """columns[u, v, c, i, j] = padded[c, top + i down + u, j across + v], for strides down and across."""
    kh, kw, channels, rows, width, _ = columns.shape
    for u in range(kh):
        for v in range(kw):
            for c in range(channels):
                for i in range(rows):
                    pixels, column = padded[c, top + i * down + u], columns[u, v, c, i]
                    if across == 1:  # a row's pixels lie side by side
                        column[:] = pixels[v : v + width]
                    else:
                        for j in range(width):
                            column[j] = pixels[j * across + v]


@loop
def add_windows(columns: Array, padded: Array, windows: Any, rows: slice) -> Any:
    return _move_windows(_add_windows, padded, windows, rows, columns)


@kernel
def _add_windows(padded: Array, top: int, down: int, across: int, columns: Array) -> None:
    """padded[c, top + i down + u, j across + v] += columns[u, v, c, i, j]"""
    kh, kw, channels, rows, width, _ = columns.shape
    for c in range(channels):
        for u in range(kh):
            for i in range(rows):
                for v in range(kw):
                    pixels, column = padded[c, top + i * down + u], columns[u, v, c, i]
                    if across == 1:
                        pixels[v : v + width] += column
                    else:
                        for j in range(width):
                            pixels[j * across + v] += column[j]


def _move_windows(move: Any, padded: Array, windows: Any, rows: slice, columns: Array) -> Any:
    if not dense(padded, columns):
        return NotImplemented
    down, across = windows
    shape = down.size, across.size, len(padded), rows.stop - rows.start, across.outputs, padded.shape[3]
    move(padded, rows.start * down.stride, down.stride, across.stride, columns.reshape(shape))
    return None


@loop
def max_pool(images: Array, windows: Any, y: Array, buffer: Any) -> Any:
    if not _keeps_winners(windows, images, y):
        return NotImplemented
    winners = np.empty(y.shape, np.uint8) if buffer is None else buffer("winners", y.shape, np.uint8)
    _max_pool(images, *_axes(windows), y, winners)
    return None


@kernel
def _max_pool(images: Array, size: Pair, strides: Pair, before: Pair, y: Array, winners: Array) -> None:
    """y = max over u, v of images[c, i s + u, j t + v]; ``winners`` keeps which pixel it was, number u width + v.

    Padding never counts, NaN counts as the largest, and the first of equals wins.
    """
    channels, height, width, count = images.shape
    for c in range(channels):
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                best, winner = y[c, i, j], winners[c, i, j]
                winner[:] = _NONE
                for u in range(size[0]):
                    row = i * strides[0] + u - before[0]
                    if row < 0 or row >= height:
                        continue
                    for v in range(size[1]):
                        column = j * strides[1] + v - before[1]
                        if column < 0 or column >= width:
                            continue
                        pixels, place = images[c, row, column], u * size[1] + v
                        for n in range(count):
                            larger = winner[n] == _NONE or (not (pixels[n] <= best[n]) and best[n] == best[n])
                            winner[n] = place if larger else winner[n]
                            best[n] = pixels[n] if larger else best[n]


@loop
def max_pool_backward(dy: Array, x: Array, y: Array, windows: Any, dx: Array, buffer: Any) -> Any:
    if not (_keeps_winners(windows, x, y) and alike(y, dy) and alike(x, dx)):
        return NotImplemented
    _max_pool_backward(dy, buffer("winners", y.shape, np.uint8), *_axes(windows), dx)
    return None


@kernel
def _max_pool_backward(dy: Array, winners: Array, size: Pair, strides: Pair, before: Pair, dx: Array) -> None:
    """dx = sum of dy over the windows that the pixel has won."""
    channels, height, width, count = dx.shape
    dx[:] = 0
    for c in range(channels):
        for i in range(dy.shape[1]):
            for j in range(dy.shape[2]):
                gradient, winner = dy[c, i, j], winners[c, i, j]
                for u in range(size[0]):
                    row = i * strides[0] + u - before[0]
                    if row < 0 or row >= height:
                        continue
                    for v in range(size[1]):
                        column = j * strides[1] + v - before[1]
                        if column < 0 or column >= width:
                            continue
                        pixels, place = dx[c, row, column], u * size[1] + v
                        for n in range(count):
                            pixels[n] += gradient[n] * (winner[n] == place)


def _keeps_winners(windows: Any, images: Array, y: Array) -> bool:
    """Whether `max_pool` has noted each window's winner, a byte, for `max_pool_backward`."""
    return bool(windows.area < _NONE) and dense(images, y)


def _axes(windows: Any) -> tuple[Pair, Pair, Pair]:
    """Size, stride and padding before, each down and across."""
    down, across = windows
    return (down.size, across.size), (down.stride, across.stride), (down.before, across.before)
