"""Convolution as a matrix product of the kernel with columns of pixels, one column per window ("im2col")."""

import math
from collections.abc import Iterator

from tinynet.engines.devices import device_of
from tinynet.engines.operation import matmul
from tinynet.layers.windows.geometry import Windows
from tinynet.layers.windows.patches import add_windows, crop, pad, take_windows
from tinynet.support.types import Array, Memory


class Columns:
    """y = W^T columns(x), dW = columns(x) dy^T, dx = the columns W dy added up: each pixel sums over its windows.

    Shapes: x, dx (c_in, h, w, n)  y, dy (c_out, down, across, n)  W, dW (kh, kw, c_in, c_out)
        columns (kh kw c_in, rows across n), for some rows of windows
    Source: Chellapilla, Puri & Simard 2006.
    """

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def cost(self, c_in: int, c_out: int, n: int) -> float:
        """Multiply-adds of a forward pass for n images; building the columns costs about a fifth more."""
        return 1.2 * n * math.prod(self.windows.output_shape) * self.windows.area * c_in * c_out

    def forward(self, x: Array, W: Array, memory: Memory) -> tuple[Array, Array]:
        """y, and what `backward` needs: the padded x."""
        x, c_out = pad(x, self.windows, memory), W.shape[3]
        y = memory("y", (c_out, *self.windows.output_shape, x.shape[3]))
        W_T = W.reshape(-1, c_out).T  # (c_out, kh kw c_in)
        for rows, columns in self._blocks(x, c_out, memory):
            matmul(W_T, columns, out=y[:, rows].reshape(c_out, -1))
        return y, x

    def backward(
        self, dy: Array, x: Array, W: Array, dW: Array | None, needs_dx: bool, memory: Memory
    ) -> Array | None:
        """Write dW unless it is None; return dx if it is needed."""
        c_out = W.shape[3]
        W_rows = W.reshape(-1, c_out)  # (kh kw c_in, c_out)
        dx = memory("dx padded", x.shape) if needs_dx else None
        if dx is not None:
            dx.fill(0)
        for rows, columns in self._blocks(x, c_out, memory, gather=dW is not None):
            dy_rows = dy[:, rows].reshape(c_out, -1)  # (c_out, rows across n)
            if dW is not None:
                is_first = rows.start == 0
                part = dW.reshape(W_rows.shape) if is_first else memory("dW part", W_rows.shape)
                matmul(columns, dy_rows.T, out=part)
                if not is_first:
                    dW += part.reshape(dW.shape)
            if dx is not None:
                matmul(W_rows, dy_rows, out=columns)
                add_windows(columns, dx, self.windows, rows)
        return None if dx is None else crop(dx, self.windows, memory)

    def _blocks(
        self, x: Array, c_out: int, memory: Memory, gather: bool = True
    ) -> Iterator[tuple[slice, Array]]:
        """A few rows of windows at a time, with their columns, or without ``gather`` with the memory for them."""
        (outputs, across), n = self.windows.output_shape, x.shape[3]
        height = self.windows.area * len(x)  # kh kw c_in
        # Few enough rows at a time that the columns and their outputs stay in the cache.
        at_once = device_of(x).block_elements // max(1, (height + c_out) * across * n)
        rows_at_once = min(outputs, max(1, at_once))
        block = memory("columns", (height * rows_at_once * across * n,))
        for start in range(0, outputs, rows_at_once):
            rows = slice(start, min(start + rows_at_once, outputs))
            width = (rows.stop - start) * across * n
            columns = block[: height * width].reshape(height, width)
            if gather:
                take_windows(x, self.windows, rows, columns)
            yield rows, columns
