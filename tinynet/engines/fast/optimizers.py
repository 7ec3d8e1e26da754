"""Optimizers' updates, each in one pass over the parameters. NumPy bodies: `tinynet.optimizers`."""

import math

from tinynet.engines.fast.compile import kernel
from tinynet.support.types import Array


@kernel
def adam_update(
    params: Array,
    grads: Array,
    m: Array,
    v: Array,
    step_size: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
) -> int:
    """m = beta_1 m + g     v = beta_2 v + g^2     p -= step_size m / (sqrt(v) + epsilon)

    Returns: how many v have overflowed.
    """
    overflowed = 0
    for i in range(params.size):
        g = grads[i]
        m[i] = beta_1 * m[i] + g
        v[i] = beta_2 * v[i] + g * g
        params[i] -= step_size * m[i] / (math.sqrt(v[i]) + epsilon)
        overflowed += v[i] == math.inf
    return overflowed
