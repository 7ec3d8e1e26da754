"""Pooling: makes images smaller, each channel by itself."""

import functools
import math
from collections.abc import Callable

import numpy as np

from tinynet.engines.devices import device_of
from tinynet.engines.operation import operation
from tinynet.layers.base import AS_ITS_INPUT, Layer
from tinynet.layers.windows.geometry import (
    Windows,
    channel_major,
    check_images,
    check_padding,
    check_size,
    windows,
)
from tinynet.support.types import Array, Memory, Padding, Shape

_RUN = 64  # pixels


class _Pool2D(Layer):
    """What the two pools over windows share: their arguments and their windows."""

    def __init__(
        self,
        pool_size: int | tuple[int, int] = 2,
        strides: int | tuple[int, int] | None = None,
        padding: Padding = "valid",
    ) -> None:
        super().__init__()
        kind = type(self).__name__
        self.pool_size = check_size(f"{kind} pool_size", pool_size)
        self.strides = None if strides is None else check_size(f"{kind} strides", strides)
        self.padding = check_padding(f"{kind} padding", padding)

    def build(self, input_shape: Shape) -> Shape:
        strides = self.pool_size if self.strides is None else self.strides
        self.windows = windows(input_shape, self.pool_size, strides, self.padding, "pool")
        return (*self.windows.output_shape, input_shape[2])


class MaxPool2D(_Pool2D):
    """The largest pixel of each window.

    Forward:   y[n, i, j, c] = max_{u, v} x[n, i s + u, j s + v, c]
    Backward:  dx[n, p, q, c] = sum of dy[n, i, j, c] over the windows i, j whose largest pixel is p, q

    where s is the stride. Of several equal pixels, the first in the window, row by row, counts as the largest.
    Padding never counts.

    A ReLU after it can be computed in the same pass: ``forward(x, training, rectify=True)``.

    Shapes: x (n, h, w, c)  y (n, down, across, c)
    Cached for backward: x, y, whether y is rectified
    Args:
        pool_size: an int, or a pair (down, across).
        strides: likewise; None means the pool size.
        padding: "valid" or "same", as in `Conv2D`.
    Raises: ValueError: if the input is not an image, or is smaller than the pool.
    Source: Yamaguchi, Sakamoto, Akabane & Fujimoto 1990.
    """

    gives = "real numbers"
    cache_names = ("_x", "_y")
    _x: Array
    _y: Array

    def forward(self, x: Array, training: bool = False, rectify: bool = False) -> Array:
        images = channel_major(x)  # (c, h, w, n)
        shape = (len(images), *self.windows.output_shape, images.shape[3])
        y = self.memory(x.dtype, training)("y", shape)
        max_pool(images, self.windows, y, self.buffer if training else None, rectify)
        if training:
            self._x, self._y, self.rectified = images, y, rectify
        return channel_major(y)

    def backward(self, dy: Array) -> Array:
        x, y, dy = self._x, self._y, channel_major(dy)
        memory = self.memory(dy.dtype, training=True)
        dx = memory("dx", x.shape)
        max_pool_backward(dy, x, y, self.windows, dx, self.buffer, self.rectified)
        return channel_major(dx)


@operation
def max_pool(
    images: Array, windows: Windows, y: Array, buffer: Callable[..., Array] | None, rectify: bool
) -> None:
    """y = max over u, v of the images (c, h, w, n); y (c, down, across, n).

    Args: buffer: for what an engine keeps for backward, in training; rectify: y = max(y, 0).
    """
    y.fill(-np.inf)
    for _, (down, across), (rows, columns) in windows.taps():
        part = y[:, down, across]
        np.maximum(part, images[:, rows, columns], out=part)
    if rectify:
        np.maximum(y, 0, out=y)


@operation
def max_pool_backward(
    dy: Array,
    x: Array,
    y: Array,
    windows: Windows,
    dx: Array,
    buffer: Callable[..., Array],
    rectified: bool,
) -> None:
    """dx = sum of dy over the windows in which the pixel is the largest, the first of equals.

    Where ReLU has made y 0, no dy gets through.
    """
    wins = buffer("wins", y.shape, np.bool_)
    open_ = buffer("open", y.shape, np.bool_)  # windows whose largest pixel has not been found yet
    open_.fill(True)
    product = buffer("product", y.shape, dy.dtype)
    if rectified:
        dy = np.multiply(dy, np.greater(y, 0, out=wins), out=buffer("let through", y.shape, dy.dtype))
    dx.fill(0)
    for _, (down, across), (rows, columns) in windows.taps():
        here = (slice(None), down, across)
        pixels, won = dx[:, rows, columns], wins[here]
        np.equal(x[:, rows, columns], y[here], out=won)
        won &= open_[here]
        open_[here] ^= won
        if windows.overlap:
            pixels += np.multiply(dy[here], won, out=product[here])
        else:
            np.multiply(dy[here], won, out=pixels)


