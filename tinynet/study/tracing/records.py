"""A training step as data: every layer, every parameter and the loss. `tinynet.study.trace` makes it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.model.sequential import Sequential
from tinynet.optimizer import Optimizer
from tinynet.study.tracing.statistics import Statistics, dead_units, norm, saturated, statistics
from tinynet.support.types import Array


@dataclass(frozen=True)
class ParameterTrace:
    """A parameter in a step."""

    name: str  # "W"
    value: Array  # before the update
    gradient: Array | None  # None if the parameter is frozen
    update: Array  # what the optimizer added

    @property
    def ratio(self) -> float | None:
        """The update's norm divided by the value's norm, or None if the value is 0. About 1e-3 is usual."""
        size = norm(self.value)
        return norm(self.update) / size if size else None


@dataclass
class LayerTrace:
    """A layer in a step. ``dy`` and ``dx`` are None if no gradient was needed."""

    path: str  # "2", or "5.1" inside a Residual
    layer: Layer
    x: Array
    y: Array
    cache: dict[str, Array] = field(
        default_factory=dict
    )  # what else forward kept for backward, such as a mask
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
        """The number of a ReLU's units that are 0 for the whole batch; None for other layers."""
        return dead_units(self.layer, self.y)

    @property
    def saturated(self) -> float | None:
        """The fraction of a Sigmoid's or Tanh's outputs where the function is flat; None for other layers."""
        return saturated(self.layer, self.y)

    def arrays(self) -> dict[str, Array]:
        """The arrays that exist: x, y, the cache, dy, dx, and for each parameter W, dW and "W update"."""
        found = {"x": self.x, "y": self.y, **self.cache}
        found |= {name: array for name, array in (("dy", self.dy), ("dx", self.dx)) if array is not None}
        for name, parameter in self.parameters.items():
            found[name] = parameter.value
            if parameter.gradient is not None:
                found[f"d{name}"] = parameter.gradient
            found[f"{name} update"] = parameter.update
        return found

    def statistics(self) -> dict[str, Statistics]:
        """The `Statistics` of each array in `arrays`."""
        return {name: statistics(array) for name, array in self.arrays().items()}

    def walk(self) -> Iterator["LayerTrace"]:
        """This layer and all layers inside it."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass
class LossTrace:
    """The loss in a step; ``fused`` if it includes the model's last Softmax."""

    loss: Loss  # the loss that was computed: SoftmaxCrossEntropy if fused
    name: str  # "CrossEntropy", or "Softmax and CrossEntropy"
    fused: bool
    outputs: Array  # the loss's input: logits if fused
    targets: Array
    each: Array  # (n,), the loss of each example
    value: float  # the mean over the batch
    gradient: Array  # d(outputs)
    probabilities: Array | None  # (n, classes) if the targets are classes


@dataclass
class Step:
    """Everything that a training step computed; made by `trace`."""

    model: Sequential  # after the step
    optimizer: Optimizer
    x: Array  # as passed in: bytes for images
    y: Array
    layers: list[LayerTrace]
    loss: LossTrace
    loss_after: float  # with the new parameters, on the same batch with the same dropout masks
    predicted_change: float  # gradient . update, the first-order prediction of loss_after - loss
    learning_rate: float
    step: int  # the model's training steps before this one
    optimizer_step: int  # the optimizer's steps, including this one
    updated: bool  # False if the loss was NaN or infinite; then nothing is updated, as in fit

    @property
    def loss_before(self) -> float:
        """The batch's mean loss before the update."""
        return self.loss.value

    @property
    def change(self) -> float:
        """The change of the loss: after minus before."""
        return self.loss_after - self.loss.value

    def walk(self) -> Iterator[LayerTrace]:
        """Every layer in forward order; inner layers follow the layer that contains them."""
        for layer in self.layers:
            yield from layer.walk()

    def arrays(self) -> dict[str, Array]:
        """Every array by name: "2.x", "2.W", "2.dW", "2.W update", ..., "loss.gradient"."""
        found = {
            f"{layer.path}.{name}": array for layer in self.walk() for name, array in layer.arrays().items()
        }
        return found | {"loss.outputs": self.loss.outputs, "loss.gradient": self.loss.gradient}
