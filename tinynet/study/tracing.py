"""One real training step, with every array kept.

`trace` is another loop over the model's layers. It calls the same forward and backward as `fit`, in the same order and
on the same memory, and copies each input and output. The layers don't know that they are traced.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tinynet import inputs, parallel
from tinynet.backend import to_host
from tinynet.files import PathLike
from tinynet.layers import BatchNorm, Layer, Residual, Softmax
from tinynet.layers.chain import plan_gradients
from tinynet.losses import CrossEntropy, Loss, NegativeLogLikelihood, SoftmaxCrossEntropy
from tinynet.model import Sequential
from tinynet.optimizers import Optimizer
from tinynet.parameters import walk
from tinynet.study.events import Event, events
from tinynet.study.page import write
from tinynet.study.records import LayerTrace, LossTrace, ParameterTrace, Step
from tinynet.types import Array


class Trace(Step):
    """A training step, made by `trace`. ``print`` it, or write it as a page."""

    def events(self) -> list[Event]:
        """The step's frames: every forward, the loss, every backward, the update."""
        return events(self)

    def to_html(self, path: PathLike, class_names: Sequence[str] | None = None, **extras: Any) -> None:
        """Write the step as one page that works offline; see `tinynet.study.page`."""
        write(self, path, class_names=class_names, **extras)

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.events()))


def trace(
    model: Sequential, x: Any, y: Any, loss: Loss, optimizer: Optimizer, *, dry_run: bool = False
) -> Trace:
    """Do one training step on the batch and keep every array.

    Afterwards the model and the optimizer are, bit for bit, as ``fit(..., workers=1)`` leaves them after a step on that
    batch. If the loss is NaN or infinite, nothing is updated, and ``updated`` is False.

    Args:
        x (n, *input_shape), y (n, ...): the whole batch, as `Sequential.fit` takes them.
        dry_run: do the step on copies, and leave the model and the optimizer unchanged.
    Returns: the `Trace`; its ``model`` and ``optimizer`` are those that made the step.
    Raises: ValueError, TypeError: for arguments that `fit` refuses too; nothing has changed then.
    """
    if not isinstance(model, Sequential):
        raise TypeError(f"trace: expected a Sequential model, got {model!r}")
    for name, value, kind, example in (
        ("loss", loss, Loss, "CrossEntropy()"),
        ("optimizer", optimizer, Optimizer, "Adam()"),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{name}: expected an object such as {example}, got {value!r}")
    model.check_head(loss)
    if model.device.name != "cpu" and not dry_run:
        raise ValueError(
            "trace shows a step on the CPU, and the model is on the GPU; give dry_run=True, or model.to('cpu')"
        )
    x, y = inputs.check_data(x, y, model, loss)
    if dry_run:
        model, optimizer = model.copy(device="cpu"), copy.deepcopy(optimizer)
        x = to_host(x)
    optimizer.prepare(model.params)
    given, loss = loss, copy.copy(loss)
    threads = parallel.blas_threads_for(model.multiply_adds(), len(x))
    with np.errstate(over="ignore", invalid="ignore"), parallel.blas_threads(threads):
        return _step(model, x, y, given, loss, optimizer)


def step_through(
    model: Sequential, x: Any, y: Any, loss: Loss, optimizer: Optimizer, *, dry_run: bool = False
) -> Iterator[Event]:
    """The frames of one training step: ``for event in step_through(...): print(event)``.

    The whole step is done before the first frame. Args, Raises: as `trace`.
    """
    return iter(trace(model, x, y, loss, optimizer, dry_run=dry_run).events())


def _step(model: Sequential, x: Array, y: Array, given: Loss, loss: Loss, optimizer: Optimizer) -> Trace:
    layers, computed = model.fuse(loss)
    step, state = model.step, {name: array.copy() for name, array in model.named_state().items()}
    model.begin_step()
    batch = x.astype(model.dtype)
    records, outputs = _forward(layers, batch, batch.copy(), "")
    kept_outputs = outputs.copy()
    value = computed.forward(outputs, y)
    gradient = computed.backward()
    updated = bool(np.isfinite(value))
    kept_gradient = gradient.copy()
    if updated:
        _backward(layers, gradient, kept_gradient, records, needs_input_grad=False)

    before = {name: array.copy() for name, array in model.named_params().items()}
    learning_rate = optimizer.current_learning_rate()
    if updated:
        optimizer.step(model.params, model.grads, model.decay_size, model.trainable_ranges())
        model.loss, model.fitted_on_bytes = copy.copy(given), inputs.looks_like_bytes(x)
        model.outputs = kept_outputs.copy()  # the loss is computed once more below, in the same memory
    else:
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
        _loss_again(model, layers, batch, y, computed) if updated else value,
        predicted,
        learning_rate,
        step,
        optimizer.step_count,
        updated,
    )


