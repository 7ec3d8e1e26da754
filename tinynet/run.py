"""Run: a training run as its callbacks see it."""

import math
from dataclasses import dataclass, field

from tinynet.history import History
from tinynet.losses import Loss
from tinynet.optimizers import Optimizer
from tinynet.protocols import Model


@dataclass
class Run:
    """A training run. Epochs and batches count from 0; a callback may set ``stop_training``."""

    model: Model
    optimizer: Optimizer
    loss: Loss
    epochs: int
    steps_per_epoch: int
    has_validation: bool
    history: History = field(default_factory=History)
    batch_loss: float = math.nan  # of the last batch, before its update
    epoch: int = 0
    batch: int = 0
    stop_training: bool = False
    resumed: bool = False  # from a checkpoint
    first_batch: int = 0  # of its first epoch, if that had begun already
    _loss_sum: float = 0.0
    _correct: int = 0
    _examples: int = 0
    _seconds: float = 0.0

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The columns that the history of this run has."""
        scores = ("loss", "accuracy") if self.loss.is_classification else ("loss",)
        validation = tuple(f"val_{name}" for name in scores) if self.has_validation else ()
        return (*scores, *validation, "learning_rate", "seconds")

    def mean_loss(self) -> float:
        """The mean training loss of this epoch so far."""
        return self._loss_sum / max(self._examples, 1)

    def mean_accuracy(self) -> float:
        """The training accuracy of this epoch so far."""
        return self._correct / max(self._examples, 1)
