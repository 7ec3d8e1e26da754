"""The pixels under windows, over images (c, h, w n), each row flat. NumPy bodies: `tinynet.layers.windows.patches`."""

import functools
from typing import Any

import numpy as np

from tinynet.engines.fast.arrays import dense
from tinynet.engines.fast.compile import kernel, loop
from tinynet.support.types import Array


@loop
def take_windows(padded: Array, windows: Any, rows: slice, columns: Array) -> Any:
    return _move_windows(_take_windows, padded, windows, rows, columns)


@kernel
def _take_windows(padded: Array, n: int, top: int, down: int, across: int, columns: Array) -> None:
    """columns[u, v, c, i, j] = padded[c, top + i down + u, j across + v], for strides down and across."""
    kh, kw, channels, rows, length = columns.shape
    run = length if across == 1 else n  # numbers that lie side by side in both
    for u in range(kh):
        for v in range(kw):
            for c in range(channels):
                for i in range(rows):
                    row = padded[c, top + i * down + u]
                    for start in range(0, length, run):
                        pixels = row[(start // n * across + v) * n :]
                        column = columns[u, v, c, i, start : start + run]
                        for k in range(run):
                            column[k] = pixels[k]


@loop
def add_windows(columns: Array, padded: Array, windows: Any, rows: slice) -> Any:
    return _move_windows(_add_windows, padded, windows, rows, columns)


@kernel
def _add_windows(padded: Array, n: int, top: int, down: int, across: int, columns: Array) -> None:
    """padded[c, top + i down + u, j across + v] += columns[u, v, c, i, j]"""
    kh, kw, channels, rows, length = columns.shape
    run = length if across == 1 else n
    for c in range(channels):
        for u in range(kh):
            for i in range(rows):
                row = padded[c, top + i * down + u]
                for v in range(kw):
                    for start in range(0, length, run):
                        pixels = row[(start // n * across + v) * n :]
                        column = columns[u, v, c, i, start : start + run]
                        for k in range(run):
                            pixels[k] += column[k]


def _move_windows(move: Any, padded: Array, windows: Any, rows: slice, columns: Array) -> Any:
    (down, across), (channels, height, width, n) = windows, padded.shape
    needed = tuple(axis.before + axis.pixels + axis.after for axis in windows)
    if (height, width) != needed or not padded.size or not dense(padded, columns):
        return NotImplemented
    shape = down.size, across.size, channels, rows.stop - rows.start, across.outputs * n
    move(flat(padded), n, rows.start * down.stride, down.stride, across.stride, columns.reshape(shape))
    return None


@functools.lru_cache(maxsize=64)
def runs_under(across: Any) -> Array:
    """The runs of pixels of an image's row that lie side by side in the windows too.

    For each: which pixel of its windows it is, the first pixel, its window, and how many follow one another.
    """
    runs = []
    for v in range(across.size):
        places, pixels = across.tap(v)
        first, last = places.start, places.stop
        step = max(1, last - first) if across.stride == 1 else 1
        starts = range(first, last, step)
        runs += [(i, v, pixels.start + (i - first) * across.stride, step) for i in starts]
    order = [(v, pixel, window, count) for window, v, pixel, count in sorted(runs)]
    return np.array(order, np.intp).reshape(-1, 4)


def flat(images: Array) -> Array:
    """Images (..., w, n) with each row flat: (..., w n)."""
    return images.reshape(*images.shape[:-2], images.shape[-2] * images.shape[-1])
