"""What to look at in an array of a training step: its spread, its zeros, dead and saturated units."""

import math
from typing import NamedTuple

import numpy as np

from tinynet.layers import Layer, ReLU, Sigmoid, Tanh
from tinynet.support.console import printable
from tinynet.support.types import Array

BINS = 40
RATIO_GUIDE = 1e-3  # a usual norm of update / norm of weights, a rule of thumb (Karpathy)

SATURATED_SIGMOID = 0.03  # outputs closer than this to 0 or 1
SATURATED_TANH = 0.97  # outputs farther than this from 0 (Glorot & Bengio 2010 watch these)


class Statistics(NamedTuple):
    """Statistics of an array's finite elements; NaN if it has none."""

    size: int
    mean: float
    std: float
    min: float
    max: float
    zeros: float  # fraction of elements that are exactly 0
    non_finite: int  # number of elements that are NaN or infinite
    counts: tuple[int, ...]  # histogram of the finite elements, in bins of equal width
    edges: tuple[float, float]  # start of the first bin and end of the last

    @property
    def sparkline(self) -> str:
        """The histogram as a line of text, scaled to its highest bar."""
        # Four bins per character, square-root heights: nearly all of a gradient is in one bin.
        heights = [math.sqrt(sum(self.counts[i : i + 4])) for i in range(0, len(self.counts), 4)]
        top = max(heights, default=0) or 1
        bars = printable(" ▁▂▃▄▅▆▇█", " .:-=+*#@")
        return "".join(bars[math.ceil(8 * height / top)] for height in heights)

    def __str__(self) -> str:
        if self.size == self.non_finite:
            return f"all {self.size:,} elements are NaN or infinite"
        bad = f", {self.non_finite:,} NaN or infinite" if self.non_finite else ""
        return (
            f"mean {self.mean: .3g}, std {self.std:.3g}, min {self.min: .3g}, max {self.max: .3g}, "
            f"{self.zeros:.0%} zeros{bad}  {self.sparkline}"
        )


def statistics(array: Array, bins: int = BINS) -> Statistics:
    """Compute mean, standard deviation, extremes, zeros and histogram, in float64."""
    values = np.asarray(array, np.float64).ravel()
    finite = values[np.isfinite(values)]
    if not finite.size:
        nan = math.nan
        return Statistics(values.size, nan, nan, nan, nan, nan, values.size, (0,) * bins, (nan, nan))
    low, high = float(finite.min()), float(finite.max())
    counts, edges = _histogram(finite, bins, low, high)
    with np.errstate(over="ignore"):
        std = float(finite.std())
    return Statistics(
        values.size,
        float(finite.mean()),
        std,
        low,
        high,
        float(np.count_nonzero(values == 0)) / values.size,
        values.size - finite.size,
        tuple(map(int, counts)),
        edges,
    )


def _histogram(values: Array, bins: int, low: float, high: float) -> tuple[Array, tuple[float, float]]:
    """Counts, and the ends of the range, which is widened a little if the values are nearly equal."""
    largest = max(abs(low), abs(high))
    room = max(largest * 1e-9, 1e-300) if largest else 0.5  # a range of denormal numbers has no room for bins
    if high - low < room:
        low, high = low - room, high + room
    if not math.isfinite(high - low):  # the range overflows float64
        counts, edges = _histogram(values / 4, bins, low / 4, high / 4)
        return counts, (4 * edges[0], 4 * edges[1])
    return np.histogram(values, bins, (low, high))[0], (low, high)


def dead_units(layer: Layer, y: Array) -> int | None:
    """The number of a ReLU's units (for images: channels) that are 0 for the whole batch; None for other layers.

    Such a unit passes no gradient back, so on this batch no earlier layer learns through it.
    """
    if not isinstance(layer, ReLU):
        return None
    return int(np.count_nonzero(~y.any(axis=tuple(range(y.ndim - 1)))))


def saturated(layer: Layer, y: Array) -> float | None:
    """The fraction of a Sigmoid's or Tanh's outputs where it is flat and passes little gradient; None for others."""
    if isinstance(layer, Sigmoid):
        return float(np.mean((y < SATURATED_SIGMOID) | (y > 1 - SATURATED_SIGMOID)))
    if isinstance(layer, Tanh):
        return float(np.mean(np.abs(y) > SATURATED_TANH))
    return None


def norm(array: Array) -> float:
    """The Euclidean norm, in float64."""
    with np.errstate(over="ignore"):
        return float(np.linalg.norm(np.asarray(array, np.float64)))
