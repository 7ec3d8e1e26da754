"""The training loop. It drives any object with loss_and_gradients, params and grads, and knows nothing of layers."""

import copy
import math
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np

from tinynet import inputs, parallel
from tinynet.backend import Device, DeviceMemoryError
from tinynet.batches import ArrayBatches, Augment, Batches, IterableBatches
from tinynet.callbacks import Callback, EpochTable, ProgressBar
from tinynet.checkpoint import Checkpoint
from tinynet.checks import check_bool, check_number, check_positive_int
from tinynet.device_steps import DeviceSteps
from tinynet.history import History
from tinynet.interrupts import HeldInterrupt
from tinynet.losses import Loss
from tinynet.optimizers import Optimizer
from tinynet.protocols import Model
from tinynet.run import Run
from tinynet.steps import HostSteps
from tinynet.types import Array

Steps = HostSteps | DeviceSteps

# What is in training, by (process, identity), so that a forked child may train its copies.
_in_training: dict[tuple[int, int], object] = {}


def fit(
    model: Model,
    x: Any,
    y: Any,
    *,
    optimizer: Optimizer,
    loss: Loss,
    batch_size: int,
    epochs: int,
    validation_data: Any,
    validation_split: float,
    shuffle: bool,
    augment: Augment | None,
    callbacks: Sequence[Callback],
    verbose: int,
    workers: int | None,
    steps_per_epoch: int | None,
    checkpoint: str | os.PathLike[str] | None,
    checkpoint_every: int | None,
    resume: str | os.PathLike[str] | None,
) -> History:
    """See `Sequential.fit`."""
    if isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks: expected a list of Callback objects, got {callbacks!r}")
    callbacks = list(callbacks)
    _check_types(optimizer, loss, callbacks, verbose, augment)
    model.check_head(loss)
    batch_size, epochs = check_positive_int("batch_size", batch_size), check_positive_int("epochs", epochs)
    workers = None if workers is None else check_positive_int("workers", workers)
    steps = None if steps_per_epoch is None else check_positive_int("steps_per_epoch", steps_per_epoch)
    shuffle = check_bool("shuffle", shuffle)
    saving = Checkpoint(checkpoint, checkpoint_every, resume)
    loss = copy.copy(loss)  # a loss object keeps a batch between forward and backward: each run has its own

    batches: Batches
    if y is None:
        if validation_split:
            raise ValueError("validation_split needs arrays x and y; with an iterable, give validation_data")
        batches = IterableBatches(x, model, loss, steps=steps, epochs=epochs, augment=augment)
        on_bytes = model.fitted_on_bytes
    else:
        x, y = inputs.check_data(x, y, model, loss)
        if validation_split:
            if validation_data is not None:
                raise ValueError("give validation_data or validation_split, not both")
            x, y, validation_data = _split(x, y, validation_split)
        on_bytes = inputs.looks_like_bytes(x)
        batches = ArrayBatches(
            x, y, batch_size, seed=model.seed, shuffle=shuffle, augment=augment, steps=steps
        )
    validation = _check_validation(model, validation_data, loss)

    run = Run(model, optimizer, loss, epochs, batches.steps, validation is not None)
    shown: list[Callback] = [EpochTable()] if verbose == 2 else []
    # The bar comes first: it must be gone when others print.
    has_table = any(isinstance(callback, EpochTable) for callback in callbacks)
    active = [*([ProgressBar(leave=not has_table)] if verbose == 1 else []), *callbacks, *shown]
    on_gpu = model.device.name == "gpu"
    if on_gpu and workers not in (None, 1):
        raise ValueError(f"workers: a GPU takes whole batches; expected None or 1, got {workers}")
    if workers is None:
        workers = 1 if on_gpu else parallel.workers_for(model, batch_size)
    threads = parallel.blas_threads_for(model.multiply_adds(), batch_size) if workers == 1 else 1
    # An overflow makes the loss NaN or infinite, and the loop reports where.
    quiet = np.errstate(over="ignore", invalid="ignore")
    begun: list[Callback] = []
    with (
        HeldInterrupt() as interrupt,
        _alone(model),
        _alone(optimizer),
        parallel.blas_threads(threads),
        quiet,
        parallel.Team(model, workers) as team,
        model.device.memory_errors(
            model.forget, lambda: "the model's optimizer and data don't fit in it; make them smaller"
        ),
        model.device.running(),
        ExitStack() as stack,
    ):
        stepper = DeviceSteps(run, batches, active) if on_gpu else HostSteps(run, batches, team)
        stack.callback(stepper.close)
        first, run.first_batch = saving.begin(run, callbacks, batches, validation, workers)
        if on_gpu:
            validation = _moved(validation, model.device)
        last = first if run.stop_training else epochs  # a run that a callback has stopped is finished
        run.epoch = min(first, epochs - 1)
        try:
            for callback in active:
                begun.append(callback)
                callback.on_train_begin(run)
            with model.device.memory_errors(
                stepper.close, lambda: "the optimizer's vectors are too large for this GPU"
            ):
                optimizer.prepare(model.params)
            model.loss, model.fitted_on_bytes = copy.copy(loss), on_bytes
            for run.epoch in range(first, last):
                values = _train_epoch(run, stepper, active, interrupt, saving)
                if values is not None:
                    _end_epoch(run, values, validation, batch_size, active)
                    saving.write(run.epoch + 1, 0)
                if run.stop_training or interrupt.pending:
                    break
        finally:
            with ExitStack() as ends:  # each on_train_end runs, in order, whatever the others raise
                for callback in reversed(begun):
                    ends.callback(callback.on_train_end, run)
    if interrupt.pending:
        run.history.interrupted = True
        go_on = f"; continue with resume={os.fspath(checkpoint)!r}" if checkpoint is not None else ""
        if run.history.epochs >= epochs:
            go_on = ", the last one; nothing was lost"
        warnings.warn(
            f"training was interrupted in epoch {run.epoch + 1} of {epochs}, after batch {run.batch + 1} of "
            f"{run.steps_per_epoch}{go_on}",
            stacklevel=3,
        )
    return run.history


