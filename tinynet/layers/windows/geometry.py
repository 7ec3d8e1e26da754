"""Windows over images: where a kernel or a pool is placed, and which pixels it covers there."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tinynet.support.checks import batch_shape, check_positive_int
from tinynet.support.types import Padding, Shape

Size = int | tuple[int, int]
"""One size for both axes, or a pair (down, across)."""


class Axis(NamedTuple):
    """The windows along one axis: window i covers pixels ``i stride - before`` and the ``size - 1`` after it."""

    pixels: int
    size: int
    stride: int
    before: int  # pixels of padding
    after: int
    outputs: int  # windows

    def tap(self, offset: int) -> tuple[slice, slice]:
        """The windows whose pixel number ``offset`` lies in the image, not in the padding, and those pixels."""
        shift = offset - self.before
        first = max(0, -(shift // self.stride))  # the first i with i stride + shift >= 0
        last = min(self.outputs - 1, (self.pixels - 1 - shift) // self.stride)
        if last < first:
            return slice(0, 0), slice(0, 0)
        start = first * self.stride + shift
        return slice(first, last + 1), slice(start, start + (last - first) * self.stride + 1, self.stride)


class Windows(NamedTuple):
    """The windows over an image, down and across."""

    down: Axis
    across: Axis

    @property
    def area(self) -> int:
        """Pixels in a window."""
        return self.down.size * self.across.size

    @property
    def output_shape(self) -> tuple[int, int]:
        """The number of windows, down and across."""
        return self.down.outputs, self.across.outputs

    @property
    def overlap(self) -> bool:
        """Whether a pixel can be in more than one window."""
        return any(axis.size > axis.stride for axis in self)

    def taps(self) -> Iterator[tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]]:
        """For each place (i, j) in a window, row by row: (i, j), the windows with a pixel there, and those pixels."""
        for i, j in itertools.product(range(self.down.size), range(self.across.size)):
            (down, rows), (across, columns) = self.down.tap(i), self.across.tap(j)
            yield (i, j), (down, across), (rows, columns)


def windows(input_shape: Shape, size: Size, strides: Size, padding: Padding, kind: str) -> Windows:
    """The windows over images of shape (h, w, c).

    Padding works as in Keras: "valid" keeps the windows inside the image, (pixels - size) // stride + 1 of them;
    "same" has ceil(pixels / stride) of them, with as many pixels of padding as needed, the odd one at the end.

    Raises: ValueError: if the input is not an image, or is smaller than a window.
    """
    check_images(input_shape)
    size, strides = (value if isinstance(value, tuple) else (value, value) for value in (size, strides))
    axes = []
    for pixels, window, stride in zip(input_shape[:2], size, strides, strict=True):
        if padding == "same":
            count = -(-pixels // stride)
            missing = max(0, (count - 1) * stride + window - pixels)
            axes.append(Axis(pixels, window, stride, missing // 2, missing - missing // 2, count))
        elif window > pixels:
            raise ValueError(
                f"a {kind} of {size[0]} x {size[1]} does not fit into an image of {input_shape[0]} x "
                f'{input_shape[1]}; make it smaller, or give padding="same"'
            )
        else:
            axes.append(Axis(pixels, window, stride, 0, 0, (pixels - window) // stride + 1))
    return Windows(*axes)


def check_images(input_shape: Shape) -> None:
    """Raises ValueError unless the shape is (h, w, c)."""
    if len(input_shape) != 3:
        hint = f"; put Reshape({(*input_shape, 1)}) before it" if len(input_shape) == 2 else ""
        raise ValueError(
            f"expected input shape (batch, height, width, channels), got {batch_shape(input_shape)}{hint}"
        )


def check_size(name: str, value: Any) -> Size:
    """An int, or a tuple of two; raises ValueError unless each is at least 1."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{name}: expected an int or a pair (down, across), got {value!r}")
        return check_positive_int(name, value[0]), check_positive_int(name, value[1])
    return check_positive_int(name, value)


def check_padding(name: str, value: Any) -> Padding:
    """The value, if it is "valid" or "same"; raises ValueError otherwise."""
    padding: Padding = value
    if not isinstance(value, str) or value not in ("valid", "same"):
        raise ValueError(f'{name}: expected "valid" or "same", got {value!r}')
    return padding


def channel_major(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """View images (n, h, w, c) as (c, h, w, n), or back; nothing moves in memory.

    Convolution and pooling keep their images in that order: a window's row is then one run of w n numbers, and the
    innermost axis, the batch, is long enough for the processor's vector instructions however few the channels.
    """
    return x.swapaxes(0, 3)
