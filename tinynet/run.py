"""Run: a training run as its callbacks see it."""

import math
from dataclasses import dataclass, field

from tinynet.history import History
from tinynet.losses import Loss
from tinynet.optimizers import Optimizer
from tinynet.protocols import Model


class Meter:
    """The totals measured in an epoch so far."""

    def __init__(self) -> None:
        self.set(0.0, 0, 0)

    def set(self, loss_sum: float, correct: int, examples: int) -> None:
        """Start from these: the sum of the examples' losses, how many were right, and how many there were."""
        self._loss_sum, self._correct, self.examples = loss_sum, correct, examples
        self._batch_loss = math.nan

    def add(self, batch_loss: float, correct: int, examples: int) -> None:
        """Add a batch."""
        self._batch_loss = batch_loss
        self._loss_sum += batch_loss * examples
        self._correct += correct
        self.examples += examples

    def read(self) -> tuple[float, int, float]:
        """The sum of the examples' losses, how many were right, and the last batch's loss."""
        return self._loss_sum, self._correct, self._batch_loss


@dataclass
class Run:
    """A training run. Epochs and batches count from 0; a callback may set ``stop_training``.

    On the GPU, reading ``batch_loss``, `mean_loss` or `mean_accuracy` blocks until the GPU is done.
    """

    model: Model
    optimizer: Optimizer
    loss: Loss
    epochs: int
    steps_per_epoch: int
    has_validation: bool
    history: History = field(default_factory=History)
    meter: Meter = field(default_factory=Meter)
    epoch: int = 0
    batch: int = 0
    stop_training: bool = False
    resumed: bool = False  # from a checkpoint
    first_batch: int = 0  # of its first epoch, above 0 if that had already begun
    learning_rate: float = math.nan  # of the last step
    _seconds: float = 0.0

    @property
    def batch_loss(self) -> float:
        """The loss of the last batch, before its update."""
        return self.meter.read()[2]

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The columns of this run's history."""
        scores = ("loss", "accuracy") if self.loss.is_classification else ("loss",)
        validation = tuple(f"val_{name}" for name in scores) if self.has_validation else ()
        return (*scores, *validation, "learning_rate", "seconds")

    def mean_loss(self) -> float:
        """The mean training loss of this epoch so far."""
        return self.meter.read()[0] / max(self.meter.examples, 1)

    def mean_accuracy(self) -> float:
        """The training accuracy of this epoch so far."""
        return self.meter.read()[1] / max(self.meter.examples, 1)
