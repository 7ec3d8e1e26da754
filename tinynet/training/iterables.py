"""Batches from the user's iterable, checked one by one."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tinynet.losses import Loss
from tinynet.protocols import Model
from tinynet.support import random
from tinynet.support.types import Array
from tinynet.training.batches import Augment, augmented
from tinynet.training.inputs import check_inputs, check_pair


class IterableBatches:
    """Batches from any iterable of (x, y), checked one by one.

    Args:
        source: can be iterated once per epoch: a list of batches, or an object with ``__iter__``. Where the number of
            steps is given, a generator will do.
        steps: how many batches an epoch takes; None takes ``len(source)``. Where the number is given, an epoch begins
            where the one before it ended, and at the source's end it is iterated again.
        epochs: how many epochs are wanted.
        to_the_end: take all batches if there is neither a number nor a length, for evaluation.
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
        self.goes_on = steps is not None
        if steps is None:
            try:
                steps = len(source)  # type: ignore[arg-type]
            except TypeError:
                if not to_the_end:
                    raise ValueError("the iterable of batches has no length; pass steps_per_epoch") from None
        if epochs > 1 and iter(source) is source and not self.goes_on:
            raise ValueError(
                f"{epochs} epochs need batches that can be iterated again, but a generator is used up after one; "
                "pass a list of batches, an object with __iter__, or steps_per_epoch"
            )
        if steps == 0:
            raise ValueError("expected at least one batch, got an empty iterable")
        self.source, self.model, self.loss, self.augment = source, model, loss, augment
        self.steps = 0 if steps is None else steps  # 0: to the end
        self.first_epoch = self.position = 0
        self._pairs: Iterator[Any] | None = None  # what the next epoch goes on with

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Array, Array]]:
        """Yield an epoch's batches from number ``first``, counted from 0.

        Raises: ValueError: names the batch, counted from 1, that is wrong or missing.
        """
        if not self.goes_on:
            self._pairs, self.position = None, first
        if self._pairs is None:
            self._pairs = self._passes(self.position)
        for batch in range(first, self.steps) if self.steps else itertools.count():
            try:
                pair = next(self._pairs)
            except StopIteration:
                if batch and not self.steps:
                    return
                raise ValueError(
                    f"batch {batch + 1}: expected {self.steps or 'some'} batches, but the iterable gave {batch}; "
                    "take fewer steps, or provide more"
                ) from None
            self.position += 1
            yield self._checked(pair, epoch, batch)

    def _passes(self, done: int) -> Iterator[Any]:
        """The pairs of one pass over the source after another, behind those done in the first."""
        yield from itertools.islice(self.source, done, None)
        while self.goes_on and self.position >= self.steps:  # otherwise there is too little for an epoch
            self.position = 0
            yield from self.source

    def _checked(self, pair: Any, epoch: int, batch: int) -> tuple[Array, Array]:
        model, where = self.model, f"batch {batch + 1}"
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ValueError(f"{where}: expected a pair (x, y), got {type(pair).__name__}")
        try:
            x = check_inputs(pair[0], model.input_shape, model.dtype, device=model.device)
            y = self.loss.prepare_targets(pair[1], model.output_shape, model.dtype)
            check_pair(x, y)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if self.augment is not None:
            x = augmented(self.augment, x, random.generator(model.seed, random.AUGMENT, epoch, batch))
        return x, y
