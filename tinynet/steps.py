"""Training steps on the CPU, one after the other: gradients, a check that the loss is finite, an update."""

import math
from collections.abc import Iterator

import numpy as np

from tinynet.batches import Batches
from tinynet.errors import REMEDY, NonFiniteError
from tinynet.parallel import Team
from tinynet.run import Run
from tinynet.types import Array


class HostSteps:
    """The steps of a run whose model is on the CPU; batches are split between a team's threads."""

    def __init__(self, run: Run, batches: Batches, team: Team) -> None:
        self.run, self.batches, self.team = run, batches, team
        self._x: Array | None = None  # the last batch

    def epoch(self, first: int) -> Iterator[int]:
        """Train on an epoch's batches, beginning at ``first``; yields each batch's number after its step.

        Raises: NonFiniteError: naming the batch, if the loss becomes NaN or infinite, before that step's update.
        """
        run, model, optimizer, loss = self.run, self.run.model, self.run.optimizer, self.run.loss
        good_state = {name: array.copy() for name, array in model.named_state().items()}
        for batch, (x, y) in enumerate(self.batches.epoch(model.epoch, first), first):
            self._x = x
            value = self.team.loss_and_gradients(x, y, loss)
            if not math.isfinite(value):
                culprit = model.first_non_finite(x)
                _restore_state(model.named_state(), good_state)
                raise NonFiniteError(
                    f"epoch {run.epoch + 1}, batch {batch + 1}: the loss is {value}; the first bad array is {culprit}. "
                    f"No update was made with this batch. {REMEDY}"
                )
            run.learning_rate = optimizer.current_learning_rate()
            optimizer.step(model.params, model.grads, model.decay_size, model.trainable_ranges())
            correct = 0
            if loss.is_classification:
                assert model.outputs is not None
                correct = int(np.count_nonzero(model.outputs.argmax(axis=1) == y))
            run.meter.add(value, correct, len(x))
            yield batch

    def settle(self) -> None:
        """Raises NonFiniteError if the last update made a parameter NaN or infinite."""
        run = self.run
        if not np.isfinite(run.model.params).all():
            assert self._x is not None
            raise NonFiniteError(
                f"epoch {run.epoch + 1}, batch {run.batch + 1}: the update made a parameter NaN or infinite; the first "
                f"bad array is {run.model.first_non_finite(self._x)}. {REMEDY}"
            )

    def close(self) -> None:
        """Do nothing: no memory is held."""


def _restore_state(state: dict[str, Array], good: dict[str, Array]) -> None:
    """Restore running statistics that the bad batch made NaN or infinite."""
    for name, array in state.items():
        if not np.isfinite(array).all():
            array[...] = good[name]
