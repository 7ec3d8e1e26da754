"""Cross-entropies, their gradients, and the count of right answers. NumPy: `tinynet.losses`, `metrics`.

Each kernel returns False, having written nothing that counts, if a label is not a class; NumPy's body then says so.
"""

import math
from typing import Any

import numpy as np

from tinynet.engines.fast.arrays import dense, labels_of
from tinynet.engines.fast.compile import kernel, loop
from tinynet.support.types import Array


@loop
def softmax_cross_entropy(logits: Array, labels: Array, smoothing: float) -> Any:
    if not (dense(logits) and labels_of(labels, logits)):
        return NotImplemented
    losses, probabilities = np.empty(len(logits), logits.dtype), np.empty_like(logits)
    known = _softmax_cross_entropy(logits, labels, logits.dtype.type(smoothing), losses, probabilities)
    return (losses, probabilities) if known else NotImplemented


@kernel
def _softmax_cross_entropy(
    logits: Array, labels: Array, smoothing: float, losses: Array, probabilities: Array
) -> bool:
    """losses = logsumexp(z_n) - sum_k q_nk z_nk     probabilities = softmax(z_n)"""
    classes = logits.shape[1]
    for n in range(len(logits)):
        if labels[n] < 0 or labels[n] >= classes:
            return False
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
        target = z[labels[n]] - largest
        if smoothing != 0:  # otherwise a score of minus infinity does not count
            target = (1 - smoothing) * target + smoothing * (average / classes)
        losses[n] = math.log(total) - target
    return True


@loop
def cross_entropy_gradient(probabilities: Array, labels: Array, smoothing: float, total: int) -> Any:
    if not (dense(probabilities) and labels_of(labels, probabilities)):
        return NotImplemented
    gradient, number = np.empty_like(probabilities), probabilities.dtype.type
    at_label, everywhere = (
        number((1 - smoothing) / total),
        number(smoothing / (total * probabilities.shape[1])),
    )
    known = _cross_entropy_gradient(probabilities, labels, number(total), at_label, everywhere, gradient)
    return gradient if known else NotImplemented


@kernel
def _cross_entropy_gradient(
    probabilities: Array, labels: Array, total: float, at_label: float, everywhere: float, gradient: Array
) -> bool:
    """dz = (softmax(z) - q) / total, where q / total is at_label more at the label than everywhere."""
    classes = probabilities.shape[1]
    for n in range(len(probabilities)):
        if labels[n] < 0 or labels[n] >= classes:
            return False
        for k in range(classes):
            gradient[n, k] = probabilities[n, k] / total
        gradient[n, labels[n]] -= at_label
        for k in range(classes):
            gradient[n, k] -= everywhere
    return True


@loop
def record(meter: Array, value: Any, outputs: Array, labels: Array | None) -> Any:
    if labels is None or not (dense(outputs) and labels_of(labels, outputs)):
        return NotImplemented
    meter[0] += value * len(outputs)
    meter[1] += _count_right(outputs, labels)
    meter[2] += len(outputs)
    meter[3] = value
    return None


@kernel
def _count_right(outputs: Array, labels: Array) -> int:
    """How many rows have their largest output, the first of equals, at their label; NaN counts as the largest."""
    right = 0
    for n in range(len(outputs)):
        y, best = outputs[n], 0
        for k in range(1, len(y)):
            if not (y[k] <= y[best]) and y[best] == y[best]:
                best = k
        right += best == labels[n]
    return right
