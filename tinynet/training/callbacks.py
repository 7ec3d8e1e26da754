"""Callbacks: hooks that run during training. Each has a `state` that can be saved and restored."""

import csv
import io
import math
import os
import re
from types import NoneType
from typing import Any

import numpy as np

from tinynet.files import architecture, storage
from tinynet.files.atomic import check_writable, write_bytes
from tinynet.files.storage import check_suffix
from tinynet.support.checks import check_number, check_path, check_positive_int
from tinynet.support.types import Mode, Monitor
from tinynet.training.run import COLUMNS, Run


class Callback:
    """The hooks. Each is passed the `Run`: model, optimizer, history, epoch, batch, and ``stop_training`` to set.

    An object can be used in several fits, one after another. What only steers a run begins anew in each, as in
    `EarlyStopping` and `ReduceLROnPlateau`. What a file holds is remembered as long as the object: `ModelCheckpoint`
    never replaces a better model, and `CSVLogger` keeps earlier rows. A new object begins a new file.
    """

    def on_train_begin(self, run: Run) -> None:
        """Called before the first epoch, and after `set_state` if ``run.resumed``.

        Raise ValueError here if the run can't provide what the callback needs.
        """

    def on_epoch_begin(self, run: Run) -> None:
        """Called before the first batch of an epoch, or of what a resumed run has left of it."""

    def on_batch_end(self, run: Run) -> None:
        """Called after each update, but only if a class defines it."""

    def on_epoch_end(self, run: Run) -> None:
        """Called after an epoch, when ``run.history`` has its values."""

    def on_train_end(self, run: Run) -> None:
        """Called whenever training ends, even by an error or Ctrl-C."""

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs: None, numbers, strings, arrays, and lists and mappings of them."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a `state`; raise ValueError if it is not one of this callback's."""


_HOOKS = [name for name in vars(Callback) if name.startswith("on_")]
_ELSEWHERE = re.compile(r"on_((train|fit|epoch|batch|test|val|validation|predict)_)+(begin|start|end)")


def check_hooks(callback: Callback) -> None:
    """Raise ValueError for a method that looks like a hook but is never called, such as one that Keras would call."""
    import difflib  # only here, as importing it takes some milliseconds

    for name in dir(callback):
        if not name.startswith("on") or name in _HOOKS:
            continue
        here = name.replace("start", "begin").replace("fit", "train")
        here = re.sub("train_(?=epoch|batch)", "", here)
        close = difflib.get_close_matches(here, _HOOKS, 1, cutoff=0.9)
        if close or _ELSEWHERE.fullmatch(name):
            advice = f"did you mean {close[0]!r}?" if close else f"it calls {', '.join(_HOOKS)}"
            raise ValueError(
                f"callbacks: {type(callback).__name__} has {name!r}, which fit never calls; {advice}"
            )


def state_entry(state: dict[str, Any], name: str, *kinds: type) -> Any:
    """Return one value of a state; raise ValueError if it is not of these types."""
    value = state[name]
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise ValueError(f"{name}: expected {' or '.join(kind.__name__ for kind in kinds)}, got {value!r}")
    return value


class _Monitor(Callback):
    """Base of callbacks that monitor one value of the history, and know which of two is better."""

    def __init__(self, monitor: Monitor, min_delta: float, mode: Mode) -> None:
        kind = type(self).__name__
        if monitor not in COLUMNS:
            raise ValueError(f"{kind} monitor: expected one of {', '.join(COLUMNS)}, got {monitor!r}")
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"{kind} mode: expected 'auto', 'min' or 'max', got {mode!r}")
        self.monitor = monitor
        self.min_delta = check_number(f"{kind} min_delta", min_delta, 0, math.inf)
        self.mode = ("max" if monitor.endswith("accuracy") else "min") if mode == "auto" else mode
        self.best: float | None = None

    def on_train_begin(self, run: Run) -> None:
        if self.monitor not in run.metric_names:
            raise ValueError(
                f"{type(self).__name__} monitors {self.monitor!r}, which this run does not measure; it measures "
                f"{', '.join(run.metric_names)}{'' if run.has_validation else '; pass validation_data to fit'}"
            )

    def improved(self, run: Run) -> bool:
        """Return whether the last epoch is the best so far, and if so record it as the best. NaN never is."""
        value = run.history.history[self.monitor][-1]
        if math.isnan(value):
            return False
        if self.best is not None:
            gain = value - self.best if self.mode == "max" else self.best - value
            if not gain > self.min_delta:  # also NaN, the difference of two infinities
                return False
        self.best = value
        return True

    def state(self) -> dict[str, Any]:
        return {"best": self.best}

    def set_state(self, state: dict[str, Any]) -> None:
        best = state_entry(state, "best", float, int, NoneType)
        self.best = None if best is None else float(best)


