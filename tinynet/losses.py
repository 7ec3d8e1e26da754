"""Losses: what training minimises, each with its gradient directly below.

``forward(outputs, targets, total=None)`` divides by ``total``, the number of examples in the whole batch, so that the
parts of a batch add up. Without ``total``, the outputs are the whole batch, and the targets are checked first. Training
checks them once per run, not in each step.
"""

import math
from typing import Any

import numpy as np

from tinynet.engines.devices import as_array, blocks, device_of, is_mapped, to_host
from tinynet.engines.operation import operation
from tinynet.support.checks import batch_shape, check_number
from tinynet.support.errors import NotComputedError
from tinynet.support.types import Array, Shape
from tinynet.targets import check_labels, check_shares


class Loss:
    """A function that turns outputs and targets into one number, and its derivative.

    A loss of your own needs ``forward(outputs, targets, total)`` and ``backward()``. Its targets are class labels or,
    with ``is_classification = False``, any numbers; `check_targets` may demand more.
    """

    is_classification = True
    takes: str | None = None
    """What outputs it is a loss of: "probabilities", "log-probabilities" or "logits" (see `Layer.gives`). Each class
    says it for itself; None takes any."""
    cache_names: tuple[str, ...] = ()  # what forward keeps for backward

    def forward(self, outputs: Array, targets: Array, total: int | None = None) -> Any:
        """The mean loss of the batch; for outputs on the GPU, an array () there."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward(outputs, targets, total)")

    def backward(self) -> Array:
        """The gradient with respect to the outputs given to `forward`; a new array of their shape."""
        raise NotImplementedError(f"{type(self).__name__} defines no backward()")

    def check_targets(self, targets: Any, output_shape: Shape) -> Array:
        """The targets as `forward` takes them; raises ValueError. ``output_shape`` excludes the batch axis."""
        if self.is_classification:
            return check_labels(targets, output_shape)
        numbers = to_host(targets)
        if numbers.dtype.kind not in "biuf" or not numbers.ndim:
            raise ValueError(
                f"targets: expected an array of real numbers, got {numbers.dtype} of shape {numbers.shape}"
            )
        return numbers

    def prepare_targets(self, targets: Any, output_shape: Shape, dtype: np.dtype[Any]) -> Array:
        """The checked targets, C-contiguous, floats in the dtype given; raises ValueError if they don't fit into it.

        A memory-mapped file of floats stays as it is, to be converted batch by batch.
        """
        checked = self.check_targets(as_array(targets, "targets"), output_shape)
        if checked.dtype.kind != "f":
            return np.ascontiguousarray(checked)
        try:
            with np.errstate(over="raise"):
                for _, block in blocks(checked):
                    block.astype(dtype, copy=False)
        except FloatingPointError:
            largest = max(float(np.nanmax(np.abs(block))) for _, block in blocks(checked))
            raise ValueError(
                f"targets: expected numbers that {dtype} can hold, got one of magnitude {largest:.3g}; "
                "divide them by a constant"
            ) from None
        return checked if is_mapped(checked) else np.ascontiguousarray(checked, dtype)

    def check_batch(self, outputs: Array, targets: Any) -> tuple[Array, int]:
        """The checked targets, on the outputs' device, and their number; raises ValueError."""
        checked = self.prepare_targets(targets, outputs.shape[1:], outputs.dtype)
        if len(outputs) != len(checked) or not len(outputs):
            raise ValueError(
                f"expected one target per example and at least one; got {len(outputs)} outputs "
                f"and {len(checked)} targets"
            )
        return device_of(outputs).asarray(checked), len(outputs)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as a model file keeps them for the library's losses."""
        return {}

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{type(self).__name__}({arguments})"

    def __getattr__(self, name: str) -> Any:
        if name in type(self).cache_names:
            raise NotComputedError(
                "the loss's backward needs what its forward(outputs, targets) keeps; call that first"
            )
        raise AttributeError(f"{type(self).__name__!r} loss has no attribute {name!r}")


class _Classification(Loss):
    """The base class of losses on class labels, or on their probabilities: label smoothing."""

    label_smoothing: float
    _targets: Array
    _total: int

    def __init__(self, label_smoothing: float = 0.0) -> None:
        kind = type(self).__name__
        self.label_smoothing = check_number(f"{kind} label_smoothing", label_smoothing, 0, 1, open_high=True)

    def check_targets(self, targets: Any, output_shape: Shape) -> Array:
        shares = check_shares(targets, output_shape)
        return check_labels(targets, output_shape) if shares is None else shares

    def config(self) -> dict[str, Any]:
        return {"label_smoothing": self.label_smoothing}


