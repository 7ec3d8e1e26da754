"""The data that `fit` trains and validates with, checked before anything is changed."""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tinynet.losses import Loss
from tinynet.protocols import Model
from tinynet.support.checks import check_number, check_positive_int
from tinynet.support.types import Array
from tinynet.training.batches import ArrayBatches, Augment, Batches
from tinynet.training.inputs import check_data, looks_like_bytes, magnitude
from tinynet.training.iterables import IterableBatches

Pair = tuple[Any, Any]
"""Arguments of `evaluate`: inputs and targets, or an iterable of batches and None."""


class Data(NamedTuple):
    """The data of a run."""

    batches: Batches
    validation: Pair | None
    on_bytes: bool  # whether x holds integers such as pixels from 0 to 255
    magnitude: float | None  # the largest of x; None for an iterable


def prepare_data(
    model: Model,
    x: Any,
    y: Any,
    loss: Loss,
    *,
    batch_size: int,
    epochs: int,
    steps: int | None,
    shuffle: bool,
    augment: Augment | None,
    validation_data: Any,
    validation_split: float,
    validation_steps: int | None,
) -> Data:
    """The checked data of a run; the arguments are those of `fit`. Raises: ValueError, TypeError."""
    if y is None:
        if validation_split:
            raise ValueError("validation_split needs arrays x and y; with an iterable, give validation_data")
        batches = IterableBatches(x, model, loss, steps=steps, epochs=epochs, augment=augment)
        validation = _check_validation(model, validation_data, loss, validation_steps)
        return Data(batches, validation, model.fitted_on_bytes, None)
    x, y = check_data(x, y, model, loss)
    if validation_split:
        if validation_data is not None:
            raise ValueError("give validation_data or validation_split, not both")
        x, y, validation_data = _split(x, y, validation_split)
    arrays = ArrayBatches(
        x,
        y,
        batch_size,
        model.dtype,
        seed=model.seed,
        shuffle=shuffle,
        augment=augment,
        steps=steps,
        first_epoch=model.epoch,
    )
    validation = _check_validation(model, validation_data, loss, validation_steps)
    return Data(arrays, validation, looks_like_bytes(x), magnitude(x))


def _split(x: Array, y: Array, share: float) -> tuple[Array, Array, tuple[Array, Array]]:
    """Split off the end for validation, as Keras does."""
    check_number("validation_split", share, 0, 1, open_high=True)
    # Rounded first, because as a binary number, 1 - 0.9 is a little less than a tenth.
    start = math.floor(round(len(x) * (1 - share), 6))
    if not 0 < start < len(x):
        raise ValueError(f"validation_split={share} leaves nothing on one side of the {len(x)} examples")
    return x[:start], y[:start], (x[start:], y[start:])


class _FirstBatches:
    """The first batches of an iterable, as an iterable with a length."""

    def __init__(self, source: Iterable[Any], steps: int) -> None:
        self.source, self.steps = source, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self.source, self.steps)


def _check_validation(model: Model, validation_data: Any, loss: Loss, steps: int | None) -> Pair | None:
    if validation_data is None or (isinstance(validation_data, tuple) and len(validation_data) == 2):
        if steps is not None:
            raise ValueError("validation_steps: only an iterable of batches as validation_data takes it")
        if validation_data is None:
            return None
        return check_data(*validation_data, model, loss, suffix=" of validation_data")
    if isinstance(validation_data, Iterator):
        raise ValueError(
            "validation_data: a generator is used up after one epoch; give arrays or a list of batches"
        )
    if isinstance(validation_data, (list, tuple)) and any(
        isinstance(item, np.ndarray) for item in validation_data
    ):
        raise ValueError(
            "validation_data: expected a tuple (x, y), or an iterable of such batches, got single arrays"
        )
    steps = None if steps is None else check_positive_int("validation_steps", steps)
    batches = IterableBatches(validation_data, model, loss, steps=steps, to_the_end=True)
    if isinstance(validation_data, (list, tuple)):
        try:
            for _ in batches.epoch(0):
                pass
        except ValueError as error:
            raise ValueError(f"validation_data: {error}") from None
    return validation_data if steps is None else _FirstBatches(validation_data, steps), None
