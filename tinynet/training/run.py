"""Run: a training run as its callbacks see it."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tinynet.engines.devices import to_host
from tinynet.losses import Loss
from tinynet.optimizer import Optimizer
from tinynet.protocols import Model
from tinynet.support.types import Array

COLUMNS = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")


class History:
    """The lists that `fit` returns and keeps as ``model.history``.

    Attributes:
        history: ``{"loss": [...], ...}``, one entry per finished epoch: loss, accuracy (mean over the epoch's training
            batches, each before its update), val_loss, val_accuracy (after the epoch; only with validation
            data), learning_rate (of the epoch's last step), seconds (of its training steps). No accuracies
            for regression.
        interrupted: whether Ctrl-C ended the run.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.interrupted = False

    @property
    def epochs(self) -> int:
        """The number of finished epochs."""
        return len(self.history.get("loss", ()))

    def append(self, values: Mapping[str, float]) -> None:
        """Add one epoch."""
        for name in COLUMNS:
            if name in values:
                self.history.setdefault(name, []).append(values[name])

    def row(self, epoch: int) -> dict[str, float]:
        """Return the values of one epoch."""
        return {name: values[epoch] for name, values in self.history.items()}

    def __repr__(self) -> str:
        last = ", ".join(f"{name}={values[-1]:.4g}" for name, values in self.history.items() if values)
        return f"History({self.epochs} epochs{', ' + last if last else ''})"


class Meter:
    """An epoch's totals so far: the sum of losses, right answers, examples, and the last batch's loss.

    Args: totals: the four numbers, which `tinynet.metrics.record` adds to; on a GPU, reading them waits for it.
    """

    def __init__(self, totals: Array) -> None:
        self.totals = totals
        self.set(0.0, 0, 0)

    def set(self, loss_sum: float, correct: int, examples: int) -> None:
        """Set the totals: the sum of the examples' losses, how many were right, and how many there were."""
        for index, value in enumerate((loss_sum, correct, examples, math.nan)):
            self.totals[index] = value

    def read(self) -> tuple[float, int, int, float]:
        """The sum of the examples' losses, how many were right, how many there were, and the last batch's loss."""
        loss_sum, correct, examples, batch_loss = to_host(self.totals).tolist()
        return loss_sum, int(correct), int(examples), batch_loss


@dataclass
class Run:
    """A training run. Epochs and batches count from 0; a callback may set ``stop_training``.

    On a GPU, reading ``batch_loss``, `mean_loss` or `mean_accuracy` blocks until the GPU is done.
    """

    model: Model
    optimizer: Optimizer
    loss: Loss
    epochs: int
    steps_per_epoch: int
    has_validation: bool
    batch_size: int = 32
    history: History = field(default_factory=History)
    meter: Meter = field(default_factory=lambda: Meter(np.zeros(4)))
    epoch: int = 0
    batch: int = 0
    stop_training: bool = False
    resumed: bool = False  # from a checkpoint
    first_batch: int = 0  # of the first epoch; above 0 if that epoch was resumed halfway
    learning_rate: float = math.nan  # of the last step
    _seconds: float = 0.0  # of this epoch before its clock was started
    _started: float = 0.0

    @property
    def batch_loss(self) -> float:
        """The loss of the last batch, before its update."""
        return self.meter.read()[3]

    @property
    def has_batches_left(self) -> bool:
        """Whether the epoch has batches left."""
        return self.batch + 1 < self.steps_per_epoch

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The columns of this run's history."""
        scores = ("loss", "accuracy") if self.loss.is_classification else ("loss",)
        validation = tuple(f"val_{name}" for name in scores) if self.has_validation else ()
        return (*scores, *validation, "learning_rate", "seconds")

    def mean_loss(self) -> float:
        """The mean training loss of this epoch so far."""
        loss_sum, _, examples, _ = self.meter.read()
        return loss_sum / max(examples, 1)

    def mean_accuracy(self) -> float:
        """The training accuracy of this epoch so far."""
        _, correct, examples, _ = self.meter.read()
        return correct / max(examples, 1)

    def begin_epoch(self) -> None:
        """Reset the measurements, unless part of this epoch is already done."""
        if not self.first_batch:
            self.meter.set(0.0, 0, 0)
            self._seconds = 0.0

    def start_clock(self) -> None:
        """Start the epoch's clock."""
        self._started = time.perf_counter()

    def seconds(self) -> float:
        """The training time of the epoch so far."""
        return self._seconds + time.perf_counter() - self._started

    def measured(self) -> dict[str, float]:
        """The training measurements of the epoch."""
        return {
            "loss": self.mean_loss(),
            "accuracy": self.mean_accuracy(),
            "learning_rate": self.learning_rate,
            "seconds": self.seconds(),
        }

    def end_epoch(self, values: Mapping[str, float]) -> None:
        """Write the values into the history, and count the epoch as finished."""
        self.model.epoch += 1
        self.history.append({name: values[name] for name in self.metric_names})
