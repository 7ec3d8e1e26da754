"""The training loop: epochs, batches, and what happens between them."""

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from tinynet.engines.choice import running
from tinynet.losses import Loss
from tinynet.optimizer import Optimizer
from tinynet.protocols import Model
from tinynet.support.checks import check_bool, check_positive_int
from tinynet.training.batches import Augment
from tinynet.training.callbacks import Callback, check_hooks
from tinynet.training.checkpoint import Checkpoint
from tinynet.training.data import prepare_data
from tinynet.training.display import EpochTable, PlainProgress, ProgressBar, can_draw_bars
from tinynet.training.in_use import in_use
from tinynet.training.interrupts import HeldInterrupt
from tinynet.training.resume import from_the_library
from tinynet.training.run import History, Run
from tinynet.training.steps import Steps, steps_for


def train(
    run: Run,
    steps: Steps,
    callbacks: Sequence[Callback],
    interrupt: HeldInterrupt,
    saving: Checkpoint,
    epochs: range,
) -> None:
    """Train for the given epochs. Each step computes a batch's loss and gradients, and updates the parameters."""
    after_each_batch = [
        callback for callback in callbacks if type(callback).on_batch_end is not Callback.on_batch_end
    ]
    for run.epoch in epochs:
        run.begin_epoch()
        for callback in callbacks:
            callback.on_epoch_begin(run)
        first_batch, run.first_batch = run.first_batch, 0  # not 0 only where a resumed run goes on
        run.start_clock()
        for run.batch in steps.epoch(first_batch):  # each is a training step
            for callback in after_each_batch:
                callback.on_batch_end(run)
            if run.stop_training or interrupt.pending:
                break
        steps.settle()
        if run.has_batches_left and not run.stop_training:  # Ctrl-C; an unfinished epoch does not count
            saving.on_interrupt(run)
            break
        measured = run.measured()
        if steps.validation is not None:
            scores = run.model.evaluate(*steps.validation, batch_size=max(run.batch_size, 256), loss=run.loss)
            measured |= {f"val_{name}": score for name, score in scores.items()}
        run.end_epoch(measured)
        for callback in callbacks:
            callback.on_epoch_end(run)
        if run.stop_training or interrupt.pending:
            break


def fit(
    model: Model,
    x: Any,
    y: Any = None,
    *,
    optimizer: Optimizer,
    loss: Loss,
    batch_size: int = 32,
    epochs: int = 1,
    validation_data: Any = None,
    validation_split: float = 0.0,
    shuffle: bool = True,
    augment: Augment | None = None,
    callbacks: Sequence[Callback] = (),
    verbose: int = 1,
    workers: int | None = None,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    resume: str | os.PathLike[str] | None = None,
) -> History:
    """Train the model.

    Args:
        x, y: inputs (n, *input_shape), of bytes or other numbers, and targets; or, with ``y=None``, an
            iterable of (x, y) batches that can be iterated once per epoch. Arrays are NumPy's or on the model's device.
        optimizer: keeps its own state, so a second fit with it continues where the first ended.
        loss: kept as ``model.loss``, for `evaluate`.
        epochs: the total number, including those before a ``resume``.
        validation_data: (x, y), or an iterable of batches; evaluated after each epoch.
        validation_split: the share of x and y, taken from the end, to validate with instead.
        shuffle: reorder the arrays in each epoch, in an order drawn from the model's seed.
        augment: a function (x_batch, generator) -> x_batch, which draws from that generator only.
        verbose: 0 silent, 1 a progress bar on standard error, or a line per epoch if that is no terminal, 2 a line
            per epoch on standard output.
        workers: the number of threads, each of which takes part of every batch; None chooses it from the sizes of
            the model and the batch. Losses agree up to rounding for any number. But a layer of your own that
            computes something over the batch sees only its part; None therefore means 1 for a model with such layers.
        steps_per_epoch: batches per epoch; None means all of them. An epoch of fewer begins where the one before it
            ended; when all have been used, a new pass over the data begins.
        validation_steps: how many batches of an iterable to validate with; None means its length or, without one, all.
        checkpoint: a file written after each epoch and at Ctrl-C, with everything needed to continue.
        checkpoint_every: also write it after every so many batches within an epoch.
        resume: such a file to continue from, with the same data (an iterable must give the same batches again)
            and with model, optimizer and callbacks created as before. The run ends as if it had never stopped:
            bit for bit with the same versions on the same kind of machine, and otherwise with a warning.
    Returns: the `History`, which is also ``model.history``.
    Raises:
        KeyboardInterrupt: after Ctrl-C, once the batch is finished, the checkpoint is written, and the callbacks have
            ended; ``model.history`` has what was reached, and ``interrupted=True``. A second Ctrl-C raises at once.
        ValueError: for bad input, or a ``resume`` that does not match, before anything is changed; or from a
            callback that rejects the run, after a ``resume`` has been restored.
        OSError: if a file that the run is to write can't be written, before training begins.
        RuntimeError: if another fit is using this model or this optimizer.
        NonFiniteError: if the loss becomes NaN or infinite, before that step's update; on the GPU up to a hundred
            steps later, with the model restored to where those began.
        DeviceMemoryError: if the GPU runs out of memory, with what to try; the model stays usable.
    """
    callbacks = _check_arguments(optimizer, loss, callbacks, verbose, augment)
    model._check_head(loss)
    batch_size, epochs = check_positive_int("batch_size", batch_size), check_positive_int("epochs", epochs)
    workers = None if workers is None else check_positive_int("workers", workers)
    saving = Checkpoint(checkpoint, checkpoint_every, resume)
    _check_files(checkpoint, callbacks)
    loss = copy.copy(loss)  # a loss keeps a batch between forward and backward, so each run has its own
    batches, validation, on_bytes, largest = prepare_data(
        model,
        x,
        y,
        loss,
        batch_size=batch_size,
        epochs=epochs,
        steps=None if steps_per_epoch is None else check_positive_int("steps_per_epoch", steps_per_epoch),
        shuffle=check_bool("shuffle", shuffle),
        augment=augment,
        validation_data=validation_data,
        validation_split=validation_split,
        validation_steps=validation_steps,
    )
    run = Run(model, optimizer, loss, epochs, batches.steps, validation is not None, batch_size)
    shown = _with_display(callbacks, verbose)
    # An overflow makes the loss NaN or infinite, and the steps report where; what underflows is 0.
    quiet = np.errstate(over="ignore", invalid="ignore", under="ignore")
    with (
        HeldInterrupt() as interrupt,
        in_use(model, optimizer),
        quiet,
        running(),
        steps_for(run, batches, validation, shown, workers) as steps,
    ):
        first_epoch = saving.begin(run, callbacks, batches, validation, steps)
        # A run that a callback stopped stays stopped when it is resumed.
        remaining = range(first_epoch, first_epoch if run.stop_training else epochs)
        with _told(shown, run):
            steps.prepare()
            model.loss, model.history = copy.copy(loss), run.history
            model.fitted_on_bytes, model.fitted_magnitude = on_bytes, largest
            writing = [saving] if saving.path is not None else []
            train(run, steps, [*shown, *writing], interrupt, saving, remaining)
    if interrupt.pending:
        run.history.interrupted = True
        raise KeyboardInterrupt(_where_interrupted(run, checkpoint))
    return run.history


