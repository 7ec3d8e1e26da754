"""The base class of layers with a kernel W and a bias b."""

from tinynet.initializers import Initializer
from tinynet.layers.base import Layer
from tinynet.support.checks import check_bool
from tinynet.support.types import Array, Shape


class KernelLayer(Layer):
    """A layer with a kernel ``W`` and, with ``use_bias``, a bias ``b``.

    Args:
        use_bias: whether to add b.
        kernel_initializer, bias_initializer: a name or a function of `tinynet.initializers`.
    """

    W: Array
    b: Array
    dW: Array
    db: Array

    def __init__(
        self, use_bias: bool, kernel_initializer: str | Initializer, bias_initializer: str | Initializer
    ) -> None:
        super().__init__()
        self.use_bias = check_bool(
            f"{type(self).__name__} use_bias",
            use_bias,
            "; for an activation, add a ReLU() layer after it",
        )
        self.kernel_initializer = kernel_initializer
        self.bias_initializer = bias_initializer

    def add_kernel(self, shape: Shape, biases: int) -> None:
        """Declare W of this shape and b, in `build`; weight decay applies to W only."""
        self.add_param("W", shape, self.kernel_initializer)
        if self.use_bias:
            self.add_param("b", (biases,), self.bias_initializer, decay=False)
