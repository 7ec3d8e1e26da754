"""Dense: the fully connected layer."""

from tinynet.engines.operation import matmul, sum_rows
from tinynet.initializers import Initializer
from tinynet.layers.kernel import KernelLayer
from tinynet.support.checks import batch_shape, check_positive_int
from tinynet.support.types import Array, Shape


class Dense(KernelLayer):
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

    gives = "real numbers"
    cache_names = ("_x",)
    _x: Array

    def __init__(
        self,
        units: int,
        use_bias: bool = True,
        kernel_initializer: str | Initializer = "glorot_uniform",
        bias_initializer: str | Initializer = "zeros",
    ) -> None:
        super().__init__(use_bias, kernel_initializer, bias_initializer)
        self.units = check_positive_int("Dense units", units)

    def build(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ValueError(
                f"expected input shape (batch, features), got {batch_shape(input_shape)}; put Flatten() before it"
            )
        self.add_kernel((input_shape[0], self.units), self.units)
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
        x = self._x
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
