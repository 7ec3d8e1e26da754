"""A faulty network: trained briefly, like a healthy twin, with one of its steps written as a page."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tinynet.layers import Layer
from tinynet.losses import CrossEntropy
from tinynet.model.sequential import Sequential
from tinynet.optimizers import SGD
from tinynet.study.tracing.trace import Trace, trace
from tinynet.support import random
from tinynet.support.types import Array, PathLike

BATCH_SIZE = 32
STEPS = 120


@dataclass(frozen=True)
class Scenario:
    """A fault: a network that has it, and what to look at."""

    name: str
    title: str
    about: str
    layers: Callable[[], list[Layer]]
    healthy_layers: Callable[[], list[Layer]]
    look_at: Callable[["Outcome"], list[str]]
    learning_rate: float = 0.05
    healthy_learning_rate: float = 0.05
    prepare: Callable[[Sequential], None] | None = None  # plants the fault in a built model
    sort_by_label: bool = False
    steps: int = STEPS
    traced: int | None = None  # the step that the page shows, counted from 0; None: the one after training


class Outcome(NamedTuple):
    """The result of a scenario's training."""

    scenario: Scenario
    step: Trace  # the step that the page shows
    losses: list[float]  # one for each training step
    healthy_losses: list[float]  # likewise for the network without the fault


def run(scenario: Scenario, x: Array, y: Array, seed: int = 0) -> Outcome:
    """Train a faulty network and its healthy twin on the images for some steps; trace one step of the faulty one.

    Args: x (n, 28, 28): bytes; y (n,): labels; seed: draws weights and batches.
    """
    healthy = Sequential(scenario.healthy_layers(), x.shape[1:], seed=seed)
    order = random.generator(seed, random.SHUFFLE).permutation(len(x))
    healthy_losses, _ = _train(
        healthy, SGD(scenario.healthy_learning_rate), x, y, order, range(scenario.steps)
    )

    model = Sequential(scenario.layers(), x.shape[1:], seed=seed)
    if scenario.prepare is not None:
        scenario.prepare(model)
    optimizer = SGD(scenario.learning_rate)
    if scenario.sort_by_label:
        order = _long_runs_of_a_class(y, order, scenario.steps)
    traced = scenario.steps if scenario.traced is None else scenario.traced
    losses, rows = _train(model, optimizer, x, y, order, range(traced))
    step = trace(model, x[rows], y[rows], CrossEntropy(), optimizer, dry_run=True)
    if math.isfinite(step.loss_before):
        losses += _train(model, optimizer, x, y, order, range(traced, scenario.steps))[0]
    return Outcome(scenario, step, losses, healthy_losses)


def write_page(outcome: Outcome, path: PathLike, class_names: Sequence[str] | None = None) -> None:
    """Write the traced step as a page, with what to look at on top."""
    scenario = outcome.scenario
    outcome.step.to_html(
        path,
        class_names=class_names,
        title=scenario.title,
        about=[scenario.about],
        look_at=scenario.look_at(outcome),
        sections=_curves(outcome),
    )


def _train(
    model: Sequential, optimizer: SGD, x: Array, y: Array, order: Array, steps: range
) -> tuple[list[float], Array]:
    """The loss of each step, and the rows of the next batch. Stops at a loss that is not finite."""
    losses: list[float] = []
    with np.errstate(all="ignore"):
        for k in steps:
            rows = _rows(order, k)
            loss = model.loss_and_gradients(x[rows], y[rows], CrossEntropy())
            losses.append(loss)
            if not math.isfinite(loss):
                return losses, rows
            optimizer.step(model.params, model.grads)
    return losses, _rows(order, steps.stop)


def _rows(order: Array, k: int) -> Array:
    return order[np.arange(k * BATCH_SIZE, (k + 1) * BATCH_SIZE) % len(order)]


def _long_runs_of_a_class(y: Array, order: Array, steps: int) -> Array:
    """The order of data sorted by label, shortened: the steps cover three classes, and a fourth comes next."""
    length = steps * BATCH_SIZE // 3
    return np.concatenate([order[y[order] == label][:length] for label in range(4)])


def _curves(outcome: Outcome) -> str:
    """The loss of every step, with and without the fault, as inline SVG."""
    width, height, left, bottom = 640, 180, 76, 28
    curves = (
        ("with the fault", "backward", outcome.losses),
        ("without the fault", "forward", outcome.healthy_losses),
    )
    finite = [loss for _, _, losses in curves for loss in losses if math.isfinite(loss)]
    low, high = min(finite), max(finite)
    logarithmic = low > 0 and high / low > 30

    def scaled(loss: float) -> float:
        return math.log10(loss) if logarithmic else loss

    span = (scaled(high) - scaled(low)) or 1
    steps = max(len(losses) for _, _, losses in curves)

    def point(k: int, loss: float) -> str:
        x = left + (width - left - 8) * k / max(steps - 1, 1)
        return f"{x:.1f},{8 + (height - bottom - 8) * (1 - (scaled(loss) - scaled(low)) / span):.1f}"

    lines = "".join(
        f'<polyline class="{tone}" points="'
        + " ".join(point(k, loss) for k, loss in enumerate(losses) if math.isfinite(loss))
        + '"/>'
        for _, tone, losses in curves
    )
    words = "; ".join(f"{name}: from {losses[0]:.3g} to {losses[-1]:.3g}" for name, _, losses in curves)
    legend = "".join(
        f'<span class="{tone}"><i></i>{name}: {losses[0]:.3g} → {losses[-1]:.3g}</span>'
        for name, tone, losses in curves
    )
    ticks = f'<text x="{left - 8}" y="14" text-anchor="end">{high:.3g}</text>'
    ticks += f'<text x="{left - 8}" y="{height - bottom + 2}" text-anchor="end">{low:.3g}</text>'
    ticks += f'<text x="{left}" y="{height - 8}">step 1</text>'
    ticks += f'<text x="{width - 8}" y="{height - 8}" text-anchor="end">step {steps}</text>'
    return (
        '<section class="curves"><h2>The loss, step by step</h2>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{words}">'
        f'<path class="axis" d="M{left} 8V{height - bottom}H{width - 8}"/>{lines}{ticks}</svg>'
        f'<p class="small">{legend}{" · logarithmic scale" if logarithmic else ""}</p></section>'
    )
