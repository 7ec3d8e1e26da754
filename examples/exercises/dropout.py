"""Exercise: the backward pass of dropout.

In each training step a random part of the units is silent, ``rate`` of them on average, and the others are made larger,
so that the expected value stays what it was:

    mask = 1 / (1 - rate) where a unit is kept, 0 where it is dropped            x, y, dx, dy, mask (n, ...)
    y = x mask

The mask is drawn anew in each forward. It does not depend on x, so to backward it is a constant.

Check your answer:   python -m tinynet exercise dropout examples/exercises/dropout.py
Then compare it with `Dropout` in tinynet/layers/dropout.py.
"""

import numpy as np  # noqa: F401 (for your answer)


class Dropout:
    """y = x mask, as in training."""

    def __init__(self, rate, rng):
        self.rate, self.rng = rate, rng

    def forward(self, x):
        keep = self.rng.random(x.shape) >= self.rate
        self.mask = keep / (1 - self.rate)  # backward needs it
        return x * self.mask

    def backward(self, dy):
        """Return dx."""
        # A unit that was silent passes nothing back; what was made larger on the way up is made larger on the way down.
        raise NotImplementedError("your turn: return dx")
