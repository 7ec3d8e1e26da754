"""The operations that have a compiled loop. Each takes what its NumPy body takes, checks it, and hands it to the loop.

A loop has no bounds checks and is compiled once for each combination of dtypes and layouts, so it gets only arrays of
the machine's float32 or float64 that are dense in memory. For all others, the result is NotImplemented, and the NumPy
body computes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tinynet.engines.fast import activations, batchnorm, losses, optimizers
from tinynet.engines.fast import windows as patches
from tinynet.support.console import tell
from tinynet.support.types import Array

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_LABELS = np.dtype(np.intp)


def _dense(*arrays: Array) -> bool:
    """Whether all are dense, in C order, of one dtype, which is float32 or float64."""
    dtype = arrays[0].dtype
    return dtype in _FLOATS and all(
        type(x) is np.ndarray and x.dtype == dtype and x.flags.c_contiguous for x in arrays
    )


def _alike(first: Array, *others: Array) -> bool:
    """Whether all are dense and of one shape: the gradient that a layer from outside returns may have any."""
    return all(x.shape == first.shape for x in others) and _dense(first, *others)


def _vectors(rows: Array, *vectors: Array) -> bool:
    """Whether each has an element for each of the features of rows (n, features)."""
    return (
        all(x.shape == rows.shape[1:] for x in vectors)
        and _dense(*vectors)
        and vectors[0].dtype == rows.dtype
    )


def _labels(labels: Array, rows: Array) -> bool:
    """Whether they can index the rows' elements."""
    return (
        labels.dtype == _LABELS
        and labels.flags.c_contiguous
        and labels.shape == rows.shape[:1]
        and rows.ndim == 2
        and (not labels.size or (labels.min() >= 0 and labels.max() < rows.shape[1]))
    )


def rectify(x: Array, bias: Array | None, out: Array | None, zeros: Any) -> Any:
    y = np.empty_like(x) if out is None else out
    if bias is None and _alike(x, y):
        activations.rectify(x.reshape(-1), y.reshape(-1))
    elif bias is not None and x.ndim == 2 and _alike(x, y) and _vectors(x, bias):
        activations.rectify_biased(x, bias, y)
    else:
        return NotImplemented
    return y


def rectify_backward(dy: Array, y: Array, out: Array, buffer: Any) -> Any:
    if not _alike(dy, y, out):
        return NotImplemented
    activations.rectify_backward(dy.reshape(-1), y.reshape(-1), out.reshape(-1))
    return out


def softmax_cross_entropy(logits: Array, labels: Array, smoothing: float) -> Any:
    if not (_dense(logits) and _labels(labels, logits)):
        return NotImplemented
    each, probabilities = np.empty(len(logits), logits.dtype), np.empty_like(logits)
    losses.softmax_cross_entropy(logits, labels, logits.dtype.type(smoothing), each, probabilities)
    return each, probabilities


def cross_entropy_gradient(probabilities: Array, labels: Array, smoothing: float, total: int) -> Any:
    if not (_dense(probabilities) and _labels(labels, probabilities)):
        return NotImplemented
    gradient, number = np.empty_like(probabilities), probabilities.dtype.type
    at_label, everywhere = (
        number((1 - smoothing) / total),
        number(smoothing / (total * probabilities.shape[1])),
    )
    losses.cross_entropy_gradient(probabilities, labels, number(total), at_label, everywhere, gradient)
    return gradient


def record(meter: Array, value: Any, outputs: Array, labels: Array | None) -> Any:
    if labels is None or not (_dense(outputs) and _labels(labels, outputs)):
        return NotImplemented
    meter[0] += value * len(outputs)
    meter[1] += losses.count_right(outputs, labels)
    meter[2] += len(outputs)
    meter[3] = value
    return None


def sum_rows(rows: Array, out: Array) -> Any:
    if not _vectors(rows, out):
        return NotImplemented
    if _dense(rows):
        batchnorm.sum_of_rows(rows, out)
    elif _dense(rows.T):
        batchnorm.sum_of_features(rows.T, out)
    else:
        return NotImplemented
    return None


def moments(rows: Array, centred: Array, shard: Any) -> Any:
    features = rows.T
    of_rows = _dense(rows)
    if not (of_rows or _dense(features)):
        return NotImplemented
    m = shard.total(len(rows))
    sums, squares = (np.empty(rows.shape[1], rows.dtype) for _ in range(2))
    if of_rows:
        batchnorm.sum_of_rows(rows, sums)
    else:
        batchnorm.sum_of_features(features, sums)
    mean = shard.sum(sums) / m
    if of_rows:
        batchnorm.squares_of_rows(rows, mean, squares)
    else:
        batchnorm.squares_of_features(features, mean, squares)
    return mean, shard.sum(squares) / m


