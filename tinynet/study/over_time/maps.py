"""Histograms over time as pictures: one column per sample, one row per octave of sizes."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinynet.study.over_time.charts import figure, power_of_ten
from tinynet.study.over_time.probe import LEVELS, LOWEST, octave
from tinynet.study.over_time.record import Record
from tinynet.support.types import Array

LABEL_HEIGHT = 9.0  # in percent of a picture's height
HIDDEN_TAIL = 0.005  # the smallest elements, up to this share, get no rows of their own

_TITLES = {"y": "output y", "dy": "gradient dy"}
_WORDS = {"y": "for the probe", "dy": "of the probe's loss"}
_OF_BATCH = "for the step's batch"
_TONES = {"y": "forward", "dy": "backward"}


def heatmap(record: Record, index: int, counts: Array) -> tuple[str, dict[str, Any], Array]:
    """A place's picture as HTML, the data its script needs, and the rows it paints, (rows, samples).

    Args: index: position of the place in ``record.places``; counts: its histograms, (samples, BINS).
    """
    path, name = record.places[index]
    bins = bins_worth_showing(counts)
    counted, size = record.counted[index], record.sizes[index]
    elements = f"{counted:,} of {size:,} elements" if counted < size else f"{size:,} elements"
    words = f"{_WORDS.get(name, _OF_BATCH)}, {elements}"
    tone = _TONES.get(name, "update")
    legend = (
        '<li>root mean square <output data-of="rms"></output></li><li><output data-of="zero"></output></li>'
        '<li class="point"><output data-of="point"></output></li>'
    )
    canvas = '<canvas aria-hidden="true"></canvas>'
    text = figure(
        f"{path}.{name}",
        _TITLES.get(name, f"gradient {name}"),
        words,
        canvas,
        _ticks(bins),
        legend,
        record,
        f"map {tone}",
    )
    data = {
        "rows": [[(number > LEVELS) - (number < LEVELS), *octave(number)] for number in bins],
        "total": counted,
        "tone": tone,
        "rms": record.series("rms")[:, index].tolist(),
    }
    return text, data, np.ascontiguousarray(merged(counts, bins).T, np.uint16)


def bins_worth_showing(counts: Array) -> list[int]:
    """The bins that get a row in the picture, from the largest to the most negative; see `Histograms.count`."""
    total = counts.sum(axis=0, dtype=np.int64)
    sizes = total[LEVELS:].copy()
    sizes[1:] += total[LEVELS - 1 :: -1]
    sizes[0] = 0
    if not sizes.any():
        return [LEVELS]
    largest = int(np.flatnonzero(sizes)[-1])
    # Very small sizes that few elements have are counted as zero: a wide range would hide the rest.
    smallest = int(np.searchsorted(np.cumsum(sizes), HIDDEN_TAIL * sizes.sum(), side="right"))
    smallest = max(1, min(smallest, largest))
    levels = range(smallest, largest + 1)
    positive = [LEVELS + level for level in reversed(levels)] if total[LEVELS + 1 :].any() else []
    negative = [LEVELS - level for level in levels] if total[:LEVELS].any() else []
    return [*positive, LEVELS, *negative]


def merged(counts: Array, bins: Sequence[int]) -> Array:
    """The counts (samples, rows) of these bins; all other bins are added to the middle row, the one for zero."""
    rows: Array = counts[:, bins].astype(np.int64)
    rows[:, bins.index(LEVELS)] += counts.sum(axis=1, dtype=np.int64) - rows.sum(axis=1)
    return rows


def _ticks(bins: Sequence[int]) -> list[tuple[float, str]]:
    """Positions of powers of ten, in percent from the top, with labels; as many as there is room for."""
    height, middle = len(bins), bins.index(LEVELS)
    ticks = [(100 * (middle + 0.5) / height, "≈ 0")]
    for rows, sign, side in ((bins[:middle], "", -1), (bins[middle + 1 :], "−", 1)):
        # Exponents of the two ends.
        top = LOWEST + max((abs(bin_number - LEVELS) for bin_number in rows), default=0)
        low = top - len(rows)
        for power in range(math.floor(top * math.log10(2)), math.ceil(low * math.log10(2)) - 1, -1):
            place = 100 * (middle + 0.5 + side * (0.5 + power / math.log10(2) - low)) / height
            if rows and all(abs(place - other) > LABEL_HEIGHT for other, _ in ticks):
                ticks.append((place, f"{sign}{power_of_ten(power)}"))
    return ticks
