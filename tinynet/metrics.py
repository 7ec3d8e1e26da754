"""Classification metrics, from true and predicted class labels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinynet.engines.operation import operation
from tinynet.support.checks import check_positive_int
from tinynet.support.types import Array


def accuracy(labels: Any, predicted: Any) -> float:
    """Return the share of examples whose predicted class is the true one.

    Args: labels, predicted: integers (n,).
    Raises: ValueError: if the two differ in shape or are empty.
    """
    labels, predicted = _check_pair(labels, predicted)
    return float(np.count_nonzero(labels == predicted)) / len(labels)


@operation
def record(meter: Array, value: Any, outputs: Any, labels: Array | None) -> None:
    """Add a batch to a meter (4,): the sum of losses, correct predictions, examples and, last, the batch's loss.

    Args: value: the batch's mean loss; outputs (n, ...); labels (n,), their probabilities, or None for regression.
    """
    meter[0] += value * len(outputs)
    meter[2] += len(outputs)
    meter[3] = value
    if labels is not None:
        labels = labels if labels.ndim == 1 else labels.argmax(axis=1)
        meter[1] += np.count_nonzero(outputs.argmax(axis=1) == labels)


def confusion_matrix(labels: Any, predicted: Any, classes: int | None = None) -> Array:
    """Count how often each class was predicted as each class.

    Args: labels, predicted: integers (n,); classes: the number of classes, by default the largest label + 1.
    Returns: integers (classes, classes): rows are true classes, columns predicted ones.
    Raises: ValueError: if the two differ in shape or a label is out of range, or if classes is below 1.
    """
    labels, predicted = _check_pair(labels, predicted)
    largest, smallest = int(max(labels.max(), predicted.max())), int(min(labels.min(), predicted.min()))
    classes = largest + 1 if classes is None else check_positive_int("classes", classes)
    if smallest < 0 or largest >= classes:
        raise ValueError(f"expected labels from 0 to {classes - 1}, got {smallest} to {largest}")
    pairs = labels.astype(np.intp) * classes + predicted.astype(np.intp)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


class ClassScores(NamedTuple):
    """One row of the report; a score that would be 0 / 0 is 0."""

    name: str
    precision: float  # the share of predictions of this class that are right
    recall: float  # the share of examples of this class that were predicted as such
    f1: float  # their harmonic mean
    support: int  # how many examples have this class


class ClassificationReport(NamedTuple):
    """Precision, recall and F1 of each class, their plain means, and the accuracy; ``print`` it as a table."""

    classes: list[ClassScores]
    macro: ClassScores
    accuracy: float

    def __str__(self) -> str:
        width = max(len("macro average"), *(len(row.name) for row in self.classes))
        lines = [f"{'':<{width}}  precision  recall      F1  support"]
        lines += [
            f"{row.name:<{width}}  {row.precision:9.4f}  {row.recall:6.4f}  {row.f1:6.4f}  {row.support:7,}"
            for row in [*self.classes, self.macro]
        ]
        lines.append(f"{'accuracy':<{width}}  {self.accuracy:9.4f}")
        return "\n".join(lines)


def classification_report(
    labels: Any, predicted: Any, class_names: Sequence[str] | None = None
) -> ClassificationReport:
    """Precision, recall and F1 per class.

    Args: labels, predicted: integers (n,); class_names: one name per class, in order.
    Raises: ValueError: as `confusion_matrix`.
    """
    matrix = confusion_matrix(labels, predicted, None if class_names is None else len(class_names))
    names = [str(index) for index in range(len(matrix))] if class_names is None else list(class_names)
    hits = np.diag(matrix)
    precision = hits / np.maximum(matrix.sum(axis=0), 1)
    recall = hits / np.maximum(matrix.sum(axis=1), 1)
    f1 = 2 * precision * recall / np.where(precision + recall > 0, precision + recall, 1)
    rows = [
        ClassScores(name, float(p), float(r), float(f), int(support))
        for name, p, r, f, support in zip(names, precision, recall, f1, matrix.sum(axis=1), strict=True)
    ]
    total = int(matrix.sum())
    macro = ClassScores(
        "macro average", float(precision.mean()), float(recall.mean()), float(f1.mean()), total
    )
    return ClassificationReport(rows, macro, float(hits.sum()) / total)


def _check_pair(labels: Any, predicted: Any) -> tuple[Array, Array]:
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.shape != predicted.shape or labels.ndim != 1 or not len(labels):
        raise ValueError(
            "expected true and predicted labels of the same shape (n,), n at least 1; "
            f"got {labels.shape} and {predicted.shape}"
        )
    for name, array in (("true", labels), ("predicted", predicted)):
        if array.dtype.kind not in "iu":
            raise ValueError(
                f"{name} labels: expected integers, got dtype {array.dtype}; for probabilities pass their argmax(1)"
            )
    return labels, predicted