class AveragePool2D(_Pool2D):
    """The mean of each window.

    Forward:   y[n, i, j, c] = 1 / k sum_{u, v} x[n, i s + u, j s + v, c]
    Backward:  dx[n, p, q, c] = sum of dy[n, i, j, c] / k over the windows i, j that hold p, q

    where s is the stride and k the number of pixels in the window, not counting the padding.

    Shapes: x (n, h, w, c)  y (n, down, across, c)
    Cached for backward: nothing
    Args: as in `MaxPool2D`.
    Raises: ValueError: if the input is not an image, or is smaller than the pool.
    Source: LeCun et al. 1989 (subsampling).
    """

    gives = AS_ITS_INPUT

    def forward(self, x: Array, training: bool = False) -> Array:
        images, memory = channel_major(x), self.memory(x.dtype, training)  # (c, h, w, n)
        y = memory("y", (len(images), *self.windows.output_shape, len(x)))
        average_pool(images, self.windows, y, memory)
        return channel_major(y)

    def backward(self, dy: Array) -> Array:
        assert self.input_shape is not None
        h, w, c = self.input_shape
        memory = self.memory(dy.dtype, training=True)
        dx = memory("dx", (c, h, w, len(dy)))
        average_pool_backward(channel_major(dy), self.windows, dx, memory)
        return channel_major(dx)


@operation
def average_pool(images: Array, windows: Windows, y: Array, memory: Memory) -> None:
    """y = 1 / k sum over u, v of the images (c, h, w, n); y (c, down, across, n)."""
    (c, h, _, n), (down, across) = images.shape, windows
    sums = memory("sums", (c, h, across.outputs, n))  # of the windows' rows
    sums.fill(0)
    for offset in range(across.size):
        places, columns = across.tap(offset)
        sums[:, :, places] += images[:, :, columns]
    y.fill(0)
    for offset in range(down.size):
        places, rows = down.tap(offset)
        y[:, places] += sums[:, rows]
    y /= device_of(y).constant(_pixels_in_windows(windows))


@operation
def average_pool_backward(dy: Array, windows: Windows, dx: Array, memory: Memory) -> None:
    """dx = sum of dy / k over the windows that hold the pixel."""
    shares, counts = memory("shares", dy.shape), device_of(dy).constant(_pixels_in_windows(windows))
    np.divide(dy, counts, out=shares)
    dx.fill(0)
    for _, (down, across), (rows, columns) in windows.taps():
        dx[:, rows, columns] += shares[:, down, across]


@functools.lru_cache(maxsize=64)
def _pixels_in_windows(windows: Windows) -> Array:
    """The number of pixels in each window, not counting the padding, (down, across, 1)."""
    counts = np.zeros((*windows.output_shape, 1), np.float32)  # small integers: exact
    for _, places, _ in windows.taps():
        counts[places] += 1
    counts.flags.writeable = False  # all callers share it
    return counts


class GlobalAveragePool2D(Layer):
    """The mean of each channel.

    Forward:   y[n, c] = 1 / (h w) sum_{i, j} x[n, i, j, c]
    Backward:  dx[n, i, j, c] = dy[n, c] / (h w)

    Shapes: x (n, h, w, c)  y (n, c)
    Cached for backward: nothing
    Raises: ValueError: if the input is not an image.
    Source: Lin, Chen & Yan 2014.
    """

    gives = AS_ITS_INPUT

    def build(self, input_shape: Shape) -> Shape:
        check_images(input_shape)
        return input_shape[2:]

    def forward(self, x: Array, training: bool = False) -> Array:
        return global_average(x)

    def backward(self, dy: Array) -> Array:
        assert self.input_shape is not None
        h, w, c = self.input_shape
        dx = self.buffer("dx", (c, h, w, len(dy)), dy.dtype)
        global_average_backward(dy, dx)
        return channel_major(dx)


@operation
def global_average(x: Array) -> Array:
    """1 / (h w) sum_{i, j} x, (n, h, w, c) -> (n, c)."""
    total = device_of(x).zeros((len(x), x.shape[3]), np.float64)
    for start in range(0, x.shape[2], _RUN):  # a running sum of float32 over all pixels would lose digits
        total += np.add.reduce(np.add.reduce(x[:, :, start : start + _RUN], axis=2), axis=1, dtype=np.float64)
    total /= math.prod(x.shape[1:3])
    return total.astype(x.dtype)


@operation
def global_average_backward(dy: Array, dx: Array) -> None:
    """dx = dy / (h w), (n, c) -> (c, h, w, n)."""
    np.divide(dy.T[:, None, None], math.prod(dx.shape[1:3]), out=dx)


class GlobalMaxPool2D(MaxPool2D):
    """The largest pixel of each channel.

    Forward:   y[n, c] = max_{i, j} x[n, i, j, c]
    Backward:  dx[n, i, j, c] = dy[n, c] at the largest pixel, else 0

    Of several equal pixels, the first, row by row, counts as the largest.

    Shapes: x (n, h, w, c)  y (n, c)
    Cached for backward: x, y
    Raises: ValueError: if the input is not an image.
    Source: Oquab, Bottou, Laptev & Sivic 2015.
    """

    gives = "real numbers"

    def __init__(self) -> None:
        super().__init__()

    def build(self, input_shape: Shape) -> Shape:
        check_images(input_shape)
        image = input_shape[0], input_shape[1]
        self.windows = windows(input_shape, image, image, "valid", "pool")  # one window: the whole image
        return input_shape[2:]

    def forward(self, x: Array, training: bool = False, rectify: bool = False) -> Array:
        return super().forward(x, training, rectify)[:, 0, 0]

    def backward(self, dy: Array) -> Array:
        return super().backward(dy[:, None, None])