class SoftmaxCrossEntropy(_Classification):
    """Cross-entropy of the softmax of logits, in one step.

    Forward:   L = sum_n (logsumexp(z_n) - sum_k q_nk z_nk) / total
    Backward:  dz = (softmax(z) - q) / total

    q is 1 at the label and 0 elsewhere, or soft targets; with label smoothing s, q becomes (1 - s) q + s / classes.

    Shapes: z (n, classes)  targets (n,) integers, or (n, classes) probabilities
    Cached for backward: softmax(z), targets
    Args: label_smoothing: in [0, 1).
    Raises: ValueError: for targets that are neither class labels nor probabilities.
    Source: Bridle 1990; label smoothing: Szegedy et al. 2016. Finite if the logits' differences are.
    """

    takes = "logits"
    cache_names = ("_probabilities", "_targets", "_total")
    _probabilities: Array

    def forward(self, outputs: Array, targets: Array, total: int | None = None) -> Any:
        if total is None:
            targets, total = self.check_batch(outputs, targets)
        given = softmax_cross_entropy if targets.ndim == 1 else soft_cross_entropy
        losses, self._probabilities = given(outputs, targets, self.label_smoothing)
        self._targets, self._total = targets, total
        return mean(np.add.reduce(losses), total)

    def backward(self) -> Array:
        gradient = cross_entropy_gradient if self._targets.ndim == 1 else soft_gradient
        return gradient(self._probabilities, self._targets, self.label_smoothing, self._total)


@operation
def softmax_cross_entropy(logits: Array, labels: Array, smoothing: float) -> tuple[Array, Array]:
    """logsumexp(z_n) - sum_k q_nk z_nk for each example, (n,), and softmax(z), (n, classes)."""
    shifted = logits - np.maximum.reduce(logits, axis=1, keepdims=True)
    probabilities = np.exp(shifted)
    sums = np.add.reduce(probabilities, axis=1, keepdims=True)
    probabilities /= sums
    return np.log(sums[:, 0]) - target_term(shifted, labels, smoothing), probabilities


@operation
def cross_entropy_gradient(probabilities: Array, labels: Array, smoothing: float, total: int) -> Array:
    """dz = (softmax(z) - q) / total"""
    gradient: Array = probabilities / total
    subtract_targets(gradient, labels, smoothing, total)
    return gradient


def soft_cross_entropy(logits: Array, targets: Array, smoothing: float) -> tuple[Array, Array]:
    """`softmax_cross_entropy` for soft targets: - sum_k q_k log p_k = - log p_j - sum_k q_k (z_k - z_j), for any j."""
    likely = targets.argmax(axis=1)
    losses, probabilities = softmax_cross_entropy(logits, likely, 0.0)
    return losses - target_term(logits - pick(logits, likely)[:, None], targets, smoothing), probabilities


def soft_gradient(probabilities: Array, targets: Array, smoothing: float, total: int) -> Array:
    """`cross_entropy_gradient` for soft targets."""
    gradient: Array = probabilities / total
    subtract_shares(gradient, targets, smoothing, total)
    return gradient


class CrossEntropy(_Classification):
    """Cross-entropy of probabilities, as `Softmax` gives them.

    Forward:   L = - sum_n sum_k q_nk log p_nk / total
    Backward:  dp = - q / (p total), and 0 where q is 0

    A model that ends in `Softmax` is trained with `SoftmaxCrossEntropy`, the same loss as a function of the
    logits, which stays finite where p rounds to 0. Nothing is clipped and no epsilon is added: a probability
    of 0 for the true class gives an infinite loss.

    Shapes: p (n, classes)  targets (n,) integers, or (n, classes) probabilities
    Cached for backward: p, targets
    Args: label_smoothing: in [0, 1).
    Raises: ValueError: for targets that are neither class labels nor probabilities.
    """

    takes = "probabilities"
    cache_names = ("_probabilities", "_targets", "_total")
    _probabilities: Array

    def forward(self, outputs: Array, targets: Array, total: int | None = None) -> Any:
        if total is None:
            targets, total = self.check_batch(outputs, targets)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_p = np.log(outputs)
        self._probabilities, self._targets, self._total = outputs, targets, total
        losses = 0.0 - target_term(log_p, targets, self.label_smoothing)  # not -0.0
        return mean(np.add.reduce(losses), total)

    def backward(self) -> Array:
        p = self._probabilities
        gradient = np.zeros_like(p)
        subtract = subtract_targets if self._targets.ndim == 1 else subtract_shares
        subtract(gradient, self._targets, self.label_smoothing, self._total)
        with np.errstate(divide="ignore", over="ignore"):
            return np.divide(gradient, np.where(gradient == 0, np.ones_like(p), p), out=gradient)

    def on_logits(self) -> SoftmaxCrossEntropy:
        """The same loss as a function of the logits before the softmax."""
        return SoftmaxCrossEntropy(self.label_smoothing)