@contextmanager
def _told(callbacks: Sequence[Callback], run: Run) -> Iterator[None]:
    """Call on_train_begin of each callback, and on_train_end however the block ends."""
    begun: list[Callback] = []
    try:
        for callback in callbacks:
            begun.append(callback)
            callback.on_train_begin(run)
        yield
    finally:
        with ExitStack() as ends:  # each of them runs, in order, whatever the others raise
            for callback in reversed(begun):
                ends.callback(callback.on_train_end, run)


def _check_files(checkpoint: str | os.PathLike[str] | None, callbacks: Sequence[Callback]) -> None:
    """Raises ValueError if two of them would write the same file."""
    named = [
        (type(callback).__name__, getattr(callback, "path", None))
        for _, callback in from_the_library(callbacks)
    ]
    writers: dict[str, str] = {}
    for name, path in [("checkpoint", checkpoint), *named]:
        if isinstance(path, (str, os.PathLike)):
            file = os.path.normcase(os.path.realpath(path))
            if file in writers:
                raise ValueError(
                    f"{os.fspath(path)}: {writers[file]} and {name} would write the same file; give each its own"
                )
            writers[file] = name


def _with_display(callbacks: list[Callback], verbose: int) -> list[Callback]:
    """The callbacks, and the display for ``verbose``. The bar comes first, to be cleared before others print."""
    has_table = any(isinstance(callback, EpochTable) for callback in callbacks)
    if verbose == 1 and can_draw_bars():
        return [ProgressBar(leave=not has_table), *callbacks]
    if verbose == 0 or (verbose == 1 and has_table):
        return callbacks
    return [*callbacks, PlainProgress() if verbose == 1 else EpochTable()]


def _where_interrupted(run: Run, checkpoint: str | os.PathLike[str] | None) -> str:
    advice = f"; continue with resume={os.fspath(checkpoint)!r}" if checkpoint is not None else ""
    if run.history.epochs >= run.epochs:
        advice = ", the last one; nothing was lost"
    return (
        f"training was interrupted in epoch {run.epoch + 1} of {run.epochs}, after batch {run.batch + 1} of "
        f"{run.steps_per_epoch}{advice}"
    )


def _check_arguments(optimizer: Any, loss: Any, callbacks: Any, verbose: Any, augment: Any) -> list[Callback]:
    """The callbacks as a list. Raises: TypeError, ValueError."""
    if isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks: expected a list of Callback objects, got {callbacks!r}")
    listed: list[Callback] = list(callbacks)
    check_parts(optimizer, loss)
    for callback in listed:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks: expected Callback objects, got {callback!r}")
        if sum(other is callback for other in listed) > 1:
            raise ValueError(
                f"callbacks: this {type(callback).__name__} object is listed twice, and would count every epoch "
                "twice; list it once, or create another one"
            )
        check_hooks(callback)
    if verbose not in (0, 1, 2):
        raise ValueError(f"verbose: expected 0 (silent), 1 (a bar) or 2 (a line per epoch), got {verbose!r}")
    if augment is not None and not callable(augment):
        raise TypeError(f"augment: expected a function (x_batch, generator) -> x_batch, got {augment!r}")
    return listed


def check_parts(optimizer: Any, loss: Any) -> None:
    """Raises TypeError unless they are an `Optimizer` and a `Loss`."""
    for name, value, kind, example in (
        ("optimizer", optimizer, Optimizer, "Adam()"),
        ("loss", loss, Loss, "CrossEntropy()"),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{name}: expected an object such as {example}, got {value!r}")
