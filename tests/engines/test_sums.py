"""Sums over many rows in float32, against float64."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import tinynet as tn
from tests.support.strategies import seeds
from tinynet.engines.operation import sum_of_rows, sum_rows


@settings(max_examples=60)
@given(
    n=st.sampled_from([0, 1, 255, 256, 257, 511, 512, 1300]),
    features=st.integers(1, 5),
    layout=st.sampled_from(["C", "F", "strided"]),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=seeds,
)
def test_a_sum_is_that_of_float64(n, features, layout, dtype, seed):
    rng = np.random.default_rng(seed)
    rows, other = (rng.standard_normal((n, features)).astype(dtype) for _ in range(2))
    if layout == "F":
        rows, other = np.asfortranarray(rows), np.asfortranarray(other)
    if layout == "strided":
        rows = np.repeat(rows, 2, axis=1)[:, ::2]
    exact = rows.astype(np.float64), other.astype(np.float64)
    out = np.full(features, np.nan, dtype)
    sum_rows(rows, out)
    tolerance = {"float32": 1e-6, "float64": 1e-14}[dtype] * max(n, 1)
    for found, expected in [
        (out, exact[0].sum(axis=0)),
        (sum_of_rows(rows), exact[0].sum(axis=0)),
        (sum_of_rows(rows, other), (exact[0] * exact[1]).sum(axis=0)),
    ]:
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def trained(layer, x, dtype):
    """The layer after a forward and a backward pass, and its output; dy is 0.1 or, where x is large, 0.9."""
    layer = layer.from_config(layer.config())
    model = tn.Sequential([layer], input_shape=x.shape[1:], seed=0, dtype=dtype)
    y = model.forward(x.astype(dtype), training=True)
    corner = x[tuple(slice(size) for size in y.shape[:-1])].reshape(*y.shape[:-1], -1)[..., :1]
    layer.backward(np.where(np.broadcast_to(corner, y.shape) > 0.5, 0.9, 0.1).astype(dtype))
    return layer, y


IMAGES, ROWS = (40, 100, 100, 1), (400_000, 3)


@pytest.mark.parametrize(
    ("layer", "shape", "names"),
    [
        (tn.Dense(2), ROWS, ["db", "dW"]),
        (tn.Conv2D(2, 3), IMAGES, ["db", "dW"]),
        (tn.DepthwiseConv2D(3), IMAGES, ["db", "dW"]),
        (tn.DepthwiseConv2D(3), (100_000, 4, 5, 2), ["db", "dW"]),
        (tn.BatchNorm(momentum=0), ROWS, ["dgamma", "dbeta", "running_mean", "running_var"]),
        (tn.BatchNorm(momentum=0), IMAGES, ["dgamma", "dbeta", "running_mean", "running_var"]),
        (tn.GlobalAveragePool2D(), (2, 512, 512, 1), ["y"]),
        (tn.GlobalAveragePool2D(), (1, 1, 1 << 20, 1), ["y"]),
        (tn.AveragePool2D(512), (2, 512, 512, 1), ["y"]),
    ],
    ids=str,
)
def test_many_rows_lose_no_digits(layer, shape, names):
    """Of two values, whose sums are rounded the same way again and again: the worst case for a running sum."""
    x = np.random.default_rng(0).choice(np.float32([0.1, 0.9]), shape)
    (found, y), (exact, exact_y) = (trained(layer, x, dtype) for dtype in ("float32", "float64"))
    found.y, exact.y = y, exact_y
    for name in names:
        expected = getattr(exact, name)
        error = np.abs(getattr(found, name) - expected).max() / np.abs(expected).max()
        assert error < 1e-5, name


def test_the_mean_of_a_constant_is_the_constant():
    """Every addition of a running sum is rounded in the same direction."""
    layer = tn.GlobalAveragePool2D()
    tn.Sequential([layer], input_shape=(512, 512, 2))
    y = layer.forward(np.full((2, 512, 512, 2), 0.1, np.float32))
    np.testing.assert_allclose(y, np.float32(0.1), rtol=1e-6)
