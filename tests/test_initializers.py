"""Initial values: scale, shape and seed."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import tinynet as tn
from tests.support.strategies import seeds
from tinynet import initializers

SHAPE = (60, 90)  # fan_in, fan_out
VARIANCES = {
    "glorot_uniform": 2 / 150,
    "glorot_normal": 2 / 150,
    "he_uniform": 2 / 60,
    "he_normal": 2 / 60,
    "lecun_normal": 1 / 60,
    "zeros": 0,
    "ones": 0,
}


def draw(name, shape=SHAPE, seed=0):
    return initializers.get(name)(shape, np.random.default_rng(seed))


@pytest.mark.parametrize("name", VARIANCES)
class TestEveryInitializer:
    @given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=seeds)
    def test_shape_dtype_and_seed(self, name, shape, seed):
        values = draw(name, tuple(shape), seed)
        assert values.shape == tuple(shape)
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        np.testing.assert_array_equal(values, draw(name, tuple(shape), seed))

    def test_mean_and_variance(self, name):
        values = np.concatenate([draw(name, seed=seed) for seed in range(5)]).astype(float)
        deviation = math.sqrt(VARIANCES[name])
        mean = 1 if name == "ones" else 0
        assert values.mean() == pytest.approx(mean, abs=5 * deviation / math.sqrt(values.size))
        assert values.var() == pytest.approx(VARIANCES[name], rel=0.05)

    def test_a_layer_takes_it_by_name_or_as_a_function(self, name):
        models = [
            tn.Sequential([tn.Dense(9, kernel_initializer=given)], input_shape=(6,), seed=5)
            for given in (name, getattr(initializers, name))
        ]
        np.testing.assert_array_equal(models[0].params, models[1].params)


@pytest.mark.parametrize(
    ("name", "limit"), [("glorot_uniform", math.sqrt(6 / 150)), ("he_uniform", math.sqrt(6 / 60))]
)
def test_uniform_values_fill_their_range_evenly(name, limit):
    values = draw(name)
    assert limit * 0.99 < np.abs(values).max() <= limit * (1 + 1e-6)
    counts, _ = np.histogram(values, bins=10, range=(-limit, limit))
    np.testing.assert_allclose(counts, values.size / 10, rtol=0.2)


@pytest.mark.parametrize("name", ["glorot_normal", "he_normal", "lecun_normal"])
def test_normal_values_have_a_normal_shape(name):
    values = np.abs(draw(name) / math.sqrt(VARIANCES[name]))
    assert np.mean(values < 1) == pytest.approx(0.6827, abs=0.02)
    assert np.mean(values < 2) == pytest.approx(0.9545, abs=0.01)
    assert values.max() > 3


def test_another_seed_gives_other_values():
    assert (draw("he_normal", seed=0) != draw("he_normal", seed=1)).all()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((784, 300), (784, 300)),
        ((3, 3, 16, 32), (144, 288)),
        ((5, 4, 8), (20, 40)),
        ((7,), (7, 7)),
        ((), (1, 1)),
    ],
)
def test_fans(shape, expected):
    assert initializers.fans(shape) == expected


@pytest.mark.parametrize("activation", [tn.ReLU, None])
def test_the_scale_of_a_signal_survives_ten_layers(activation):
    """He initial values for ReLU, LeCun's for linear layers: this is the purpose of the factors 2 and 1."""
    layers = []
    for _ in range(10):
        layers.append(tn.Dense(200, kernel_initializer="he_normal" if activation else "lecun_normal"))
        layers += [activation()] if activation else []
    model = tn.Sequential(layers, input_shape=(200,), seed=0)
    x = np.random.default_rng(1).standard_normal((200, 200)).astype(np.float32)
    growth = np.mean(model.predict(x) ** 2) / np.mean(x**2)
    assert 0.4 < growth < 2.5


@pytest.mark.parametrize("name", ["xavier", "", "_uniform", None])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=f"unknown initializer {name!r}; known: glorot_normal, .*, zeros"):
        initializers.get(name)


def test_a_function_of_ones_own():
    def identity(shape, rng):
        return np.eye(*shape)

    model = tn.Sequential([tn.Dense(3, kernel_initializer=identity)], input_shape=(3,), seed=0)
    np.testing.assert_array_equal(model.layers[0].W, np.eye(3))


def test_a_function_that_gives_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"Dense.W: expected shape \(2, 3\), got \(3, 2\)"):
        tn.Sequential(
            [tn.Dense(3, kernel_initializer=lambda shape, rng: np.ones(shape[::-1]))], input_shape=(2,)
        )
