"""Augmentation: images changed at random during training, so that no two epochs show the same ones.

    from tinynet.datasets import augment

    changes = augment.Compose(augment.RandomFlip(), augment.RandomShift(2), augment.RandomErasing(8))
    model.fit(x_train, y_train, ..., augment=changes)

Each step is a function ``(x, generator) -> y`` of a batch. It draws separately for each image, and only from the
generator: the same state gives the same result. ``x`` is never written to; ``y`` is a new C-contiguous array of the
same shape and dtype.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tinynet.engines.devices import is_array
from tinynet.engines.operation import operation
from tinynet.support.checks import check_number, check_positive_int
from tinynet.support.types import Array

Step = Callable[[Array, np.random.Generator], Array]


class RandomFlip:
    """Mirror some images left to right.

    y[i, r, c] = x[i, r, width - 1 - c] with the given probability, else x[i, r, c]

    Shapes: x, y (n, height, width) or (n, height, width, channels)
    Args: probability: that an image is mirrored, from 0 to 1.
    Raises: ValueError: for another probability; when called, for other shapes.
    Source: Krizhevsky, Sutskever & Hinton 2012.
    """

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = check_number("RandomFlip probability", probability, 0, 1)

    def __call__(self, x: Array, generator: np.random.Generator) -> Array:
        _check_batch(self, x, generator)
        mirrored = generator.random(len(x)) < self.probability  # (n,)
        return flip_images(x, mirrored)

    def __repr__(self) -> str:
        return f"RandomFlip(probability={self.probability:g})"


class RandomShift:
    """Shift images by some pixels vertically and horizontally; ``fill`` moves in from outside.

    y[i, r, c] = x[i, r - down[i], c - right[i]] where that is in the image, else fill
    down, right: uniform over the whole numbers from -pixels to pixels, drawn independently

    Shapes: x, y (n, height, width) or (n, height, width, channels)
    Args:
        pixels: the largest shift in each direction, a positive int.
        fill: the value of the background.
    Raises: ValueError: for other arguments; when called, for other shapes, if an image could be shifted out of view,
        or if x's dtype can't hold fill.
    Source: Krizhevsky, Sutskever & Hinton 2012; with padding, He et al. 2016.
    """

    def __init__(self, pixels: int = 2, fill: float = 0) -> None:
        self.pixels = check_positive_int("RandomShift pixels", pixels)
        self.fill = check_number("RandomShift fill", fill, -np.inf, np.inf)

    def __call__(self, x: Array, generator: np.random.Generator) -> Array:
        _check_batch(self, x, generator, self.fill)
        (n, height, width), p = x.shape[:3], self.pixels
        if p >= min(height, width):
            raise ValueError(
                f"{self!r}: expected images of more than {p} x {p} pixels, got {height} x {width}; "
                "make pixels smaller"
            )
        # Where each image's window on the padded one begins: `pixels` is no shift, less is a shift down or right.
        up, left = generator.integers(0, 2 * p + 1, (2, n))  # (n,) each
        return shift_images(x, up, left, p, self.fill)

    def __repr__(self) -> str:
        return f"RandomShift(pixels={self.pixels}, fill={self.fill:g})"


class RandomErasing:
    """Paint over a square in some images, so that the network does not rely on a single part.

    y[i, top[i] : top[i] + size[i], left[i] : left[i] + size[i]] = fill with the given probability, else y[i] = x[i]
    top, left: uniform over the places where the square is within the image

    Shapes: x, y (n, height, width) or (n, height, width, channels)
    Args:
        size: side of the square in pixels, a positive int; or (low, high), between which each image draws its own.
        probability: that an image gets a square, from 0 to 1.
        fill: the value of the square.
    Raises: ValueError: for other arguments; when called, for other shapes, if the square is larger than an image, or
        if x's dtype can't hold fill.
    Source: Zhong et al. 2017, whose rectangles have random proportions; DeVries & Taylor 2017.
    """

    def __init__(self, size: int | tuple[int, int] = 8, probability: float = 0.5, fill: float = 0) -> None:
        low, high = size if isinstance(size, (tuple, list)) and len(size) == 2 else (size, size)
        self.low = check_positive_int("RandomErasing size", low)
        self.high = check_positive_int("RandomErasing size", high)
        if self.low > self.high:
            raise ValueError(f"RandomErasing size: expected (low, high) with low <= high, got {size!r}")
        self.probability = check_number("RandomErasing probability", probability, 0, 1)
        self.fill = check_number("RandomErasing fill", fill, -np.inf, np.inf)

    def __call__(self, x: Array, generator: np.random.Generator) -> Array:
        _check_batch(self, x, generator, self.fill)
        n, height, width = x.shape[:3]
        if self.high > min(height, width):
            raise ValueError(
                f"{self!r}: expected images of at least {self.high} x {self.high} pixels, got {height} x {width}; "
                "make size smaller"
            )
        chosen = generator.random((n,)) < self.probability
        size = generator.integers(self.low, self.high + 1, (n,))
        top, left = generator.integers(0, height - size + 1), generator.integers(0, width - size + 1)
        return erase_squares(x, chosen, top, left, size, self.fill)

    def __repr__(self) -> str:
        size = self.low if self.low == self.high else (self.low, self.high)
        return f"RandomErasing(size={size}, probability={self.probability:g}, fill={self.fill:g})"


@operation
def flip_images(x: Array, mirrored: Array) -> Array:
    """Mirror the images selected by ``mirrored`` (n,) left to right."""
    y = x.copy()
    y[mirrored] = x[mirrored, :, ::-1]
    return y


@operation
def shift_images(x: Array, up: Array, left: Array, pixels: int, fill: float) -> Array:
    """Pad each image with ``pixels`` of fill and take its window that begins at ``up`` and ``left`` (n,)."""
    n, height, width = x.shape[:3]
    padded = np.full((n, height + 2 * pixels, width + 2 * pixels, *x.shape[3:]), fill, x.dtype)
    padded[:, pixels : pixels + height, pixels : pixels + width] = x
    # All windows of an image's size, without copying; one fast gather takes one per image.
    windows = sliding_window_view(padded, x.shape[1:], axis=tuple(range(1, x.ndim)))
    return np.ascontiguousarray(windows[np.arange(n), up, left].reshape(x.shape))


@operation
def erase_squares(x: Array, chosen: Array, top: Array, left: Array, size: Array, fill: float) -> Array:
    """Paint a square of fill into the chosen images; ``chosen``, ``top``, ``left`` and ``size`` are (n,)."""
    y = x.copy()
    # One slice per image takes half the time of a mask over all pixels.
    for i, r, c, s in np.stack([np.arange(len(x)), top, left, size], axis=1)[chosen].tolist():
        y[i, r : r + s, c : c + s] = fill
    return y


class Compose:
    """Apply steps in the given order: ``Compose(f, g)(x) = g(f(x))``.

    They draw from the same generator in turn.

    Args: steps: functions ``(x, generator) -> y``, those above or your own.
    Raises: ValueError: if there are none, or one is not callable.
    """

    def __init__(self, *steps: Step) -> None:
        if not steps:
            raise ValueError("Compose: expected at least one step, got none; try Compose(RandomFlip())")
        for step in steps:
            if not callable(step) or isinstance(step, type):
                raise ValueError(
                    f"Compose: expected functions (x, generator) -> y, got {step!r}{_hint(step)}"
                )
        self.steps = steps

    def __call__(self, x: Array, generator: np.random.Generator) -> Array:
        for step in self.steps:
            x = step(x, generator)
        return x

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.steps))})"


def _hint(step: Any) -> str:
    if isinstance(step, type):
        return f"; write {step.__name__}()"
    return "; write Compose(f, g), not Compose([f, g])" if isinstance(step, (list, tuple)) else ""


def _check_batch(step: Step, x: Any, generator: Any, fill: float = 0.0) -> None:
    """Raises ValueError unless x is a batch of images, its dtype can hold fill, and generator is one."""
    if not is_array(x) or x.ndim not in (3, 4):
        found = f"shape {x.shape}" if is_array(x) else type(x).__name__
        raise ValueError(
            f"{step!r}: expected images (n, height, width) or (n, height, width, channels), got {found}; "
            "reshape them, for example with x.reshape(-1, 28, 28)"
        )
    if x.dtype.kind in "iu":
        low, high = np.iinfo(x.dtype).min, np.iinfo(x.dtype).max
        if not (fill.is_integer() and low <= fill <= high):
            raise ValueError(
                f"{step!r}: expected a fill that {x.dtype} can hold, a whole number from {low} to {high}, "
                f"got {fill:g}; use another fill"
            )
    if not isinstance(generator, np.random.Generator):
        raise ValueError(
            f"{step!r}: expected a numpy.random.Generator, got {generator!r}; use np.random.default_rng(0)"
        )
