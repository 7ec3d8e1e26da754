"""Pools against their formula in plain loops; ties, padding and NaN by hand."""

import itertools
import json
import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import tinynet as tn
from tests.support.strategies import pairs, seeds

GLOBAL = {tn.GlobalMaxPool2D: "max", tn.GlobalAveragePool2D: "mean"}


def built(layer, input_shape, dtype="float64"):
    tn.Sequential([layer], input_shape=input_shape, seed=0, dtype=dtype)
    return layer


@st.composite
def images(draw):
    """(n, h, w, c): real numbers, integers with many ties, all negative, after a ReLU, or all equal."""
    rng = np.random.default_rng(draw(seeds))
    shape = tuple(draw(st.integers(1, most)) for most in (3, 7, 7, 3))
    kind = draw(st.sampled_from(["real", "whole", "negative", "relu", "equal"]))
    if kind == "equal":
        return np.full(shape, float(rng.integers(-3, 4)))
    if kind == "whole":
        return rng.integers(-2, 3, shape).astype(float)
    x = rng.standard_normal(shape)
    return {"real": x, "negative": -1 - abs(x), "relu": np.maximum(x, 0)}[kind]


@st.composite
def problems(draw):
    """(images, pool size, strides, padding), with overlapping windows, and strides that skip pixels."""
    x = draw(images())
    padding = draw(st.sampled_from(["valid", "same"]))
    h, w = x.shape[1:3]
    size = st.tuples(st.integers(1, h), st.integers(1, w)) | st.integers(1, min(h, w))
    if padding == "same":
        size |= pairs(1, 9)
    return x, draw(size), draw(st.none() | pairs(1, 5)), padding


def both(value):
    return value if isinstance(value, tuple) else (value, value)


def windows_of(x, size, strides, padding):
    """For each window's place in the output, the pixels in it, row by row, without the padding."""
    axes = []
    for pixels, window, stride in zip(
        x.shape[1:3], both(size), both(size if strides is None else strides), strict=True
    ):
        if padding == "same":
            count = math.ceil(pixels / stride)
            before = max(window - (pixels % stride or stride), 0) // 2
        else:
            count, before = math.ceil((pixels - window + 1) / stride), 0
        starts = [index * stride - before for index in range(count)]
        axes.append([[p for p in range(start, start + window) if 0 <= p < pixels] for start in starts])
    return {
        (i, j): list(itertools.product(rows, columns))
        for (i, rows), (j, columns) in itertools.product(*map(enumerate, axes))
    }


def reference(kind, x, windows, dy_seed=1):
    """(y, dy, dx), with a random dy."""
    n, c = x.shape[0], x.shape[3]
    down, across = (1 + max(place[axis] for place in windows) for axis in (0, 1))
    y, dx = np.empty((n, down, across, c)), np.zeros_like(x)
    dy = np.random.default_rng(dy_seed).standard_normal(y.shape)
    for (place, pixels), image, channel in itertools.product(windows.items(), range(n), range(c)):
        at, gradient = (image, *place, channel), dy[image, *place, channel]
        values = [x[image, p, q, channel] for p, q in pixels]
        if kind == "max":
            y[at] = max(values)
            p, q = pixels[values.index(y[at])]  # the first of them
            dx[image, p, q, channel] += gradient
        else:
            y[at] = sum(values) / len(values)
            for p, q in pixels:
                dx[image, p, q, channel] += gradient / len(values)
    return y, dy, dx


@pytest.mark.parametrize(("pool", "kind"), [(tn.MaxPool2D, "max"), (tn.AveragePool2D, "mean")])
@settings(max_examples=150)
@given(problem=problems())
def test_pools_over_windows(pool, kind, problem):
    x, *arguments = problem
    layer = built(pool(*arguments), x.shape[1:])
    y, dy, dx = reference(kind, x, windows_of(x, *arguments))
    assert layer.output_shape == y.shape[1:]
    for rows in (slice(None), slice(0, 1), slice(None)):
        np.testing.assert_allclose(layer.forward(x[rows], training=True), y[rows], rtol=0, atol=1e-12)
        np.testing.assert_allclose(layer.backward(dy[rows]), dx[rows], rtol=0, atol=1e-12)
    np.testing.assert_allclose(layer.forward(x), y, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("pool", "kind"), GLOBAL.items())
