"""Exercise: the gradient of softmax with cross-entropy, where every classifier's backward pass begins.

    p = softmax(z), row by row                                z, p, dz (n, classes)   labels (n,) integers
    L = - 1/n  sum over the examples of log p[label]          one number

Softmax and logarithm are simpler together than apart: log p[label] = z[label] - log sum over j of exp(z_j), and the
slope of the last logarithm with respect to z_k is p_k. So for each example

    dz_k = (p_k - 1) / n  for the label,   dz_k = p_k / n  for every other class

that is, what the network says minus what is true, divided by n. Each row sums to 0.

Check your answer:   python -m tinynet exercise softmax_cross_entropy exercises/softmax_cross_entropy.py
Then compare it with `SoftmaxCrossEntropy` in tinynet/losses.py.
"""

import numpy as np


class SoftmaxCrossEntropy:
    """The mean over the batch of - log softmax(z)[label]."""

    def forward(self, z, labels):
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        self.p, self.labels = p, labels  # backward needs them
        return -np.log(p[np.arange(len(z)), labels]).mean()

    def backward(self):
        """Return dz, the gradient of the loss with respect to z; there is no dy, as the loss comes last."""
        # In each row, one element differs from the others; forward finds it with p[np.arange(n), labels].
        # Do not change self.p: work on a copy.
        raise NotImplementedError("your turn: return dz")
