"""Checkpoints: everything that a training run needs to resume as if it had never stopped, in one file.

The file is a safetensors file, like a model file (`tinynet.files.storage`). Its arrays are the parameters, running
statistics, optimizer slots, history, and callback states. Its description says how far the run got; its ``settings``,
which must be the same on resuming; and its ``environment``. In a different environment the run still resumes, but not
bit for bit. No random generators are saved, because every stream is named by seed, epoch, batch or step
(`tinynet.support.random`).
"""

import copy
import errno
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinynet.engines.devices import device_of, to_host
from tinynet.files import storage
from tinynet.files.atomic import check_writable
from tinynet.protocols import Model
from tinynet.support.checks import check_path, check_positive_int
from tinynet.support.errors import ModelFileError
from tinynet.support.types import Array, PathLike
from tinynet.training import resume
from tinynet.training.batches import Batches
from tinynet.training.callbacks import Callback
from tinynet.training.data import Pair
from tinynet.training.run import COLUMNS, Run
from tinynet.training.steps import Steps


class Checkpoint(Callback):
    """Writes checkpoints of a run, and resumes a run from one.

    Args:
        path: the file to write; None writes none.
        every: batches between writes within an epoch; None writes only after an epoch or on Ctrl-C.
        resume: the file to resume from; None starts a new run.
    Raises: TypeError, ValueError: for invalid arguments; OSError: if the file can't be written.
    """

    def __init__(self, path: PathLike | None, every: int | None, resume: PathLike | None) -> None:
        for name, value in (("checkpoint", path), ("resume", resume)):
            if value is not None:
                check_path(name, value)
        if every is not None and path is None:
            raise ValueError("checkpoint_every: pass checkpoint too, the file to write to")
        if path is not None and Path(path).is_dir():
            raise ValueError(f"checkpoint: expected the path of a file, but {os.fspath(path)!r} is a folder")
        if path is not None:
            check_writable(path)
            storage.check_suffix(path)
        self.path, self.resume = path, resume
        self.every = None if every is None else check_positive_int("checkpoint_every", every)

    def begin(
        self, run: Run, callbacks: Sequence[Callback], batches: Batches, validation: Pair | None, steps: Steps
    ) -> int:
        """Return how many epochs of the run are done, 0 for a new run, and set ``run.first_batch`` of the next.

        A resumed run gets back everything in the checkpoint or, on an error, nothing.

        Raises:
            ValueError: with every setting that differs from the checkpoint. FileNotFoundError: if there is none.
            ModelFileError: if it is damaged or not a checkpoint. TypeError: if a callback's state can't be written.
        """
        if self.path is None and self.resume is None:
            return 0
        self.run, self.callbacks, self.batches, self.steps = run, callbacks, batches, steps
        self.settings = resume.settings(run, callbacks, batches, validation)
        self.environment = resume.environment(steps.workers, run.model.device.name)
        if self.resume is not None:
            return self._go_on(read(self.resume), os.fspath(self.resume))
        self._contents(0, 0)  # so that anything that can't be written fails now, not after an epoch
        return 0

    def on_batch_end(self, run: Run) -> None:
        if self._is_due(run) and run.has_batches_left and not run.stop_training:
            self.steps.settle()
            self.write(run.epoch, run.batch + 1)

    def on_interrupt(self, run: Run) -> None:
        """Write where Ctrl-C has ended the run, unless `on_batch_end` has just done so."""
        if not self._is_due(run):
            self.write(run.epoch, run.batch + 1)

    def _is_due(self, run: Run) -> bool:
        return self.every is not None and (run.batch + 1) % self.every == 0

    def on_epoch_end(self, run: Run) -> None:
        self.write(run.epoch + 1, 0)

    def write(self, epochs: int, batches: int) -> None:
        """Write the state after ``epochs`` epochs and ``batches`` batches of the next; without a path, do nothing."""
        if self.path is not None:
            storage.save(self.path, *self._contents(epochs, batches), kind="checkpoint")

    def _contents(self, epochs: int, batches: int) -> tuple[dict[str, Any], dict[str, Array]]:
        run, model, optimizer = self.run, self.run.model, self.run.optimizer
        arrays = {f"model.{name}": to_host(array) for name, array in _weights(model).items()}
        for name, values in run.history.history.items():
            arrays[f"history.{name}"] = np.array(values, np.float64)
        loss_sum, correct, examples, _ = run.meter.read()
        place = {
            "epochs": epochs,
            "batches": batches,
            "position": self.batches.position,
            "goes_on": self.batches.goes_on,
            "stopped": run.stop_training,
            "loss_sum": loss_sum,
            "correct": correct,
            "examples": examples,
            "seconds": run.seconds() if batches else 0.0,
            "model_step": model.step,
            "model_epoch": model.epoch,
            "optimizer_step": optimizer.step_count,
        }
        left = (run.epochs - epochs) * run.steps_per_epoch - batches
        now = {name: resume.plain(item.value) for name, item in resume.adjustable(run).items()}
        return {
            "place": _pack({name: kind(place[name]) for name, kind in _PLACE.items()}, "place", arrays),
            "settings": self.settings,
            "changed": {name: now[name] for name in now if self.settings.get(name, now[name]) != now[name]},
            "rates": resume.rates(optimizer.learning_rate, optimizer.step_count + max(left, 0)),
            "environment": self.environment,
            "optimizer": _pack(optimizer.state(), f"the state of {type(optimizer).__name__}", arrays),
            "callbacks": [
                _pack(callback.state(), f"the state of callback {index}, {type(callback).__name__}", arrays)
                for index, callback in enumerate(self.callbacks)
            ],
        }, arrays

    def _go_on(self, saved: "Saved", name: str) -> int:
        run, model, place = self.run, self.run.model, saved.place
        wrong = self._mismatches(saved)
        if wrong:
            raise ValueError(
                f"{name}: the run in this checkpoint can't be resumed like this, and nothing was changed: "
                f"{'; '.join(wrong)}"
            )
        elsewhere = [
            f"{key} {self.environment.get(key)} here, {value} in the checkpoint"
            for key, value in ({"engine": "numpy"} | saved.environment).items()
            if self.environment.get(key) != value
        ]
        if elsewhere:
            warnings.warn(
                f"{name}: the run resumes, but not bit for bit as it would have: {'; '.join(elsewhere)}",
                stacklevel=4,
            )
        for callback, state in zip(self.callbacks, saved.callbacks, strict=True):
            callback.set_state(state)
        run.optimizer.set_state(saved.optimizer)
        for key, (owner, attribute, value) in resume.adjustable(run).items():
            if key in saved.changed and resume.plain(value) != saved.changed[key]:
                setattr(owner, attribute, saved.changed[key])
        for key, array in _weights(model).items():
            array[...] = device_of(array).asarray(saved.weights[key])
        model.step, model.epoch = place["model_step"], place["model_epoch"]
        self.batches.first_epoch = model.epoch - place["epochs"]
        self.batches.position, self.batches.goes_on = place["position"], place["goes_on"]
        run.history.history = saved.history
        run.meter.set(place["loss_sum"], place["correct"], place["examples"])
        run._seconds = place["seconds"]
        run.batch = (place["batches"] or run.steps_per_epoch) - 1
        run.stop_training, run.resumed = place["stopped"], True
        # The settings at the beginning of the run; callbacks may have changed the current ones since.
        self.settings = saved.settings
        run.epoch, run.first_batch = min(place["epochs"], run.epochs - 1), place["batches"]
        return int(place["epochs"])

    def _mismatches(self, saved: "Saved") -> list[str]:
        """Return everything that prevents this run from resuming there, without changing anything."""
        run, place, wrong = self.run, saved.place, []
        defaults = {
            name: value
            for name, value in resume.defaults(run, self.callbacks).items()
            if name in self.settings
        }
        for name, theirs in (dict.fromkeys(self.settings, "nothing") | defaults | saved.settings).items():
            mine = self.settings.get(name, "nothing")
            # Reused objects already carry the callbacks' changes.
            if mine not in (theirs, saved.changed.get(name, theirs)):
                hint = f"; create the model with seed={theirs}" if name == "seed" else ""
                wrong.append(f"{name}: {theirs!r} in the checkpoint, {mine!r} here{hint}")
        adjustable = resume.adjustable(run)
        wrong += [
            f"{name}: a callback has set it to {value!r}, which can't be restored"
            for name, value in saved.changed.items()
            if name not in adjustable or not adjustable[name].can_become(value)
        ]
        if (place["epochs"], place["batches"]) > (run.epochs, 0):
            begun = place["epochs"] + (place["batches"] > 0)
            wrong.append(
                f"epochs: {begun} have begun in the checkpoint, but only {run.epochs} are requested here"
            )
        if place["batches"] >= run.steps_per_epoch:
            wrong.append(
                f"{place['batches']} batches of an epoch are done in the checkpoint, but an epoch has "
                f"{run.steps_per_epoch} here"
            )
        if place["epochs"] and tuple(saved.history) != run.metric_names:
            wrong.append(
                f"history: {', '.join(saved.history)} in the checkpoint, {', '.join(run.metric_names)} here"
            )
        learning_rate = run.optimizer.learning_rate
        wrong += [
            f"learning rate at step {step}: {theirs} in the checkpoint, {mine} here"
            for step, theirs in saved.rates
            if not _is_close(mine := resume.rate_at(learning_rate, int(step)), theirs)
        ][:1]
        weights = _weights(run.model)
        wrong += [
            f"{name}: {_kind(saved.weights.get(name))} in the checkpoint, {_kind(weights.get(name))} here"
            for name in weights | saved.weights
            if _kind(saved.weights.get(name)) != _kind(weights.get(name))
        ]
        if wrong:
            return wrong
        # Each state is tried on a copy first.
        for index, (callback, state) in enumerate(zip(self.callbacks, saved.callbacks, strict=True)):
            try:
                _trial(callback).set_state(copy.deepcopy(state))
            except Exception as error:
                wrong.append(f"callback {index}, {type(callback).__name__}, rejects its state: {error!r}")
        try:
            trial = copy.copy(run.optimizer)
            trial.set_state(copy.deepcopy(saved.optimizer))
            trial.prepare(run.model.params)
            for name, (owner, attribute, _) in adjustable.items():
                if owner is run.optimizer and name in saved.changed:
                    setattr(trial, attribute, saved.changed[name])
        except Exception as error:
            wrong.append(f"{type(run.optimizer).__name__} rejects its state: {error!r}")
        return wrong