@settings(max_examples=80)
@given(x=images())
def test_pools_over_the_whole_image(pool, kind, x):
    layer = built(pool(), x.shape[1:])
    y, dy, dx = reference(kind, x, {(0, 0): list(np.ndindex(x.shape[1:3]))})
    for rows in (slice(None), slice(0, 1), slice(None)):
        np.testing.assert_allclose(layer.forward(x[rows], training=True), y[rows, 0, 0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(layer.backward(dy[rows, 0, 0]), dx[rows], rtol=0, atol=1e-12)
    np.testing.assert_allclose(layer.forward(x), y[:, 0, 0], rtol=0, atol=1e-12)


@settings(max_examples=30)
@given(problem=problems(), pool=st.sampled_from([tn.MaxPool2D, tn.AveragePool2D]))
def test_float32_is_float64_to_its_precision(problem, pool):
    x, *arguments = problem
    results = []
    for dtype in ("float64", "float32"):
        layer = built(pool(*arguments), x.shape[1:], dtype)
        y = layer.forward(x.astype(np.float32).astype(dtype), training=True)
        assert y.dtype == dtype
        results.append((y, layer.backward(np.ones(y.shape, dtype))))
    for exact, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)


def pooled(layer, image):
    """(y, dx for a dy of 1, 2, 3, ...) of an image with one channel."""
    x = np.asarray(image, np.float64)[None, :, :, None]
    y = built(layer, x.shape[1:]).forward(x, training=True)
    dx = layer.backward(np.arange(1.0, y.size + 1).reshape(y.shape))
    return y.squeeze(), dx[0, :, :, 0]


class TestByHand:
    def test_max(self):
        y, dx = pooled(tn.MaxPool2D(), [[1, 2, 5, 6], [4, 3, 8, 7]])
        np.testing.assert_array_equal(y, [4, 8])
        np.testing.assert_array_equal(dx, [[0, 0, 0, 0], [1, 0, 2, 0]])

    def test_average(self):
        y, dx = pooled(tn.AveragePool2D(), [[1, 2, 5, 6], [4, 3, 8, 7]])
        np.testing.assert_array_equal(y, [2.5, 6.5])
        np.testing.assert_array_equal(dx, [[0.25, 0.25, 0.5, 0.5]] * 2)

    def test_a_row_left_over_is_left_out_and_gets_no_gradient(self):
        y, dx = pooled(tn.MaxPool2D(), [[1, 2, 9], [4, 3, 9], [9, 9, 9]])
        assert y == 4
        np.testing.assert_array_equal(dx, [[0, 0, 0], [1, 0, 0], [0, 0, 0]])

    def test_a_pixel_that_wins_several_windows_gets_the_gradient_of_all(self):
        y, dx = pooled(tn.MaxPool2D(2, 1), [[1, 2, 3], [4, 9, 5], [6, 7, 8]])
        np.testing.assert_array_equal(y, np.full((2, 2), 9))
        np.testing.assert_array_equal(dx, [[0, 0, 0], [0, 10, 0], [0, 0, 0]])

    @pytest.mark.parametrize("value", [-2.0, 0.0, 3.0, -np.inf])
    def test_of_equal_pixels_the_first_wins(self, value):
        y, dx = pooled(tn.MaxPool2D(), np.full((2, 4), value))
        np.testing.assert_array_equal(y, [value] * 2)
        np.testing.assert_array_equal(dx, [[1, 0, 2, 0], [0, 0, 0, 0]])
        y, dx = pooled(tn.GlobalMaxPool2D(), np.full((2, 4), value))
        assert y == value
        np.testing.assert_array_equal(dx, [[1, 0, 0, 0], [0, 0, 0, 0]])

    def test_first_means_row_by_row(self):
        image = [[0, 5, 5], [5, 0, 5], [5, 5, 5]]
        for layer in (tn.MaxPool2D(3), tn.GlobalMaxPool2D()):
            np.testing.assert_array_equal(pooled(layer, image)[1], [[0, 1, 0], [0, 0, 0], [0, 0, 0]])
        _, dx = pooled(tn.MaxPool2D(2, 1), image)
        np.testing.assert_array_equal(dx, [[0, 3, 0], [3, 0, 4], [0, 0, 0]])

    def test_zero_and_minus_zero_are_equal(self):
        for layer in (tn.MaxPool2D(), tn.GlobalMaxPool2D()):
            np.testing.assert_array_equal(pooled(layer, [[-1, -0.0], [0.0, 0.0]])[1], [[0, 1], [0, 0]])

    def test_zeros_behind_a_relu_pass_the_gradient_once(self):
        model = tn.Sequential([tn.ReLU(), tn.MaxPool2D()], input_shape=(2, 2, 1), dtype="float64")
        x = -np.ones((1, 2, 2, 1))
        model.forward(x, training=True)
        dx = model.layers[1].backward(np.ones((1, 1, 1, 1)))
        assert dx.sum() == 1
        np.testing.assert_array_equal(model.layers[0].backward(dx), np.zeros_like(x))

    def test_padding_never_wins(self):
        y, dx = pooled(tn.MaxPool2D(3, 1, "same"), [[-5, -6], [-7, -8]])
        np.testing.assert_array_equal(y, np.full((2, 2), -5))
        np.testing.assert_array_equal(dx, [[10, 0], [0, 0]])

    def test_padding_is_not_counted_in_an_average(self):
        y, dx = pooled(tn.AveragePool2D(2, padding="same"), [[1, 2, 3], [4, 5, 6], [7, 8, 9]])
        np.testing.assert_array_equal(y, [[3, 4.5], [7.5, 9]])
        np.testing.assert_array_equal(dx, [[0.25, 0.25, 1], [0.25, 0.25, 1], [1.5, 1.5, 4]])

    def test_the_odd_pixel_of_padding_is_at_the_end(self):
        for layer in (tn.MaxPool2D((1, 2), 1, "same"), tn.MaxPool2D((1, 2), (1, 1), "same")):
            np.testing.assert_array_equal(pooled(layer, [[1, 3, 2]])[0], [3, 3, 2])

    def test_strides_are_the_pools_size_unless_given(self):
        assert built(tn.MaxPool2D((2, 3)), (6, 6, 1)).output_shape == (3, 2, 1)
        assert built(tn.MaxPool2D((2, 3), 1), (6, 6, 1)).output_shape == (5, 4, 1)
        assert built(tn.AveragePool2D(2, (1, 5)), (6, 6, 4)).output_shape == (5, 1, 4)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_nan_is_not_hidden(self, dtype):
        """Only the windows that hold it are NaN. The loss then is too, and training reports it."""
        x = np.arange(16, dtype=dtype).reshape(1, 4, 4, 1)
        x[0, 1, 1, 0] = np.nan
        for layer in (tn.MaxPool2D(), tn.AveragePool2D()):
            for training in (False, True):
                y = built(layer, (4, 4, 1), dtype).forward(x, training)[0, :, :, 0]
                np.testing.assert_array_equal(np.isnan(y), [[True, False], [False, False]])
                layer.unbuild()
        x = np.concatenate([x, np.zeros_like(x)])
        for layer in (tn.GlobalMaxPool2D(), tn.GlobalAveragePool2D()):
            np.testing.assert_array_equal(
                np.isnan(built(layer, (4, 4, 1), dtype).forward(x)), [[True], [False]]
            )

    def test_infinities_are_numbers_to_a_max_pool(self):
        y, dx = pooled(tn.MaxPool2D(), [[-np.inf, 1, 2, np.inf], [-np.inf, -np.inf, 3, 4]])
        np.testing.assert_array_equal(y, [1, np.inf])
        np.testing.assert_array_equal(dx, [[0, 1, 0, 2], [0, 0, 0, 0]])


class TestErrors:
    @pytest.mark.parametrize("pool", [tn.MaxPool2D, tn.AveragePool2D])
    def test_a_pool_that_does_not_fit(self, pool):
        with pytest.raises(
            ValueError,
            match=r"layer 0 \(\w+Pool2D\): a pool of 3 x 3 does not fit into an image of 2 x 5; make it smaller, or",
        ):
            tn.Sequential([pool(3)], input_shape=(2, 5, 1))
        assert tn.Sequential([pool(3, padding="same")], input_shape=(2, 5, 1)).output_shape == (1, 2, 1)

    @pytest.mark.parametrize("pool", [tn.MaxPool2D, tn.AveragePool2D, *GLOBAL])
    def test_no_image(self, pool):
        hint = r"; put Reshape\(\(28, 28, 1\)\) before it"
        for shape, found in (((28, 28), rf"\(batch, 28, 28\){hint}"), ((9,), r"\(batch, 9\)$")):
            with pytest.raises(
                ValueError, match=rf"expected input shape \(batch, height, width, channels\), got {found}"
            ):
                tn.Sequential([pool()], input_shape=shape)

    @pytest.mark.parametrize("pool", [tn.MaxPool2D, tn.AveragePool2D])
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"pool_size": 0}, "pool_size: expected a positive int, got 0"),
            ({"pool_size": 2.5}, "pool_size: expected a positive int"),
            ({"pool_size": None}, "pool_size: expected a positive int"),
            ({"pool_size": (2,)}, "pool_size: expected an int or a pair"),
            ({"pool_size": (2, 0)}, "pool_size: expected a positive int, got 0"),
            ({"strides": 0}, "strides: expected a positive int, got 0"),
            ({"strides": (1, 2, 3)}, "strides: expected an int or a pair"),
            ({"strides": "same"}, "strides: expected a positive int"),
            ({"padding": "Valid"}, 'padding: expected "valid" or "same"'),
            ({"padding": 0}, 'padding: expected "valid" or "same"'),
        ],
    )
    def test_bad_arguments(self, pool, settings, message):
        with pytest.raises(ValueError, match=f"^{pool.__name__} {message}"):
            pool(**settings)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (tn.MaxPool2D(), "MaxPool2D()"),
        (tn.AveragePool2D(3, 2), "AveragePool2D(pool_size=3, strides=2)"),
        (tn.MaxPool2D([2, 3], padding="same"), "MaxPool2D(pool_size=(2, 3), padding='same')"),
        (tn.GlobalMaxPool2D(), "GlobalMaxPool2D()"),
    ],
)
def test_repr_and_config(layer, text):
    assert repr(layer) == text
    assert repr(type(layer).from_config(json.loads(json.dumps(layer.config())))) == text
