"""What a run shows: a progress bar, or a table with a line per epoch."""

import sys
import time

from tinynet.support.console import is_terminal, tell
from tinynet.training.callbacks import Callback
from tinynet.training.run import Run

_TITLES = {
    "loss": "loss",
    "accuracy": "acc",
    "val_loss": "val loss",
    "val_accuracy": "val acc",
    "learning_rate": "rate",
    "seconds": "seconds",
}


def can_draw_bars() -> bool:
    """Whether standard error is a terminal, or the program runs in a notebook with widgets."""
    from tqdm.auto import tqdm
    from tqdm.notebook import tqdm_notebook

    return is_terminal(sys.stderr) or issubclass(tqdm, tqdm_notebook)


class ProgressBar(Callback):
    """Show a tqdm bar per epoch with the mean loss so far; silent without a terminal or a notebook.

    Args: leave: whether the finished bar stays, with the epoch's results.
    """

    _SECONDS_BETWEEN = 0.1

    def __init__(self, leave: bool = True) -> None:
        self.leave = leave

    def on_epoch_begin(self, run: Run) -> None:
        from tqdm.auto import tqdm

        self._bar = tqdm(
            total=run.steps_per_epoch,
            initial=run.first_batch,
            desc=f"epoch {run.epoch + 1}/{run.epochs}",
            unit="batch",
            leave=self.leave,
            dynamic_ncols=True,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
            disable=not can_draw_bars(),
        )
        self._next = time.perf_counter() + self._SECONDS_BETWEEN

    def on_batch_end(self, run: Run) -> None:
        if time.perf_counter() >= self._next:
            self._bar.set_postfix_str(f"loss {run.mean_loss():.4f}", refresh=False)
            self._bar.update(run.batch + 1 - self._bar.n)
            self._next = time.perf_counter() + self._SECONDS_BETWEEN

    def on_epoch_end(self, run: Run) -> None:
        row = run.history.row(run.history.epochs - 1)
        measured = [
            f"{_TITLES[name]} {row[name]:.4f}" for name in row if name not in ("learning_rate", "seconds")
        ]
        self._bar.set_postfix_str(", ".join(measured), refresh=False)
        self._bar.update(run.batch + 1 - self._bar.n)
        self._bar.close()

    def on_train_end(self, run: Run) -> None:
        if hasattr(self, "_bar"):
            self._bar.leave = False  # for an epoch that was not finished
            self._bar.close()


class EpochTable(Callback):
    """Print a line per epoch to standard output."""

    def on_train_begin(self, run: Run) -> None:
        self._names = [*run.metric_names]
        self._print("epoch" + "".join(f"{_TITLES[name]:>10}" for name in self._names))

    def on_epoch_end(self, run: Run) -> None:
        row = run.history.row(run.history.epochs - 1)
        self._print(f"{run.epoch + 1:>5}" + "".join(f"{_cell(name, row[name]):>10}" for name in self._names))

    def _print(self, line: str) -> None:
        print(line, flush=True)


class PlainProgress(EpochTable):
    """The table on standard error, where no bar can be drawn."""

    def _print(self, line: str) -> None:
        tell(line)


def _cell(name: str, value: float) -> str:
    if name == "learning_rate":
        return f"{value:.2e}"
    return f"{value:.2f}" if name == "seconds" else f"{value:.4f}"
