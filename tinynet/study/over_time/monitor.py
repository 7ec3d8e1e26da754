"""Training over time: a callback that looks inside the model every few steps and writes a page about what it saw."""

import math
import sys
from typing import Any

import numpy as np

from tinynet.engines.devices import to_host
from tinynet.files.atomic import check_writable, write_bytes
from tinynet.layers import Layer
from tinynet.study.over_time.page import render
from tinynet.study.over_time.probe import BINS, SAMPLED, Histograms, Look, Place, Probe
from tinynet.study.over_time.record import MOST_SAMPLES, Record, Sample, Watched
from tinynet.study.tracing.statistics import dead_units, saturated
from tinynet.support.arguments import shown_arguments
from tinynet.support.checks import check_positive_int
from tinynet.support.types import Array, PathLike
from tinynet.training import inputs
from tinynet.training.callbacks import Callback
from tinynet.training.run import Run

PROBE_SIZE = 32  # examples


class TrainingMonitor(Callback):
    """Watch a model from the inside while it trains, and write a page when training ends, however it ends.

        monitor = tn.study.TrainingMonitor("training.html", x_val, y_val)
        model.fit(x_train, y_train, ..., callbacks=[monitor])

    After the first step and every ``every`` steps, the first 32 examples run forward and backward through a twin of the
    model. The page shows how outputs and gradients are distributed in each layer and how far each weight moves relative
    to its size, counts dead and saturated units, and says in words what looks wrong. Training is bit-identical with and
    without the monitor. If there are more than 400 samples, every second one is dropped and ``every`` is doubled. A
    second fit with the same object begins a new page.

    Args:
        path: where to write the page; missing folders are created.
        x, y: examples to look at, the same ones each time; a few from the validation set, for example.
        every: number of steps from one sample to the next.
    Raises: when training begins: ValueError: if x or y doesn't fit the model and the loss; OSError: if the page can't
        be written.
    Attributes: record: the numbers, a `Record`; available once training begins.
    """

    def __init__(self, path: PathLike, x: Any, y: Any, every: int = 50) -> None:
        self.path, self.x, self.y = path, x, y
        self.every = check_positive_int("TrainingMonitor every", every)
        self.record: Record | None = None
        self._saved: dict[str, Any] | None = None

    def on_train_begin(self, run: Run) -> None:
        self.record, saved, self._saved = None, self._saved, None
        check_writable(self.path, parents=True)
        self._error_before = sys.exception()
        x, y = inputs.check_data(self.x, self.y, run.model, run.loss, suffix=" of TrainingMonitor")
        self._probe = Probe(run.model, x[:PROBE_SIZE], y[:PROBE_SIZE], run.loss)
        self._twins = dict(self._probe.twin.walk())
        parameters = {
            f"{path}.{name}": (getattr(layer, name), getattr(layer, f"d{name}"), layer)
            for path, layer in run.model.walk()
            for name in layer.param_specs
        }
        # The guide is for weights: a bias starts at 0 and may move by many times its size.
        self._weights = {path: found for path, found in parameters.items() if found[0].ndim > 1} or parameters
        self._before = {path: np.empty_like(value) for path, (value, _, _) in self._weights.items()}
        self._rate = math.nan
        look = self._probe.look()
        self.record = self._make_record(run, look)
        self._arrays = Histograms(self.record.sizes)
        if saved is not None:  # a resumed run
            self._go_on(self.record, saved)
        self._next = _next_sample(self.record)

    def _go_on(self, record: Record, saved: dict[str, Any]) -> None:
        record.samples = saved["samples"]
        if any(sample.counts.shape != (len(record.places), BINS) for sample in record.samples):
            self.record = None
            raise ValueError(
                "this TrainingMonitor's saved samples come from another model; resume with the model they came from"
            )
        record.steps, record.every = saved["steps"], saved["every"]
        record.thinned, record.fresh = saved["thinned"], saved["fresh"]

    def _make_record(self, run: Run, look: Look) -> Record:
        layers = dict(run.model.walk())
        watched = self._probe.watched(look)
        places, sizes = [], []
        for path in watched:
            gradients = [
                (f"d{name}", getattr(layers[path], name).size)
                for name in layers[path].param_specs
                if getattr(layers[path], name).ndim > 1
            ]
            size = look.outputs[path].size
            for name, elements in [("y", size), ("dy", size), *gradients]:
                places.append(Place(path, name))
                sizes.append(elements)
        head, _ = run.model._fuse(run.loss)
        return Record(
            every=self.every,
            probe_size=len(self._probe.y),
            classes=run.model.output_shape[-1] if run.loss.is_classification else None,
            fresh=run.model.step == 0,
            fused=len(head) < len(run.model.layers),
            planned=run.epochs * run.steps_per_epoch,
            optimizer=type(run.optimizer).__name__,
            input_path=str(self._probe.first),
            input_rms=_root_mean_square(self._probe.input),
            layers={path: _watched(layers[path], look.outputs[path]) for path in watched},
            places=places,
            sizes=sizes,
            counted=[min(size, SAMPLED) for size in sizes],
            relus=[path for path in watched if dead_units(layers[path], look.outputs[path]) is not None],
            squashing=[path for path in watched if saturated(layers[path], look.outputs[path]) is not None],
            weights=list(self._weights),
            samples=[],
        )

    def on_epoch_begin(self, run: Run) -> None:
        self._remember(run)  # again: callbacks may change weights and the learning rate between epochs

    def on_batch_end(self, run: Run) -> None:
        record = self.record
        assert record is not None
        record.steps += 1
        if record.steps < self._next - 1:  # nothing to do after most steps
            return
        if record.steps == self._next:
            record.samples.append(self._sample(run, record))
            if len(record.samples) > MOST_SAMPLES:
                self._thin(record)
            self._next = _next_sample(record)
        self._remember(run)

    def _remember(self, run: Run) -> None:
        """Keep a copy of the weights if the next step is a sample: its update is the difference from this copy."""
        assert self.record is not None
        if self.record.steps == self._next - 1:
            self._rate = run.optimizer.current_learning_rate()
            for path, (value, _, _) in self._weights.items():
                np.copyto(self._before[path], value)

    def _sample(self, run: Run, record: Record) -> Sample:
        look = self._probe.look()
        sources = {"y": look.outputs, "dy": look.gradients}
        counts, rms = self._arrays.count(
            [
                sources[name][path] if name in sources else to_host(self._weights[f"{path}.{name[1:]}"][1])
                for path, name in record.places
            ]
        )
        layers = self._twins
        dead = [
            (dead_units(layers[path], look.outputs[path]) or 0) / record.layers[path].units
            for path in record.relus
        ]
        flat = [saturated(layers[path], look.outputs[path]) or 0.0 for path in record.squashing]
        norms, ratios = [], []
        for path, (value, gradient, layer) in self._weights.items():
            before = self._before[path]
            size = _norm(before)
            update = _norm(np.subtract(value, before, out=before))
            norms.append(_norm(gradient) if layer.trainable else math.nan)
            ratios.append(update / size if size and layer.trainable else math.nan)
        return Sample(
            record.steps,
            run.epoch + 1,
            run.batch_loss,
            look.loss,
            self._rate,
            counts,
            rms.astype(np.float32),
            np.array(dead),
            np.array(flat),
            np.array(norms),
            np.array(ratios),
        )

    def _thin(self, record: Record) -> None:
        """Keep every second sample."""
        record.every *= 2
        record.thinned = True
        record.samples = [
            sample for sample in record.samples if sample.step == 1 or sample.step % record.every == 0
        ]

    def on_train_end(self, run: Run) -> None:
        record = self.record
        if record is None:  # training did not begin
            return
        error = sys.exception()
        if error is not self._error_before and error is not None:
            record.error = f"{type(error).__name__}: {error}"
        record.stopped = run.stop_training
        for name in (
            "_probe",
            "_twins",
            "_weights",
            "_before",
            "_arrays",
        ):  # these keep the model in memory
            del self.__dict__[name]

        write_bytes(self.path, render(record).encode(), parents=True)

    def state(self) -> dict[str, Any]:
        record = self.record
        if record is None:
            return {}
        return {
            "steps": record.steps,
            "every": record.every,
            "thinned": record.thinned,
            "fresh": record.fresh,
            "samples": {
                name: np.array([getattr(sample, name) for sample in record.samples])
                for name in Sample._fields
            },
        }

    def set_state(self, state: dict[str, Any]) -> None:
        self._saved = None
        if state:
            fields = zip(*(state["samples"][name] for name in Sample._fields), strict=True)
            self._saved = {
                "steps": check_positive_int("steps", state["steps"] + 1) - 1,
                "every": check_positive_int("every", state["every"]),
                "thinned": bool(state["thinned"]),
                "fresh": bool(state["fresh"]),
                "samples": [Sample(int(step), int(epoch), *rest) for step, epoch, *rest in fields],
            }


def _next_sample(record: Record) -> int:
    """The next step to sample: the first, then every multiple of ``every``."""
    return (record.steps // record.every + 1) * record.every if record.steps else 1


def _watched(layer: Layer, y: Array) -> Watched:
    return Watched(type(layer).__name__, shown_arguments(layer), y.shape[-1], y.ndim == 4)


def _norm(array: Array) -> float:
    """The Euclidean norm in one pass; `statistics.norm` is more precise but slower."""
    flat = array.reshape(-1)
    return math.sqrt(float(np.vdot(flat, flat)))


def _root_mean_square(array: Array) -> float:
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))
