"""A training step as data: each layer, each parameter, the loss. `tinynet.study.trace` makes it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.model.sequential import Sequential
from tinynet.optimizers import Optimizer
from tinynet.study.tracing.statistics import Statistics, dead_units, norm, saturated, statistics
from tinynet.support.types import Array


@dataclass(frozen=True)
class ParameterTrace:
    """A parameter in the step."""

    name: str  # "W"
    value: Array  # before the update
    gradient: Array | None  # None if it is frozen
    update: Array  # what the optimizer added to it

    @property
    def ratio(self) -> float | None:
        """The norm of the update over the norm of the value; None where the value is 0. About 1e-3 is usual."""
        size = norm(self.value)
        return norm(self.update) / size if size else None


@dataclass
class LayerTrace:
    """A layer in the step. ``dy`` and ``dx`` are None where no gradient was asked for."""

    path: str  # "2", inside a Residual "5.1"
    layer: Layer
    x: Array
    y: Array
    cache: dict[str, Array] = field(
        default_factory=dict
    )  # other arrays that forward kept for backward: a mask
    dy: Array | None = None
    dx: Array | None = None
    parameters: dict[str, ParameterTrace] = field(default_factory=dict)
    children: list["LayerTrace"] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """The name of the layer's class."""
        return type(self.layer).__name__

    @property
    def dead_units(self) -> int | None:
        """How many of a ReLU's units are 0 for the whole batch; None for other layers."""
        return dead_units(self.layer, self.y)

    @property
    def saturated(self) -> float | None:
        """The share of a Sigmoid's or Tanh's outputs where it is flat; None for other layers."""
        return saturated(self.layer, self.y)

    def arrays(self) -> dict[str, Array]:
        """What there is of x, y, dy, dx, and for each parameter W, dW and "W update"."""
        found = {"x": self.x, "y": self.y, **self.cache}
        found |= {name: array for name, array in (("dy", self.dy), ("dx", self.dx)) if array is not None}
        for name, parameter in self.parameters.items():
            found[name] = parameter.value
            if parameter.gradient is not None:
                found[f"d{name}"] = parameter.gradient
            found[f"{name} update"] = parameter.update
        return found

    def statistics(self) -> dict[str, Statistics]:
        """`Statistics` of each of `arrays`."""
        return {name: statistics(array) for name, array in self.arrays().items()}

    def walk(self) -> Iterator["LayerTrace"]:
        """This one and those inside it."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass
class LossTrace:
    """The loss in the step; ``fused`` if the model's last Softmax is part of it."""

    loss: Loss  # the one that was computed: SoftmaxCrossEntropy, if fused
    name: str  # "CrossEntropy", or "Softmax and CrossEntropy"
    fused: bool
    outputs: Array  # what the loss was given: logits, if fused
    targets: Array
    each: Array  # (n,) the loss of each example
    value: float  # the mean of the batch
    gradient: Array  # d(outputs)
    probabilities: Array | None  # (n, classes), if the targets are classes


@dataclass
class Step:
    """A training step, made by `trace`: everything that it computed."""

    model: Sequential  # after the step
    optimizer: Optimizer
    x: Array  # as handed in: bytes for images
    y: Array
    layers: list[LayerTrace]
    loss: LossTrace
    loss_after: float  # of the same batch, same dropout masks, with the new parameters
    predicted_change: float  # gradient . update, the first-order prediction of loss_after - loss
    learning_rate: float
    step: int  # training steps of the model before this one
    optimizer_step: int  # steps of the optimizer, this one counted
    updated: bool  # False if the loss was NaN or infinite: then there was no update, as in fit

    @property
    def loss_before(self) -> float:
        """The mean loss of the batch before the update."""
        return self.loss.value

    @property
    def change(self) -> float:
        """By how much the loss changed."""
        return self.loss_after - self.loss.value

    def walk(self) -> Iterator[LayerTrace]:
        """Every layer in the order of forward, layers inside layers behind the layer that holds them."""
        for layer in self.layers:
            yield from layer.walk()

    def arrays(self) -> dict[str, Array]:
        """Every array by its name: "2.x", "2.W", "2.dW", "2.W update", ..., "loss.gradient"."""
        found = {
            f"{layer.path}.{name}": array for layer in self.walk() for name, array in layer.arrays().items()
        }
        return found | {"loss.outputs": self.loss.outputs, "loss.gradient": self.loss.gradient}
