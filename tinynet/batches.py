"""Where a run's batches come from: arrays, reshuffled each epoch, or any iterable of (x, y)."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from tinynet import random
from tinynet.backend import CPU, device_of, operation
from tinynet.inputs import check_inputs, check_pair
from tinynet.losses import Loss
from tinynet.protocols import Model
from tinynet.types import Array

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
        """Yield the batches of one epoch from ``first`` on, counted from 0; each is valid until the next is taken."""
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
    """Copy the rows of data that order lists from ``start`` on to ``out``, in its dtype. Indices must be in range."""
    rows = np.arange(start, start + len(out)) if order is None else order[start : start + len(out)]
    if out.dtype != data.dtype:
        np.copyto(out, data[rows], casting="unsafe")
        return out
    # mode="clip" saves NumPy a safety copy of the output.
    return np.take(data, rows, axis=0, out=out, mode="clip")


def augmented(augment: Augment, x: Array, rng: np.random.Generator) -> Array:
    """Return an augmented copy of the batch.

    Raises: ValueError: if ``augment`` does not return a batch of the same shape; TypeError: if it treats an array on
        the GPU as NumPy's.
    """
    try:
        result = augment(x.copy(), rng)
        if isinstance(result, np.ndarray) and device_of(x) is not CPU:
            raise TypeError("it returned a NumPy array")
    except TypeError as error:
        if device_of(x) is CPU:
            raise
        raise TypeError(
            f"augment: the model and therefore the batch are on the GPU; move what augment draws there with "
            f"cupy.asarray, or use the steps of tinynet.datasets.augment ({error})"
        ) from error
    is_array = isinstance(result, np.ndarray) or type(result) is type(x)
    if not is_array or result.shape != x.shape:
        found = f"shape {result.shape}" if is_array else repr(result)
        raise ValueError(f"augment: expected it to return a batch of shape {x.shape}, got {found}")
    return result


class IterableBatches:
    """Batches from any iterable of (x, y), checked one by one.

    Args:
        source: can be iterated once per epoch: a list of batches, or an object with ``__iter__``.
        steps: how many batches an epoch takes; None takes ``len(source)``.
        epochs: how many times it will be iterated.
        to_the_end: take all batches, however many; for evaluation, which needs no number of steps.
    Raises: ValueError: if the number of steps is unknown or the source can't be iterated again;
        TypeError: if it is not an iterable.
    """

    def __init__(
        self,
        source: Iterable[Any],
        model: Model,
        loss: Loss,
        *,
        steps: int | None = None,
        epochs: int = 1,
        to_the_end: bool = False,
        augment: Augment | None = None,
    ) -> None:
        if not isinstance(source, Iterable):
            raise TypeError(
                f"x: expected an array, or an iterable of (x, y) batches, got {type(source).__name__}"
            )
        if isinstance(source, np.ndarray):
            raise ValueError("y: expected targets for the array x, got none")
        if steps is None and not to_the_end:
            try:
                steps = len(source)  # type: ignore[arg-type]
            except TypeError:
                raise ValueError("the iterable of batches has no length; pass steps_per_epoch") from None
        if epochs > 1 and iter(source) is source:
            raise ValueError(
                f"{epochs} epochs need batches that can be iterated again, but a generator is used up after one; "
                "pass a list of batches or an object with __iter__"
            )
        if steps == 0:
            raise ValueError("expected at least one batch, got an empty iterable")
        self.source, self.model, self.loss, self.augment = source, model, loss, augment
        self.steps = 0 if steps is None else steps  # 0: to the end

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Array, Array]]:
        """Yield the batches of one epoch from ``first`` on, counted from 0; earlier ones are taken and dropped.

        Raises: ValueError: names the batch, counted from 1, that is wrong or missing.
        """
        batches = iter(self.source)
        for batch in itertools.count():
            if self.steps and batch == self.steps:
                return
            try:
                pair = next(batches)
            except StopIteration:
                if batch and not self.steps:
                    return
                raise ValueError(
                    f"batch {batch + 1}: expected {self.steps or 'some'} batches, but the iterable gave {batch}; "
                    "reduce steps_per_epoch, or provide more"
                ) from None
            if batch >= first:
                yield self._checked(pair, epoch, batch)

    def _checked(self, pair: Any, epoch: int, batch: int) -> tuple[Array, Array]:
        model, where = self.model, f"batch {batch + 1}"
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ValueError(f"{where}: expected a pair (x, y), got {type(pair).__name__}")
        try:
            x = check_inputs(pair[0], model.input_shape, model.dtype, device=model.device)
            y = self.loss.check_targets(pair[1], model.output_shape)
            if y.dtype.kind == "f":
                y = y.astype(model.dtype, copy=False)
            check_pair(x, y)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if self.augment is not None:
            x = augmented(self.augment, x, random.generator(model.seed, random.AUGMENT, epoch, batch))
        return x, y


Batches = ArrayBatches | IterableBatches
