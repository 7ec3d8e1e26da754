"""BatchNorm: brings each feature of a batch to mean 0 and variance 1."""

import numpy as np

from tinynet.engines.devices import contiguous
from tinynet.engines.operation import operation, sum_of_rows
from tinynet.layers.base import Layer, memory_order
from tinynet.layers.shard import WHOLE_BATCH, Shard
from tinynet.support.checks import check_number
from tinynet.support.types import Array, Shape


class BatchNorm(Layer):
    """Batch normalization of each feature (the last axis); for images, of each channel.

    Forward:   x_hat = (x - mean) / sqrt(var + epsilon)     y = gamma x_hat + beta
    Backward:  dgamma = sum dy x_hat     dbeta = sum dy
               dx = gamma / sqrt(var + epsilon) (dy - dbeta / m - x_hat dgamma / m)

    The sums run over every axis but the last, and m is the number of terms in each. The two terms subtracted
    from dy account for the effect of x on mean and var. Training uses the batch's mean and (biased) variance
    and moves the running statistics towards them: running = momentum running + (1 - momentum) batch. Outside
    training, and when the layer is frozen, the running statistics are used instead.

    Shapes: x, y, x_hat (n, ..., features)  gamma, beta, mean, var (features,)
    Cached for backward: x_hat, 1 / sqrt(var + epsilon), the order of axes in memory
    Args:
        momentum: the share of the running statistics that a step keeps, in [0, 1].
        epsilon: added to the variance, above 0.
    Source: Ioffe & Szegedy 2015.
    """

    gives = "real numbers"
    state_names = ("running_mean", "running_var")
    cache_names = ("_x_hat", "_inv_std", "_order")
    gamma: Array
    beta: Array
    dgamma: Array
    dbeta: Array
    running_mean: Array
    running_var: Array
    _x_hat: Array
    _inv_std: Array
    _order: list[int] | None
    shard: Shard = WHOLE_BATCH

    def __init__(self, momentum: float = 0.9, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.momentum = check_number("BatchNorm momentum", momentum, 0, 1)
        self.epsilon = check_number("BatchNorm epsilon", epsilon, 1e-12, 1)

    def build(self, input_shape: Shape) -> Shape:
        features = input_shape[-1:]
        self.add_param("gamma", features, "ones", decay=False)
        self.add_param("beta", features, "zeros", decay=False)
        self.add_state("running_mean", features, 0)
        self.add_state("running_var", features, 1)
        return input_shape

    def forward(self, x: Array, training: bool = False) -> Array:
        if not training or not self.trainable:
            inv_std = 1 / np.sqrt(self.running_var + self.epsilon)
            if training:
                self._inv_std = inv_std
            scale = self.gamma * inv_std
            y = x * scale
            y += self.beta - self.running_mean * scale
            return y

        order = rows_order(x)
        if order is None:  # also if the features lie between other axes, where rows can't be a view
            x = contiguous(x)
        x_hat, y = (self.buffer(name, x.shape, x.dtype, like=x) for name in ("x_hat", "y"))
        rows, rows_hat, rows_y = (feature_rows(array, order) for array in (x, x_hat, y))  # (n, features)
        mean, var = moments(rows, rows_hat, self.shard)
        inv_std = standardize(rows, rows_hat, mean, var, self.epsilon, self.gamma, self.beta, rows_y)

        self._x_hat, self._inv_std, self._order = x_hat, inv_std, order
        # A single row has no variance to learn from.
        if self.shard.is_first and self.shard.total(len(rows)) > 1:
            move_averages(self.running_mean, mean, self.running_var, var, self.momentum)
        return y

    def backward(self, dy: Array) -> Array | None:
        inv_std = self._inv_std
        if not self.trainable:  # y is linear in x: mean and var are constants
            frozen_dx: Array = dy * (self.gamma * inv_std)
            return frozen_dx

        x_hat = self._x_hat
        order = self._order
        rows, rows_hat = feature_rows(dy, order), feature_rows(x_hat, order)
        feature_sums(rows, rows_hat, self.dbeta, self.dgamma)
        if not self.needs_input_grad:
            return None
        m = self.shard.total(len(rows))
        dgamma, dbeta = self.shard.sums(self.dgamma, self.dbeta)
        dx = self.buffer("dx", x_hat.shape, dy.dtype, like=x_hat)
        rows_dx = feature_rows(dx, order)
        batchnorm_dx(rows, rows_hat, dgamma, dbeta, m, self.gamma, inv_std, rows_dx)
        return dx


# The formulas above, over rows of features (m, features) and vectors (features,).


@operation
def moments(rows: Array, centred: Array, shard: Shard) -> tuple[Array, Array]:
    """mean = sum x / m     var = sum (x - mean)^2 / m     and leaves x - mean in ``centred``."""
    m = shard.total(len(rows))
    mean = shard.sum(sum_of_rows(rows)) / m
    np.subtract(rows, mean, out=centred)
    return mean, shard.sum(sum_of_rows(centred, centred)) / m


@operation
def standardize(
    rows: Array,
    centred: Array,
    mean: Array,
    var: Array,
    epsilon: float,
    gamma: Array,
    beta: Array,
    y: Array,
) -> Array:
    """x_hat = (x - mean) / sqrt(var + epsilon), which overwrites x - mean     y = gamma x_hat + beta

    Returns: 1 / sqrt(var + epsilon).
    """
    inv_std: Array = 1 / np.sqrt(var + epsilon)
    centred *= inv_std
    np.multiply(centred, gamma, out=y)
    y += beta
    return inv_std


@operation
def move_averages(running_mean: Array, mean: Array, running_var: Array, var: Array, momentum: float) -> None:
    """running = momentum running + (1 - momentum) batch, for both."""
    for running, batch in ((running_mean, mean), (running_var, var)):
        running *= momentum
        running += (1 - momentum) * batch


@operation
def feature_sums(dy: Array, x_hat: Array, dbeta: Array, dgamma: Array) -> None:
    """dbeta = sum dy     dgamma = sum dy x_hat"""
    dbeta[...] = sum_of_rows(dy)
    dgamma[...] = sum_of_rows(dy, x_hat)


@operation
def batchnorm_dx(
    dy: Array,
    x_hat: Array,
    dgamma: Array,
    dbeta: Array,
    m: int,
    gamma: Array,
    inv_std: Array,
    dx: Array,
) -> None:
    """dx = gamma inv_std (dy - (dbeta + x_hat dgamma) / m)"""
    np.multiply(x_hat, dgamma, out=dx)
    dx += dbeta
    dx /= -m
    dx += dy
    dx *= gamma * inv_std


def rows_order(x: Array) -> list[int] | None:
    """The axes of images whose features are slowest in memory, from slow to fast; None means NumPy's own order."""
    if x.flags.c_contiguous:
        return None
    order = memory_order(x)
    return order if order[0] == x.ndim - 1 else None


def feature_rows(x: Array, order: list[int] | None) -> Array:
    """View (n, ..., features) as (n ..., features), with the rows in memory order so that nothing is copied.

    Args: order: the result of `rows_order` for an array with the memory layout of x.
    """
    if order is None:
        return x.reshape(-1, x.shape[-1])
    last = x.ndim - 1
    return x.transpose(*(axis for axis in order if axis != last), last).reshape(-1, x.shape[-1])
