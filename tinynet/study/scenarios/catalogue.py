"""Networks with a fault put in on purpose: each trains briefly, and its page says where the fault shows."""

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
    """He's normal values times a factor."""

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
    """A ReLU whose backward has a mistake: one character.

    Forward:   y = max(x, 0)
    Backward:  dx = dy where y >= 0, else 0      (wrong: y is never below 0)
    """

    def backward(self, dy: Array) -> Array:
        return dy * (self._y >= 0)


def _kill_units(model: Sequential) -> None:
    model.layers[2].b[:96] = -20  # of 128: too far below for any image


def _look_at_dead(outcome: Outcome) -> list[str]:
    relu, dense = outcome.step.layers[3], outcome.step.layers[2]
    still = _share_of_still_columns(dense)
    return [
        f"{_link(relu)}: {relu.dead_units} of its 128 units are 0 for every image of this batch. In y they are empty "
        "columns.",
        f"{_link(relu)}, dx: the same columns are exactly 0. A unit that never fires passes no gradient.",
        f"{_link(dense)}, dW: {still:.0%} of the columns are 0, so these weights never move again. Look at dW "
        "as pictures: "
        "the dead ones are empty.",
        "The loss still falls, with what is left. That is why dead units go unnoticed. They come from a bias or "
        "a learning "
        "rate that pushed a unit below 0 for every input.",
    ]


def _look_at_vanishing(outcome: Outcome) -> list[str]:
    dense = _dense(outcome.step)
    first, last = _gradient_norm(dense[0]), _gradient_norm(dense[-1])
    sigmoid = next(layer for layer in outcome.step.layers if isinstance(layer.layer, Sigmoid))
    return [
        f"From {_link(dense[-1])} down to {_link(dense[0])} the norm of dW falls from {last:.1e} to {first:.1e}: "
        f"by a factor of {_factor(last, first)}.",
        f"{_link(sigmoid)}: backward multiplies by y (1 − y), which is at most 1/4, at each of seven layers.",
        '<a href="#card-update">The update</a>: the bars of update over value shrink from the last layer to the '
        "first. The "
        "layers near the image do not learn.",
        "The healthy twin has ReLU, whose slope is 1 where it is not 0, and He's initial values.",
    ]


def _look_at_exploding(outcome: Outcome) -> list[str]:
    dense = _dense(outcome.step)
    outputs = [layer for layer in outcome.step.layers if isinstance(layer.layer, ReLU)]
    first_loss = outcome.losses[0]
    return [
        f"The very first loss is {first_loss:.3g}, and guessing gives ln 10 = {math.log(10):.3g}.",
        f"The standard deviation of y grows from layer to layer: {float(np.std(outputs[0].y)):.2g} behind "
        f"{_link(outputs[0])}, {float(np.std(outputs[-1].y)):.2g} behind {_link(outputs[-1])}.",
        f"On the way down the gradient grows as well: the standard deviation of dy is {_spread(dense[-1].dy):.2g} in "
        f"{_link(dense[-1])} and {_spread(dense[0].dy):.2g} in {_link(dense[0])}.",
        "The initial weights are three times as large as He's. Seven layers multiply that: 3⁷ is 2,187. The rate is "
        f"{outcome.scenario.learning_rate:g}, where the healthy twin has "
        f"{outcome.scenario.healthy_learning_rate:g}: with "
        "that, the loss would be NaN after two steps.",
    ]


def _look_at_high_rate(outcome: Outcome) -> list[str]:
    step = outcome.step
    dense = _dense(step)[0]
    return [
        "This is the second step. The gradient promised that the loss would change by "
        f"{step.predicted_change:+.3g}; what "
        f"happened is {step.change:+.3g}. The step is so long that the slope at its start says nothing about its end.",
        f'<a href="#card-update">The update</a>: 2.W moves by {dense.parameters["W"].ratio or 0:.1e} of its '
        "size in one "
        "step; 1e-3 is usual.",
        f"{_link(step.layers[3])}: {step.layers[3].dead_units} of 128 units are dead after one step, which "
        "threw their "
        "biases far below 0. They stay dead.",
        f"The loss curve: up first, and then flat. After {len(outcome.losses)} steps it is "
        f"{outcome.losses[-1]:.3g}, and "
        f"with a tenth of the rate {outcome.healthy_losses[-1]:.3g}.",
    ]


