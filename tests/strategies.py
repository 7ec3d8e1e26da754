"""Layers with inputs for property tests: Hypothesis draws shapes and settings, NumPy draws the values."""

from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np

import tinynet as tn

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 7)


@dataclass
class Case:
    """A layer and an input that stays clear of its kinks."""

    layer: tn.Layer
    x: np.ndarray


def away_from_zero(rng, shape):
    """Sign times magnitude in [0.1, 3]: no element near a kink at 0."""
    return rng.choice([-1.0, 1.0], shape) * rng.uniform(0.1, 3, shape)


@st.composite
def shapes(draw, min_dims=1, max_dims=3):
    """(batch, ...): a batch size and one to three more axes."""
    return (draw(sizes), *draw(st.lists(st.integers(1, 5), min_size=min_dims, max_size=max_dims)))


def _features(draw):
    return draw(sizes), draw(sizes)


@st.composite
def dense(draw):
    rng = np.random.default_rng(draw(seeds))
    layer = tn.Dense(draw(sizes), use_bias=draw(st.booleans()), bias_initializer="glorot_uniform")
    return Case(layer, rng.standard_normal(_features(draw)))


@st.composite
def elementwise(draw, make, kinked=False):
    rng = np.random.default_rng(draw(seeds))
    shape = draw(shapes())
    return Case(make(draw), away_from_zero(rng, shape) if kinked else rng.standard_normal(shape))


@st.composite
def batchnorm(draw):
    rng = np.random.default_rng(draw(seeds))
    shape = draw(shapes(1, 3))
    if np.prod(shape[:-1]) < 3:  # two rows give x_hat = +-1 whatever x is, one gives 0: gradients of 0
        shape = (draw(st.integers(3, 7)), *shape[1:])
    epsilon = draw(st.sampled_from([1e-5, 1e-3, 0.1]))
    # Spread out, or the curvature 1 / std^3 beats the check's central difference.
    x = rng.permutation(np.linspace(-2, 2, int(np.prod(shape)))).reshape(shape) + rng.normal(0, 0.1, shape)
    return Case(tn.BatchNorm(momentum=draw(st.sampled_from([0.0, 0.9, 0.99])), epsilon=epsilon), x)


@st.composite
def frozen_batchnorm(draw):
    case = draw(batchnorm())
    case.layer.trainable = False
    return case


def layer_cases():
    """Every layer of the core."""
    return {
        "Dense": dense(),
        "ReLU": elementwise(lambda draw: tn.ReLU(), kinked=True),
        "LeakyReLU": elementwise(
            lambda draw: tn.LeakyReLU(draw(st.sampled_from([0.0, 0.01, 0.3, 2.0]))), kinked=True
        ),
        "Sigmoid": elementwise(lambda draw: tn.Sigmoid()),
        "Tanh": elementwise(lambda draw: tn.Tanh()),
        "Softmax": elementwise(lambda draw: tn.Softmax()),
        "LogSoftmax": elementwise(lambda draw: tn.LogSoftmax()),
        "Flatten": elementwise(lambda draw: tn.Flatten()),
        "Rescale": elementwise(
            lambda draw: tn.Rescale(draw(st.floats(-2, 2)), draw(st.sampled_from([0.0, -0.5, 3.0])))
        ),
        "Dropout": elementwise(lambda draw: tn.Dropout(draw(st.floats(0, 0.9)), seed=draw(seeds))),
        "BatchNorm": batchnorm(),
        "BatchNorm, frozen": frozen_batchnorm(),
    }
