"""Conv2D: slides a small kernel over images."""

from typing import Any

import numpy as np

from tinynet.engines.operation import operation
from tinynet.initializers import Initializer
from tinynet.layers.kernel import KernelLayer
from tinynet.layers.windows.columns import Columns
from tinynet.layers.windows.fourier import Fourier
from tinynet.layers.windows.geometry import channel_major, check_padding, check_size, windows
from tinynet.support.checks import check_positive_int
from tinynet.support.types import Array, Shape


class Conv2D(KernelLayer):
    """2-D convolution (as usual in neural networks, the kernel is not flipped).

    Forward:   y[n, i, j, o] = sum_{u, v, c} x[n, i s + u, j s + v, c] W[u, v, c, o] + b[o]
    Backward:  dW[u, v, c, o] = sum_{n, i, j} x[n, i s + u, j s + v, c] dy[n, i, j, o]
               dx[n, p, q, c] = sum over i s + u = p, j s + v = q and o of dy[n, i, j, o] W[u, v, c, o]
               db[o] = sum_{n, i, j} dy[n, i, j, o]

    where s is the stride, and x is 0 in the padding around the image. Indices count from the edge of the
    padding. The sums are computed by `Columns` or, where that takes fewer multiplications, by `Fourier`: the
    same numbers up to rounding. The choice depends on the sizes, including the batch size.

    Shapes: x (n, h, w, c_in)  y (n, down, across, c_out)  W (kh, kw, c_in, c_out)  b (c_out,)
    Cached for backward: the padded x, or the transforms of x and W
    Args:
        filters: the number of output channels.
        kernel_size, strides: an int, or a pair (down, across).
        padding: "valid": windows stay inside the image; "same": ceil(size / stride) of them, padded with zeros.
        use_bias: whether to add b.
        kernel_initializer, bias_initializer: a name or function from `tinynet.initializers`.
    Raises: ValueError: if the input is not an image, or is smaller than the kernel.
    Source: Fukushima 1980; trained by backpropagation by LeCun et al. 1989.
    """

    gives = "real numbers"
    cache_names = ("_kept",)
    _kept: Any

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: str = "valid",
        use_bias: bool = True,
        kernel_initializer: str | Initializer = "glorot_uniform",
        bias_initializer: str | Initializer = "zeros",
    ) -> None:
        super().__init__(use_bias, kernel_initializer, bias_initializer)
        self.filters = check_positive_int("Conv2D filters", filters)
        self.kernel_size = check_size("Conv2D kernel_size", kernel_size)
        self.strides = check_size("Conv2D strides", strides)
        self.padding = check_padding("Conv2D padding", padding)

    def build(self, input_shape: Shape) -> Shape:
        places = windows(input_shape, self.kernel_size, self.strides, self.padding, "kernel")
        c_in = input_shape[2]
        self.add_kernel((places.down.size, places.across.size, c_in, self.filters), self.filters)
        self.methods: tuple[Columns | Fourier, ...] = (Columns(places), Fourier(places))
        return (*places.output_shape, self.filters)

    def method(self, n: int) -> Columns | Fourier:
        """The method that takes less work to convolve a batch of n images."""
        c_in, c_out = self.W.shape[2:]
        return min(self.methods, key=lambda method: method.cost(c_in, c_out, n))

    def forward(self, x: Array, training: bool = False) -> Array:
        memory = self.memory(x.dtype, training)
        y, kept = self.method(len(x)).forward(channel_major(x), self.W, memory)  # (c_out, down, across, n)
        if self.use_bias:
            y += self.b[:, None, None, None]
        if training:
            self._kept = kept
        return channel_major(y)

    def backward(self, dy: Array) -> Array | None:
        kept, method = self._kept, self.method(len(dy))
        dy = channel_major(dy)  # (c_out, down, across, n)
        memory = self.memory(dy.dtype, training=True)
        if not dy.flags.c_contiguous:
            ordered = memory("dy", dy.shape)
            np.copyto(ordered, dy)
            dy = ordered
        dW = self.dW if self.trainable else None
        if self.trainable and self.use_bias:
            sum_pixels(dy.reshape(len(dy), -1), self.db)  # (c_out,)
        dx = method.backward(dy, kept, self.W, dW, self.needs_input_grad, memory)
        return None if dx is None else channel_major(dx)

    def multiply_adds(self) -> int:
        assert self.output_shape is not None
        return int(self.W.size) * self.output_shape[0] * self.output_shape[1]


@operation
def sum_pixels(pixels: Array, out: Array) -> None:
    """out = sum_p pixels, (channels, pixels of the batch) -> (channels,)."""
    np.einsum("op->o", pixels, out=out)
