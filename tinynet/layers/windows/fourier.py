"""Convolution by the convolution theorem: one product per frequency instead of a sum over each window.

For small images with many channels, this takes a third of the multiplications. The transforms are real matrices, so
each step is a matrix product, and the backward pass uses the same three matrices, transposed.
"""

import functools
import itertools
import math
from typing import Any

import numpy as np

from tinynet.engines.devices import device_of
from tinynet.engines.operation import matmul
from tinynet.layers.windows.geometry import Axis, Windows
from tinynet.support.types import Array, Memory

# Most elements allowed in a transformed kernel or a matrix, whose size doesn't depend on the batch: 32 MB of float32.
_LARGEST = 1 << 23


class Fourier:
    """y = A ((G W) (B x)), with one product for each row ("frequency") of B x and G W.

    Forward:   x_hat = B x     W_hat = G W     y_hat_f = W_hat_f^T x_hat_f     y = A y_hat
    Backward:  dy_hat = A^T dy     dW_hat_f = x_hat_f dy_hat_f^T     dx_hat_f = W_hat_f dy_hat_f
               dW = G^T dW_hat     dx = B^T dx_hat

    B and G are the discrete Fourier transforms of an image and of a kernel, and A is the inverse. A frequency's
    product is complex and takes three real ones, so the matrices have three rows for each pair of frequencies f
    and -f; see `transforms`. Images are treated as periodic, with a period just long enough to hold the padding.
    Every number of y is a sum over the whole image, so its rounding error is relative to the image's largest pixels.

    Shapes: x (c_in, pixels, n)  y (c_out, windows, n)  W (kh kw, c_in c_out)  x_hat (products, c_in, n)
        W_hat (products, c_in, c_out)  y_hat (products, c_out, n)
    Source: Mathieu, Henaff & LeCun 2014; y = A ((G W) (B x)) is the form of Winograd 1980, who counts multiplications.
    """

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def cost(self, c_in: int, c_out: int, n: int) -> float:
        """Multiply-adds of a forward pass for n images; the kernel's transform runs at a third of the usual speed."""
        count, outputs = products(self.windows), math.prod(self.windows.output_shape)
        pixels = self.windows.down.pixels * self.windows.across.pixels
        if count * max(c_in * c_out, pixels, outputs) > _LARGEST:
            return math.inf
        image = count * (pixels * c_in + c_in * c_out + outputs * c_out)
        return n * image + 3 * count * self.windows.area * c_in * c_out

    def forward(self, x: Array, W: Array, memory: Memory) -> tuple[Array, tuple[Array, Array]]:
        """y, and what `backward` needs: x_hat and W_hat."""
        (kh, kw, c_in, c_out), n = W.shape, x.shape[3]
        A, B, G = map(device_of(x).constant, transforms(self.windows, x.dtype))
        count = len(G)  # of products
        x_hat = memory("x_hat", (count, c_in, n))
        W_hat = memory("W_hat", (count, c_in, c_out))
        y_hat = memory("y_hat", (count, c_out, n))
        y = memory("y", (c_out, *self.windows.output_shape, n))
        matmul(B, x.reshape(c_in, -1, n), out=by_channel(x_hat))
        matmul(G, W.reshape(kh * kw, -1), out=W_hat.reshape(count, -1))
        matmul(W_hat.transpose(0, 2, 1), x_hat, out=y_hat)
        matmul(A, by_channel(y_hat), out=y.reshape(c_out, -1, n))
        return y, (x_hat, W_hat)

    def backward(
        self,
        dy: Array,
        kept: tuple[Array, Array],
        W: Array,
        dW: Array | None,
        needs_dx: bool,
        memory: Memory,
    ) -> Array | None:
        """Write dW unless it is None; return dx if it is needed."""
        x_hat, W_hat = kept
        c_out, n = dy.shape[0], dy.shape[3]
        A, B, G = map(device_of(dy).constant, transforms(self.windows, dy.dtype))
        dy_hat = memory("y_hat", (len(G), c_out, n))
        matmul(A.T, dy.reshape(c_out, -1, n), out=by_channel(dy_hat))
        if dW is not None:
            dW_hat = memory("dW_hat", W_hat.shape)
            matmul(x_hat, dy_hat.transpose(0, 2, 1), out=dW_hat)
            matmul(G.T, dW_hat.reshape(len(G), -1), out=dW.reshape(G.shape[1], -1))
        if not needs_dx:
            return None
        dx_hat = memory("dx_hat", x_hat.shape)
        dx = memory("dx", (x_hat.shape[1], self.windows.down.pixels, self.windows.across.pixels, n))
        matmul(W_hat, dy_hat, out=dx_hat)
        matmul(B.T, by_channel(dx_hat), out=dx.reshape(len(dx), -1, n))
        return dx


