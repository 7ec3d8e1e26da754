"""Optimizers: how a gradient becomes a step.

Each optimizer sees the whole model as two flat vectors, ``params`` and ``grads``, so a step is a dozen NumPy
calls, however deep the network is. ``update`` is the formula. Everything works in place, in memory that the
optimizer owns. Learning rate, weight decay and clipping are in `tinynet.optimizer`, the base class.
"""

import math
from typing import Any

import numpy as np

from tinynet.engines.operation import operation
from tinynet.optimizer import NO_DECAY, Optimizer, shrink
from tinynet.support.checks import check_number
from tinynet.support.types import Array, Decay, Schedule

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop"]


class SGD(Optimizer):
    """Stochastic gradient descent.

    Update:    p -= learning_rate g
    Momentum:  velocity = momentum velocity - learning_rate g     p += velocity
    Nesterov:  the same velocity                                  p += momentum velocity - learning_rate g

    Args: learning_rate; momentum in [0, 1); nesterov (needs momentum); the rest as in `Optimizer`.
    Source: Robbins & Monro 1951; Polyak 1964; Nesterov 1983, in the form of Sutskever et al. 2013.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decoupled: bool = True,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, decoupled, clip_norm)
        self.momentum = check_number("SGD momentum", momentum, 0, 1, open_high=True)
        self.nesterov = bool(nesterov)
        if nesterov and not momentum:
            raise ValueError("SGD nesterov=True looks ahead along the momentum; also give momentum, e.g. 0.9")
        self.slot_names = ("velocity",) if momentum else ()

    def update(
        self,
        params: Array,
        grads: Array,
        step_size: float,
        scratch: Array,
        decay: Decay = NO_DECAY,
        **slots: Any,
    ) -> None:
        if not self.momentum:
            sgd_update(params, grads, scratch, step_size, decay)
            return
        velocity, nesterov = slots["velocity"], self.nesterov
        momentum_update(params, grads, velocity, scratch, step_size, self.momentum, nesterov, decay)


@operation
def sgd_update(params: Array, grads: Array, scratch: Array, step_size: Any, decay: Decay) -> None:
    """p -= step_size g"""
    shrink(params, decay)
    params -= np.multiply(grads, step_size, out=scratch)


@operation
def momentum_update(
    params: Array,
    grads: Array,
    velocity: Array,
    scratch: Array,
    step_size: Any,
    momentum: float,
    nesterov: bool,
    decay: Decay,
) -> None:
    """velocity = momentum velocity - step_size g     p += velocity, or with Nesterov momentum velocity - step_size g"""
    np.multiply(grads, step_size, out=scratch)
    velocity *= momentum
    velocity -= scratch
    shrink(params, decay)
    if not nesterov:
        params += velocity
        return
    params -= scratch
    params += np.multiply(velocity, momentum, out=scratch)


class RMSprop(Optimizer):
    """Divides each gradient by its recent magnitude.

    v = rho v + (1 - rho) g^2     p -= learning_rate g / sqrt(v + epsilon)

    Args: learning_rate; rho in [0, 1); epsilon above 0; the rest as in `Optimizer`.
    Source: Tieleman & Hinton 2012, with epsilon under the root as in Keras.
    """

    slot_names = ("v",)

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        rho: float = 0.9,
        epsilon: float = 1e-7,
        weight_decay: float = 0.0,
        decoupled: bool = True,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, decoupled, clip_norm)
        self.rho = check_number("RMSprop rho", rho, 0, 1, open_high=True)
        self.epsilon = check_number("RMSprop epsilon", epsilon, 1e-30, 1)

    def update(
        self,
        params: Array,
        grads: Array,
        step_size: float,
        scratch: Array,
        decay: Decay = NO_DECAY,
        **slots: Any,
    ) -> None:
        rmsprop_update(params, grads, slots["v"], scratch, step_size, self.rho, self.epsilon, decay)


@operation
def rmsprop_update(
    params: Array,
    grads: Array,
    v: Array,
    scratch: Array,
    step_size: Any,
    rho: float,
    epsilon: float,
    decay: Decay,
) -> None:
    """v = rho v + (1 - rho) g^2     p -= step_size g / sqrt(v + epsilon)"""
    np.multiply(grads, grads, out=scratch)
    scratch *= 1 - rho
    v *= rho
    v += scratch
    np.add(v, epsilon, out=scratch)
    np.sqrt(scratch, out=scratch)
    np.divide(grads, scratch, out=scratch)
    scratch *= step_size
    shrink(params, decay)
    params -= scratch


class Adam(Optimizer):
    """Adaptive moments.

    m = beta_1 m + (1 - beta_1) g     v = beta_2 v + (1 - beta_2) g^2
    p -= learning_rate sqrt(1 - beta_2^t) / (1 - beta_1^t)  m / (sqrt(v) + epsilon)

    The slots hold M = m / (1 - beta_1) and V = v / (1 - beta_2), which saves two of twelve passes over the parameters.
    The step is size M / (sqrt(V) + epsilon / sqrt(1 - beta_2)), where size contains all other factors.

    Args: learning_rate; beta_1, beta_2 in [0, 1); epsilon above 0; the rest as in `Optimizer`.
    Source: Kingma & Ba 2015, with epsilon placed as at the end of its section 2 and in Keras.
    """

    slot_names = ("m", "v")

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        weight_decay: float = 0.0,
        decoupled: bool = True,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, decoupled, clip_norm)
        self.beta_1 = check_number("Adam beta_1", beta_1, 0, 1, open_high=True)
        self.beta_2 = check_number("Adam beta_2", beta_2, 0, 1, open_high=True)
        self.epsilon = check_number("Adam epsilon", epsilon, 1e-30, 1)

    def step_size(self, learning_rate: float) -> float:
        t, root = self.step_count, math.sqrt(1 - self.beta_2)
        return learning_rate * math.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t) * (1 - self.beta_1) / root

    def update(
        self,
        params: Array,
        grads: Array,
        step_size: float,
        scratch: Array,
        decay: Decay = NO_DECAY,
        **slots: Any,
    ) -> None:
        epsilon, betas = self.epsilon / math.sqrt(1 - self.beta_2), (self.beta_1, self.beta_2)
        adam_update(params, grads, slots["m"], slots["v"], scratch, step_size, *betas, epsilon, decay)


@operation
def adam_update(
    params: Array,
    grads: Array,
    m: Array,
    v: Array,
    scratch: Array,
    step_size: Any,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    decay: Decay,
) -> None:
    """m = beta_1 m + g     v = beta_2 v + g^2     p -= step_size m / (sqrt(v) + epsilon)

    m and v are what `Adam` calls M and V; the learning rate is in step_size.
    """
    np.multiply(grads, grads, out=scratch)  # first, as it may overflow
    m *= beta_1
    m += grads
    v *= beta_2
    v += scratch
    np.sqrt(v, out=scratch)
    scratch += epsilon
    np.divide(m, scratch, out=scratch)
    scratch *= step_size
    shrink(params, decay)
    params -= scratch


class AdamW(Adam):
    """Adam with decoupled weight decay: p -= learning_rate weight_decay p, in addition to Adam's step.

    Args: as in `Adam`; weight_decay defaults to 0.004, as in Keras.
    Source: Loshchilov & Hutter 2019.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        weight_decay: float = 0.004,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, weight_decay, True, clip_norm)
