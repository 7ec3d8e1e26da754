"""Softmax with cross-entropy, its gradient, and the count of right answers. NumPy: `tinynet.losses`, `metrics`."""

import math

from tinynet.engines.fast.compile import kernel
from tinynet.support.types import Array


@kernel
def softmax_cross_entropy(
    logits: Array, labels: Array, smoothing: float, losses: Array, probabilities: Array
) -> None:
    """losses = logsumexp(z_n) - sum_k q_nk z_nk     probabilities = softmax(z_n)"""
    classes = logits.shape[1]
    for n in range(len(logits)):
        z, p = logits[n], probabilities[n]
        largest = z[0]
        for k in range(1, classes):
            largest = z[k] if z[k] > largest else largest  # a NaN makes the sum below NaN
        total = average = 0.0
        for k in range(classes):
            p[k] = math.exp(z[k] - largest)
            total += p[k]
            average += z[k] - largest
        for k in range(classes):
            p[k] /= total
        target = (1 - smoothing) * (z[labels[n]] - largest) + smoothing * (average / classes)
        losses[n] = math.log(total) - target


@kernel
def cross_entropy_gradient(
    probabilities: Array, labels: Array, total: float, at_label: float, everywhere: float, gradient: Array
) -> None:
    """dz = (softmax(z) - q) / total, where q / total is at_label more at the label than everywhere."""
    for n in range(len(probabilities)):
        for k in range(probabilities.shape[1]):
            gradient[n, k] = probabilities[n, k] / total
        gradient[n, labels[n]] -= at_label
        for k in range(probabilities.shape[1]):
            gradient[n, k] -= everywhere


@kernel
def count_right(outputs: Array, labels: Array) -> int:
    """How many rows have their largest output, the first of equals, at their label; NaN counts as the largest."""
    right = 0
    for n in range(len(outputs)):
        y, best = outputs[n], 0
        for k in range(1, len(y)):
            if not (y[k] <= y[best]) and y[best] == y[best]:
                best = k
        right += best == labels[n]
    return right
