"""Optimizers' updates, each in one pass over the parameters, with weight decay. NumPy bodies: `tinynet.optimizers`.

Of a kernel's parameters, the first ``decayed`` shrink by the factor ``kept``. It returns how many numbers overflowed;
a gradient that is infinite itself does not count.
"""

import math
from typing import Any

from tinynet.engines.fast.arrays import alike
from tinynet.engines.fast.compile import kernel, loop
from tinynet.support.types import Array, Decay


@loop
def sgd_update(params: Array, grads: Array, scratch: Array, step_size: float, decay: Decay) -> Any:
    if not alike(params, grads):
        return NotImplemented
    (kept, decayed), number = decay, params.dtype.type
    _refuse(_sgd_update(params, grads, decayed, number(step_size), number(kept)), "the parameters")
    return None


@kernel
def _sgd_update(params: Array, grads: Array, decayed: int, step_size: float, kept: float) -> int:
    """p -= step_size g"""
    overflowed = 0
    for i in range(params.size):
        p = kept * params[i] if i < decayed else params[i]
        params[i] = p - step_size * grads[i]
        overflowed += abs(params[i]) == math.inf and abs(grads[i]) < math.inf
    return overflowed


@loop
def momentum_update(
    params: Array,
    grads: Array,
    velocity: Array,
    scratch: Array,
    step_size: float,
    momentum: float,
    nesterov: bool,
    decay: Decay,
) -> Any:
    if not alike(params, grads, velocity):
        return NotImplemented
    kept, decayed = decay
    numbers = map(params.dtype.type, (step_size, momentum, kept))
    _refuse(_momentum_update(params, grads, velocity, decayed, nesterov, *numbers), "velocity")
    return None


@kernel
def _momentum_update(
    params: Array,
    grads: Array,
    velocity: Array,
    decayed: int,
    nesterov: bool,
    step_size: float,
    momentum: float,
    kept: float,
) -> int:
    """velocity = momentum velocity - step_size g     p += velocity, or with Nesterov momentum velocity - step_size g"""
    overflowed = 0
    for i in range(params.size):
        step = step_size * grads[i]
        velocity[i] = momentum * velocity[i] - step
        p = kept * params[i] if i < decayed else params[i]
        params[i] = p + (momentum * velocity[i] - step if nesterov else velocity[i])
        overflowed += abs(velocity[i]) == math.inf and abs(grads[i]) < math.inf
    return overflowed


@loop
def rmsprop_update(
    params: Array,
    grads: Array,
    v: Array,
    scratch: Array,
    step_size: float,
    rho: float,
    epsilon: float,
    decay: Decay,
) -> Any:
    if not alike(params, grads, v):
        return NotImplemented
    kept, decayed = decay
    numbers = map(params.dtype.type, (step_size, rho, 1 - rho, epsilon, kept))
    _refuse(_rmsprop_update(params, grads, v, decayed, *numbers), "v")
    return None


@kernel
def _rmsprop_update(
    params: Array,
    grads: Array,
    v: Array,
    decayed: int,
    step_size: float,
    rho: float,
    share: float,
    epsilon: float,
    kept: float,
) -> int:
    """v = rho v + share g^2     p -= step_size g / sqrt(v + epsilon), where share is 1 - rho"""
    overflowed = 0
    for i in range(params.size):
        g = grads[i]
        v[i] = rho * v[i] + share * (g * g)
        p = kept * params[i] if i < decayed else params[i]
        params[i] = p - step_size * (g / math.sqrt(v[i] + epsilon))
        overflowed += v[i] == math.inf
    return overflowed


@loop
def adam_update(
    params: Array,
    grads: Array,
    m: Array,
    v: Array,
    scratch: Array,
    step_size: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    decay: Decay,
) -> Any:
    if not alike(params, grads, m, v):
        return NotImplemented
    kept, decayed = decay
    numbers = map(params.dtype.type, (step_size, beta_1, beta_2, epsilon, kept))
    _refuse(_adam_update(params, grads, m, v, decayed, *numbers), "v")
    return None


@kernel
def _adam_update(
    params: Array,
    grads: Array,
    m: Array,
    v: Array,
    decayed: int,
    step_size: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    kept: float,
) -> int:
    """m = beta_1 m + g     v = beta_2 v + g^2     p -= step_size m / (sqrt(v) + epsilon)"""
    overflowed = 0
    for i in range(params.size):
        g = grads[i]
        m[i] = beta_1 * m[i] + g
        v[i] = beta_2 * v[i] + g * g
        p = kept * params[i] if i < decayed else params[i]
        params[i] = p - step_size * m[i] / (math.sqrt(v[i]) + epsilon)
        overflowed += v[i] == math.inf
    return overflowed


def _refuse(overflowed: int, what: str) -> None:
    if overflowed:
        raise FloatingPointError(f"overflow encountered in {what}")
