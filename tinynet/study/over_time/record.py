"""What a `TrainingMonitor` saw: samples of a training run, step by step."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tinynet.study.over_time.probe import Place
from tinynet.support.types import Array

MOST_SAMPLES = 400  # in one record; then every second one goes


class Sample(NamedTuple):
    """What was seen after one step. Arrays are in the order of the `Record`'s lists; NaN is what there was not."""

    step: int  # updates so far in this run
    epoch: int  # from 1
    loss: float  # of the step's batch, before the update
    probe_loss: float  # of the probe, after it
    learning_rate: float  # of this update
    counts: Array  # (places, BINS) histograms, see `Histograms.count`
    rms: Array  # (places,) root mean squares
    dead: Array  # (relus,) share of units that are 0 for every example of the probe
    saturated: Array  # (squashing,) share of outputs where the function is flat
    gradient_norms: Array  # (weights,) of the training batch
    ratios: Array  # (weights,) norm of the update over the norm of the value before it


class Watched(NamedTuple):
    """A layer as the page names it."""

    kind: str  # "Dense"
    arguments: str  # "units=128"
    units: int  # of the last axis
    holds_images: bool  # the units are channels then


@dataclass
class Record:
    """A training run as it was seen, step by step."""

    every: int
    probe_size: int
    classes: int | None  # None for regression
    fresh: bool  # whether the model had not been trained before
    fused: bool  # whether a final Softmax is part of the loss, and not looked at alone
    planned: int  # steps
    optimizer: str
    input_path: str  # of the first layer with parameters
    input_rms: float  # of what it is given
    layers: dict[str, Watched]
    places: list[Place]
    sizes: list[int]  # of the arrays there, for the whole probe
    counted: list[int]  # how many of these elements a histogram counts
    relus: list[str]
    squashing: list[str]  # layers that can saturate
    weights: list[str]  # "2.W", ...: the parameters with two axes or more; all of them if there is none
    samples: list[Sample]
    steps: int = 0
    thinned: bool = False  # whether samples were left out, and ``every`` doubled, as there were too many
    stopped: bool = False  # whether a callback ended the run
    error: str | None = None

    def series(self, name: str) -> Array:
        """One of the fields of the samples, stacked: (samples, ...)."""
        return np.array([getattr(sample, name) for sample in self.samples], np.float64)
