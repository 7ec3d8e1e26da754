"""What a training run's result depends on, as plain data, to compare a resumed run with the original one."""

import hashlib
import inspect
import math
import platform
import re
from collections.abc import Sequence
from types import NoneType
from typing import Any, NamedTuple

import numpy as np

from tinynet.engines import cpu
from tinynet.engines.choice import current as engine
from tinynet.engines.devices import to_host
from tinynet.layers import Layer
from tinynet.support.arguments import defaults_of
from tinynet.support.types import Array
from tinynet.training.batches import ArrayBatches, Batches, batch_dtype
from tinynet.training.callbacks import Callback
from tinynet.training.run import Run
from tinynet.version import __version__

_PLAIN = (bool, int, float, str, type(None))

# The digest of the data reads at most this many examples and bytes: enough to tell data sets apart, at little cost.
_EXAMPLES, _BYTES = 1_000, 1 << 24


class Setting(NamedTuple):
    """A setting that a callback may change during training, with its owner."""

    owner: Any
    attribute: str
    value: Any

    def can_become(self, other: Any) -> bool:
        """Whether the attribute can be set to a checkpoint's value, which must have the same type or be None."""
        if plain(self.value) == other:
            return True
        if other is None and defaults_of(self.owner).get(self.attribute) is not None:
            return False  # None only where it is the default, as of clip_norm
        kinds = {type(self.value), type(other)} - {NoneType}
        if isinstance(self.owner, Layer) and int in kinds:
            return False  # units or filters: a run never changes a shape
        return hasattr(self.owner, self.attribute) and len(kinds) == 1 and kinds <= {bool, int, float, str}


def adjustable(run: Run) -> dict[str, Setting]:
    """Return the current arguments of the layers and of the optimizer, by name."""
    found = {}
    for path, layer in run.model.walk():
        try:
            arguments = {} if layer.children else layer.config()
        except ValueError:  # a layer that can't be saved: only its type is compared
            arguments = {}
        for name, value in {"trainable": layer.trainable, **arguments}.items():
            found[f"layer {path} {name}"] = Setting(layer, name, value)
    optimizer = run.optimizer
    public = [name for name in vars(optimizer) if name[0] != "_" and name not in ("step_count", "slots")]
    for name in ("learning_rate", *public):
        found[f"optimizer {name}"] = Setting(optimizer, name, getattr(optimizer, name))
    return found


def settings(
    run: Run, callbacks: Sequence[Callback], batches: Batches, validation: tuple[Any, Any] | None
) -> dict[str, Any]:
    """Return what must be the same in a resumed run, by name, as JSON data."""
    model = run.model
    found = {
        "input_shape": model.input_shape,
        "dtype": str(model.dtype),
        "seed": model.seed,
        "layers": [f"{path} {type(layer).__name__}" for path, layer in model.walk()],
        "optimizer": type(run.optimizer).__name__,
        "loss": run.loss,
        "callbacks": [type(callback).__name__ for callback in callbacks],
        **_arguments(callbacks),
        "steps_per_epoch": run.steps_per_epoch,
        "augment": batches.augment,
        **{name: setting.value for name, setting in adjustable(run).items()},
    }
    if isinstance(batches, ArrayBatches):
        found |= {"batch_size": batches.batch_size, "shuffle": batches.shuffle}
        found["data"] = _describe_data(batches.x, batches.y, model.dtype)
    else:
        found["data"] = "batches"
    if validation is not None:
        x, y = validation
        found["validation_data"] = "batches" if y is None else _describe_data(x, y, model.dtype)
    return {name: plain(value) for name, value in found.items()}


def _arguments(callbacks: Sequence[Callback]) -> dict[str, Any]:
    """Return the arguments of the library's callbacks, except the files they write."""
    return {
        f"callback {index} {name}": vars(callback)[name]
        for index, callback in from_the_library(callbacks)
        for name in defaults_of(callback)
        if name in vars(callback) and isinstance(vars(callback)[name], _PLAIN) and name != "path"
    }


def from_the_library(callbacks: Sequence[Callback]) -> list[tuple[int, Callback]]:
    """Return the callbacks whose class is the library's or derives from one, with their places in the list."""
    return [
        (index, callback)
        for index, callback in enumerate(callbacks)
        if any(
            kind.__module__.startswith("tinynet.") and kind is not Callback for kind in type(callback).__mro__
        )
    ]


def defaults(run: Run, callbacks: Sequence[Callback]) -> dict[str, Any]:
    """Return the default of each argument among the settings, by name.

    A checkpoint from a version that lacked an argument was computed with its default.
    """
    owners: dict[str, object] = {f"layer {path}": layer for path, layer in run.model.walk()}
    owners |= {f"callback {index}": callback for index, callback in from_the_library(callbacks)}
    owners["optimizer"] = run.optimizer
    return {
        f"{prefix} {name}": plain(default)
        for prefix, owner in owners.items()
        for name, default in defaults_of(owner).items()
        if default is not inspect.Parameter.empty
    }


def plain(value: Any) -> Any:
    """Return a value as JSON data that is the same in every process: without memory addresses."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, _PLAIN) and not (isinstance(value, float) and not math.isfinite(value)):
        return value
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _describe_data(x: Array, y: Array, dtype: np.dtype[Any] | None = None) -> str:
    """Describe the data: how many examples of what shape, and a digest of some of them, spread over all."""
    count = max(1, min(_EXAMPLES, _BYTES * len(x) // x.nbytes))
    sha256 = hashlib.sha256()
    for array in (x, y):
        every = 1 if array is y and y.nbytes <= _BYTES else -(-len(x) // count)
        for part in (array[::every], array[-1:]):
            sha256.update(np.ascontiguousarray(to_host(part), batch_dtype(array, dtype or array.dtype)).data)
    return f"{len(x)} examples {x.shape[1:]} {batch_dtype(x, dtype or x.dtype)}, SHA-256 {sha256.hexdigest()[:16]}"


def rates(learning_rate: Any, steps: int) -> list[list[float]]:
    """Return [step, learning rate] of a schedule at some of a run's steps: 0, 1, 3, 7, ... and the last."""
    if not callable(learning_rate) or steps == 0:
        return []
    asked = sorted({*(2**power - 1 for power in range(steps.bit_length())), steps - 1})
    found = []
    for step in asked:
        try:
            found.append([step, float(learning_rate(step))])
        except Exception:  # a table shorter than the run, which may be meant to stop earlier
            break
    return found


def rate_at(learning_rate: Any, step: int) -> float | str:
    """Return the learning rate at a step, or why there is none."""
    try:
        return float(learning_rate(step) if callable(learning_rate) else learning_rate)
    except Exception as error:
        return repr(error)


def environment(workers: int, device: str) -> dict[str, Any]:
    """Return what rounding depends on."""
    libraries = cpu.blas_info()
    own = [library for library in libraries if "numpy" in library["filepath"]] or libraries
    return {
        "tinynet": __version__,
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "BLAS": ", ".join(f"{one['internal_api']} {one['version']} {one.get('architecture')}" for one in own),
        "BLAS threads": max((one["num_threads"] for one in own), default=0),
        "workers": workers,
        "device": device,
        "engine": engine(),
    }
