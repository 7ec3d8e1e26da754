"""ReLU, over arrays as they lie in memory. NumPy bodies: `tinynet.layers.activations`."""

from tinynet.engines.fast.compile import kernel
from tinynet.support.types import Array


@kernel
def rectify(x: Array, y: Array) -> None:
    """y = max(x, 0); NaN stays."""
    for i in range(x.size):
        y[i] = 0 if x[i] <= 0 else x[i]


@kernel
def rectify_biased(x: Array, bias: Array, y: Array) -> None:
    """y = max(x + bias, 0), for rows (n, features)."""
    for n in range(len(x)):
        for j in range(x.shape[1]):
            z = x[n, j] + bias[j]
            y[n, j] = 0 if z <= 0 else z


@kernel
def rectify_backward(dy: Array, y: Array, dx: Array) -> None:
    """dx = dy where y > 0, else 0; where dy is NaN or infinite, so is dx, as in NumPy's product."""
    for i in range(dy.size):
        dx[i] = dy[i] * (y[i] > 0)
