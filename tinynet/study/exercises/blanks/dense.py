"""Exercise: the backward pass of a fully connected layer.

A batch of n examples goes through the layer as one matrix product:

    y = x W + b            x (n, in)   W (in, out)   b (out,)   y (n, out)
    y[n, o] = sum over i of x[n, i] W[i, o], plus b[o]

``backward`` gets dy, the gradient of the loss with respect to y: dy[n, o] says how the loss changes with y[n, o]. By
the chain rule, every y that uses a number adds to its gradient: dy, times what the number is multiplied by there.

    dW[i, o] = sum over n of x[n, i] dy[n, o]        (in, out)
    db[o]    = sum over n of dy[n, o]                (out,)
    dx[n, i] = sum over o of dy[n, o] W[i, o]        (n, in)

The gradient of an array has its shape. There is no mean here: the loss divides by n, and dy already contains that.

Check your answer:   python -m tinynet exercise dense exercises/dense.py
Then compare it with `Dense` in tinynet/layers/dense.py.
"""

import numpy as np  # noqa: F401 (for your answer)


class Dense:
    """y = x W + b."""

    def __init__(self, W, b):
        self.W, self.b = W, b

    def forward(self, x):
        self.x = x  # backward needs it
        return x @ self.W + self.b  # (n, in) (in, out) -> (n, out)

    def backward(self, dy):
        """Set self.dW and self.db, and return dx."""
        # dW and dx are each a matrix product of two of x, dy and W, one of them transposed (.T); the shapes above tell
        # you which. db is a sum over one axis.
        raise NotImplementedError("your turn: set self.dW and self.db, and return dx")