def _is_close(mine: float | str, theirs: float) -> bool:
    """Whether two learning rates are equal up to a cosine's last digits, which differ between systems."""
    return not isinstance(mine, str) and math.isclose(mine, theirs, rel_tol=1e-9)


def _trial(callback: Callback) -> Callback:
    """Return a copy to try a state on, a deep one if possible."""
    try:
        return copy.deepcopy(callback)
    except Exception:  # it holds a file or a lock, for example
        return copy.copy(callback)


class Saved(NamedTuple):
    """The parts of a checkpoint."""

    place: dict[str, Any]  # how far the run got
    settings: dict[str, Any]  # at the beginning of the run
    changed: dict[str, Any]  # those settings that callbacks have changed
    rates: list[list[float]]  # sample learning rates of a schedule, as the schedule can't be written
    environment: dict[str, Any]
    optimizer: dict[str, Any]
    callbacks: list[dict[str, Any]]
    weights: dict[str, Array]
    history: dict[str, list[float]]


_PLACE: dict[str, type[int] | type[float]] = {
    "epochs": int,
    "batches": int,
    "position": int,
    "goes_on": bool,
    "stopped": bool,
    "loss_sum": float,
    "correct": int,
    "examples": int,
    "seconds": float,
    "model_step": int,
    "model_epoch": int,
    "optimizer_step": int,
}


