"""Where a run's batches come from: arrays, reshuffled each epoch, or any iterable of (x, y)."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from tinynet.engines.devices import as_array, device_of, is_array
from tinynet.engines.operation import operation
from tinynet.support import random
from tinynet.support.types import Array

Augment = Callable[[Array, np.random.Generator], Array]
"""Changes a batch of inputs; draws from the given generator."""


class ArrayBatches:
    """Batches from two arrays.

    Args:
        x, y: inputs and targets, already checked: C-contiguous in the model's dtype or of integers, or memory-mapped.
        batch_size: the last batch of a pass over the arrays may be smaller.
        dtype: the model's, which batches of floats have.
        shuffle: whether each pass has its own order, drawn from seed and pass.
        augment: applied to each batch of x, with a generator drawn from seed, epoch and batch.
        steps: batches per epoch; None takes all. An epoch of fewer begins where the one before it ended.
        first_epoch: the run's first, which begins the first pass.
    Raises: ValueError: if there are fewer batches than steps.
    """

    def __init__(
        self,
        x: Array,
        y: Array,
        batch_size: int,
        dtype: np.dtype[Any],
        *,
        seed: int = 0,
        shuffle: bool = True,
        augment: Augment | None = None,
        steps: int | None = None,
        first_epoch: int = 0,
    ) -> None:
        self.x, self.y, self.batch_size, self.seed, self.shuffle, self.augment = (
            x,
            y,
            batch_size,
            seed,
            shuffle,
            augment,
        )
        self.in_a_pass = -(-len(x) // batch_size)
        if steps is not None and steps > self.in_a_pass:
            raise ValueError(
                f"steps_per_epoch={steps}: the arrays have {self.in_a_pass} batches of {batch_size}"
            )
        self.steps = self.in_a_pass if steps is None else steps
        self.first_epoch, self.position, self.goes_on = first_epoch, 0, True
        self.x_dtype, self.y_dtype = batch_dtype(x, dtype), batch_dtype(y, dtype)
        self._copies_x, self._copies_y = (
            shuffle or data.dtype != given or not data.flags.c_contiguous
            for data, given in ((x, self.x_dtype), (y, self.y_dtype))
        )

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Array, Array]]:
        """Yield an epoch's batches from number ``first``, counted from 0; each is valid until the next is taken."""
        rows_at_most = min(self.batch_size, len(self.x))
        x_buffer = np.empty((rows_at_most, *self.x.shape[1:]), self.x_dtype)
        y_buffer = np.empty((rows_at_most, *self.y.shape[1:]), self.y_dtype)
        order, before = None, self.before(epoch)
        for batch in range(first, self.steps):
            number, index = divmod(before + batch, self.in_a_pass)
            if batch == first or index == 0:
                order = self.order(number)
            start = index * self.batch_size
            x, y = self.x[start : start + self.batch_size], self.y[start : start + self.batch_size]
            if self._copies_x:
                x = take_rows(self.x, order, start, x_buffer[: len(x)])
            if self._copies_y:
                y = take_rows(self.y, order, start, y_buffer[: len(y)])
            if self.augment is not None:
                x = augmented(self.augment, x, random.generator(self.seed, random.AUGMENT, epoch, batch))
            yield x, y

    def before(self, epoch: int) -> int:
        """How many batches come before an epoch; pass p over the arrays begins with batch p times ``in_a_pass``."""
        if not self.goes_on:
            return epoch * self.in_a_pass
        return self.first_epoch * self.in_a_pass + (epoch - self.first_epoch) * self.steps

    def order(self, number: int) -> Array | None:
        """Return the order of the examples in a pass, indices (n,); None without shuffling."""
        if not self.shuffle:
            return None
        return random.generator(self.seed, random.SHUFFLE, number).permutation(len(self.x))


def batch_dtype(data: Array, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of the batches: the model's for floats, and for integers their own."""
    return dtype if data.dtype.kind == "f" else data.dtype.newbyteorder("=")


@operation
def take_rows(data: Array, order: Array | None, start: Any, out: Array) -> Array:
    """Copy the rows that ``order[start:]`` lists into ``out``, in its dtype. Indices must be in range."""
    rows = np.arange(start, start + len(out)) if order is None else order[start : start + len(out)]
    if out.dtype != data.dtype or not data.flags.c_contiguous:  # of which np.take would copy all
        np.copyto(out, data[rows], casting="unsafe")
        return out
    # mode="clip" saves NumPy a safety copy of the output.
    return np.take(data, rows, axis=0, out=out, mode="clip")


def augmented(augment: Augment, x: Array, rng: np.random.Generator) -> Array:
    """Return an augmented copy of the batch.

    Raises: ValueError: if ``augment`` does not return a batch of the same shape; TypeError: if it mixes a GPU array
        with NumPy's.
    """
    with device_of(x).mixtures("augment"):
        result = augment(x.copy(), rng)
        if is_array(result) and device_of(result) is not device_of(x):
            raise TypeError(f"it returned an array on {device_of(result).name!r}")
    if not is_array(result) or result.shape != x.shape:
        found = f"shape {result.shape}" if is_array(result) else repr(result)
        raise ValueError(f"augment: expected it to return a batch of shape {x.shape}, got {found}")
    return as_array(result, "augment's result")  # which refuses masks


class Batches(Protocol):
    """What a run trains on, epoch by epoch."""

    steps: int  # batches per epoch
    goes_on: bool  # whether an epoch begins where the one before it ended
    first_epoch: int  # the run's first, from which the passes over arrays are counted
    position: int  # how many batches an iterable's present pass has given
    augment: Augment | None

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Array, Array]]:
        """The batches of one epoch from the first, counted from 0."""
        ...
