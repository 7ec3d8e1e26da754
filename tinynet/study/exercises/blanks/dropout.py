"""Exercise: the backward pass of dropout.

In each training step, a random part of the units is dropped (set to 0), ``rate`` of them on average. The others are
scaled up, so that the expected value stays the same:

    mask = 1 / (1 - rate) where a unit is kept, 0 where it is dropped            x, y, dx, dy, mask (n, ...)
    y = x mask

Each forward draws a new mask. The mask does not depend on x, so it is a constant in backward.

Check your answer:   python -m tinynet exercise dropout exercises/dropout.py
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
        # A dropped unit passes nothing back; the gradient of a kept unit is scaled up, as the unit was.
        raise NotImplementedError("your turn: return dx")
