"""Where a run's batches come from: arrays, shuffled anew each epoch, or any iterable of (x, y)."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from tinynet.engines.devices import CPU, device_of
from tinynet.engines.operation import operation
from tinynet.losses import Loss
from tinynet.protocols import Model
from tinynet.support import random
from tinynet.support.types import Array
from tinynet.training.inputs import check_inputs, check_pair

Augment = Callable[[Array, np.random.Generator], Array]
"""Changes a batch of inputs; draws from the generator that it is given."""


class ArrayBatches:
    """Batches of two arrays.

    Args:
        x, y: inputs and targets, checked already, C-contiguous.
        batch_size: the last batch of an epoch may be smaller.
        shuffle: whether each epoch has an order of its own, drawn from seed and epoch.
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
        """The batches of one epoch from the first, counted from 0; each stays valid until the next is taken."""
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
        """The indices of the examples as the epoch takes them, (n,); None without shuffling."""
        if not self.shuffle:
            return None
        return random.generator(self.seed, random.SHUFFLE, epoch).permutation(len(self.x))


@operation
def take_rows(data: Array, order: Array | None, start: Any, out: Array) -> Array:
    """out = some rows of data, those at ``start`` and on of the order, in out's dtype. Indices must be in range."""
    rows = np.arange(start, start + len(out)) if order is None else order[start : start + len(out)]
    if out.dtype != data.dtype:
        np.copyto(out, data[rows], casting="unsafe")
        return out
    # mode="clip" spares NumPy a safety copy of the output.
    return np.take(data, rows, axis=0, out=out, mode="clip")


def augmented(augment: Augment, x: Array, rng: np.random.Generator) -> Array:
    """A changed copy of the batch.

    Raises: ValueError: if ``augment`` returns no batch of its shape; TypeError: if it takes the GPU's for NumPy's.
    """
    try:
        result = augment(x.copy(), rng)
        if isinstance(result, np.ndarray) and device_of(x) is not CPU:
            raise TypeError("it returned an array of NumPy's")
    except TypeError as error:
        if device_of(x) is CPU:
            raise
        raise TypeError(
            f"augment: the model is on the GPU, and so is the batch that it is given; bring what it draws there by "
            f"cupy.asarray, or take the steps of tinynet.datasets.augment ({error})"
        ) from error
    is_array = isinstance(result, np.ndarray) or type(result) is type(x)
    if not is_array or result.shape != x.shape:
        found = f"shape {result.shape}" if is_array else repr(result)
        raise ValueError(f"augment: expected it to return a batch of shape {x.shape}, got {found}")
    return result


class IterableBatches:
    """Batches from any iterable of (x, y), checked one by one as they come.

    Args:
        source: can be iterated once per epoch: a list of batches, or an object with ``__iter__``.
        steps: how many batches an epoch takes; None takes ``len(source)``.
        epochs: how many times it will be iterated.
        to_the_end: take what comes, however many; for evaluation, which needs no number of steps.
    Raises: ValueError: if the number of steps is unknown or the source can't be iterated again;
        TypeError: if it is no iterable.
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
            raise ValueError("y: expected targets beside the array x, got none")
        if steps is None and not to_the_end:
            try:
                steps = len(source)  # type: ignore[arg-type]
            except TypeError:
                raise ValueError("the iterable of batches has no length; give steps_per_epoch") from None
        if epochs > 1 and iter(source) is source:
            raise ValueError(
                f"{epochs} epochs need batches that can be iterated again, and a generator is used up after one; "
                "give a list of batches or an object with __iter__"
            )
        if steps == 0:
            raise ValueError("expected at least one batch, got an empty iterable")
        self.source, self.model, self.loss, self.augment = source, model, loss, augment
        self.steps = 0 if steps is None else steps  # 0: to the end

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Array, Array]]:
        """The batches of one epoch from the first, counted from 0; those before it are taken and dropped.

        Raises: ValueError: naming the batch, from 1, that is wrong or missing.
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
                    f"batch {batch + 1}: expected {self.steps or 'some'} batches, the iterable gave {batch}; "
                    "make steps_per_epoch smaller, or give more"
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
