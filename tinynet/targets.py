"""The targets of classification: class labels, or probabilities of the classes."""

import contextlib
from typing import Any

import numpy as np

from tinynet.engines.devices import blocks, to_host
from tinynet.support.checks import batch_shape
from tinynet.support.types import Array, Shape

_SUM_TOLERANCE = 1e-3  # they may be rounded, as to float16


def check_labels(labels: Any, output_shape: Shape) -> Array:
    """Class labels as an (n,) array of NumPy's index type.

    Args:
        labels: integers (n,) or (n, 1), each from 0 to classes - 1.
        output_shape: (classes,).
    Raises: ValueError: with what is wrong and how to fix it.
    """
    if len(output_shape) != 1:
        raise ValueError(
            f"class labels need outputs of shape (batch, classes), got {batch_shape(output_shape)}"
        )
    classes = output_shape[0]
    labels = to_host(labels)
    if labels.ndim == 2 and labels.shape[1] == classes and classes > 1:
        one_hot = ((labels == 1).sum(axis=1) == 1).all() and ((labels == 0).sum(axis=1) == classes - 1).all()
        raise ValueError(
            "labels: expected class numbers of shape (n,), got "
            + (
                f"one-hot of shape {labels.shape}; give labels.argmax(1)"
                if one_hot
                else f"shape {labels.shape}"
            )
        )
    if labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels: expected integers from 0 to {classes - 1}, got dtype {labels.dtype}{_dtype_hint(labels)}"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(f"labels: expected shape (n,) or (n, 1), got {labels.shape}")
    if labels.dtype.kind == "u" and labels.size and int(labels.max()) >= classes:
        raise _label_out_of_range(labels, classes)
    indices: Array = labels.astype(np.intp, copy=False)
    # Viewed as unsigned, a negative label is huge, so one pass finds both kinds of error.
    if indices.size and int(indices.view(np.uintp).max()) >= classes:
        raise _label_out_of_range(indices, classes)
    return indices


def _dtype_hint(labels: Array) -> str:
    if labels.dtype.kind in "US" or (
        labels.dtype == object and all(isinstance(item, str) for item in labels.flat)
    ):
        return "; number the classes with names, y = np.unique(labels, return_inverse=True)"
    with contextlib.suppress(TypeError, ValueError):
        if labels.dtype.kind in "bfO" and (labels.astype(np.int64) == labels).all():
            return "; give labels.astype(int) if they are class numbers"
    return ""


def check_shares(targets: Any, output_shape: Shape) -> Array | None:
    """Soft targets, the probabilities of the classes for each example (n, classes); None for anything but floats.

    Raises: ValueError: if a row has a negative number, or not a sum of 1.
    """
    targets = to_host(targets)
    shares: Array = targets
    if targets.dtype.kind != "f" or targets.shape[1:] != output_shape or output_shape in ((), (1,)):
        return None
    for start, block in blocks(targets):
        sums = np.add.reduce(block, axis=1, dtype=np.float64)
        right = (abs(sums - 1) <= _SUM_TOLERANCE) & (np.minimum.reduce(block, axis=1) >= 0)  # false for NaN
        if not right.all():
            row = int(right.argmin())
            raise ValueError(
                "targets: expected class numbers (n,), or probabilities of the classes, at least 0 with a sum of 1; "
                f"row {start + row} has a sum of {sums[row]:.6g} and a minimum of {block[row].min():.6g}"
            )
    return shares


def _label_out_of_range(labels: Array, classes: int) -> ValueError:
    first = int(np.flatnonzero((labels < 0) | (labels >= classes))[0])
    return ValueError(
        f"labels: expected class numbers from 0 to {classes - 1}, as the model has {classes} outputs; "
        f"got {labels[first]} at index {first}"
    )
