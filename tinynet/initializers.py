"""Initial values of parameters: functions of a shape and a generator.

Values are drawn in float32 whatever the model's dtype, so that a seed always gives the same weights.
Sources: Glorot & Bengio 2010; He, Zhang, Ren & Sun 2015; LeCun, Bottou, Orr & Mueller 1998.
"""

import math
from collections.abc import Callable

import numpy as np

from tinynet.support.types import Array, Shape

Initializer = Callable[[Shape, np.random.Generator], Array]


def fans(shape: Shape) -> tuple[int, int]:
    """Return (fan_in, fan_out): how many inputs feed one output, and how many outputs one input feeds.

    ``(in, out)`` for Dense, ``(kh, kw, c_in, c_out)`` for convolutions; for a vector, both are its size.
    """
    if len(shape) < 2:
        return math.prod(shape), math.prod(shape)
    receptive_field = math.prod(shape[:-2])
    return shape[-2] * receptive_field, shape[-1] * receptive_field


def zeros(shape: Shape, rng: np.random.Generator) -> Array:
    """All 0: for biases, and batch-norm's beta."""
    return np.zeros(shape, np.float32)


def ones(shape: Shape, rng: np.random.Generator) -> Array:
    """All 1: for batch-norm's gamma."""
    return np.ones(shape, np.float32)


def _uniform(shape: Shape, rng: np.random.Generator, variance: float) -> Array:
    limit = math.sqrt(3 * variance)  # the variance of U(-a, a) is a^2 / 3
    values = rng.random(shape, dtype=np.float32)
    values *= 2 * limit
    values -= limit
    return values


def _normal(shape: Shape, rng: np.random.Generator, variance: float) -> Array:
    values = rng.standard_normal(shape, dtype=np.float32)
    values *= math.sqrt(variance)
    return values


def glorot_uniform(shape: Shape, rng: np.random.Generator) -> Array:
    """Uniform, variance 2 / (fan_in + fan_out): preserves the scale of both signals and gradients."""
    return _uniform(shape, rng, 2 / sum(fans(shape)))


def glorot_normal(shape: Shape, rng: np.random.Generator) -> Array:
    """Gaussian, variance 2 / (fan_in + fan_out)."""
    return _normal(shape, rng, 2 / sum(fans(shape)))


def he_uniform(shape: Shape, rng: np.random.Generator) -> Array:
    """Uniform, variance 2 / fan_in: compensates for the half that ReLU sets to zero."""
    return _uniform(shape, rng, 2 / fans(shape)[0])


def he_normal(shape: Shape, rng: np.random.Generator) -> Array:
    """Gaussian, variance 2 / fan_in."""
    return _normal(shape, rng, 2 / fans(shape)[0])


def lecun_normal(shape: Shape, rng: np.random.Generator) -> Array:
    """Gaussian, variance 1 / fan_in: preserves the scale of signals through a linear layer."""
    return _normal(shape, rng, 1 / fans(shape)[0])


_BY_NAME: dict[str, Initializer] = {
    function.__name__: function
    for function in (zeros, ones, glorot_uniform, glorot_normal, he_uniform, he_normal, lecun_normal)
}


def get(initializer: str | Initializer) -> Initializer:
    """Return the initializer of that name; a function is returned as it is. Raise ValueError for anything else."""
    if callable(initializer):
        return initializer
    if not isinstance(initializer, str) or initializer not in _BY_NAME:
        raise ValueError(f"unknown initializer {initializer!r}; known: {', '.join(sorted(_BY_NAME))}")
    return _BY_NAME[initializer]
