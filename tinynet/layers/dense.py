"""Dense: the fully connected layer."""

import numpy as np

from tinynet.backend import matmul, operation
from tinynet.checks import batch_shape, check_bool, check_positive_int
from tinynet.initializers import Initializer
from tinynet.layers.base import Layer
from tinynet.types import Array, Shape


class Dense(Layer):
    """Fully connected layer.

    Forward:   y = x W + b
    Backward:  dW = x^T dy     db = sum_n dy     dx = dy W^T

    Shapes: x (n, in)  y (n, out)  W (in, out)  b (out,)
    Cached for backward: x
    Args:
        units: the number of outputs, a positive int.
        use_bias: whether to add b.
        kernel_initializer, bias_initializer: a name or function from `tinynet.initializers`.
    Raises: ValueError: if the input is not 2-D.
    Source: Rumelhart, Hinton & Williams 1986; initial values: Glorot & Bengio 2010.
    """

    W: Array
    b: Array
    dW: Array
    db: Array
    _x: Array | None = None

    def __init__(
        self,
        units: int,
        use_bias: bool = True,
        kernel_initializer: str | Initializer = "glorot_uniform",
        bias_initializer: str | Initializer = "zeros",
    ) -> None:
        super().__init__()
        self.units = check_positive_int("Dense units", units)
        self.use_bias = check_bool(
            "Dense use_bias", use_bias, "; for an activation, add a ReLU() layer after it"
        )
        self.kernel_initializer = kernel_initializer
        self.bias_initializer = bias_initializer

    def build(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ValueError(
                f"expected input shape (batch, features), got {batch_shape(input_shape)}; put Flatten() before it"
            )
        self.add_param("W", (input_shape[0], self.units), self.kernel_initializer)
        if self.use_bias:
            self.add_param("b", (self.units,), self.bias_initializer, decay=False)
        return (self.units,)

    def forward(self, x: Array, training: bool = False, add_bias: bool = True) -> Array:
        """y = x W + b; without ``add_bias``, the ReLU after the layer adds b in its own pass over the numbers."""
        out = self.buffer("y", (len(x), self.units), x.dtype) if training else None
        y = matmul(x, self.W, out=out)  # (n, in) (in, out) -> (n, out)
        if self.use_bias and add_bias:
            y += self.b
        if training:
            self._x = x
        return y

    def backward(self, dy: Array) -> Array | None:
        x = self.cached(self._x)
        if self.trainable:
            matmul(x.T, dy, out=self.dW)  # (in, n) (n, out) -> (in, out)
            if self.use_bias:
                sum_rows(dy, self.db)  # (out,)
        if not self.needs_input_grad:
            return None
        dx = self.buffer("dx", x.shape, x.dtype, like=x)
        return matmul(dy, self.W.T, out=dx)  # (n, out) (out, in) -> (n, in)

    def multiply_adds(self) -> int:
        return int(self.W.size)


@operation
def sum_rows(rows: Array, out: Array) -> None:
    """out = sum_n rows, (n, out) -> (out,)."""
    np.add.reduce(rows, axis=0, out=out)
