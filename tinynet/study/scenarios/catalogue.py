"""Networks with a deliberate fault: each trains briefly, and its page says where the fault shows."""

import html
import math

import numpy as np

from tinynet.initializers import Initializer
from tinynet.layers import Dense, Flatten, Layer, ReLU, Rescale, Sigmoid, Softmax
from tinynet.model.sequential import Sequential
from tinynet.study.scenarios.scenario import Outcome, Scenario
from tinynet.study.tracing.records import LayerTrace, Step
from tinynet.study.tracing.statistics import norm
from tinynet.support.types import Array, Shape


def _scaled_normal(factor: float) -> Initializer:
    """He's normal initial values times a factor."""

    def initializer(shape: Shape, rng: np.random.Generator) -> Array:
        return rng.standard_normal(shape) * (factor * math.sqrt(2 / shape[0]))

    return initializer


def _classic(initializer: str | Initializer = "glorot_uniform", scale: float = 1 / 255) -> list[Layer]:
    return [
        *(Rescale(scale), Flatten()),
        *(Dense(128, kernel_initializer=initializer), ReLU()),
        *(Dense(10, kernel_initializer=initializer), Softmax()),
    ]


def _deep(
    activation: type[Layer], initializer: str | Initializer, depth: int = 7, units: int = 64
) -> list[Layer]:
    hidden = [
        layer for _ in range(depth) for layer in (Dense(units, kernel_initializer=initializer), activation())
    ]
    return [Rescale(1 / 255), Flatten(), *hidden, Dense(10), Softmax()]


class ReLUWithWrongMask(ReLU):
    """A ReLU whose backward has a one-character mistake.

    Forward:   y = max(x, 0)
    Backward:  dx = dy where y >= 0, else 0      (wrong: y is never below 0)
    """

    def backward(self, dy: Array) -> Array:
        return dy * (self._y >= 0)


def _kill_units(model: Sequential) -> None:
    model.layers[2].b[:96] = -20  # of 128; too low for any image to make up for


def _look_at_dead(outcome: Outcome) -> list[str]:
    relu, dense = outcome.step.layers[3], outcome.step.layers[2]
    still = _share_of_still_columns(dense)
    return [
        f"{_link(relu)}: {relu.dead_units} of its 128 units are 0 for every image in this batch. They are the empty "
        "columns of y.",
        f"{_link(relu)}, dx: the same columns are exactly 0. A unit that never fires passes no gradient back.",
        f"{_link(dense)}, dW: {still:.0%} of the columns are 0, so these weights never move again. Look at dW as "
        "pictures: those of the dead units are empty.",
        "The loss still falls, because the other units learn. That is why dead units go unnoticed. A unit dies when "
        "its bias, or a learning rate that is too high, pushes it below 0 for every input.",
    ]


def _look_at_vanishing(outcome: Outcome) -> list[str]:
    dense = _dense(outcome.step)
    first, last = _gradient_norm(dense[0]), _gradient_norm(dense[-1])
    sigmoid = next(layer for layer in outcome.step.layers if isinstance(layer.layer, Sigmoid))
    return [
        f"From {_link(dense[-1])} back to {_link(dense[0])}, the norm of dW falls from {last:.1e} to {first:.1e}, "
        f"by a factor of {_factor(last, first)}.",
        f"{_link(sigmoid)}: backward multiplies by y (1 − y), which is at most 1/4, in each of the seven layers.",
        '<a href="#card-update">The update</a>: the bars of update / value shrink from the last layer to the first. '
        "The layers near the image hardly learn.",
        "The healthy twin uses ReLU, whose slope is 1 wherever it is not 0, and He's initial weights.",
    ]


def _look_at_exploding(outcome: Outcome) -> list[str]:
    dense = _dense(outcome.step)
    outputs = [layer for layer in outcome.step.layers if isinstance(layer.layer, ReLU)]
    first_loss = outcome.losses[0]
    return [
        f"The very first loss is {first_loss:.3g}. Guessing would give ln 10 = {math.log(10):.3g}.",
        f"The standard deviation of y grows from layer to layer: {float(np.std(outputs[0].y)):.2g} after "
        f"{_link(outputs[0])}, {float(np.std(outputs[-1].y)):.2g} after {_link(outputs[-1])}.",
        f"On the way back the gradient grows as well: the standard deviation of dy is {_spread(dense[-1].dy):.2g} in "
        f"{_link(dense[-1])} and {_spread(dense[0].dy):.2g} in {_link(dense[0])}.",
        "The initial weights are three times as large as He's. Over seven layers that makes a factor of 3⁷ = 2,187. "
        f"The learning rate is only {outcome.scenario.learning_rate:g}. With the healthy twin's "
        f"{outcome.scenario.healthy_learning_rate:g}, the loss would be NaN after two steps.",
    ]


