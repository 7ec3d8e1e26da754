"""Conv2D: slides a small kernel over images."""

from collections.abc import Iterator

import numpy as np

from tinynet.engines.devices import device_of
from tinynet.engines.operation import matmul, sum_rows
from tinynet.initializers import Initializer
from tinynet.layers.kernel import KernelLayer
from tinynet.layers.windows.geometry import channel_major, check_padding, check_size, windows
from tinynet.layers.windows.patches import add_windows, crop, pad, take_windows
from tinynet.support.checks import check_positive_int
from tinynet.support.types import Array, Memory, Padding, Shape


class Conv2D(KernelLayer):
    """2-D convolution (as usual in neural networks, the kernel is not flipped).

    Forward:   y[n, i, j, o] = sum_{u, v, c} x[n, i s + u, j s + v, c] W[u, v, c, o] + b[o]
    Backward:  dW[u, v, c, o] = sum_{n, i, j} x[n, i s + u, j s + v, c] dy[n, i, j, o]
               dx[n, p, q, c] = sum over i s + u = p, j s + v = q and o of dy[n, i, j, o] W[u, v, c, o]
               db[o] = sum_{n, i, j} dy[n, i, j, o]

    where s is the stride, and x is 0 in the padding around the image. Indices count from the edge of the
    padding. Each window's pixels become a column of a matrix ("im2col"), and the sums are matrix products:
    y = W^T columns, dW = columns dy^T, and dx adds up the columns W dy, each where its window was.

    Shapes: x (n, h, w, c_in)  y (n, down, across, c_out)  W (kh, kw, c_in, c_out)  b (c_out,)
    Cached for backward: the padded x
    Args:
        filters: the number of output channels.
        kernel_size, strides: an int, or a pair (down, across).
        padding: "valid": windows stay inside the image; "same": ceil(size / stride) of them, padded with zeros.
        use_bias: whether to add b.
        kernel_initializer, bias_initializer: a name or function from `tinynet.initializers`.
    Raises: ValueError: if the input is not an image, or is smaller than the kernel.
    Source: Fukushima 1980; trained by backpropagation by LeCun et al. 1989; columns: Chellapilla, Puri & Simard
        2006.
    """

    gives = "real numbers"
    cache_names = ("_padded",)
    _padded: Array  # (c_in, h, w, n)

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: Padding = "valid",
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
        self.windows = windows(input_shape, self.kernel_size, self.strides, self.padding, "kernel")
        down, across = self.windows
        self.add_kernel((down.size, across.size, input_shape[2], self.filters), self.filters)
        return (*self.windows.output_shape, self.filters)

    def forward(self, x: Array, training: bool = False) -> Array:
        memory = self.memory(x.dtype, training)
        x = pad(channel_major(x), self.windows, memory)  # (c_in, h, w, n)
        y = memory("y", (self.filters, *self.windows.output_shape, x.shape[3]))
        W_T = self.W.reshape(-1, self.filters).T  # (c_out, kh kw c_in)
        for rows, columns in self._blocks(x, memory):
            part = y[:, rows].reshape(self.filters, -1)  # (c_out, rows across n)
            matmul(W_T, columns, out=part)
            if self.use_bias:
                part += self.b[:, None]
        if training:
            self._padded = x
        return channel_major(y)

    def backward(self, dy: Array) -> Array | None:
        x = self._padded
        dy = channel_major(dy)  # (c_out, down, across, n)
        memory = self.memory(dy.dtype, training=True)
        if not dy.flags.c_contiguous:
            ordered = memory("dy", dy.shape)
            np.copyto(ordered, dy)
            dy = ordered
        W = self.W.reshape(-1, self.filters)  # (kh kw c_in, c_out)
        dx = memory("dx padded", x.shape) if self.needs_input_grad else None
        if dx is not None:
            dx.fill(0)
        for rows, columns in self._blocks(x, memory, gather=self.trainable):
            dy_rows = dy[:, rows].reshape(self.filters, -1)  # (c_out, rows across n)
            if self.trainable:
                part = self.dW.reshape(W.shape) if rows.start == 0 else memory("dW part", W.shape)
                matmul(columns, dy_rows.T, out=part)
                if rows.start > 0:
                    self.dW += part.reshape(self.dW.shape)
            if dx is not None:
                matmul(W, dy_rows, out=columns)
                add_windows(columns, dx, self.windows, rows)
        if self.trainable and self.use_bias:
            sum_rows(dy.reshape(self.filters, -1).T, self.db)  # (c_out,)
        return None if dx is None else channel_major(crop(dx, self.windows, memory))

    def _blocks(self, x: Array, memory: Memory, gather: bool = True) -> Iterator[tuple[slice, Array]]:
        """A few rows of windows at a time, with their columns (kh kw c_in, rows across n).

        Without ``gather``, only the memory for the columns.
        """
        (outputs, across), n = self.windows.output_shape, x.shape[3]
        height = self.windows.area * len(x)  # kh kw c_in
        # Few enough rows at a time that the columns and their outputs stay in the cache.
        at_once = device_of(x).block_elements // max(1, (height + self.filters) * across * n)
        rows_at_once = min(outputs, max(1, at_once))
        block = memory("columns", (height * rows_at_once * across * n,))
        for start in range(0, outputs, rows_at_once):
            rows = slice(start, min(start + rows_at_once, outputs))
            width = (rows.stop - start) * across * n
            columns = block[: height * width].reshape(height, width)
            if gather:
                take_windows(x, self.windows, rows, columns)
            yield rows, columns

    def multiply_adds(self) -> int:
        assert self.output_shape is not None
        return int(self.W.size) * self.output_shape[0] * self.output_shape[1]