# -- forward and backward, as Sequential and Residual run them -------------------------------------------


def _forward(layers: Sequence[Layer], x: Array, kept: Array, prefix: str) -> tuple[list[LayerTrace], Array]:
    """The layers' records and the last layer's output. ``kept`` is a copy of x."""
    records = []
    for index, layer in enumerate(layers):
        record, x = _forward_layer(layer, x, kept, f"{prefix}{index}")
        records.append(record)
        kept = record.y
    return records, x


def _forward_layer(layer: Layer, x: Array, kept: Array, path: str) -> tuple[LayerTrace, Array]:
    children: list[LayerTrace] = []
    if _is_residual(layer):  # as Residual.forward, but recording each inner layer
        assert isinstance(layer, Residual)
        children, y = _forward(layer.layers, x, kept, f"{path}.")
        cut = x
        if layer.projection is not None:
            record, cut = _forward_layer(layer.projection, x, kept, f"{path}.{len(layer.layers)}")
            children.append(record)
        y = np.add(cut, y, out=layer.buffer("y", y.shape, y.dtype, like=y))
    else:
        y = layer.forward(x, training=True)
    return LayerTrace(path, layer, kept, np.array(y, order="C"), _cache(layer), children=children), y


def _cache(layer: Layer) -> dict[str, Array]:
    """Copies of what backward needs besides x and y."""
    if isinstance(layer, BatchNorm) and not layer.trainable:
        return {name: getattr(layer, name).copy() for name in layer.state_names}
    mask = layer.__dict__.get("_mask")
    return {"mask": np.array(mask, order="C")} if isinstance(mask, np.ndarray) else {}


def _is_residual(layer: Layer) -> bool:
    """Whether the layer computes as Residual does, so that its inner layers can be traced."""
    kind = type(layer)
    return isinstance(layer, Residual) and (kind.forward, kind.backward) == (
        Residual.forward,
        Residual.backward,
    )


def _backward(
    layers: Sequence[Layer], dy: Array, kept: Array, records: list[LayerTrace], needs_input_grad: bool
) -> tuple[Array | None, Array | None]:
    """The first layer's dx and a copy of it, computed as in `backward_through`; fills in the records."""
    first = plan_gradients(layers, needs_input_grad)
    gradient: Array | None = dy
    copied: Array | None = kept
    for layer, record in reversed(list(zip(layers[first:], records[first:], strict=True))):
        assert gradient is not None
        assert copied is not None
        gradient = _backward_layer(layer, gradient, copied, record)
        copied = record.dx
    return (gradient, copied) if needs_input_grad else (None, None)


def _backward_layer(layer: Layer, dy: Array, kept: Array, record: LayerTrace) -> Array | None:
    record.dy = kept
    if _is_residual(layer):
        assert isinstance(layer, Residual)
        inner = record.children[: len(layer.layers)]
        through, _ = _backward(layer.layers, dy, kept, inner, layer.needs_input_grad)
        cut: Array | None = dy
        if layer.projection is not None:
            cut, _ = _backward(
                (layer.projection,), dy, kept, record.children[len(layer.layers) :], layer.needs_input_grad
            )
        dx = (
            None
            if through is None or cut is None
            else np.add(cut, through, out=layer.buffer("dx", through.shape, through.dtype, like=through))
        )
    else:
        dx = layer.backward(dy)
    record.dx = None if dx is None else np.array(dx, order="C")
    return dx


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
    value = copy.copy(loss).forward(model.run(layers, batch, training=True), y)
    for name, array in model.named_state().items():
        array[...] = state[name]
    return value
