"""Exercise: the backward pass of ReLU, the rectified linear unit.

    y = max(x, 0), element by element            x, y, dx, dy of one shape, (n, ...)

Each y depends on one x only, so dx is dy times the slope of the function at that x. To the right of 0 the slope is 1,
to the left it is 0. At 0 there is a kink, and no slope; as everywhere, 0 is taken there.

Check your answer:   python -m tinynet exercise relu examples/exercises/relu.py
Then compare it with `ReLU` in tinynet/layers/activations.py.
"""

import numpy as np


class ReLU:
    """y = max(x, 0)."""

    def forward(self, x):
        self.x = x  # backward needs it
        return np.maximum(x, 0)

    def backward(self, dy):
        """Return dx."""
        # Where was the unit on? dy passes there, and nowhere else. Return a new array: dy belongs to who called.
        raise NotImplementedError("your turn: return dx")