@contextmanager
def _alone(used: Model | Optimizer) -> Iterator[None]:
    """Raises RuntimeError if another `fit`, in another thread or around this one, is using the same object."""
    key, claim = (os.getpid(), id(used)), object()
    try:
        if _in_training.setdefault(key, claim) is not claim:  # atomic, as two threads may ask at once
            raise RuntimeError(
                f"this {type(used).__name__} is in use by another fit; wait until that ends, or give each fit its own"
            )
        yield
    finally:
        if _in_training.get(key) is claim:
            del _in_training[key]


def is_in_training(used: object) -> bool:
    """Whether a `fit` is using the object."""
    return (os.getpid(), id(used)) in _in_training


def _check_types(optimizer: Any, loss: Any, callbacks: Sequence[Any], verbose: Any, augment: Any) -> None:
    for name, value, kind, example in (
        ("optimizer", optimizer, Optimizer, "Adam()"),
        ("loss", loss, Loss, "CrossEntropy()"),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{name}: expected an object such as {example}, got {value!r}")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks: expected Callback objects, got {callback!r}")
    if verbose not in (0, 1, 2):
        raise ValueError(f"verbose: expected 0 (silent), 1 (a bar) or 2 (a line per epoch), got {verbose!r}")
    if augment is not None and not callable(augment):
        raise TypeError(f"augment: expected a function (x_batch, generator) -> x_batch, got {augment!r}")


def _split(x: Array, y: Array, share: float) -> tuple[Array, Array, tuple[Array, Array]]:
    """The front part to train with and the end to validate with, split as in Keras."""
    share = check_number("validation_split", share, 0, 1, open_high=True)
    start = math.floor(len(x) * (1 - share))
    if not 0 < start < len(x):
        raise ValueError(f"validation_split={share} leaves nothing on one side of {len(x)} examples")
    return x[:start], y[:start], (x[start:], y[start:])


def _check_validation(model: Model, validation_data: Any, loss: Loss) -> tuple[Any, Any] | None:
    """The pair that `evaluate` takes; None without validation."""
    if validation_data is None:
        return None
    if isinstance(validation_data, tuple) and len(validation_data) == 2:
        return inputs.check_data(*validation_data, model, loss, suffix=" of validation_data")
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
    batches = IterableBatches(validation_data, model, loss, to_the_end=True)
    if isinstance(validation_data, (list, tuple)):
        try:
            for _ in batches.epoch(0):
                pass
        except ValueError as error:
            raise ValueError(f"validation_data: {error}") from None
    return validation_data, None


def _moved(validation: tuple[Any, Any] | None, device: Device) -> tuple[Any, Any] | None:
    """The validation arrays on the device; if they don't fit, unchanged, to be moved batch by batch."""
    if validation is None or validation[1] is None:
        return validation
    with suppress(DeviceMemoryError), device.memory_errors(lambda: None, lambda: ""):
        return device.asarray(validation[0]), validation[1]
    return validation


def _train_epoch(
    run: Run,
    stepper: Steps,
    callbacks: Sequence[Callback],
    interrupt: HeldInterrupt,
    saving: Checkpoint,
) -> dict[str, float] | None:
    """Make one pass over the batches and return its metrics; None if Ctrl-C ended it before the last batch."""
    if not run.first_batch:
        run.meter.set(0.0, 0, 0)
        run._seconds = 0.0
    for callback in callbacks:
        callback.on_epoch_begin(run)
    first, run.first_batch = run.first_batch, 0
    every = saving.every
    each_batch = [
        callback for callback in callbacks if type(callback).on_batch_end is not Callback.on_batch_end
    ]

    started = time.perf_counter() - run._seconds
    for run.batch in stepper.epoch(first):
        for callback in each_batch:
            callback.on_batch_end(run)
        if run.stop_training:
            break
        done = run.batch + 1
        if done < run.steps_per_epoch and (interrupt.pending or (every and done % every == 0)):
            stepper.settle()
            run._seconds = time.perf_counter() - started
            saving.write(run.epoch, done)
            if interrupt.pending:
                return None
    stepper.settle()
    seconds = time.perf_counter() - started

    run.model.epoch += 1
    return {
        "loss": run.mean_loss(),
        "accuracy": run.mean_accuracy(),
        "learning_rate": run.learning_rate,
        "seconds": seconds,
    }


def _end_epoch(
    run: Run,
    values: dict[str, float],
    validation: tuple[Any, Any] | None,
    batch_size: int,
    callbacks: Sequence[Callback],
) -> None:
    """Validate, add the epoch to the history, and call the callbacks."""
    if validation is not None:
        scores = run.model.evaluate(*validation, batch_size=max(batch_size, 256), loss=run.loss)
        values = values | {f"val_{name}": score for name, score in scores.items()}
    run.history.append({name: values[name] for name in run.metric_names})
    for callback in callbacks:
        callback.on_epoch_end(run)
