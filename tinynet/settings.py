"""What the result of a training run depends on, as plain data: a run that goes on is compared with one that began."""

import hashlib
import math
import platform
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinynet import parallel
from tinynet.batches import ArrayBatches, Batches
from tinynet.callbacks import Callback
from tinynet.run import Run
from tinynet.types import Array
from tinynet.version import __version__

_PLAIN = (bool, int, float, str, type(None))

# The digest of the data looks at so many examples and bytes at most: it tells data sets apart, and costs nothing.
_EXAMPLES, _BYTES = 1_000, 1 << 24


class Setting(NamedTuple):
    """A setting that a callback may change while training, and whose it is."""

    owner: Any
    attribute: str
    value: Any

    def can_become(self, other: Any) -> bool:
        """Whether the attribute can be set to what a checkpoint says of it."""
        if plain(self.value) == other:
            return True
        alike = isinstance(self.value, str) == isinstance(other, str)
        return alike and isinstance(self.value, _PLAIN) and hasattr(self.owner, self.attribute)


def adjustable(run: Run) -> dict[str, Setting]:
    """The arguments of the layers and of the optimizer, by name, as they are now."""
    found = {}
    for path, layer in run.model.walk():
        try:
            arguments = {} if layer.children else layer.config()
        except ValueError:  # a layer that no model file can hold; here its type has to do
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
    """What has to be the same in the run that goes on, by name, as JSON holds it."""
    model = run.model
    found = {
        "input_shape": model.input_shape,
        "dtype": str(model.dtype),
        "seed": model.seed,
        "layers": [f"{path} {type(layer).__name__}" for path, layer in model.walk()],
        "optimizer": type(run.optimizer).__name__,
        "loss": run.loss,
        "callbacks": [type(callback).__name__ for callback in callbacks],
        "steps_per_epoch": run.steps_per_epoch,
        "augment": batches.augment,
        **{name: setting.value for name, setting in adjustable(run).items()},
    }
    if isinstance(batches, ArrayBatches):
        found |= {"batch_size": batches.batch_size, "shuffle": batches.shuffle}
        found["data"] = _describe_data(batches.x, batches.y)
    else:
        found["data"] = "batches"
    if validation is not None:
        x, y = validation
        found["validation_data"] = "batches" if y is None else _describe_data(x, y)
    return {name: plain(value) for name, value in found.items()}


def plain(value: Any) -> Any:
    """A value as JSON holds it and as another process says it too: without addresses in memory."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, _PLAIN) and not (isinstance(value, float) and not math.isfinite(value)):
        return value
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _describe_data(x: Array, y: Array) -> str:
    """How many examples of what, and a digest of some of them, spread over all."""
    count = max(1, min(_EXAMPLES, _BYTES * len(x) // x.nbytes))
    sha256 = hashlib.sha256()
    for array in (x, y):
        for part in (array[:: -(-len(x) // count)], array[-1:]):
            sha256.update(np.ascontiguousarray(part).data)
    return f"{len(x)} examples {x.shape[1:]} {x.dtype}, SHA-256 {sha256.hexdigest()[:16]}"


def rates(learning_rate: Any, steps: int) -> list[list[float]]:
    """[step, learning rate] at some of the steps that a schedule was asked for: 0, 1, 3, 7, ... and the last."""
    if not callable(learning_rate) or steps == 0:
        return []
    asked = sorted({*(2**power - 1 for power in range(steps.bit_length())), steps - 1})
    return [[step, float(learning_rate(step))] for step in asked]


def environment(workers: int) -> dict[str, Any]:
    """What rounding depends on."""

    libraries = parallel.blas_info()
    own = [library for library in libraries if "numpy" in library["filepath"]] or libraries
    return {
        "tinynet": __version__,
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "BLAS": ", ".join(f"{one['internal_api']} {one['version']} {one.get('architecture')}" for one in own),
        "BLAS threads": max((one["num_threads"] for one in own), default=0),
        "workers": workers,
    }
