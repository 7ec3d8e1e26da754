"""Exercise: the backward pass of softmax.

Each row of x becomes probabilities:

    y_i = exp(x_i) / sum over j of exp(x_j)            x, y, dx, dy (n, classes)

Every y in a row depends on every x in that row. The slopes form one matrix per row, the Jacobian:

    how y_i changes with x_j  =  y_i (1 - y_i) if i = j,  else  - y_i y_j

The chain rule sums over all the y that an x affects:

    dx_j = sum over i of dy_i times (how y_i changes with x_j)

There is no need to build the matrix: write out the sum, and factor out what does not depend on i. A quick check: if dy
is the same for all classes, dx is 0, because probabilities sum to 1 whatever x is.

Check your answer:   python -m tinynet exercise softmax exercises/softmax.py
Then compare it with `Softmax` in tinynet/layers/activations.py.
"""

import numpy as np


class Softmax:
    """Probabilities from logits, row by row."""

    def forward(self, x):
        y = np.exp(x - x.max(axis=1, keepdims=True))  # minus the largest: same y, no overflow
        y /= y.sum(axis=1, keepdims=True)
        self.y = y  # backward needs it
        return y

    def backward(self, dy):
        """Return dx."""
        # One sum per row, of shape (n, 1): keepdims=True keeps it a column that broadcasts against dy.
        raise NotImplementedError("your turn: return dx")