def _look_at_unscaled(outcome: Outcome) -> list[str]:
    step = outcome.step
    dense = _dense(step)[0]
    return [
        f"This is the first step, and its loss is {step.loss_before:.3g}; a network that knows nothing should "
        "have ln 10 = "
        f"{math.log(10):.3g}. This one is sure, and wrong.",
        f"{_link(step.layers[1])}: y goes from 0 to 255, where weights were drawn for numbers near 1.",
        f"{_link(dense)}: dW is x^T dy, so bytes make it 255 times as large, and dy is large as well: the norm "
        "of dW is "
        f"{_number(_gradient_norm(dense))}.",
        f"So even the small rate of {step.learning_rate:g} is too high: promised was a change of "
        f"{step.predicted_change:+.3g}, and what happened is {step.change:+.3g}.",
        f"After {len(outcome.losses)} steps the loss is {outcome.losses[-1]:.3g}, and "
        f"{outcome.healthy_losses[-1]:.3g} with "
        "one layer more: Rescale(1/255).",
    ]


def _look_at_unshuffled(outcome: Outcome) -> list[str]:
    step = outcome.step
    labels = sorted(set(step.y.tolist()))
    probabilities = step.loss.probabilities
    assert probabilities is not None
    guesses = np.bincount(probabilities.argmax(1), minlength=10)
    sure = int(guesses.argmax())
    return [
        f"The batch: its images have the {'label' if len(labels) == 1 else 'labels'} "
        f"{', '.join(map(str, labels))} and no "
        "other. The data are sorted by class, and nobody shuffled.",
        f"{guesses[sure]} of {len(step.x)} are taken for class {sure}, the class that came before: the network "
        "learned "
        "whatever came last.",
        '<a href="#card-loss">The loss</a>, dlogits: every row pushes the same class up. A batch like this is '
        "no sample of "
        "the data, so its gradient is no estimate of the whole gradient.",
        "The loss curve: near 0 while a class lasts, then a jump when the next one begins. A low training loss means "
        "nothing here.",
    ]


def _look_at_zero(outcome: Outcome) -> list[str]:
    first, last = _dense(outcome.step)
    return [
        f"{_link(outcome.step.layers[3])}: every unit computes the same, here 0.",
        f"{_link(last)}: x is 0, so dW = x^T dy is 0; and as W is 0, dx = dy W^T is 0 too.",
        f"{_link(first)}: the norm of dW is {_gradient_norm(first):.3g}. Nothing below the last layer can ever move.",
        f"Only the last bias learns: how frequent each class is. The loss stays at ln 10 = {math.log(10):.4g}: "
        f"here {outcome.step.loss_before:.4g}.",
        "Random initial values exist to make units differ. Any constant has the same fault as 0.",
    ]


def _look_at_wrong(outcome: Outcome) -> list[str]:
    relu, dense = outcome.step.layers[3], outcome.step.layers[2]
    return [
        f"{_link(dense)}, at the end of the card: the slopes that were measured and what backward gives differ. "
        "That is "
        "the gradient check, and it says wrong.",
        f"{_link(_dense(outcome.step)[-1])}: above the mistake every gradient is right. The first wrong one, "
        "going down, "
        "tells where to look: in the layer above it.",
        f"{_link(relu)}: there it is, in the source of backward: y >= 0 is always true, as y is what max(x, 0) "
        "gave. It should "
        "be y > 0. So dx is dy, also where nothing went through.",
        f"The loss falls nevertheless, from {outcome.losses[0]:.3g} to {outcome.losses[-1]:.3g}; the healthy "
        "twin reaches "
        f"{outcome.healthy_losses[-1]:.3g}. A curve that falls proves nothing about a gradient.",
    ]


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "dead-relu",
            "Dead ReLUs",
            "A network of 784-128-10, in which the biases of 96 hidden units were set to −20.",
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
            "A network of 784-128-10 under SGD with a learning rate of 1.",
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
            "A network of 784-128-10 that is given bytes from 0 to 255, and no Rescale.",
            lambda: _classic(scale=1),
            _classic,
            _look_at_unscaled,
            learning_rate=0.001,
            traced=0,
        ),
        Scenario(
            "no-shuffle",
            "Data that were not shuffled",
            "A network of 784-128-10, trained on images in the order of their labels.",
            _classic,
            _classic,
            _look_at_unshuffled,
            sort_by_label=True,
        ),
        Scenario(
            "zero-init",
            "Weights that begin at zero",
            "A network of 784-128-10, with every initial weight 0.",
            lambda: _classic("zeros"),
            _classic,
            _look_at_zero,
        ),
        Scenario(
            "wrong-gradient",
            "A backward pass with a mistake",
            "A network of 784-128-10, whose ReLU has a wrong backward. It trains, and hides it.",
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
    return "unknown, as there was no backward" if math.isnan(value) else f"{value:,.3g}"
