"""Splitting off examples for validation."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinynet.support.random import check_seed

Pair = tuple[NDArray[Any], NDArray[Any]]


def train_validation_split(
    x: NDArray[Any], y: NDArray[Any], validation_size: int | float, *, seed: int | None = None
) -> tuple[Pair, Pair]:
    """Split examples into a training set and a validation set.

    Without a seed, the first ``validation_size`` examples become the validation set, and all four arrays are views:
    nothing is copied. (For Fashion-MNIST, which comes shuffled, the first 5,000 are the usual choice.) With a seed,
    the validation examples are drawn at random; both parts keep the order of ``x`` and are copies.

    Args:
        x: inputs, (n, ...).
        y: targets, (n, ...).
        validation_size: the number of validation examples, an int from 1 to n - 1, or their fraction, a float
            between 0 and 1.
        seed: None, or a non-negative int; the same seed gives the same split.
    Returns: ``(x_train, y_train), (x_validation, y_validation)``.
    Raises:
        ValueError: if x and y differ in length, a part would be empty, or the seed is negative.
        TypeError: if ``validation_size`` is not a number.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim == 0 or y.ndim == 0:
        raise ValueError("train_validation_split: expected arrays with one row per example, got a number")
    if len(x) != len(y):
        raise ValueError(
            "train_validation_split: expected as many targets as inputs,"
            f" got {len(x):,} inputs and {len(y):,} targets"
        )
    count = _validation_count(validation_size, len(x))
    if seed is None:
        return (x[count:], y[count:]), (x[:count], y[:count])
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(check_seed(seed))))
    chosen = np.zeros(len(x), dtype=bool)
    chosen[generator.permutation(len(x))[:count]] = True
    return (x[~chosen], y[~chosen]), (x[chosen], y[chosen])


def _validation_count(size: int | float, n: int) -> int:
    if isinstance(size, (bool, np.bool_)):
        raise TypeError("validation_size: expected a number of examples or a fraction, got a bool")
    if isinstance(size, (float, np.floating)):
        if not 0.0 < size < 1.0:
            raise ValueError(
                f"validation_size: expected a fraction between 0 and 1, got {size};"
                " to give the number of examples, use an int"
            )
        count = round(float(size) * n)
    else:
        try:
            count = operator.index(size)
        except TypeError:
            raise TypeError(
                f"validation_size: expected an int or a float, got {type(size).__name__}"
            ) from None
    if not 1 <= count < n:
        raise ValueError(
            "validation_size: expected at least 1 example in each part,"
            f" got {count:,} of {n:,} for validation"
        )
    return count