def _look_at_high_rate(outcome: Outcome) -> list[str]:
    step = outcome.step
    dense = _dense(step)[0]
    return [
        "This is the second step. The gradient predicted that the loss would change by "
        f"{step.predicted_change:+.3g}; it changed by {step.change:+.3g}. The step is so long that the slope at its "
        "start says nothing about its end.",
        f'<a href="#card-update">The update</a>: 2.W moves by {dense.parameters["W"].ratio or 0:.1e} of its size in '
        "one step; 1e-3 is usual.",
        f"{_link(step.layers[3])}: {step.layers[3].dead_units} of 128 units are dead after a single step, which threw "
        "their biases far below 0. They stay dead.",
        f"The loss first rises and then stays flat. After {len(outcome.losses)} steps it is "
        f"{outcome.losses[-1]:.3g}; with a tenth of the learning rate it is {outcome.healthy_losses[-1]:.3g}.",
    ]


def _look_at_unscaled(outcome: Outcome) -> list[str]:
    step = outcome.step
    dense = _dense(step)[0]
    return [
        f"This is the first step, and the loss is {step.loss_before:.3g}. A network that knows nothing should have "
        f"ln 10 = {math.log(10):.3g}. This one is confident and wrong.",
        f"{_link(step.layers[1])}: y ranges from 0 to 255, but the weights were drawn for inputs near 1.",
        f"{_link(dense)}: dW is x^T dy. The bytes make it 255 times as large, and dy is large as well. The norm of dW "
        f"is {_number(_gradient_norm(dense))}.",
        f"So even the small learning rate of {step.learning_rate:g} is too high. The predicted change of the loss is "
        f"{step.predicted_change:+.3g}; the actual change is {step.change:+.3g}.",
        f"After {len(outcome.losses)} steps the loss is {outcome.losses[-1]:.3g}. With Rescale(1/255) and a learning "
        f"rate of {outcome.scenario.healthy_learning_rate:g}, it is {outcome.healthy_losses[-1]:.3g}.",
    ]


def _look_at_unshuffled(outcome: Outcome) -> list[str]:
    step = outcome.step
    labels = sorted(set(step.y.tolist()))
    probabilities = step.loss.probabilities
    assert probabilities is not None
    guesses = np.bincount(probabilities.argmax(1), minlength=10)
    sure = int(guesses.argmax())
    return [
        f"The batch has only the {'label' if len(labels) == 1 else 'labels'} {', '.join(map(str, labels))}. The data "
        "are sorted by class and were not shuffled.",
        f"{guesses[sure]} of {len(step.x)} images are taken for class {sure}, the class that came before. The network "
        "has learned whatever came last.",
        '<a href="#card-loss">The loss</a>, dlogits: every row pushes the same class up. Such a batch is not a random '
        "sample of the data, so its gradient is a poor estimate of the full gradient.",
        "The loss is near 0 while a class lasts, and jumps when the next one begins. A low training loss means nothing "
        "here.",
    ]


def _look_at_zero(outcome: Outcome) -> list[str]:
    first, last = _dense(outcome.step)
    return [
        f"{_link(outcome.step.layers[3])}: every unit computes the same number, here 0.",
        f"{_link(last)}: x is 0, so dW = x^T dy is 0. W is 0 as well, so dx = dy W^T is 0 too.",
        f"{_link(first)}: the norm of dW is {_gradient_norm(first):.3g}. Nothing before the last layer can ever move.",
        f"Only the last bias learns, and only how frequent each class is. The loss stays near ln 10 = "
        f"{math.log(10):.4g}; here it is {outcome.step.loss_before:.4g}.",
        "Initial weights are random so that the units differ. Any constant has the same fault as 0.",
    ]