class NegativeLogLikelihood(_Classification):
    """Negative log-likelihood of log-probabilities, as `LogSoftmax` gives them.

    Forward:   L = - sum_n sum_k q_nk log p_nk / total
    Backward:  d(log p) = - q / total

    q is 1 at the label and 0 elsewhere, or soft targets.

    Shapes: log p (n, classes)  targets (n,) integers, or (n, classes) probabilities
    Cached for backward: the shape of log p, targets
    Raises: ValueError: for targets that are neither class labels nor probabilities.
    """

    takes = "log-probabilities"
    cache_names = ("_outputs", "_targets", "_total")
    _outputs: Array

    def __init__(self) -> None:
        super().__init__()

    def config(self) -> dict[str, Any]:
        return {}

    def forward(self, outputs: Array, targets: Array, total: int | None = None) -> Any:
        if total is None:
            targets, total = self.check_batch(outputs, targets)
        self._outputs, self._targets, self._total = outputs, targets, total
        log_p = pick(outputs, targets) if targets.ndim == 1 else shares_of(outputs, targets)
        return mean(np.add.reduce(0.0 - log_p), total)

    def backward(self) -> Array:
        gradient = np.zeros_like(self._outputs)
        subtract = subtract_targets if self._targets.ndim == 1 else subtract_shares
        subtract(gradient, self._targets, 0.0, self._total)
        return gradient


@operation
def pick(scores: Array, labels: Array) -> Array:
    """The score of each example's label, (n,)."""
    picked: Array = scores[np.arange(len(labels)), labels]
    return picked


def target_term(scores: Array, targets: Array, smoothing: float) -> Array:
    """sum_k q_k score_k of each example, (n,)."""
    picked = pick(scores, targets) if targets.ndim == 1 else shares_of(scores, targets)
    if not smoothing:
        return picked
    average: Array = np.add.reduce(scores, axis=1) / scores.shape[1]
    return (1 - smoothing) * picked + smoothing * average


def shares_of(scores: Array, targets: Array) -> Array:
    """`pick` for soft targets: sum_k q_k score_k, (n,), where a score counts 0 if q_k is 0."""
    picked: Array = np.add.reduce(np.where(targets == 0, np.zeros_like(scores), scores) * targets, axis=1)
    return picked


@operation
def subtract_targets(gradient: Array, labels: Array, smoothing: float, total: int) -> None:
    """gradient -= q / total, for q = (1 - s) onehot + s / classes."""
    gradient[np.arange(len(labels)), labels] -= (1 - smoothing) / total
    if smoothing:
        gradient -= smoothing / (total * gradient.shape[1])


def subtract_shares(gradient: Array, targets: Array, smoothing: float, total: int) -> None:
    """`subtract_targets` for soft targets."""
    gradient -= (targets * (1 - smoothing) + smoothing / targets.shape[1]) / total


def mean(total_loss: Any, count: int) -> Any:
    """total_loss / count in float64, so that batch means add up: a float, or an array () on the GPU."""
    value = np.divide(total_loss, count, dtype=np.float64)
    return float(value) if isinstance(value, np.floating) else value


class MeanSquaredError(Loss):
    """Mean of the squared differences, over all examples and all outputs of each.

    Forward:   L = sum_n sum_k (y_nk - t_nk)^2 / (total outputs)
    Backward:  dy = 2 (y - t) / (total outputs)

    Shapes: y, t (n, ...), of the same shape; t are floats
    Cached for backward: y - t
    Raises: ValueError: if the targets are not finite floats, or have another shape.
    """

    is_classification = False
    cache_names = ("_difference", "_count")
    _difference: Array
    _count: int

    def forward(self, outputs: Array, targets: Array, total: int | None = None) -> Any:
        if total is None:
            targets, total = self.check_batch(outputs, targets)
        self._difference, self._count = outputs - targets, total * math.prod(outputs.shape[1:])
        return mean(squared_norm(self._difference), self._count)

    def backward(self) -> Array:
        return self._difference * (2 / self._count)

    def check_targets(self, targets: Any, output_shape: Shape) -> Array:
        targets = to_host(targets)
        if targets.dtype.kind != "f":
            hint = "; give targets.astype('float32'), or use a classification loss for class labels"
            raise ValueError(
                f"targets: MeanSquaredError expects floats, got dtype {targets.dtype}"
                f"{hint if targets.dtype.kind in 'iub' else ''}"
            )
        if targets.ndim == 1 and output_shape == (1,):
            targets = targets[:, None]
        if targets.shape[1:] != output_shape or targets.ndim == 0:
            raise ValueError(
                f"targets: expected the outputs' shape {batch_shape(output_shape)}, got {targets.shape}"
            )
        for start, block in blocks(targets):
            finite = np.isfinite(block)
            if not finite.all():
                first = tuple(map(int, np.argwhere(~finite)[0]))
                raise ValueError(
                    f"targets: expected finite numbers, got {block[first]} at index {(start + first[0], *first[1:])}"
                )
        checked: Array = targets
        return checked


@operation
def squared_norm(x: Array) -> Any:
    """sum x^2 over all elements."""
    return np.vdot(x, x)


BY_NAME: dict[str, type[Loss]] = {
    kind.__name__: kind
    for kind in (SoftmaxCrossEntropy, CrossEntropy, NegativeLogLikelihood, MeanSquaredError)
}
"""The losses that a model file may name."""

__all__ = [
    "CrossEntropy",
    "Loss",
    "MeanSquaredError",
    "NegativeLogLikelihood",
    "SoftmaxCrossEntropy",
]
