"""What a `TrainingMonitor` saw: samples taken during a training run."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tinynet.study.over_time.probe import Place
from tinynet.support.types import Array

MOST_SAMPLES = 400  # in one record; beyond that, every second one is dropped


class Sample(NamedTuple):
    """What was seen after one step. Arrays follow the order of the `Record`'s lists; missing values are NaN."""

    step: int  # updates so far in this run
    epoch: int  # counted from 1
    loss: float  # of the step's batch, before the update
    probe_loss: float  # of the probe, after the update
    learning_rate: float  # of this update
    counts: Array  # (places, BINS) histograms, see `Histograms.count`
    rms: Array  # (places,) root mean squares
    dead: Array  # (relus,) share of units that are 0 for every probe example
    saturated: Array  # (squashing,) share of outputs in the flat part of the function
    gradient_norms: Array  # (weights,) for the training batch
    ratios: Array  # (weights,) norm of the update over the norm of the parameter before it


class Watched(NamedTuple):
    """A layer as the page describes it."""

    kind: str  # "Dense"
    arguments: str  # "units=128"
    units: int  # size of the last axis
    holds_images: bool  # if so, units are channels


@dataclass
class Record:
    """What was seen of a training run."""

    every: int
    probe_size: int
    classes: int | None  # None for regression
    fresh: bool  # whether the model was untrained at the start
    fused: bool  # whether a final Softmax is computed with the loss and not shown on its own
    planned: int  # number of steps planned
    optimizer: str
    input_path: str  # path of the first layer with parameters
    input_rms: float  # root mean square of that layer's input
    layers: dict[str, Watched]
    places: list[Place]
    sizes: list[int]  # number of elements in each of those arrays, for the whole probe
    counted: list[int]  # how many of these elements the histogram counts
    relus: list[str]
    squashing: list[str]  # layers that can saturate
    weights: list[str]  # "2.W", ...: the parameters with two or more axes; all parameters if there are none
    samples: list[Sample]
    steps: int = 0
    thinned: bool = False  # whether samples were dropped and ``every`` doubled because there were too many
    stopped: bool = False  # whether a callback ended the run
    error: str | None = None

    def series(self, name: str) -> Array:
        """One field of all samples, stacked: (samples, ...)."""
        return np.array([getattr(sample, name) for sample in self.samples], np.float64)
