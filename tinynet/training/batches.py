"""Where a run's batches come from: arrays, reshuffled each epoch, or any iterable of (x, y)."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from tinynet.engines.devices import device_of, is_array
from tinynet.engines.operation import operation
from tinynet.support import random
from tinynet.support.types import Array

Augment = Callable[[Array, np.random.Generator], Array]
"""Changes a batch of inputs; draws from the given generator."""


class ArrayBatches:
    """Batches from two arrays.

    Args:
        x, y: inputs and targets, already checked, C-contiguous.
        batch_size: the last batch of an epoch may be smaller.
        shuffle: whether each epoch has its own order, drawn from seed and epoch.
        augment: applied to each batch of x, with a generator drawn from seed, epoch and batch.
        steps: batches per epoch; None takes all.
    Raises: ValueError: if there are fewer batches than steps.
    """

    def __init__(
        self,
        x: Array,
        y: Array,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool = True,
        augment: Augment | None = None,
        steps: int | None = None,
    ) -> None:
        self.x, self.y, self.batch_size, self.seed, self.shuffle, self.augment = (
            x,
            y,
            batch_size,
            seed,
            shuffle,
            augment,
        )
        self.steps = -(-len(x) // batch_size)
        if steps is not None and steps > self.steps:
            raise ValueError(f"steps_per_epoch={steps}: the arrays have {self.steps} batches of {batch_size}")
        self.steps = self.steps if steps is None else steps

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Array, Array]]:
        """Yield an epoch's batches from number ``first``, counted from 0; each is valid until the next is taken."""
        order = self.order(epoch)
        rows_at_most = min(self.batch_size, len(self.x))
        x_buffer = np.empty((rows_at_most, *self.x.shape[1:]), self.x.dtype)
        y_buffer = np.empty((rows_at_most, *self.y.shape[1:]), self.y.dtype)
        for batch in range(first, self.steps):
            part = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
            if order is None:
                x, y = self.x[part], self.y[part]
            else:
                rows = order[part]
                x = take_rows(self.x, order, part.start, x_buffer[: len(rows)])
                y = take_rows(self.y, order, part.start, y_buffer[: len(rows)])
            if self.augment is not None:
                x = augmented(self.augment, x, random.generator(self.seed, random.AUGMENT, epoch, batch))
            yield x, y

    def order(self, epoch: int) -> Array | None:
        """Return the order of the examples in the epoch, indices (n,); None without shuffling."""
        if not self.shuffle:
            return None
        return random.generator(self.seed, random.SHUFFLE, epoch).permutation(len(self.x))


@operation
def take_rows(data: Array, order: Array | None, start: Any, out: Array) -> Array:
    """Copy the rows that ``order[start:]`` lists into ``out``, in its dtype. Indices must be in range."""
    rows = np.arange(start, start + len(out)) if order is None else order[start : start + len(out)]
    if out.dtype != data.dtype:
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
    return result


class Batches(Protocol):
    """What a run trains on, epoch by epoch."""

    steps: int  # batches per epoch
    augment: Augment | None

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Array, Array]]:
        """The batches of one epoch from the first, counted from 0."""
        ...
