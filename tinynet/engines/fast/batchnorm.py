"""Sums over rows, and batch-norm's passes over them. NumPy bodies: `tinynet.engines.operation`, `layers.batchnorm`.

Each kernel stands here for both layouts: ``..._rows`` for rows in memory (n, features), and ``..._features`` for
images, where each feature is one run, (features, n). Sums are in float64, so the order of their terms does not matter.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinynet.engines.fast.arrays import alike, vectors
from tinynet.engines.fast.compile import kernel, loop, reordered
from tinynet.support.types import Array


def _laid_out(*rows: Array) -> tuple[int, Sequence[Array]] | None:
    """Which of a pair of kernels is for these rows (n, features), and the arrays as it takes them."""
    if alike(*rows):
        return 0, rows
    features = [array.T for array in rows]
    return (1, features) if alike(*features) else None


@loop
def sum_rows(rows: Array, out: Array) -> Any:
    layout = _laid_out(rows)
    if layout is None or not vectors(rows, out):
        return NotImplemented
    kind, (x,) = layout
    (_mean_of_rows, _mean_of_features)[kind](x, 1, out)
    return None


@loop
def moments(rows: Array, centred: Array, shard: Any) -> Any:
    layout = _laid_out(rows)
    if layout is None:
        return NotImplemented
    kind, (x,) = layout
    m, mean, var = shard.total(len(rows)), np.empty_like(rows[0]), np.empty_like(rows[0])
    (_mean_of_rows, _mean_of_features)[kind](x, m, mean)
    mean = shard.sum(mean)
    (_variance_of_rows, _variance_of_features)[kind](x, mean, m, var)
    return mean, shard.sum(var)


@loop
def standardize(
    rows: Array, centred: Array, mean: Array, var: Array, epsilon: float, gamma: Array, beta: Array, y: Array
) -> Any:
    layout = _laid_out(rows, centred, y)
    if layout is None or not vectors(rows, mean, var, gamma, beta):
        np.subtract(rows, mean, out=centred)  # which `moments` has left out
        return NotImplemented
    (kind, (x, x_hat, out)), inv_std = layout, np.empty_like(mean)
    given = x, mean, var, rows.dtype.type(epsilon), gamma, beta
    (_standardize_rows, _standardize_features)[kind](*given, inv_std, x_hat, out)
    return inv_std


@loop
def move_averages(running_mean: Array, mean: Array, running_var: Array, var: Array, momentum: float) -> Any:
    if not alike(running_mean, mean, running_var, var):
        return NotImplemented
    shares = mean.dtype.type(momentum), mean.dtype.type(1 - momentum)
    _move_averages(running_mean, mean, running_var, var, *shares)
    return None


@loop
def feature_sums(dy: Array, x_hat: Array, dbeta: Array, dgamma: Array) -> Any:
    layout = _laid_out(dy, x_hat)
    if layout is None or not vectors(dy, dbeta, dgamma):
        return NotImplemented
    kind, (gradient, normalized) = layout
    (_sums_of_rows, _sums_of_features)[kind](gradient, normalized, dbeta, dgamma)
    return None


@loop
def batchnorm_dx(
    dy: Array, x_hat: Array, dgamma: Array, dbeta: Array, m: int, gamma: Array, inv_std: Array, dx: Array
) -> Any:
    layout = _laid_out(dy, x_hat, dx)
    if layout is None or not vectors(dy, dgamma, dbeta, gamma, inv_std):
        return NotImplemented
    kind, arrays = layout
    (_dx_of_rows, _dx_of_features)[kind](dgamma, dbeta, dy.dtype.type(m), gamma, inv_std, *arrays)
    return None


@kernel
def _mean_of_rows(rows: Array, m: int, mean: Array) -> None:
    """mean = sum_n x / m"""
    total = np.zeros(rows.shape[1])
    for n in range(len(rows)):
        for j in range(len(total)):
            total[j] += rows[n, j]
    for j in range(len(total)):
        mean[j] = total[j] / m


@reordered
def _mean_of_features(features: Array, m: int, mean: Array) -> None:
    for j in range(len(features)):
        total = 0.0
        for n in range(features.shape[1]):
            total += features[j, n]
        mean[j] = total / m


@kernel
def _variance_of_rows(rows: Array, mean: Array, m: int, var: Array) -> None:
    """var = sum_n (x - mean)^2 / m"""
    total = np.zeros(rows.shape[1])
    for n in range(len(rows)):
        for j in range(len(total)):
            difference = rows[n, j] - mean[j]
            total[j] += difference * difference
    for j in range(len(total)):
        var[j] = total[j] / m


@reordered
def _variance_of_features(features: Array, mean: Array, m: int, var: Array) -> None:
    for j in range(len(features)):
        total = 0.0
        for n in range(features.shape[1]):
            difference = features[j, n] - mean[j]
            total += difference * difference
        var[j] = total / m


@kernel
def _standardize_rows(
    rows: Array,
    mean: Array,
    var: Array,
    epsilon: float,
    gamma: Array,
    beta: Array,
    inv_std: Array,
    x_hat: Array,
    y: Array,
) -> None:
    """inv_std = 1 / sqrt(var + epsilon)     x_hat = (x - mean) inv_std     y = gamma x_hat + beta"""
    for j in range(len(mean)):
        inv_std[j] = 1 / math.sqrt(var[j] + epsilon)
    for n in range(len(rows)):
        for j in range(len(mean)):
            x_hat[n, j] = (rows[n, j] - mean[j]) * inv_std[j]
            y[n, j] = gamma[j] * x_hat[n, j] + beta[j]


@kernel
def _standardize_features(
    features: Array,
    mean: Array,
    var: Array,
    epsilon: float,
    gamma: Array,
    beta: Array,
    inv_std: Array,
    x_hat: Array,
    y: Array,
) -> None:
    for j in range(len(features)):
        inv_std[j] = 1 / math.sqrt(var[j] + epsilon)
        for n in range(features.shape[1]):
            x_hat[j, n] = (features[j, n] - mean[j]) * inv_std[j]
            y[j, n] = gamma[j] * x_hat[j, n] + beta[j]


@kernel
def _move_averages(
    running_mean: Array, mean: Array, running_var: Array, var: Array, momentum: float, share: float
) -> None:
    """running = momentum running + share batch, for both; share is 1 - momentum."""
    for j in range(len(mean)):
        running_mean[j] = momentum * running_mean[j] + share * mean[j]
        running_var[j] = momentum * running_var[j] + share * var[j]


@kernel
def _sums_of_rows(dy: Array, x_hat: Array, dbeta: Array, dgamma: Array) -> None:
    """dbeta = sum dy     dgamma = sum dy x_hat"""
    total, product = np.zeros(dy.shape[1]), np.zeros(dy.shape[1])
    for n in range(len(dy)):
        for j in range(len(total)):
            total[j] += dy[n, j]
            product[j] += dy[n, j] * x_hat[n, j]
    for j in range(len(total)):
        dbeta[j], dgamma[j] = total[j], product[j]


@reordered
def _sums_of_features(dy: Array, x_hat: Array, dbeta: Array, dgamma: Array) -> None:
    for j in range(len(dy)):
        total = product = 0.0
        for n in range(dy.shape[1]):
            total += dy[j, n]
            product += dy[j, n] * x_hat[j, n]
        dbeta[j], dgamma[j] = total, product


@kernel
def _dx_of_rows(
    dgamma: Array, dbeta: Array, m: float, gamma: Array, inv_std: Array, dy: Array, x_hat: Array, dx: Array
) -> None:
    """dx = gamma inv_std (dy - (dbeta + x_hat dgamma) / m)"""
    dgamma, dbeta, scale = dgamma / m, dbeta / m, gamma * inv_std
    for n in range(len(dy)):
        for j in range(len(scale)):
            dx[n, j] = scale[j] * (dy[n, j] - (dbeta[j] + x_hat[n, j] * dgamma[j]))


@kernel
def _dx_of_features(
    dgamma: Array, dbeta: Array, m: float, gamma: Array, inv_std: Array, dy: Array, x_hat: Array, dx: Array
) -> None:
    dgamma, dbeta, scale = dgamma / m, dbeta / m, gamma * inv_std
    for j in range(len(scale)):
        for n in range(dy.shape[1]):
            dx[j, n] = scale[j] * (dy[j, n] - (dbeta[j] + x_hat[j, n] * dgamma[j]))
