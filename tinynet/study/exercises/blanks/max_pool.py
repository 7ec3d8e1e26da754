"""Exercise: the backward pass of max-pooling.

A window of k x k pixels slides over each image in steps of s, and keeps the largest pixel of each channel:

    y[n, i, j, c] = the largest of x[n, i s + u, j s + v, c] for u, v from 0 to k - 1
    x, dx (n, h, w, c)   y, dy (n, down, across, c)

Only the largest pixel of a window affects y: it gets all of dy, and the others get nothing. If several are equal, the
first one counts, row by row. Where windows overlap (s < k), one pixel can be the largest of several windows. Then it
affects several y, and its gradient is a sum.

Check your answer:   python -m tinynet exercise max_pool exercises/max_pool.py
Then compare it with `MaxPool2D` in tinynet/layers/pooling.py.
"""

import numpy as np


class MaxPool2D:
    """The largest pixel of each window."""

    def __init__(self, pool_size, strides):
        self.pool_size, self.strides = pool_size, strides

    def forward(self, x):
        k, s = self.pool_size, self.strides
        n, h, w, c = x.shape
        down, across = (h - k) // s + 1, (w - k) // s + 1
        y = np.empty((n, down, across, c))
        for i in range(down):
            for j in range(across):
                window = x[:, i * s : i * s + k, j * s : j * s + k]  # (n, k, k, c)
                y[:, i, j] = window.max(axis=(1, 2))
        self.x = x  # backward needs it
        return y

    def backward(self, dy):
        """Return dx."""
        # Start with zeros for dx and loop over the same windows. In each, window.reshape(n, k * k, c).argmax(axis=1) is
        # the position of the first largest pixel, (n, c); divmod by k turns it into a row and a column. With an index
        # array per axis, dx[np.arange(n)[:, None], rows, columns, np.arange(c)] reaches all of them at once.
        raise NotImplementedError("your turn: return dx")