class EarlyStopping(_Monitor):
    """Stop when a value has not improved for ``patience`` epochs, and restore the best weights.

    The best weights are restored whenever training ends, even by an error or Ctrl-C.

    Args:
        monitor: "val_loss", "val_accuracy", "loss", "accuracy".
        patience: epochs to wait for an improvement; None never stops, and only restores the best weights.
        min_delta: the smallest change that counts as an improvement.
        mode: "min", "max", or "auto": max for accuracies.
        restore_best_weights: False keeps the last weights.
    Raises: ValueError: when training begins, if the run does not measure ``monitor``.
    Source: Prechelt 1998.
    """

    def __init__(
        self,
        monitor: Monitor = "val_loss",
        patience: int | None = 0,
        min_delta: float = 0.0,
        mode: Mode = "auto",
        restore_best_weights: bool = True,
    ) -> None:
        super().__init__(monitor, min_delta, mode)
        if patience != 0 and patience is not None:
            check_positive_int("EarlyStopping patience", patience)
        self.patience = patience
        self.restore_best_weights = restore_best_weights
        self.best_epoch: int | None = None
        self.best_weights: list[Any] | None = None
        self.wait = 0

    def on_train_begin(self, run: Run) -> None:
        # First, so that a rejected run does not end with the weights of the previous one.
        if not run.resumed:
            self.best, self.best_epoch, self.best_weights, self.wait = None, None, None, 0
        super().on_train_begin(run)

    def on_epoch_end(self, run: Run) -> None:
        if self.improved(run):
            self.wait, self.best_epoch = 0, run.epoch
            if self.restore_best_weights:
                self.best_weights = run.model.get_weights()
            return
        self.wait += 1
        if self.patience is not None and self.wait >= self.patience:
            run.stop_training = True

    def on_train_end(self, run: Run) -> None:
        if self.restore_best_weights and self.best_weights is not None:
            run.model.set_weights(self.best_weights)

    def state(self) -> dict[str, Any]:
        return super().state() | {
            "best_epoch": self.best_epoch,
            "wait": self.wait,
            "best_weights": self.best_weights,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.wait = state_entry(state, "wait", int)
        self.best_epoch = state_entry(state, "best_epoch", int, NoneType)
        self.best_weights = state_entry(state, "best_weights", list, NoneType)
        if not all(isinstance(weight, np.ndarray) for weight in self.best_weights or []):
            raise ValueError("best_weights: expected arrays")


class ModelCheckpoint(_Monitor):
    """Save the model after each epoch, or after each epoch that is the best so far.

    The best so far is that of all fits with this object, because the file may still hold the best model of an earlier
    one.

    Args:
        path: the file to write. ``{epoch:02d}-{val_loss:.3f}.safetensors`` becomes ``07-0.312.safetensors``: the
            epoch's number, from 1, and any column of `History`.
        monitor, min_delta, mode: as in `EarlyStopping`, used with save_best_only.
        save_best_only: whether to save only improvements.
    Raises: when training begins: ValueError: if the run does not measure ``monitor`` or a name in ``path``;
        ModelFileError: if no file can hold the model; OSError: if the file can't be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: Monitor = "val_loss",
        save_best_only: bool = False,
        min_delta: float = 0.0,
        mode: Mode = "auto",
    ) -> None:
        super().__init__(monitor, min_delta, mode)
        self.path, self.save_best_only = check_path("ModelCheckpoint path", path), save_best_only
        check_suffix(self.path)
        self._file(1, dict.fromkeys(COLUMNS, 0.0))

    def _file(self, epoch: int, row: dict[str, float]) -> str:
        """The file of an epoch with these values."""
        try:
            return self.path.format(epoch=epoch, **row)
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            raise ValueError(
                f"ModelCheckpoint path: expected no names in braces except epoch, {', '.join(row)}, with a format of "
                f"numbers at most, as in {{epoch:02d}}; got {self.path!r}"
            ) from error

    def on_train_begin(self, run: Run) -> None:
        if self.save_best_only:
            super().on_train_begin(run)
        path = self._file(run.epoch + 1, dict.fromkeys(run.metric_names, 0.0))
        check_writable(path)
        if type(run.model).save.__module__.startswith("tinynet."):  # else it writes what it likes
            storage.encode(path, *architecture.contents(run.model))  # raises if no file can hold the model

    def on_epoch_end(self, run: Run) -> None:
        best_in_file = self.best
        if self.save_best_only and not self.improved(run):
            return
        try:
            run.model.save(self._file(run.epoch + 1, run.history.row(run.history.epochs - 1)))
        except BaseException:
            self.best = best_in_file
            raise


class ReduceLROnPlateau(_Monitor):
    """Multiply the learning rate by ``factor`` when a value has not improved for ``patience`` epochs.

    Args:
        monitor, min_delta, mode: as in `EarlyStopping`.
        factor: in (0, 1).
        patience: epochs to wait.
        min_learning_rate: never go below this.
    Raises: ValueError: when training begins, if the optimizer's learning rate is a schedule, or the run does not
        measure ``monitor``.
    """

    def __init__(
        self,
        monitor: Monitor = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        min_learning_rate: float = 0.0,
        min_delta: float = 1e-4,
        mode: Mode = "auto",
    ) -> None:
        super().__init__(monitor, min_delta, mode)
        self.factor = check_number("ReduceLROnPlateau factor", factor, 1e-12, 1, open_high=True)
        self.patience = check_positive_int("ReduceLROnPlateau patience", patience)
        self.min_learning_rate = check_number(
            "ReduceLROnPlateau min_learning_rate", min_learning_rate, 0, math.inf
        )
        self.wait = 0
        self.learning_rate: float | None = None  # what it was last reduced to

    def on_train_begin(self, run: Run) -> None:
        super().on_train_begin(run)
        if callable(run.optimizer.learning_rate):
            raise ValueError(
                "ReduceLROnPlateau needs a constant learning rate, but the optimizer has a schedule"
            )
        if not run.resumed:
            self.best, self.wait, self.learning_rate = None, 0, None

    def on_epoch_end(self, run: Run) -> None:
        if self.improved(run):
            self.wait = 0
            return
        self.wait += 1
        if self.wait >= self.patience:
            current = run.optimizer.current_learning_rate()
            self.learning_rate = min(current, max(current * self.factor, self.min_learning_rate))
            run.optimizer.learning_rate = self.learning_rate
            self.wait = 0

    def state(self) -> dict[str, Any]:
        return super().state() | {"wait": self.wait, "learning_rate": self.learning_rate}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.wait = state_entry(state, "wait", int)
        self.learning_rate = state_entry(state, "learning_rate", float, int, NoneType)


class CSVLogger(Callback):
    """Write the history to a CSV file, as a whole after each epoch, so that it is always complete.

    A second fit with the same object adds its rows to those of the first; its epochs count from 1 again.

    Args: path: the file to write; its columns are epoch (from 1) and those of `History`, nan where a fit has none.
    Raises: OSError: when training begins, if the file can't be written.
    """

    _COLUMNS = ("epoch", *COLUMNS)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = check_path("CSVLogger path", path)
        self._rows: list[dict[str, float]] = []
        self._earlier = 0  # the rows of earlier fits

    def on_train_begin(self, run: Run) -> None:
        check_writable(self.path)
        if not run.resumed:
            self._earlier = len(self._rows)

    def on_epoch_end(self, run: Run) -> None:
        history = run.history
        self._rows[self._earlier :] = [
            {"epoch": epoch + 1, **history.row(epoch)} for epoch in range(history.epochs)
        ]
        names = [name for name in self._COLUMNS if any(name in row for row in self._rows)]
        text = io.StringIO()
        writer = csv.DictWriter(text, names, restval=math.nan, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_bytes(self.path, text.getvalue().encode())

    def state(self) -> dict[str, Any]:
        rows = [[row.get(name, math.nan) for name in self._COLUMNS] for row in self._rows[: self._earlier]]
        return {"earlier": np.array(rows)} if rows else {}

    def set_state(self, state: dict[str, Any]) -> None:
        self._rows = [
            {name: value for name, value in zip(self._COLUMNS, row, strict=True) if not math.isnan(value)}
            | {"epoch": int(row[0])}
            for row in state.get("earlier", np.empty(0)).tolist()
        ]
        self._earlier = len(self._rows)
