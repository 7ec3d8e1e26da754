"""Sums over rows, and batch-norm's passes over them. NumPy bodies: `tinynet.engines.operation`, `layers.batchnorm`.

Each stands here for both layouts: ``..._rows`` for rows in memory (n, features), and ``..._features`` for images, where
each feature is one run, (features, n). Sums are kept in float64, so the order of their terms does not matter.
"""

import numpy as np

from tinynet.engines.fast.compile import kernel, reordered
from tinynet.support.types import Array


@kernel
def sum_of_rows(rows: Array, out: Array) -> None:
    """out = sum_n rows"""
    total = np.zeros(rows.shape[1])
    for n in range(len(rows)):
        for j in range(len(total)):
            total[j] += rows[n, j]
    for j in range(len(total)):
        out[j] = total[j]


@reordered
def sum_of_features(features: Array, out: Array) -> None:
    """out = sum_n rows"""
    for j in range(len(features)):
        total = 0.0
        for n in range(features.shape[1]):
            total += features[j, n]
        out[j] = total


@kernel
def squares_of_rows(rows: Array, mean: Array, out: Array) -> None:
    """out = sum_n (rows - mean)^2"""
    total = np.zeros(rows.shape[1])
    for n in range(len(rows)):
        for j in range(len(total)):
            difference = rows[n, j] - mean[j]
            total[j] += difference * difference
    for j in range(len(total)):
        out[j] = total[j]


@reordered
def squares_of_features(features: Array, mean: Array, out: Array) -> None:
    """out = sum_n (rows - mean)^2"""
    for j in range(len(features)):
        total = 0.0
        for n in range(features.shape[1]):
            difference = features[j, n] - mean[j]
            total += difference * difference
        out[j] = total


@kernel
def standardize_rows(
    rows: Array, mean: Array, inv_std: Array, gamma: Array, beta: Array, x_hat: Array, y: Array
) -> None:
    """x_hat = (x - mean) inv_std     y = gamma x_hat + beta"""
    for n in range(len(rows)):
        for j in range(rows.shape[1]):
            x_hat[n, j] = (rows[n, j] - mean[j]) * inv_std[j]
            y[n, j] = gamma[j] * x_hat[n, j] + beta[j]


@kernel
def standardize_features(
    features: Array, mean: Array, inv_std: Array, gamma: Array, beta: Array, x_hat: Array, y: Array
) -> None:
    """x_hat = (x - mean) inv_std     y = gamma x_hat + beta"""
    for j in range(len(features)):
        for n in range(features.shape[1]):
            x_hat[j, n] = (features[j, n] - mean[j]) * inv_std[j]
            y[j, n] = gamma[j] * x_hat[j, n] + beta[j]


@kernel
def sums_of_rows(dy: Array, x_hat: Array, dbeta: Array, dgamma: Array) -> None:
    """dbeta = sum dy     dgamma = sum dy x_hat"""
    total, product = np.zeros(dy.shape[1]), np.zeros(dy.shape[1])
    for n in range(len(dy)):
        for j in range(len(total)):
            total[j] += dy[n, j]
            product[j] += dy[n, j] * x_hat[n, j]
    for j in range(len(total)):
        dbeta[j], dgamma[j] = total[j], product[j]


@reordered
def sums_of_features(dy: Array, x_hat: Array, dbeta: Array, dgamma: Array) -> None:
    """dbeta = sum dy     dgamma = sum dy x_hat"""
    for j in range(len(dy)):
        total = product = 0.0
        for n in range(dy.shape[1]):
            total += dy[j, n]
            product += dy[j, n] * x_hat[j, n]
        dbeta[j], dgamma[j] = total, product


@kernel
def dx_of_rows(dy: Array, x_hat: Array, dgamma: Array, dbeta: Array, scale: Array, dx: Array) -> None:
    """dx = scale (dy - (dbeta + x_hat dgamma)), where dbeta and dgamma are divided by m, and scale is gamma inv_std"""
    for n in range(len(dy)):
        for j in range(dy.shape[1]):
            dx[n, j] = scale[j] * (dy[n, j] - (dbeta[j] + x_hat[n, j] * dgamma[j]))


@kernel
def dx_of_features(dy: Array, x_hat: Array, dgamma: Array, dbeta: Array, scale: Array, dx: Array) -> None:
    """dx = scale (dy - (dbeta + x_hat dgamma)), where dbeta and dgamma are divided by m, and scale is gamma inv_std"""
    for j in range(len(dy)):
        for n in range(dy.shape[1]):
            dx[j, n] = scale[j] * (dy[j, n] - (dbeta[j] + x_hat[j, n] * dgamma[j]))
