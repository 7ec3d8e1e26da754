"""One real training step, with every array kept.

`trace` is another loop over the model's layers. It calls the same forward and backward as `fit`, in the same order and
on the same memory, and copies each input and output. The layers don't know that they are traced.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinynet.engines import cpu
from tinynet.engines.devices import to_host
from tinynet.layers import BatchNorm, Layer, Softmax
from tinynet.layers.chain import walk, watcher
from tinynet.losses import CrossEntropy, Loss, NegativeLogLikelihood, SoftmaxCrossEntropy
from tinynet.model.sequential import Sequential
from tinynet.optimizer import Optimizer
from tinynet.study.tracing.events import Event, events
from tinynet.study.tracing.page import write
from tinynet.study.tracing.records import LayerTrace, LossTrace, ParameterTrace, Step
from tinynet.support.types import Array, PathLike
from tinynet.training import inputs


class Trace(Step):
    """A training step, recorded by `trace`. ``print`` it, or write it as a page."""

    def events(self) -> list[Event]:
        """The step's frames: every forward, the loss, every backward, the update."""
        return events(self)

    def to_html(self, path: PathLike, class_names: Sequence[str] | None = None, **extras: Any) -> None:
        """Write the step as one page that works offline; see `tinynet.study.tracing.page`."""
        write(self, path, class_names=class_names, **extras)

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.events()))


