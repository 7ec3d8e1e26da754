"""The order in which numbers lie in memory affects only speed: no layer's results depend on it."""

import copy

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import tinynet as tn
from tests.support.strategies import LAYOUTS, layer_cases, seeds
from tinynet.layers.chain import walk

CASES = layer_cases()


def built(layer, input_shape, dtype="float64"):
    tn.Sequential([layer], input_shape=input_shape, seed=0, dtype=dtype)
    return layer


def test_the_layouts_are_what_they_say():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    strides = set()
    for layout in LAYOUTS.values():
        arranged = layout(x)
        np.testing.assert_array_equal(arranged, x)
        strides.add(arranged.strides)
    assert len(strides) == len(LAYOUTS)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=40)
@given(
    data=st.data(), of_x=st.sampled_from(sorted(LAYOUTS)), of_dy=st.sampled_from(sorted(LAYOUTS)), seed=seeds
)
def test_every_layer_gives_the_same_in_any_order(name, data, of_x, of_dy, seed):
    """Forward, backward, gradients, running statistics and inference; x and dy are read-only and stay unchanged."""
    case = data.draw(CASES[name])
    plain = built(case.layer, case.x.shape[1:])
    other = copy.deepcopy(tn.Sequential([_again(plain)], case.x.shape[1:], seed=0, dtype="float64")).layers[0]
    other.trainable = plain.trainable
    dy = np.random.default_rng(seed).standard_normal((len(case.x), *plain.output_shape))
    results = []
    for layer, x, gradient in ((plain, case.x, dy), (other, LAYOUTS[of_x](case.x), LAYOUTS[of_dy](dy))):
        x.flags.writeable = gradient.flags.writeable = False
        before = x.copy(), gradient.copy()
        result = {"y": layer.forward(x, training=True), "dx": layer.backward(gradient)}
        result = {key: array.copy() for key, array in result.items()}
        for path, inner in walk([layer]):
            names = [*inner.state_names, *("d" + spec for spec in inner.param_specs)]
            result |= {f"{path}.{key}": getattr(inner, key) for key in names}
        result["inference"] = layer.forward(x)
        results.append(result)
        np.testing.assert_array_equal(x, before[0])
        np.testing.assert_array_equal(gradient, before[1])
    for key, array in results[0].items():
        np.testing.assert_allclose(results[1][key], array, rtol=1e-9, atol=1e-9, err_msg=key)


def _again(layer):
    """A new layer with the same arguments; a dropout with the same mask."""
    config = layer.config()
    for key, value in config.items():
        if isinstance(value, tn.Layer):
            config[key] = _again(value)
        elif isinstance(value, tuple) and value and isinstance(value[0], tn.Layer):
            config[key] = tuple(_again(inner) for inner in value)
    return type(layer).from_config(config)


class TestBatchNorm:
    @settings(max_examples=60)
    @given(
        of_x=st.sampled_from(sorted(LAYOUTS)),
        of_dy=st.sampled_from(sorted(LAYOUTS)),
        shape=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(2, 5), st.integers(1, 4)),
        epsilon=st.sampled_from([1e-5, 0.1]),
        seed=seeds,
    )
    def test_over_channels_by_its_formula(self, of_x, of_dy, shape, epsilon, seed):
        rng = np.random.default_rng(seed)
        x, dy = rng.normal(2, 3, shape), rng.standard_normal(shape)
        layer = built(tn.BatchNorm(epsilon=epsilon), shape[1:])
        layer.gamma, layer.beta = rng.standard_normal((2, shape[3]))
        y = layer.forward(LAYOUTS[of_x](x), training=True)
        dx = layer.backward(LAYOUTS[of_dy](dy))

        axes, count = (0, 1, 2), x[..., 0].size
        mean, var = x.mean(axis=axes), x.var(axis=axes)
        std = np.sqrt(var + epsilon)
        x_hat = (x - mean) / std
        dgamma, dbeta = (dy * x_hat).sum(axis=axes), dy.sum(axis=axes)
        close = {"rtol": 1e-9, "atol": 1e-9}
        np.testing.assert_allclose(y, layer.gamma * x_hat + layer.beta, **close)
        np.testing.assert_allclose(layer.dgamma, dgamma, **close)
        np.testing.assert_allclose(layer.dbeta, dbeta, **close)
        # By the chain rule: through x itself, through var and through mean.
        dx_hat = dy * layer.gamma
        dvar = (dx_hat * (x - mean) * -0.5 / std**3).sum(axis=axes)
        dmean = -(dx_hat / std).sum(axis=axes) - 2 * dvar * (x - mean).mean(axis=axes)
        np.testing.assert_allclose(dx, dx_hat / std + 2 * dvar * (x - mean) / count + dmean / count, **close)
        np.testing.assert_allclose(layer.running_mean, 0.1 * mean, **close)
        np.testing.assert_allclose(layer.running_var, 0.9 + 0.1 * var, **close)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_means_far_above_the_spread(self, layout):
        """mean(x^2) - mean(x)^2 would leave no digit of the variance here."""
        rng = np.random.default_rng(0)
        means = np.array([0, 3e3, -1e4, 1e3])
        x = (rng.standard_normal((32, 6, 5, 4)) + means).astype(np.float32)
        exact = x.astype(np.float64)
        layer = built(tn.BatchNorm(momentum=0), (6, 5, 4), "float32")
        y = layer.forward(LAYOUTS[layout](x), training=True)
        expected = (exact - exact.mean(axis=(0, 1, 2))) / exact.std(axis=(0, 1, 2))
        np.testing.assert_allclose(y, expected, rtol=0, atol=0.01)
        np.testing.assert_allclose(layer.running_var, exact.var(axis=(0, 1, 2)), rtol=1e-3)
        np.testing.assert_allclose(layer.running_mean, exact.mean(axis=(0, 1, 2)), rtol=1e-6, atol=1e-3)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_a_constant_feature_becomes_beta(self, layout):
        x = np.full((4, 3, 5, 2), 1e3, np.float32)
        layer = built(tn.BatchNorm(), (3, 5, 2), "float32")
        layer.beta = [2, -1]
        y = layer.forward(LAYOUTS[layout](x), training=True)
        np.testing.assert_array_equal(y, np.broadcast_to([2, -1], y.shape))
        assert np.isfinite(layer.backward(LAYOUTS[layout](np.ones_like(x)))).all()


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 2, 0)])
@pytest.mark.parametrize("mean", [300, 1e4])
def test_batchnorm_of_many_pixels_far_from_zero_keeps_its_digits(order, mean):
    """In float32, a running sum of 100,000 numbers would be off by more than the spread."""
    x = np.random.default_rng(0).normal(mean, 1, (128, 28, 28, 2)).astype(np.float32)
    exact = (x - x.mean(axis=(0, 1, 2), dtype=np.float64)) / x.std(axis=(0, 1, 2), dtype=np.float64)
    layer = tn.BatchNorm()
    tn.Sequential([layer], input_shape=(28, 28, 2))
    laid_out = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
    assert np.abs(layer.forward(laid_out, training=True) - exact).max() < 2e-6 * mean
