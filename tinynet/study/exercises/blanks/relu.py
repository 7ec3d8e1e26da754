"""Exercise: the backward pass of ReLU, the rectified linear unit.

    y = max(x, 0), element by element            x, y, dx, dy of one shape, (n, ...)

Each y depends on one x only, so dx is dy times the slope of the function at that x. The slope is 1 to the right of 0
and 0 to the left. At 0 there is a kink and no slope; by convention, the slope there is taken to be 0.

Check your answer:   python -m tinynet exercise relu exercises/relu.py
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
        # Where was the unit on? dy passes there and nowhere else. Return a new array: dy belongs to the caller.
        raise NotImplementedError("your turn: return dx")