def by_channel(spectrum: Array) -> Array:
    """View (products, c, n) as (c, products, n): for each channel, a matrix to which a transform applies."""
    return spectrum.transpose(1, 0, 2)


@functools.lru_cache(maxsize=64)
def products(windows: Windows) -> int:
    """The number of products of two real numbers for an image and a kernel of one channel."""
    periods = [_period(axis) for axis in windows]
    alone = math.prod(2 - period % 2 for period in periods)  # frequencies with f = -f
    return 3 * (math.prod(periods) - alone) // 2 + alone


@functools.lru_cache(maxsize=64)
def transforms(windows: Windows, dtype: Any) -> tuple[Array, Array, Array]:
    """A, B and G.

    Let a + ib be the transform of x at a frequency, and c + id the conjugate of the kernel's transform. That of y is
    (a + ib)(c + id) = (k1 - k3) + i (k1 + k2) for k1 = (a + b) c, k2 = a (d - c), k3 = b (c + d). So B has the rows
    a + b, a and b, G has c, d - c and c + d, and A turns the three products back into y. Where f = -f, b and d are 0,
    and the one product a c is enough. Computed in float64, returned in ``dtype``.
    """
    pixels = _places(range(windows.down.pixels), range(windows.across.pixels))
    kernel = _places(range(windows.down.size), range(windows.across.size))
    # Window i starts at pixel i stride - before; the inverse transform is evaluated there.
    starts = _places(
        *(range(-axis.before, axis.outputs * axis.stride - axis.before, axis.stride) for axis in windows)
    )
    pairs, alone = _frequencies(windows)
    a, b = np.cos(pairs @ pixels), -np.sin(pairs @ pixels)
    c, d = np.cos(pairs @ kernel), np.sin(pairs @ kernel)
    cos, sin = np.cos(pairs @ starts), np.sin(pairs @ starts)
    B = np.concatenate([a + b, a, b, np.cos(alone @ pixels)])
    G = np.concatenate([c, d - c, c + d, np.cos(alone @ kernel)])
    # Re(Y e^i...) = Re Y cos - Im Y sin, twice: for f and for -f.
    A = np.concatenate([2 * (cos - sin), -2 * sin, -2 * cos, np.cos(alone @ starts)])
    A /= math.prod(_period(axis) for axis in windows)
    A, B, G = (np.ascontiguousarray(matrix, dtype) for matrix in (A.T, B, G))
    for matrix in (A, B, G):
        matrix.flags.writeable = False  # all callers share them
    return A, B, G


def _period(axis: Axis) -> int:
    """The shortest period with room for the padding; before and after the image are the same place."""
    return axis.pixels + max(axis.before, axis.after)


def _places(rows: range, columns: range) -> Array:
    """The row and column of each place, (2, places)."""
    return np.array(list(itertools.product(rows, columns)), np.float64).T


def _frequencies(windows: Windows) -> tuple[Array, Array]:
    """One frequency of each pair f, -f, and those that are their own negative: angles per pixel, (count, 2)."""
    periods = [_period(axis) for axis in windows]
    pairs, alone = [], []
    for f in itertools.product(*map(range, periods)):
        negative = tuple(-k % period for k, period in zip(f, periods, strict=True))
        angles = [2 * math.pi * k / period for k, period in zip(f, periods, strict=True)]
        if f == negative:
            alone.append(angles)
        elif f < negative:
            pairs.append(angles)
    return np.array(pairs).reshape(-1, 2), np.array(alone).reshape(-1, 2)