def standardize(
    rows: Array, centred: Array, mean: Array, var: Array, epsilon: float, gamma: Array, beta: Array, y: Array
) -> Any:
    inv_std = 1 / np.sqrt(var + epsilon)
    vectors = mean, inv_std, gamma, beta
    known = _vectors(rows, *vectors)
    if known and _alike(rows, centred, y):
        batchnorm.standardize_rows(rows, *vectors, centred, y)
    elif known and _alike(rows.T, centred.T, y.T):
        batchnorm.standardize_features(rows.T, *vectors, centred.T, y.T)
    else:
        np.subtract(rows, mean, out=centred)  # which `moments` has left out
        return NotImplemented
    return inv_std


def feature_sums(dy: Array, x_hat: Array, dbeta: Array, dgamma: Array) -> Any:
    known = _vectors(dy, dbeta, dgamma)
    if known and _alike(dy, x_hat):
        batchnorm.sums_of_rows(dy, x_hat, dbeta, dgamma)
    elif known and _alike(dy.T, x_hat.T):
        batchnorm.sums_of_features(dy.T, x_hat.T, dbeta, dgamma)
    else:
        return NotImplemented
    return None


def batchnorm_dx(
    dy: Array, x_hat: Array, dgamma: Array, dbeta: Array, m: int, gamma: Array, inv_std: Array, dx: Array
) -> Any:
    vectors = dgamma / m, dbeta / m, gamma * inv_std
    known = _vectors(dy, *vectors)
    if known and _alike(dy, x_hat, dx):
        batchnorm.dx_of_rows(dy, x_hat, *vectors, dx)
    elif known and _alike(dy.T, x_hat.T, dx.T):
        batchnorm.dx_of_features(dy.T, x_hat.T, *vectors, dx.T)
    else:
        return NotImplemented
    return None


def take_windows(padded: Array, windows: Any, rows: slice, columns: Array) -> Any:
    if not _dense(padded, columns):
        return NotImplemented
    down, across = windows
    shape = down.size, across.size, len(padded), rows.stop - rows.start, across.outputs, padded.shape[3]
    patches.take_windows(padded, rows.start * down.stride, down.stride, across.stride, columns.reshape(shape))
    return None


def add_windows(columns: Array, padded: Array, windows: Any, rows: slice) -> Any:
    if not _dense(columns, padded):
        return NotImplemented
    down, across = windows
    shape = down.size, across.size, len(padded), rows.stop - rows.start, across.outputs, padded.shape[3]
    patches.add_windows(columns.reshape(shape), rows.start * down.stride, down.stride, across.stride, padded)
    return None


def max_pool(images: Array, windows: Any, y: Array, buffer: Any) -> Any:
    if not _keeps_winners(windows, images, y):
        return NotImplemented
    winners = np.empty(y.shape, np.uint8) if buffer is None else buffer("winners", y.shape, np.uint8)
    size, strides, before = _axes(windows)
    patches.max_pool(images, size, strides, before, y, winners)
    return None


def max_pool_backward(dy: Array, x: Array, y: Array, windows: Any, dx: Array, buffer: Any) -> Any:
    if not (_keeps_winners(windows, x, y) and _alike(y, dy) and _alike(x, dx)):
        return NotImplemented
    size, strides, before = _axes(windows)
    patches.max_pool_backward(dy, buffer("winners", y.shape, np.uint8), size, strides, before, dx)
    return None


def _keeps_winners(windows: Any, images: Array, y: Array) -> bool:
    """Whether `max_pool` has noted each window's winner, a byte, for `max_pool_backward`."""
    return bool(windows.area < patches.NONE) and _dense(images, y)


def _axes(windows: Any) -> tuple[tuple[int, int], ...]:
    """Size, stride and padding before, each down and across."""
    return tuple(zip(*((axis.size, axis.stride, axis.before) for axis in windows), strict=True))


def adam_update(
    params: Array,
    grads: Array,
    m: Array,
    v: Array,
    scratch: Array,
    step_size: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
) -> Any:
    if not _alike(params, grads, m, v):
        return NotImplemented
    numbers = map(params.dtype.type, (step_size, beta_1, beta_2, epsilon))
    if optimizers.adam_update(params, grads, m, v, *numbers):
        raise FloatingPointError("overflow encountered in v")
    return None


def try_out() -> None:
    """Run one loop, to see whether Numba works here."""
    loop: Any = activations.rectify
    folder = Path(loop._cache.cache_path or "")
    if not any(folder.glob("activations.rectify-*.nbi")):
        tell("tinynet: Numba compiles the loops that this run needs, once; that takes some seconds")
    x = np.zeros(1, np.float32)
    activations.rectify(x, x)


LOOPS: dict[str, Callable[..., Any]] = {
    loop.__name__: loop
    for loop in (
        *(rectify, rectify_backward, softmax_cross_entropy, cross_entropy_gradient, record, adam_update),
        *(sum_rows, moments, standardize, feature_sums, batchnorm_dx),
        *(take_windows, add_windows, max_pool, max_pool_backward),
    )
}
"""By the operation's name."""
