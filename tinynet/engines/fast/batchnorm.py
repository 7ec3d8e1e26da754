"""Sums over rows, and batch-norm's passes over them. NumPy bodies: `tinynet.engines.operation`, `layers.batchnorm`.

Each stands here for both layouts: ``..._rows`` for rows in memory (n, features), and ``..._features`` for images, where
each feature is one run, (features, n). Sums are kept in float64, so the order of their terms does not matter.
"""

from typing import Any

import numpy as np

from tinynet.engines.fast.arrays import alike, dense, vectors
from tinynet.engines.fast.compile import kernel, loop, reordered
from tinynet.support.types import Array


@loop
def sum_rows(rows: Array, out: Array) -> Any:
    if not vectors(rows, out):
        return NotImplemented
    if dense(rows):
        _sum_of_rows(rows, out)
    elif dense(rows.T):
        _sum_of_features(rows.T, out)
    else:
        return NotImplemented
    return None


@loop
def moments(rows: Array, centred: Array, shard: Any) -> Any:
    features = rows.T
    of_rows = dense(rows)
    if not (of_rows or dense(features)):
        return NotImplemented
    m = shard.total(len(rows))
    sums, squares = (np.empty(rows.shape[1], rows.dtype) for _ in range(2))
    if of_rows:
        _sum_of_rows(rows, sums)
    else:
        _sum_of_features(features, sums)
    mean = shard.sum(sums) / m
    if of_rows:
        _squares_of_rows(rows, mean, squares)
    else:
        _squares_of_features(features, mean, squares)
    return mean, shard.sum(squares) / m


@loop
def standardize(
    rows: Array, centred: Array, mean: Array, var: Array, epsilon: float, gamma: Array, beta: Array, y: Array
) -> Any:
    inv_std = 1 / np.sqrt(var + epsilon)
    per_feature = mean, inv_std, gamma, beta
    known = vectors(rows, *per_feature)
    if known and alike(rows, centred, y):
        _standardize_rows(rows, *per_feature, centred, y)
    elif known and alike(rows.T, centred.T, y.T):
        _standardize_features(rows.T, *per_feature, centred.T, y.T)
    else:
        np.subtract(rows, mean, out=centred)  # which `moments` has left out
        return NotImplemented
    return inv_std


@loop
def feature_sums(dy: Array, x_hat: Array, dbeta: Array, dgamma: Array) -> Any:
    known = vectors(dy, dbeta, dgamma)
    if known and alike(dy, x_hat):
        _sums_of_rows(dy, x_hat, dbeta, dgamma)
    elif known and alike(dy.T, x_hat.T):
        _sums_of_features(dy.T, x_hat.T, dbeta, dgamma)
    else:
        return NotImplemented
    return None


@loop
def batchnorm_dx(
    dy: Array, x_hat: Array, dgamma: Array, dbeta: Array, m: int, gamma: Array, inv_std: Array, dx: Array
) -> Any:
    per_feature = dgamma / m, dbeta / m, gamma * inv_std
    known = vectors(dy, *per_feature)
    if known and alike(dy, x_hat, dx):
        _dx_of_rows(dy, x_hat, *per_feature, dx)
    elif known and alike(dy.T, x_hat.T, dx.T):
        _dx_of_features(dy.T, x_hat.T, *per_feature, dx.T)
    else:
        return NotImplemented
    return None


@kernel
def _sum_of_rows(rows: Array, out: Array) -> None:
    """out = sum_n rows"""
    total = np.zeros(rows.shape[1])
    for n in range(len(rows)):
        for j in range(len(total)):
            total[j] += rows[n, j]
    for j in range(len(total)):
        out[j] = total[j]


@reordered
def _sum_of_features(features: Array, out: Array) -> None:
    """out = sum_n rows"""
    for j in range(len(features)):
        total = 0.0
        for n in range(features.shape[1]):
            total += features[j, n]
        out[j] = total


@kernel
def _squares_of_rows(rows: Array, mean: Array, out: Array) -> None:
    """out = sum_n (rows - mean)^2"""
    total = np.zeros(rows.shape[1])
    for n in range(len(rows)):
        for j in range(len(total)):
            difference = rows[n, j] - mean[j]
            total[j] += difference * difference
    for j in range(len(total)):
        out[j] = total[j]


@reordered
def _squares_of_features(features: Array, mean: Array, out: Array) -> None:
    """out = sum_n (rows - mean)^2"""
    for j in range(len(features)):
        total = 0.0
        for n in range(features.shape[1]):
            difference = features[j, n] - mean[j]
            total += difference * difference
        out[j] = total


@kernel
def _standardize_rows(
    rows: Array, mean: Array, inv_std: Array, gamma: Array, beta: Array, x_hat: Array, y: Array
) -> None:
    """x_hat = (x - mean) inv_std     y = gamma x_hat + beta"""
    for n in range(len(rows)):
        for j in range(rows.shape[1]):
            x_hat[n, j] = (rows[n, j] - mean[j]) * inv_std[j]
            y[n, j] = gamma[j] * x_hat[n, j] + beta[j]


@kernel
def _standardize_features(
    features: Array, mean: Array, inv_std: Array, gamma: Array, beta: Array, x_hat: Array, y: Array
) -> None:
    """x_hat = (x - mean) inv_std     y = gamma x_hat + beta"""
    for j in range(len(features)):
        for n in range(features.shape[1]):
            x_hat[j, n] = (features[j, n] - mean[j]) * inv_std[j]
            y[j, n] = gamma[j] * x_hat[j, n] + beta[j]


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
    """dbeta = sum dy     dgamma = sum dy x_hat"""
    for j in range(len(dy)):
        total = product = 0.0
        for n in range(dy.shape[1]):
            total += dy[j, n]
            product += dy[j, n] * x_hat[j, n]
        dbeta[j], dgamma[j] = total, product


@kernel
def _dx_of_rows(dy: Array, x_hat: Array, dgamma: Array, dbeta: Array, scale: Array, dx: Array) -> None:
    """dx = scale (dy - (dbeta + x_hat dgamma)), where dbeta and dgamma are divided by m, and scale is gamma inv_std"""
    for n in range(len(dy)):
        for j in range(dy.shape[1]):
            dx[n, j] = scale[j] * (dy[n, j] - (dbeta[j] + x_hat[n, j] * dgamma[j]))


@kernel
def _dx_of_features(dy: Array, x_hat: Array, dgamma: Array, dbeta: Array, scale: Array, dx: Array) -> None:
    """dx = scale (dy - (dbeta + x_hat dgamma)), where dbeta and dgamma are divided by m, and scale is gamma inv_std"""
    for j in range(len(dy)):
        for n in range(dy.shape[1]):
            dx[j, n] = scale[j] * (dy[j, n] - (dbeta[j] + x_hat[j, n] * dgamma[j]))
