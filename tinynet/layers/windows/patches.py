"""Patches: takes out the pixels under windows over images and, the transposed operation, adds them back."""

import numpy as np

from tinynet.engines.operation import operation
from tinynet.layers.windows.geometry import Windows
from tinynet.support.types import Array, Memory, Shape


def pad(x: Array, windows: Windows, memory: Memory) -> Array:
    """Pad images (c, h, w, n) with zeros as far as the windows reach."""
    inside, shape = _inside(x.shape, windows)
    if shape == x.shape and x.flags.c_contiguous:
        return x
    padded = memory("x padded", shape)
    if shape != x.shape:
        padded.fill(0)
    padded[inside] = x
    return padded


def crop(padded: Array, windows: Windows, memory: Memory) -> Array:
    """Remove the padding from images."""
    down, across = windows
    shape = (padded.shape[0], down.pixels, across.pixels, padded.shape[3])
    inside, _ = _inside(shape, windows)
    if shape == padded.shape:
        return padded
    images = memory("dx", shape)
    np.copyto(images, padded[inside])
    return images


def _inside(shape: Shape, windows: Windows) -> tuple[tuple[slice, ...], Shape]:
    """Where the images lie in the padded images, and the padded images' shape."""
    (down, across), (c, h, w, n) = windows, shape
    inside = slice(None), slice(down.before, down.before + h), slice(across.before, across.before + w)
    return inside, (c, h + down.before + down.after, w + across.before + across.after, n)


def patches(padded: Array, windows: Windows) -> Array:
    """Every window's pixels, (size, size, c, down, across, n), without copying."""
    down, across = windows
    c, h, w, n = padded.strides
    shape = down.size, across.size, len(padded), down.outputs, across.outputs, padded.shape[3]
    strides = h, w, c, h * down.stride, w * across.stride, n
    # as_strided takes ten times as long, which matters because this is called for every block of columns.
    return np.ndarray(shape, padded.dtype, padded, strides=strides)


@operation
def take_windows(padded: Array, windows: Windows, rows: slice, columns: Array) -> None:
    """Write the pixels under some rows of windows, one column per window ("im2col").

    Shapes: padded (c, h, w, n)  columns (kh kw c, rows across n)
    """
    pixels = patches(padded, windows)[:, :, :, rows]
    np.copyto(columns.reshape(pixels.shape), pixels)


@operation
def add_windows(columns: Array, padded: Array, windows: Windows, rows: slice) -> None:
    """Add columns, laid out as by `take_windows`, to the pixels that they stand for ("col2im")."""
    down, across = windows
    parts = columns.reshape(down.size, across.size, len(padded), -1, across.outputs, padded.shape[3])
    top, span = rows.start * down.stride, (rows.stop - rows.start - 1) * down.stride + 1
    width = (across.outputs - 1) * across.stride + 1
    for i in range(down.size):
        for j in range(across.size):
            there = slice(top + i, top + i + span, down.stride), slice(j, j + width, across.stride)
            padded[:, *there] += parts[i, j]
