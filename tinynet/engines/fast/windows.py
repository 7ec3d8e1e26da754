"""Pixels under windows, and max-pooling, over images (c, h, w, n). NumPy: `tinynet.layers.windows`, `pooling`."""

from tinynet.engines.fast.compile import kernel
from tinynet.support.types import Array

Pair = tuple[int, int]  # down and across

NONE = 255  # no pixel of the window has been seen; a window has fewer


@kernel
def take_windows(padded: Array, top: int, down: int, across: int, columns: Array) -> None:
    """columns[u, v, c, i, j] = padded[c, top + i down + u, j across + v], for strides down and across."""
    kh, kw, channels, rows, width, images = columns.shape
    for u in range(kh):
        for v in range(kw):
            for c in range(channels):
                for i in range(rows):
                    for j in range(width):
                        for n in range(images):
                            columns[u, v, c, i, j, n] = padded[c, top + i * down + u, j * across + v, n]


@kernel
def add_windows(columns: Array, top: int, down: int, across: int, padded: Array) -> None:
    """padded[c, top + i down + u, j across + v] += columns[u, v, c, i, j]"""
    kh, kw, channels, rows, width, images = columns.shape
    for c in range(channels):
        for u in range(kh):
            for i in range(rows):
                for v in range(kw):
                    for j in range(width):
                        for n in range(images):
                            padded[c, top + i * down + u, j * across + v, n] += columns[u, v, c, i, j, n]


@kernel
def max_pool(images: Array, size: Pair, strides: Pair, before: Pair, y: Array, winners: Array) -> None:
    """y = max over u, v of images[c, i s + u, j t + v]; ``winners`` keeps which pixel it was, number u width + v.

    Padding never counts, NaN counts as the largest, and the first of equals wins.
    """
    channels, height, width, count = images.shape
    for c in range(channels):
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                best, winner = y[c, i, j], winners[c, i, j]
                winner[:] = NONE
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
                            larger = winner[n] == NONE or (not (pixels[n] <= best[n]) and best[n] == best[n])
                            winner[n] = place if larger else winner[n]
                            best[n] = pixels[n] if larger else best[n]


@kernel
def max_pool_backward(dy: Array, winners: Array, size: Pair, strides: Pair, before: Pair, dx: Array) -> None:
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
