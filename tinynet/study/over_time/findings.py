"""What looks wrong in a training run, in plain words: what was seen, what it means, what to try."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tinynet.study.over_time.record import Record
from tinynet.study.tracing.statistics import RATIO_GUIDE
from tinynet.support.types import Array

RATIO_HIGH, RATIO_LOW = 0.1, 1e-5
LOSS_OFF = 1.0  # how far the first loss may be from the loss of guessing
DEAD, FLAT = 0.4, 0.5  # shares of dead ReLU units and of saturated outputs
VANISHED, EXPLODED = 1e-4, 1e3  # first layer's gradient norm over the last layer's; any layer's norm
INPUT_LARGE = 10.0  # root mean square; about 1 is typical
OFTEN = 0.25  # share of the samples: once or twice may be chance


class Finding(NamedTuple):
    """Something to look at."""

    kind: str
    text: str
    path: str | None = None  # the layer where it shows


def findings(record: Record) -> list[Finding]:
    """Everything that looks wrong, what explains most first. An empty list does not prove that all is well."""
    found = [*_failure(record), *_inputs(record), *_first_loss(record)]
    if record.samples:
        found += [
            *_ratios(record),
            *_gradients(record),
            *_dead(record),
            *_saturated(record),
            *_progress(record),
        ]
    return found


def _failure(record: Record) -> Iterator[Finding]:
    if record.error is not None:
        more = (
            f" The samples are {record.every:,} steps apart; set every=1 to see the last steps."
            if record.every > 1
            else ""
        )
        yield Finding("failed", f"Training ended with an error. {record.error}.{more}".replace("..", "."))


def _inputs(record: Record) -> Iterator[Finding]:
    if record.input_rms > INPUT_LARGE:
        yield Finding(
            "unscaled",
            f"Layer {record.input_path}, the first with weights, gets inputs of size {number(record.input_rms)} "
            "(root mean square); about 1 is typical. Its gradients are too large by the same factor. Scale the inputs; "
            "for bytes, use Rescale(1/255).",
            record.input_path,
        )


def _first_loss(record: Record) -> Iterator[Finding]:
    if not (record.samples and record.fresh and record.classes and record.samples[0].step == 1):
        return
    loss, guess = record.samples[0].loss, math.log(record.classes)
    name = f"ln {record.classes} = {guess:.3f}, the loss of guessing among {record.classes} classes"
    if loss > guess + LOSS_OFF:
        yield Finding(
            "first-loss",
            f"The first loss, {number(loss)}, is far above {name}: the untrained model is confident and wrong. "
            "Its initial weights are too large, or its inputs are not scaled.",
        )
    elif loss < guess - LOSS_OFF:
        yield Finding(
            "first-loss",
            f"The first loss, {number(loss)}, is far below {name}: the model knew the answers before its first "
            "step. Were its weights already trained, or do the inputs contain the labels?",
        )


def _ratios(record: Record) -> Iterator[Finding]:
    rates = record.series("learning_rate")
    # A schedule may take the learning rate, and so the updates, to 0: small updates count only at a high rate.
    full = rates > 0.1 * np.nanmax(rates, initial=0)
    for path, ratios in zip(record.weights, record.series("ratios").T, strict=True):
        # Without the first sample: the first step of an adaptive optimizer is its largest.
        known = ratios[1:][np.isfinite(ratios[1:])]
        if known.size and np.mean(known > RATIO_HIGH) >= OFTEN:
            typical = float(np.median(known[known > RATIO_HIGH]))
            yield Finding(
                "ratio-high",
                f"{path} moves by {number(typical)} of its size per step; {number(RATIO_GUIDE)} is typical. The "
                "learning rate is probably too high.",
                path.rpartition(".")[0],
            )
        moving = ratios[full & np.isfinite(ratios)]
        if moving.size and np.median(moving) < RATIO_LOW:
            typical = float(np.median(moving))
            yield Finding(
                "ratio-low",
                f"{path} moves by {number(typical)} of its size per step; {number(RATIO_GUIDE)} is typical. It "
                "hardly learns: the learning rate is too low, or no gradient reaches it.",
                path.rpartition(".")[0],
            )


def _gradients(record: Record) -> Iterator[Finding]:
    norms = record.series("gradient_norms")
    trained = [column for column in range(norms.shape[1]) if np.isfinite(norms[:, column]).any()]
    if len(trained) > 1:
        first, last = trained[0], trained[-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = norms[:, first] / norms[:, last]
        shares = shares[np.isfinite(shares)]
        if shares.size and np.median(shares) < VANISHED:
            path = record.weights[first]
            yield Finding(
                "vanishing",
                f"The gradient of {path} is {number(float(np.median(shares)))} times that of {record.weights[last]}: "
                "it vanishes on the way back, so the first layers hardly learn. To prevent this, use ReLU instead of "
                "Sigmoid or Tanh, batch-norm, or Residual blocks.",
                path.rpartition(".")[0],
            )
    for column in trained:
        large = norms[:, column] > EXPLODED
        if large.any():
            path, step = record.weights[column], record.samples[int(np.argmax(large))].step
            most = number(float(np.nanmax(norms[:, column])))
            yield Finding(
                "exploding",
                f"The norm of the gradient of {path} grows to {most}; it is first above {EXPLODED:,.0f} at step "
                f"{step:,}. Try clip_norm=1, smaller initial weights, or inputs scaled to 0..1.",
                path.rpartition(".")[0],
            )
            break  # one finding is enough: the other gradients are part of the same explosion


def _dead(record: Record) -> Iterator[Finding]:
    for path, shares in zip(record.relus, record.series("dead").T, strict=True):
        since = _since(record, shares >= DEAD)
        if since is not None:
            yield Finding(
                "dead",
                f"Layer {path}: {shares[-1]:.0%} of the ReLU units are dead for every probe example, {since}. "
                "They pass no gradient back. To prevent this, use a smaller learning rate, LeakyReLU, or biases that "
                "are not far below 0.",
                path,
            )


def _saturated(record: Record) -> Iterator[Finding]:
    for path, shares in zip(record.squashing, record.series("saturated").T, strict=True):
        since = _since(record, shares >= FLAT)
        if since is not None:
            yield Finding(
                "saturated",
                f"Layer {path}: {shares[-1]:.0%} of the {record.layers[path].kind} outputs are where the function "
                f"is flat, {since}, and pass little gradient back. The inputs of this layer are too large: scale them, "
                "or use smaller initial weights.",
                path,
            )


def _progress(record: Record) -> Iterator[Finding]:
    losses = record.series("loss")
    if len(losses) < 4 or record.error is not None:
        return
    end = float(np.mean(losses[-(len(losses) // 4) :]))
    if end > losses[0]:
        yield Finding(
            "no-progress",
            f"The average loss of the last samples, {number(end)}, is above the first loss, "
            f"{number(float(losses[0]))}: the model got worse. The learning rate is probably too high.",
        )


def _since(record: Record, holds: Array) -> str | None:
    """The step from which it held to the end, in words; None if it does not hold at the end."""
    if not holds[-1]:
        return None
    before = np.flatnonzero(~holds)
    first = int(before[-1]) + 1 if before.size else 0
    return "from the first step on" if first == 0 else f"from step {record.samples[first].step:,} on"


def number(value: float) -> str:
    """A number in a short form: 0.00123, 12.3, 1,234, 1.2e-5."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(power)}"