def _look_at_wrong(outcome: Outcome) -> list[str]:
    relu, dense = outcome.step.layers[3], outcome.step.layers[2]
    return [
        f"{_link(dense)}, at the end of the card: this is the gradient check. The measured slopes differ from what "
        "backward gives, so it says wrong.",
        f"{_link(_dense(outcome.step)[-1])}: every gradient between the mistake and the loss is right. Going back from "
        "the loss, the first wrong gradient tells you where to look: in the layer just after it.",
        f"{_link(relu)}: here is the mistake, in the source of backward. y is max(x, 0), so y >= 0 is always true; it "
        "should be y > 0. So dx equals dy, even where forward let nothing through.",
        f"The loss falls nevertheless, from {outcome.losses[0]:.3g} to {outcome.losses[-1]:.3g}; the healthy twin "
        f"reaches {outcome.healthy_losses[-1]:.3g}. A falling loss does not prove that the gradient is right.",
    ]


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "dead-relu",
            "Dead ReLUs",
            "A 784-128-10 network in which the biases of 96 hidden units were set to −20.",
            _classic,
            _classic,
            _look_at_dead,
            prepare=_kill_units,
        ),
        Scenario(
            "vanishing",
            "Vanishing gradients",
            "Seven hidden layers of 64 sigmoids.",
            lambda: _deep(Sigmoid, "glorot_uniform"),
            lambda: _deep(ReLU, "he_normal"),
            _look_at_vanishing,
        ),
        Scenario(
            "exploding",
            "Exploding activations and gradients",
            "Seven hidden layers of 64 ReLUs, with initial weights three times too large.",
            lambda: _deep(ReLU, _scaled_normal(3)),
            lambda: _deep(ReLU, "he_normal"),
            _look_at_exploding,
            learning_rate=1e-9,
            steps=20,
        ),
        Scenario(
            "learning-rate-too-high",
            "A learning rate that is too high",
            "A 784-128-10 network trained by SGD with a learning rate of 1.",
            _classic,
            _classic,
            _look_at_high_rate,
            learning_rate=1.0,
            healthy_learning_rate=0.1,
            traced=1,
        ),
        Scenario(
            "unscaled-input",
            "Inputs that were not scaled",
            "A 784-128-10 network whose inputs are bytes from 0 to 255, not rescaled.",
            lambda: _classic(scale=1),
            _classic,
            _look_at_unscaled,
            learning_rate=0.001,
            traced=0,
        ),
        Scenario(
            "no-shuffle",
            "Data that were not shuffled",
            "A 784-128-10 network trained on images in the order of their labels.",
            _classic,
            _classic,
            _look_at_unshuffled,
            sort_by_label=True,
        ),
        Scenario(
            "zero-init",
            "Weights that start at zero",
            "A 784-128-10 network whose initial weights are all 0.",
            lambda: _classic("zeros"),
            _classic,
            _look_at_zero,
        ),
        Scenario(
            "wrong-gradient",
            "A backward pass with a mistake",
            "A 784-128-10 network whose ReLU has a wrong backward. It trains anyway, which hides the mistake.",
            lambda: [ReLUWithWrongMask() if isinstance(layer, ReLU) else layer for layer in _classic()],
            _classic,
            _look_at_wrong,
        ),
    )
}


# -- words -----------------------------------------------------------------------------------------------


def _link(record: LayerTrace) -> str:
    return f'<a href="#card-{record.path}">{record.path} {html.escape(record.kind)}</a>'


def _dense(step: Step) -> list[LayerTrace]:
    return [layer for layer in step.layers if isinstance(layer.layer, Dense)]


def _gradient_norm(record: LayerTrace) -> float:
    gradient = record.parameters["W"].gradient
    return math.nan if gradient is None else norm(gradient)


def _spread(array: Array | None) -> float:
    return math.nan if array is None else float(np.std(array))


def _share_of_still_columns(record: LayerTrace) -> float:
    gradient = record.parameters["W"].gradient
    return math.nan if gradient is None else float(np.mean(~gradient.any(axis=0)))


def _factor(large: float, small: float) -> str:
    return "infinity" if small == 0 else f"{large / small:,.0f}"


def _number(value: float) -> str:
    return "unknown, because backward did not run" if math.isnan(value) else f"{value:,.3g}"