def read(path: PathLike) -> Saved:
    """Read a file that `Checkpoint.write` wrote.

    Raises: FileNotFoundError: if there is none; ModelFileError: if it is damaged or not a checkpoint.
    """
    try:
        description, arrays = storage.load(path, kind="checkpoint")
    except FileNotFoundError:
        hint = "there is no such checkpoint; leave resume out to start a new run"
        raise FileNotFoundError(errno.ENOENT, hint, os.fspath(path)) from None
    try:
        place = _unpack(description["place"], arrays)
        place = {"position": 0, "goes_on": False} | place  # in earlier versions each epoch began a new pass
        for name, kind in _PLACE.items():
            if type(place[name]) is not kind or (kind is int and not 0 <= place[name] < 2**63):
                raise ValueError(f"{name}: {place[name]!r}")
        saved = Saved(
            place=place,
            settings=dict(description["settings"]),
            changed=dict(description["changed"]),
            rates=[[int(step), float(rate)] for step, rate in description["rates"]],
            environment=dict(description["environment"]),
            optimizer=dict(_unpack(description["optimizer"], arrays)),
            callbacks=[dict(_unpack(state, arrays)) for state in description["callbacks"]],
            weights={
                name.removeprefix("model."): array
                for name, array in arrays.items()
                if name.startswith("model.")
            },
            history={
                name: arrays[f"history.{name}"].astype(np.float64).tolist()
                for name in COLUMNS
                if f"history.{name}" in arrays
            },
        )
        if saved.optimizer.get("step_count", place["optimizer_step"]) != place["optimizer_step"]:
            raise ValueError(f"the optimizer's step_count: {saved.optimizer['step_count']!r}")
        if any(resume.plain(value) != value for value in saved.changed.values()):
            raise ValueError(f"changed: {saved.changed}")
        if any(arrays[f"history.{name}"].shape != (place["epochs"],) for name in saved.history):
            raise ValueError(f"its history does not have {place['epochs']} epochs")
        if len(saved.callbacks) != len(saved.settings["callbacks"]):
            raise ValueError(f"{saved.settings['callbacks']} have {len(saved.callbacks)} states")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelFileError(
            f"{os.fspath(path)}: the checkpoint can't be used: {type(error).__name__}: {error}"
        ) from error
    return saved


def _weights(model: Model) -> dict[str, Array]:
    return model.named_params() | model.named_state()


def _kind(array: Array | None) -> str:
    return "nothing" if array is None else f"{array.dtype} {array.shape}"


def _pack(value: Any, name: str, arrays: dict[str, Array]) -> Any:
    """Return a value as JSON data; the arrays in it are added to ``arrays``."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        key = f"{len(arrays)} {name}"
        arrays[key] = value.astype(value.dtype.newbyteorder("="), copy=False)
        return {"array": key}
    if isinstance(value, (list, tuple)):
        return [_pack(item, name, arrays) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"items": {key: _pack(item, f"{name}, {key}", arrays) for key, item in value.items()}}
    raise TypeError(
        f"{name}: expected None, numbers, strings, arrays of numbers, or lists and mappings (with string keys) "
        f"of them, got {value!r}"
    )


def _unpack(value: Any, arrays: Mapping[str, Array]) -> Any:
    """Return what `_pack` was given; arrays are copies, and tuples come back as lists."""
    if isinstance(value, list):
        return [_unpack(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "float":
        return float(content)
    if kind == "array":
        return np.array(arrays[content])
    return {key: _unpack(item, arrays) for key, item in content.items()}
