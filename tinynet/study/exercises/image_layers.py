"""The exercises on images: the data to try them on, and common mistakes."""

from collections.abc import Callable, Iterator

import numpy as np

from tinynet.layers import Conv2D, MaxPool2D
from tinynet.study.exercises.exercise import Exercise, Mistake, Trial, library_results
from tinynet.support.types import Array


def _pool_trials(rng: np.random.Generator) -> list[Trial]:
    trials = []
    # Windows side by side, windows that overlap, and equal pixels, of which the first counts.
    for shape, pool_size, strides, ties in (
        ((3, 6, 4, 2), 2, 2, False),
        ((2, 7, 5, 3), 3, 2, False),
        ((2, 5, 5, 2), 3, 1, False),
        ((4, 4, 5, 2), 2, 1, True),
    ):
        size = int(np.prod(shape))
        x = rng.integers(0, 3, shape) if ties else rng.permutation(np.linspace(-2, 2, size)).reshape(shape)
        output = (shape[0], *((pixels - pool_size) // strides + 1 for pixels in shape[1:3]), shape[3])
        trials.append(
            Trial(
                x=x.astype(np.float64),
                dy=rng.standard_normal(output),
                pool_size=pool_size,
                strides=strides,
                smooth=not ties,
            )
        )
    return trials


def _places(t: Trial, height: int, width: int, strides: int) -> Iterator[tuple[int, int, tuple[slice, ...]]]:
    """Each window's i and j, and its place in the images."""
    for i in range(t.dy.shape[1]):
        for j in range(t.dy.shape[2]):
            rows = slice(i * strides, i * strides + height)
            yield i, j, (slice(None), rows, slice(j * strides, j * strides + width))


def _pooled(
    t: Trial, share: Callable[[Array], Array], kept: Callable[[Array, Array], Array] | None = None
) -> Array:
    """dx if the pixels of each window get their ``share`` (n, k, k, c) of dy.

    Args: kept: gives the new dx in a window from (dx, the window's part); None adds them.
    """
    dx: Array = np.zeros_like(t.x)
    for i, j, there in _places(t, t.pool_size, t.pool_size, t.strides):
        part = share(t.x[there]) * t.dy[:, i : i + 1, j : j + 1]
        dx[there] = dx[there] + part if kept is None else kept(dx[there], part)
    return dx


def _first(window: Array, step: int = 1) -> Array:
    """1 at the first of the largest pixels, 0 elsewhere; with a step of -1, at the last of them."""
    n, k, _, c = window.shape
    pixels = window.reshape(n, k * k, c)[:, ::step]
    shares = np.arange(k * k)[:, None] == pixels.argmax(axis=1)[:, None]
    found: Array = shares[:, ::step].reshape(window.shape).astype(np.float64)
    return found


def _all_largest(window: Array) -> Array:
    shares: Array = (window == window.max(axis=(1, 2), keepdims=True)).astype(np.float64)
    return shares


def _equal_shares(window: Array) -> Array:
    largest = _all_largest(window)
    shares: Array = largest / largest.sum(axis=(1, 2), keepdims=True)
    return shares


def _last_winner(dx: Array, part: Array) -> Array:
    return np.where(part != 0, part, dx)


MAX_POOL = Exercise(
    name="max_pool",
    title="max-pooling, the largest pixel of each window",
    kind="MaxPool2D",
    library="MaxPool2D in tinynet/layers/pooling.py",
    constructor=("pool_size", "strides"),
    trials=_pool_trials,
    solve=lambda t: library_results(MaxPool2D(t.pool_size, t.strides), t),
    formulas={
        "y": "y = the largest pixel of each window",
        "dx": "dx = for each pixel, the sum of dy over the windows where it is the first largest pixel",
    },
    mistakes=(
        Mistake(
            "dx",
            "is overwritten where windows overlap: use += instead of =, as a pixel can be the largest of several "
            "windows",
            lambda t: _pooled(t, _first, _last_winner),
        ),
        Mistake(
            "dx",
            "is overwritten where windows overlap: each window also sets its other pixels to 0; use += instead of =",
            lambda t: _pooled(t, _first, lambda dx, part: part),
        ),
        Mistake(
            "dx",
            "gives dy to all of several equal largest pixels, and is overwritten where windows overlap: only the "
            "first should get dy, added with +=",
            lambda t: _pooled(t, _all_largest, _last_winner),
        ),
        Mistake(
            "dx",
            "gives dy to all of several equal largest pixels, and is overwritten where windows overlap: only the "
            "first should get dy, added with +=; each window also sets its other pixels to 0",
            lambda t: _pooled(t, _all_largest, lambda dx, part: part),
        ),
        Mistake(
            "dx",
            "gives dy to all of several equal largest pixels: only the first should get it",
            lambda t: _pooled(t, _all_largest),
        ),
        Mistake(
            "dx",
            "divides dy between several equal largest pixels: only the first should get it",
            lambda t: _pooled(t, _equal_shares),
        ),
        Mistake(
            "dx",
            "gives dy to the last of several equal largest pixels: only the first should get it",
            lambda t: _pooled(t, lambda window: _first(window, -1)),
        ),
        Mistake(
            "dx",
            "gives dy to every pixel of the window: only the largest should get it",
            lambda t: _pooled(t, np.ones_like),
        ),
        Mistake(
            "dx",
            "divides dy between all pixels of the window, as in average-pooling: only the largest should get it",
            lambda t: _pooled(t, lambda window: np.full_like(window, 1 / t.pool_size**2)),
        ),
        Mistake(
            "dx",
            "gives dy to the smallest pixel instead of the largest",
            lambda t: _pooled(t, lambda window: _first(-window)),
        ),
        Mistake(
            "dx",
            "is multiplied by the largest pixel: the slope is 1",
            lambda t: _pooled(t, lambda window: _first(window) * window),
        ),
    ),
)


def _convolution_trials(rng: np.random.Generator) -> list[Trial]:
    trials = []
    for shape, kernel, filters, strides in (
        ((3, 5, 6, 2), (2, 3), 4, 1),
        ((2, 7, 5, 3), (3, 2), 2, 2),
        ((2, 4, 4, 2), (2, 2), 2, 1),
    ):
        down, across = ((shape[axis + 1] - kernel[axis]) // strides + 1 for axis in (0, 1))
        trials.append(
            Trial(
                x=rng.standard_normal(shape),
                W=rng.standard_normal((*kernel, shape[3], filters)),
                b=rng.standard_normal(filters),
                dy=rng.standard_normal((shape[0], down, across, filters)),
                strides=strides,
                smooth=True,
            )
        )
    return trials


def _kernel_places(t: Trial, strides: int | None) -> Iterator[tuple[int, int, tuple[slice, ...]]]:
    height, width = t.W.shape[:2]
    return _places(t, height, width, t.strides if strides is None else strides)


def _convolution_dW(t: Trial, strides: int | None = None, only_last: bool = False) -> Array:
    dW: Array = np.zeros_like(t.W)
    for i, j, there in _kernel_places(t, strides):
        part = np.tensordot(t.x[there], t.dy[:, i, j], axes=(0, 0))
        dW = part if only_last else dW + part
    return dW


def _convolution_dx(
    t: Trial, W: Array | None = None, strides: int | None = None, overwrite: bool = False
) -> Array:
    W = t.W if W is None else W
    dx: Array = np.zeros_like(t.x)
    for i, j, there in _kernel_places(t, strides):
        part = np.tensordot(t.dy[:, i, j], W, axes=(1, 3))
        dx[there] = part if overwrite else dx[there] + part
    return dx


CONVOLUTION = Exercise(
    name="convolution",
    title="convolution, a kernel that slides over images",
    kind="Conv2D",
    library="Conv2D in tinynet/layers/conv.py",
    constructor=("W", "b", "strides"),
    trials=_convolution_trials,
    solve=lambda t: library_results(Conv2D(t.W.shape[3], t.W.shape[:2], t.strides), t, "W", "b"),
    formulas={
        "y": "y = the sum of window times W, plus b",
        "dx": "dx = the sum over the windows of dy W: each window adds to its own pixels",
        "dW": "dW = the sum of window times dy, over the windows and the batch",
        "db": "db = the sum of dy over batch and positions, axes 0, 1 and 2, (c_out,)",
    },
    mistakes=(
        Mistake(
            "dx",
            "is overwritten where windows overlap: use += instead of =, as several windows use the same pixel",
            lambda t: _convolution_dx(t, overwrite=True),
        ),
        Mistake(
            "dx",
            "flips the kernel: it should lie as it does in forward",
            lambda t: _convolution_dx(t, t.W[::-1, ::-1]),
        ),
        Mistake(
            "dx",
            "swaps W's input and output channels: the sum is over W's last axis",
            lambda t: _convolution_dx(t, t.W.swapaxes(2, 3)),
        ),
        Mistake(
            "dx",
            "places its windows at i and j: they should be at i s and j s, as in forward",
            lambda t: _convolution_dx(t, strides=1),
        ),
        Mistake(
            "dW",
            "is the last window's only: use += instead of =, as every window uses W",
            lambda t: _convolution_dW(t, only_last=True),
        ),
        Mistake(
            "dW",
            "flips the kernel's axes: they should lie as they do in forward",
            lambda t: t.right["dW"][::-1, ::-1],
        ),
        Mistake(
            "dW",
            "places its windows at i and j: they should be at i s and j s, as in forward",
            lambda t: _convolution_dW(t, 1),
        ),
        Mistake("dW", "is averaged over the batch but should be summed", lambda t: t.right["dW"] / t.n),
        Mistake(
            "dW",
            "is averaged over the windows but should be summed",
            lambda t: t.right["dW"] / (t.dy.shape[1] * t.dy.shape[2]),
        ),
        Mistake(
            "db",
            "is the last window's only: use += instead of =, as every window uses b",
            lambda t: t.dy[:, -1, -1].sum(axis=0),
        ),
        Mistake("db", "is not summed: yours has shape {found}, but b has {right}", lambda t: t.dy),
        Mistake(
            "db",
            "is summed over the batch only: yours has shape {found}, but b has {right}",
            lambda t: t.dy.sum(axis=0),
        ),
        Mistake(
            "db",
            "is summed over the positions only: yours has shape {found}, but b has {right}",
            lambda t: t.dy.sum(axis=(1, 2)),
        ),
        Mistake(
            "db",
            "is averaged over batch and positions but should be summed",
            lambda t: t.dy.mean(axis=(0, 1, 2)),
        ),
        Mistake("db", "is averaged over the batch but should be summed", lambda t: t.right["db"] / t.n),
    ),
)

EXERCISES = (MAX_POOL, CONVOLUTION)
