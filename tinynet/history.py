"""What a training run measured, epoch by epoch."""

from collections.abc import Mapping

COLUMNS = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")


class History:
    """The lists that `fit` returns.

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
