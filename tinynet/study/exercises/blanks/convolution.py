"""Exercise: the backward pass of a convolution.

A kernel slides over each image in steps of s. At each position, the products of window and kernel are summed:

    y[n, i, j, o] = sum over u, v, c of x[n, i s + u, j s + v, c] W[u, v, c, o], plus b[o]
    x, dx (n, h, w, c_in)   W, dW (kh, kw, c_in, c_out)   b, db (c_out,)   y, dy (n, down, across, c_out)

This is a dense layer, used at every position with the same W. So for each window:

    its part of dW[u, v, c, o] = sum over n of window[n, u, v, c] dy[n, i, j, o]
    its part of dx, at [n, u, v, c] of the window = sum over o of dy[n, i, j, o] W[u, v, c, o]

Every window uses W, and a pixel is used by every window that contains it, so the parts are added. Every y uses b.

Check your answer:   python -m tinynet exercise convolution exercises/convolution.py
Then compare it with `Conv2D` in tinynet/layers/conv.py, which computes all windows as one matrix product.
"""

import numpy as np


class Conv2D:
    """A kernel that slides over images (n, h, w, c_in)."""

    def __init__(self, W, b, strides):
        self.W, self.b, self.strides = W, b, strides

    def forward(self, x):
        kh, kw, _, c_out = self.W.shape
        s = self.strides
        n, h, w, _ = x.shape
        down, across = (h - kh) // s + 1, (w - kw) // s + 1
        y = np.empty((n, down, across, c_out))
        for i in range(down):
            for j in range(across):
                window = x[:, i * s : i * s + kh, j * s : j * s + kw]  # (n, kh, kw, c_in)
                y[:, i, j] = (
                    np.tensordot(window, self.W, axes=3) + self.b
                )  # sums over kh, kw and c_in: (n, c_out)
        self.x = x  # backward needs it
        return y

    def backward(self, dy):
        """Set self.dW and self.db, and return dx."""
        # Start with zeros for dW and dx, loop over the same windows, and add. np.tensordot(a, b, axes=(0, 0)) sums
        # over the first axis of both, axes=(1, 3) over axis 1 of a and axis 3 of b. The other axes stay, a's first.
        raise NotImplementedError("your turn: set self.dW and self.db, and return dx")