def trace(
    model: Sequential, x: Any, y: Any, loss: Loss, optimizer: Optimizer, *, dry_run: bool = False
) -> Trace:
    """Do one training step on the batch and keep every array.

    Afterwards the model and the optimizer are, bit for bit, as ``fit(..., workers=1)`` with the engine "numpy" leaves
    them after one step on this batch. If the loss is NaN or infinite, nothing is updated, and ``updated`` is False.

    Args:
        x (n, *input_shape), y (n, ...): the whole batch, as `Sequential.fit` takes them.
        dry_run: do the step on copies, and leave the model and the optimizer unchanged.
    Returns: the `Trace`; its ``model`` and ``optimizer`` are those that did the step.
    Raises: ValueError, TypeError: for arguments that `fit` rejects too; nothing has changed then.
    """
    if not isinstance(model, Sequential):
        raise TypeError(f"trace: expected a Sequential model, got {model!r}")
    for name, value, kind, example in (
        ("loss", loss, Loss, "CrossEntropy()"),
        ("optimizer", optimizer, Optimizer, "Adam()"),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{name}: expected an object such as {example}, got {value!r}")
    model._check_head(loss)
    if model.device.on_host(model) is not model and not dry_run:
        raise ValueError(
            "trace shows a step on the CPU, but the model is on the GPU; pass dry_run=True, or call model.to('cpu')"
        )
    x, y = inputs.check_data(x, y, model, loss)
    if dry_run:
        model, optimizer = model.copy(device="cpu"), copy.deepcopy(optimizer)
        x = to_host(x)
    optimizer.begin(model)
    given, loss = loss, copy.copy(loss)
    threads = cpu.blas_threads_for(model.multiply_adds(), len(x))
    with np.errstate(over="ignore", invalid="ignore"), cpu.blas_threads(threads):
        return _step(model, x, y, given, loss, optimizer)


def step_through(
    model: Sequential, x: Any, y: Any, loss: Loss, optimizer: Optimizer, *, dry_run: bool = False
) -> Iterator[Event]:
    """The frames of one training step: ``for event in step_through(...): print(event)``.

    The whole step is done before the first frame. Args, Raises: as `trace`.
    """
    return iter(trace(model, x, y, loss, optimizer, dry_run=dry_run).events())


def _step(model: Sequential, x: Array, y: Array, given: Loss, loss: Loss, optimizer: Optimizer) -> Trace:
    layers, computed = model._fuse(loss)
    step, state = model.step, {name: array.copy() for name, array in model.named_state().items()}
    before = {name: array.copy() for name, array in model.named_params().items()}
    recorder = Recorder(model)
    model._begin_step()
    with recorder.watching():
        value = float(model._forward_backward(layers, x, y, computed, len(y)))
    assert model.outputs is not None
    records, kept_outputs = recorder.records, model.outputs.copy()
    kept_gradient = recorder.gradient
    updated = bool(np.isfinite(value))
    learning_rate = optimizer.current_learning_rate()
    if updated:
        optimizer.step(model.params, model.grads, model.decay_size, model.trainable_ranges())
        model.loss, model.fitted_on_bytes = copy.copy(given), inputs.looks_like_bytes(x)
        model.fitted_magnitude = inputs.magnitude(x)
        model.outputs = kept_outputs.copy()  # the loss is computed once more below, in the same memory
    else:
        for record in records:
            for inner in record.walk():
                inner.dy = inner.dx = None
        model.step = step
        for name, array in model.named_state().items():
            array[...] = state[name]
    for record in records:
        _keep_parameters(record, before, model.named_params(), with_gradients=updated)
    predicted = sum(
        float(np.vdot(np.asarray(parameter.gradient, np.float64), np.asarray(parameter.update, np.float64)))
        for record in records
        for inner in record.walk()
        for parameter in inner.parameters.values()
        if parameter.gradient is not None
    )
    fused = computed is not loss
    name = type(given).__name__
    loss_trace = LossTrace(
        computed,
        f"{type(model.layers[-1]).__name__} and {name}" if fused else name,
        fused,
        kept_outputs,
        y,
        _loss_of_each(computed, kept_outputs, y),
        value,
        kept_gradient,
        _probabilities(computed, kept_outputs),
    )
    return Trace(
        model,
        optimizer,
        x,
        y,
        records,
        loss_trace,
        _loss_again(model, layers, x, y, computed) if updated else value,
        predicted,
        learning_rate,
        step,
        optimizer.step_count,
        updated,
    )


class Recorder:
    """Runs the passes in place of `tinynet.layers.chain`, and keeps every layer's inputs and outputs.

    A layer made of layers runs them through the same functions, so their records go inside its own.
    """

    def __init__(self, model: Sequential) -> None:
        self.records: list[LayerTrace] = []
        self.gradient = np.empty(0)  # of the loss with respect to the outputs
        self._paths = {id(layer): path for path, layer in model.walk()}
        self._by_layer: dict[int, LayerTrace] = {}
        self._inside = self.records  # where the next layer's record goes
        self._kept: list[tuple[Array, Array]] = []  # arrays of this pass and their copies

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record while a block runs."""
        token = watcher.set(self)
        try:
            yield
        finally:
            watcher.reset(token)

    def forward(self, layers: Sequence[Layer], x: Array, training: bool) -> Array:
        records = self._inside
        for layer in layers:
            children: list[LayerTrace] = []
            self._inside = children
            kept, y = self._copy(x), layer.forward(x, training)
            record = LayerTrace(
                self._paths[id(layer)], layer, kept, self._copy(y), _cache(layer), children=children
            )
            records.append(record)
            self._by_layer[id(layer)] = record
            x = y
        self._inside = records
        return x

    def backward(self, layers: Sequence[Layer], dy: Array) -> Array | None:
        if not self.gradient.size:
            self._kept, self.gradient = [], dy.copy()
        gradient: Array | None = dy
        for layer in reversed(layers):
            assert gradient is not None
            record = self._by_layer[id(layer)]
            record.dy, gradient = self._copy(gradient), layer.backward(gradient)
            record.dx = None if gradient is None else self._copy(gradient)
        return gradient

    def _copy(self, array: Array) -> Array:
        """A copy; an array that goes from layer to layer is copied once."""
        for live, copied in self._kept:
            if live is array:
                return copied
        self._kept.append((array, np.array(array, order="C")))
        return self._kept[-1][1]


def _cache(layer: Layer) -> dict[str, Array]:
    """Copies of what backward needs besides x and y."""
    if isinstance(layer, BatchNorm) and not layer.trainable:
        return {name: getattr(layer, name).copy() for name in layer.state_names}
    mask = layer.__dict__.get("_mask")
    return {"mask": np.array(mask, order="C")} if isinstance(mask, np.ndarray) else {}


# -- the rest of the step ----------------------------------------------------------------------------------


def _keep_parameters(
    record: LayerTrace, before: dict[str, Array], after: dict[str, Array], with_gradients: bool
) -> None:
    for inner in record.walk():
        # A user's own layer may also be made of layers; their parameters belong to its card.
        hidden = [] if inner.children else list(walk(inner.layer.children))
        for path, layer in [("", inner.layer), *((f"{path}.", layer) for path, layer in hidden)]:
            for spec in layer.param_specs:
                name, place = f"{path}{spec}", f"{inner.path}.{path}{spec}"
                known = with_gradients and layer.trainable and inner.dy is not None
                gradient = getattr(layer, f"d{spec}").copy() if known else None
                inner.parameters[name] = ParameterTrace(
                    name, before[place], gradient, after[place] - before[place]
                )


def _loss_of_each(loss: Loss, outputs: Array, y: Array) -> Array:
    each = copy.copy(loss)
    return np.array([each.forward(outputs[n : n + 1], y[n : n + 1]) for n in range(len(y))])


def _probabilities(loss: Loss, outputs: Array) -> Array | None:
    if isinstance(loss, SoftmaxCrossEntropy):
        return Softmax().forward(outputs)
    if isinstance(loss, NegativeLogLikelihood):
        return np.exp(outputs)
    return outputs if isinstance(loss, CrossEntropy) else None


def _loss_again(model: Sequential, layers: Sequence[Layer], batch: Array, y: Array, loss: Loss) -> float:
    """The loss after the step, on the same batch with the same masks; leaves running statistics unchanged."""
    state = {name: array.copy() for name, array in model.named_state().items()}
    value = float(copy.copy(loss).forward(model.run(layers, batch, training=True), y))
    for name, array in model.named_state().items():
        array[...] = state[name]
    return value
