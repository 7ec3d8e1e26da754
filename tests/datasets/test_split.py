"""train_validation_split: no example is lost or doubled, and inputs keep their targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinynet.datasets import train_validation_split


@given(st.integers(2, 60), st.data(), st.none() | st.integers(0, 2**64))
def test_each_example_is_in_one_part_with_its_target(n: int, draw: st.DataObject, seed: int | None) -> None:
    count = draw.draw(st.integers(1, n - 1))
    x, y = np.arange(2 * n).reshape(n, 2), np.arange(n) * 10
    (x_train, y_train), (x_val, y_val) = train_validation_split(x, y, count, seed=seed)
    assert len(x_val) == len(y_val) == count
    np.testing.assert_array_equal(x_train[:, 0] * 5, y_train)
    np.testing.assert_array_equal(x_val[:, 0] * 5, y_val)
    assert sorted([*y_train, *y_val]) == list(y)
    assert (np.diff(y_train) > 0).all()
    assert (np.diff(y_val) > 0).all()


def test_without_a_seed_the_first_examples_are_taken_and_nothing_is_copied() -> None:
    x, y = np.arange(20).reshape(10, 2), np.arange(10)
    (x_train, y_train), (x_val, y_val) = train_validation_split(x, y, 3)
    np.testing.assert_array_equal(y_val, [0, 1, 2])
    np.testing.assert_array_equal(y_train, [3, 4, 5, 6, 7, 8, 9])
    for part, whole in ((x_train, x), (x_val, x), (y_train, y), (y_val, y)):
        assert np.shares_memory(part, whole)


def test_a_seed_chooses_and_is_repeatable() -> None:
    x = y = np.arange(1000)
    first, again, other = (train_validation_split(x, y, 100, seed=seed)[1][0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert len(np.intersect1d(first, other)) < 40
    assert 350 < first.mean() < 650
    assert not np.shares_memory(first, x)


@pytest.mark.parametrize(("size", "count"), [(0.1, 10), (0.5, 50), (np.float32(0.25), 25), (np.int64(7), 7)])
def test_fractions_and_numpy_numbers(size: Any, count: int) -> None:
    x = np.zeros((100, 2))
    assert len(train_validation_split(x, np.zeros(100), size)[1][0]) == count


@pytest.mark.parametrize("size", [0, -1, 10, 11, 0.0, 1.0, 1.5, -0.5, 0.01, 0.99, float("nan")])
def test_a_size_that_leaves_a_part_empty_is_refused(size: float) -> None:
    with pytest.raises(ValueError, match=r"validation_size: expected .* got"):
        train_validation_split(np.zeros(10), np.zeros(10), size)


@pytest.mark.parametrize("size", [True, "3", None, [3]])
def test_a_size_that_is_no_number_is_refused(size: Any) -> None:
    with pytest.raises(TypeError, match=r"validation_size: expected .* got"):
        train_validation_split(np.zeros(10), np.zeros(10), size)


def test_counts_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="got 10 inputs and 9 targets"):
        train_validation_split(np.zeros(10), np.zeros(9), 2)
    with pytest.raises(ValueError, match="one row per example"):
        train_validation_split(np.float64(3), np.zeros(1), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 1.5, True])
def test_a_bad_seed_is_refused(seed: Any) -> None:
    with pytest.raises(ValueError, match="seed: expected"):
        train_validation_split(np.zeros(10), np.zeros(10), 2, seed=seed)
