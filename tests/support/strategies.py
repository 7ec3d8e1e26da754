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
    if np.prod(shape[:-1]) < 3:  # two rows give x_hat = +-1 for any x, one row gives 0: zero gradients
        shape = (draw(st.integers(3, 7)), *shape[1:])
    epsilon = draw(st.sampled_from([1e-5, 1e-3, 0.1]))
    # Spread out; otherwise the curvature 1 / std^3 spoils the check's central difference.
    x = rng.permutation(np.linspace(-2, 2, int(np.prod(shape)))).reshape(shape) + rng.normal(0, 0.1, shape)
    return Case(tn.BatchNorm(momentum=draw(st.sampled_from([0.0, 0.9, 0.99])), epsilon=epsilon), x)


@st.composite
def frozen_batchnorm(draw):
    case = draw(batchnorm())
    case.layer.trainable = False
    return case


def within_zeros(x):
    """x as every second element of a larger array, along all axes but the batch's."""
    larger = np.zeros((len(x), *(2 * size + 1 for size in x.shape[1:])), x.dtype)
    view = larger[:, *(slice(1, None, 2) for _ in x.shape[1:])]
    view[...] = x
    return view


LAYOUTS = {
    "C order": np.ascontiguousarray,
    "channel-major": lambda x: np.ascontiguousarray(x.swapaxes(0, -1)).swapaxes(0, -1),
    "channels before pixels": lambda x: np.moveaxis(np.ascontiguousarray(np.moveaxis(x, -1, 1)), 1, -1),
    "batch inside": lambda x: np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0),
    "Fortran order": np.asfortranarray,
    "part of a larger array": within_zeros,
    "every second row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "mirrored": lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
    "upside down": lambda x: np.ascontiguousarray(x[::-1])[::-1],
}
"""The same numbers in other memory layouts, by name."""


def pairs(low, high):
    """An int, or a pair (down, across)."""
    return st.integers(low, high) | st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def images(draw, distinct=False, min_pixels=1, max_pixels=6):
    """(n, h, w, c); ``distinct``: no two numbers closer than the check's step, so that maxima are unambiguous."""
    rng = np.random.default_rng(draw(seeds))
    shape = (
        draw(st.integers(1, 4)),
        draw(st.integers(min_pixels, max_pixels)),
        draw(st.integers(min_pixels, max_pixels)),
        draw(st.integers(1, 3)),
    )
    if distinct:
        return rng.permutation(np.linspace(-2, 2, int(np.prod(shape)))).reshape(shape)
    return rng.standard_normal(shape)


@st.composite
def convolution(draw, depthwise=False):
    """Any kernel, stride and padding."""
    x = draw(images())
    padding = draw(st.sampled_from(["valid", "same"]))
    options = {
        "kernel_size": draw(pairs(1, min(4, *x.shape[1:3]) if padding == "valid" else 4)),
        "strides": draw(pairs(1, 3)),
        "padding": padding,
        "use_bias": draw(st.booleans()),
        "bias_initializer": "glorot_uniform",
    }
    if depthwise:
        return Case(tn.DepthwiseConv2D(depth_multiplier=draw(st.integers(1, 3)), **options), x)
    return Case(tn.Conv2D(draw(st.integers(1, 3)), **options), x)


@st.composite
def pool(draw, kind):
    x = draw(images(distinct=True))
    padding = draw(st.sampled_from(["valid", "same"]))
    size = draw(pairs(1, min(3, *x.shape[1:3]) if padding == "valid" else 3))
    return Case(kind(size, draw(st.none() | pairs(1, 3)), padding), x)


@st.composite
def global_pool(draw, kind):
    return Case(kind(), draw(images(distinct=True)))


@st.composite
def reshape(draw):
    x = draw(images())
    _, h, w, c = x.shape
    return Case(tn.Reshape(draw(st.sampled_from([(h * w * c,), (c, w, h), (w, h * c)]))), x)


@st.composite
def residual(draw):
    """Blocks with and without a projection, some of them nested."""
    x = draw(images(distinct=True, min_pixels=3))
    size = draw(st.integers(1, 3))
    if draw(st.booleans()):
        strides, filters = draw(st.integers(1, 2)), draw(st.integers(1, 3))
        layers = [tn.Conv2D(filters, size, strides, "same"), tn.Tanh()]
        return Case(tn.Residual(*layers, projection=tn.Conv2D(filters, 1, strides)), x)
    block = [tn.Conv2D(x.shape[3], size, padding="same"), tn.Tanh()]
    if draw(st.booleans()):
        block = [tn.Residual(*block), tn.DepthwiseConv2D(2, padding="same")]
    return Case(tn.Residual(*block), x)


def layer_cases():
    """Every layer of the library."""
    return {
        "Conv2D": convolution(),
        "DepthwiseConv2D": convolution(depthwise=True),
        "MaxPool2D": pool(tn.MaxPool2D),
        "AveragePool2D": pool(tn.AveragePool2D),
        "GlobalMaxPool2D": global_pool(tn.GlobalMaxPool2D),
        "GlobalAveragePool2D": global_pool(tn.GlobalAveragePool2D),
        "Reshape": reshape(),
        "Residual": residual(),
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
