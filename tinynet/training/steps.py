"""Training steps: gradients, a check that the loss is finite, an update."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, NoReturn, Protocol

import numpy as np

from tinynet.engines.cpu import blas_threads, blas_threads_for
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.metrics import record
from tinynet.optimizer import Optimizer
from tinynet.protocols import Model
from tinynet.support.errors import REMEDY, NonFiniteError
from tinynet.support.types import Array
from tinynet.training.batches import Batches
from tinynet.training.callbacks import Callback
from tinynet.training.data import Pair
from tinynet.training.display import ProgressBar
from tinynet.training.run import Run
from tinynet.training.team import Team, workers_for


class Steps(Protocol):
    """Computes a run's steps, and holds what they need while the run lasts."""

    workers: int  # threads that share each batch
    validation: Pair | None  # on the device that evaluates it

    def prepare(self) -> None:
        """Let the optimizer begin with the model; raises ValueError if it has trained another one."""

    def epoch(self, first: int) -> Iterator[int]:
        """Train on an epoch's batches, beginning at ``first``; yields each batch's number after its step."""
        ...

    def settle(self) -> None:
        """Wait for all steps; raises NonFiniteError if one made a parameter NaN or infinite."""


def steps_for(
    run: Run,
    batches: Batches,
    validation: Pair | None,
    callbacks: Sequence[Callback],
    workers: int | None,
) -> AbstractContextManager[Steps]:
    """The steps of a run, on its model's device: the one place that chooses between CPU and GPU."""
    if run.model.device.name == "gpu":
        from tinynet.training.gpu_steps import GpuSteps

        return GpuSteps(run, batches, validation, callbacks, workers)
    return CpuSteps(run, batches, validation, callbacks, workers)


def changes_between_steps(callbacks: Sequence[Callback]) -> bool:
    """Whether a callback runs after each batch, and may then change anything, such as a rate or what is frozen."""
    return any(
        type(callback).on_batch_end is not Callback.on_batch_end and type(callback) is not ProgressBar
        for callback in callbacks
    )


class CpuSteps:
    """The steps of a run on the CPU: ``workers`` threads share each batch, or, with one worker, BLAS uses threads."""

    def __init__(
        self,
        run: Run,
        batches: Batches,
        validation: Pair | None,
        callbacks: Sequence[Callback],
        workers: int | None,
    ) -> None:
        self.run, self.batches, self.validation = run, batches, validation
        self._own = not type(run.model).loss_and_gradients.__module__.startswith("tinynet.")
        if self._own and workers not in (None, 1):
            raise ValueError(
                f"workers: a model whose class defines loss_and_gradients trains on one thread; expected None or 1, "
                f"got {workers}"
            )
        self.workers = 1 if self._own else workers or workers_for(run.model, run.batch_size)
        self._watched = changes_between_steps(callbacks)
        self._x: Array | None = None  # the last batch

    def __enter__(self) -> "CpuSteps":
        model, alone = self.run.model, self.workers == 1
        threads = blas_threads_for(model.multiply_adds(), self.run.batch_size) if alone else 1
        with ExitStack() as stack:
            stack.enter_context(blas_threads(threads))
            team = stack.enter_context(Team(model, self.workers))
            self._forward_backward = model._forward_backward if alone else team.forward_backward
            if self._own:
                self._forward_backward = self._by_the_users_own
            self._held = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._held.__exit__(*error)

    def _by_the_users_own(self, layers: Sequence[Layer], x: Array, y: Array, loss: Loss, total: int) -> float:
        """By the loss_and_gradients of a subclass, which begins the step itself."""
        model = self.run.model
        model.step -= 1
        return model.loss_and_gradients(x, y, self.run.loss)

    def prepare(self) -> None:
        self.run.optimizer.begin(self.run.model)

    def epoch(self, first: int) -> Iterator[int]:
        """Raises: NonFiniteError: naming the batch, if the loss became NaN or infinite, before that step's update."""
        run, model, optimizer = self.run, self.run.model, self.run.optimizer
        given, params, grads, decay_size = run.loss, model.params, model.grads, model.decay_size
        (layers, loss), ranges, freezes = model._fuse(given), model.trainable_ranges(), Layer.freezes
        state = model.named_state()
        good_state = [array.copy() for array in state.values()]
        for batch, (x, y) in enumerate(self.batches.epoch(model.epoch, first), first):
            self._x = x
            model._begin_step()
            value = self._forward_backward(layers, x, y, loss, len(x))
            if not math.isfinite(value) or (state and not are_finite(state)):
                refuse_step(model, value, x, good_state, f"epoch {run.epoch + 1}, batch {batch + 1}: ")
            for good, array in zip(good_state, state.values(), strict=True):
                good[...] = array
            run.learning_rate = optimizer.current_learning_rate()  # for the history; step applies it
            if Layer.freezes != freezes:
                ranges, freezes = model.trainable_ranges(), Layer.freezes
            try:
                optimizer.step(params, grads, decay_size, ranges)
            except NonFiniteError as error:
                refuse_update(model, optimizer, error, f"epoch {run.epoch + 1}, batch {batch + 1}: ")
            record(run.meter.totals, value, model.outputs, y if loss.is_classification else None)
            yield batch
            if self._watched:  # a callback may have changed the loss
                layers, loss = model._fuse(given)

    def settle(self) -> None:
        run = self.run
        if not np.isfinite(run.model.params).all():
            assert self._x is not None
            raise NonFiniteError(
                f"epoch {run.epoch + 1}, batch {run.batch + 1}: the update made a parameter NaN or infinite; the first "
                f"bad array is {run.model._first_non_finite(self._x)}. {REMEDY}"
            )


def are_finite(arrays: Mapping[str, Array]) -> bool:
    """Whether no number in the arrays is NaN or infinite."""
    return all(np.isfinite(array).all() for array in arrays.values())


def refuse_step(model: Model, value: float, x: Array, good_state: list[Array], where: str = "") -> NoReturn:
    """Raises NonFiniteError for a loss or a running statistic, after restoring all statistics."""
    state = model.named_state()
    what = next(
        (f"{name} became NaN or infinite" for name, array in state.items() if not np.isfinite(array).all()),
        "",
    )
    for good, array in zip(good_state, state.values(), strict=True):
        array[...] = good
    if not math.isfinite(value):
        what = f"the loss is {value}; the first bad array is {model._first_non_finite(x)}"
    raise NonFiniteError(f"{where}{what}. No update was made for this batch. {REMEDY}")


def refuse_update(model: Model, optimizer: Optimizer, error: NonFiniteError, where: str = "") -> NoReturn:
    """Raises NonFiniteError for an update that overflowed, naming the largest gradient of what trains."""
    layers = dict(model.walk())
    trained = {
        name: float(abs(dW).max())
        for name, dW in model.named_grads().items()
        if layers[name.rpartition(".")[0]].trainable
    }
    name = max(trained, key=lambda name: trained[name])
    raise NonFiniteError(
        f"{where}{error}; the gradient of {name} is as large as {trained[name]:.3g}. Go back to an earlier model, with "
        f"a new optimizer. {REMEDY}"
    ) from error
