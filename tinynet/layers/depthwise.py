"""DepthwiseConv2D: convolves each channel with its own kernels."""

import numpy as np

from tinynet.engines.operation import operation, sum_rows
from tinynet.initializers import Initializer
from tinynet.layers.kernel import KernelLayer
from tinynet.layers.windows.geometry import Windows, channel_major, check_padding, check_size, windows
from tinynet.support.checks import check_positive_int
from tinynet.support.types import Array, Memory, Padding, Shape

_PIXELS = 1 << 13  # in a partial sum


class DepthwiseConv2D(KernelLayer):
    """Convolution within each channel; a Conv2D of kernel size 1 after it mixes the channels.

    Forward:   y[n, i, j, c m] = sum_{u, v} x[n, i s + u, j s + v, c] W[u, v, c, m] + b[c m]
    Backward:  dW[u, v, c, m] = sum_{n, i, j} x[n, i s + u, j s + v, c] dy[n, i, j, c m]
               dx[n, p, q, c] = sum over i s + u = p, j s + v = q and m of dy[n, i, j, c m] W[u, v, c, m]
               db = sum_{n, i, j} dy

    where s is the stride, "c m" stands for channel c multiplier + m, and x is 0 in the padding around the image.

    Shapes: x (n, h, w, c)  y (n, down, across, c multiplier)  W (kh, kw, c, multiplier)  b (c multiplier,)
    Cached for backward: x
    Args:
        kernel_size, strides: an int, or a pair (down, across).
        padding: "valid" or "same", as in `Conv2D`.
        depth_multiplier: the number of output channels per input channel.
        use_bias: whether to add b.
        kernel_initializer, bias_initializer: a name or function from `tinynet.initializers`.
    Raises: ValueError: if the input is not an image, or is smaller than the kernel.
    Source: Sifre & Mallat 2013; Howard et al. 2017 (MobileNets).
    """

    gives = "real numbers"
    cache_names = ("_x",)
    _x: Array

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: Padding = "valid",
        depth_multiplier: int = 1,
        use_bias: bool = True,
        kernel_initializer: str | Initializer = "glorot_uniform",
        bias_initializer: str | Initializer = "zeros",
    ) -> None:
        super().__init__(use_bias, kernel_initializer, bias_initializer)
        self.kernel_size = check_size("DepthwiseConv2D kernel_size", kernel_size)
        self.strides = check_size("DepthwiseConv2D strides", strides)
        self.padding = check_padding("DepthwiseConv2D padding", padding)
        self.depth_multiplier = check_positive_int("DepthwiseConv2D depth_multiplier", depth_multiplier)

    def build(self, input_shape: Shape) -> Shape:
        self.windows = windows(input_shape, self.kernel_size, self.strides, self.padding, "kernel")
        channels = input_shape[2] * self.depth_multiplier
        shape = (self.windows.down.size, self.windows.across.size, input_shape[2], self.depth_multiplier)
        self.add_kernel(shape, channels)
        return (*self.windows.output_shape, channels)

    def forward(self, x: Array, training: bool = False) -> Array:
        if training:
            self._x = x
        images, memory = channel_major(x), self.memory(x.dtype, training)  # (c, h, w, n)
        y = memory("y", (len(images), self.depth_multiplier, *self.windows.output_shape, len(x)))
        depthwise(images, self.W, self.b if self.use_bias else None, self.windows, y, memory)
        return channel_major(y.reshape(-1, *y.shape[2:]))

    def backward(self, dy: Array) -> Array | None:
        x, dy = channel_major(self._x), channel_major(dy)
        if not dy.flags.c_contiguous:
            ordered = self.buffer("dy", dy.shape, dy.dtype)
            np.copyto(ordered, dy)
            dy = ordered
        dy = dy.reshape(len(x), self.depth_multiplier, *dy.shape[1:])  # (c, m, down, across, n)
        memory = self.memory(dy.dtype, training=True)
        if self.trainable and self.use_bias:
            sum_rows(dy.reshape(len(self.db), -1).T, self.db)
        if self.trainable:
            depthwise_dw(dy, x, self.windows, self.dW)
        if not self.needs_input_grad:
            return None
        dx = memory("dx", x.shape)
        depthwise_dx(dy, self.W, self.windows, dx, memory)
        return channel_major(dx)

    def multiply_adds(self) -> int:
        assert self.output_shape is not None
        return int(self.W.size) * self.output_shape[0] * self.output_shape[1]


@operation
def depthwise(x: Array, W: Array, b: Array | None, windows: Windows, y: Array, memory: Memory) -> None:
    """y = sum over u, v of x W + b: (c, h, w, n) -> (c, m, down, across, n)."""
    x, product = x[:, None], memory("product", y.shape)
    y[...] = 0 if b is None else b.reshape(y.shape[:2])[:, :, None, None, None]
    for (u, v), (down, across), (rows, columns) in windows.taps():
        part = product[:, :, down, across]
        np.multiply(x[:, :, rows, columns], W[u, v][:, :, None, None, None], out=part)
        y[:, :, down, across] += part


@operation
def depthwise_dw(dy: Array, x: Array, windows: Windows, dW: Array) -> None:
    """dW = sum over pixels and examples of x dy, for each u, v."""
    for (u, v), (down, across), (rows, columns) in windows.taps():
        channel_products(x[:, None, rows, columns], dy[:, :, down, across], dW[u, v])


@operation
def depthwise_dx(dy: Array, W: Array, windows: Windows, dx: Array, memory: Memory) -> None:
    """dx = sum over u, v and m of dy W: (c, m, down, across, n) -> (c, h, w, n)."""
    dx.fill(0)
    product = memory("product", dy.shape)
    for (u, v), (down, across), (rows, columns) in windows.taps():
        part = product[:, :, down, across]
        np.multiply(dy[:, :, down, across], W[u, v][:, :, None, None, None], out=part)
        for m in range(dy.shape[1]):
            dx[:, rows, columns] += part[:, m]


@operation
def channel_products(x: Array, dy: Array, out: Array) -> None:
    """out = sum over pixels and examples of x dy: (c, 1, h, w, n) and (c, m, h, w, n) -> (c, m)."""
    n, width = x.shape[4], dy.shape[3]
    at_once = max(1, _PIXELS // max(1, width))  # images
    total = np.zeros(out.shape)
    for start in range(0, n, at_once):
        part = slice(start, start + at_once)
        of_rows = np.einsum("cohwn,cmhwn->cmh", x[..., part], dy[..., part])
        total += np.add.reduce(of_rows, axis=2, dtype=np.float64)
    out[...] = total
