"""Charts with samples from left to right: their frame, their table of numbers, and the line charts."""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinynet.study.over_time.findings import number
from tinynet.study.over_time.record import Record
from tinynet.study.tracing.statistics import RATIO_GUIDE
from tinynet.support.types import Array

TABLE_ROWS = 25
WIDE = 50.0  # losses that differ by more than this factor get a logarithmic axis
SMOOTHING = 0.8  # how much of the smoothed loss carries over to the next sample


@dataclass
class Line:
    """A series of numbers, one per sample."""

    name: str
    values: Array
    colour: str  # as CSS
    css: str = ""  # classes


@dataclass
class Chart:
    """Lines, and guides to compare them with."""

    key: str
    title: str
    words: str  # what it shows
    lines: list[Line]
    guides: list[tuple[float, str]] = field(default_factory=list)
    logarithmic: bool = False
    percent: bool = False


def overview(record: Record) -> list[Chart]:
    """The charts for the whole model."""
    losses = record.series("loss")
    lines = [
        Line("batch", losses, "var(--muted)", "thin"),
        Line("batch, smoothed", smooth(losses), "var(--loss)", "thick"),
        Line("probe", record.series("probe_loss"), "var(--forward)"),
    ]
    loss = Chart("loss", "Loss", "of the step's batch, before the update; of the probe, after it", lines)
    if record.classes:
        guess = math.log(record.classes)
        loss.guides = [(guess, f"ln {record.classes} = {guess:.3f}, random guessing")]
    loss.logarithmic = float(losses.min()) > 0 and float(losses.max() / losses.min()) > WIDE
    ratios = Chart(
        "ratios",
        "How far the weights move in a step",
        "norm of the update divided by norm of the weights",
        _by_depth(record.weights, record.series("ratios")),
        [(RATIO_GUIDE, f"{number(RATIO_GUIDE)} is typical")],
        logarithmic=True,
    )
    norms = _by_depth(record.weights, record.series("gradient_norms"))
    charts = [
        loss,
        ratios,
        Chart(
            "norms", "Size of the weights' gradients", "norms for the step's batch", norms, logarithmic=True
        ),
    ]
    for key, title, words, paths in (
        ("dead", "Dead ReLU units", "0 for every probe example; for images, whole channels", record.relus),
        (
            "saturated",
            "Saturated outputs",
            "of Sigmoid and Tanh, in the flat part of the function",
            record.squashing,
        ),
    ):
        if paths:
            shares = _by_depth([f"layer {path}" for path in paths], record.series(key))
            charts.append(Chart(key, title, words, shares, percent=True))
    rate = Line("learning rate", record.series("learning_rate"), "var(--update)")
    return [*charts, Chart("rate", "Learning rate", f"used by {record.optimizer}", [rate])]


def _by_depth(names: Sequence[str], columns: Array) -> list[Line]:
    """One line per column, coloured by depth from the first layer to the last."""
    last = max(len(names) - 1, 1)
    return [
        Line(
            name,
            columns[:, i],
            f"color-mix(in oklab, var(--shallow) {100 - 100 * i // last}%, var(--deep))",
        )
        for i, name in enumerate(names)
    ]


def smooth(values: Array) -> Array:
    """An exponentially weighted mean of the values so far."""
    total, weight, means = 0.0, 0.0, []
    for value in values:
        total, weight = SMOOTHING * total + value, SMOOTHING * weight + 1
        means.append(total / weight)
    return np.array(means)


# -- lines ------------------------------------------------------------------------------------------------


def line_chart(chart: Chart, record: Record) -> str:
    """The chart as HTML; its script also needs `chart_data`."""
    low, high = _range(chart)
    place = _scale(chart, low, high)
    paths = "".join(
        f'<path class="line {line.css}" style="stroke: {line.colour}" d="{_path(line.values, place)}"/>'
        for line in chart.lines
    )
    guides = "".join(f'<path class="guide" d="M0 {place(value):.2f}H1000"/>' for value, _ in chart.guides)
    legend = "".join(
        f'<li><i style="background: {line.colour}" class="{line.css}"></i>{html.escape(line.name)} '
        "<output></output></li>"
        for line in chart.lines
    )
    legend += "".join(f'<li><i class="guide"></i>{html.escape(name)}</li>' for _, name in chart.guides)
    ticks = [(place(value), text) for value, text in _ticks(chart, low, high)]
    rules = "".join(f'<b style="top: {top:.2f}%"></b>' for top, _ in ticks)
    svg = f'{rules}<svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true">{guides}{paths}</svg>'
    columns = [(line.name, line.values) for line in chart.lines]
    numbers = table(f"{chart.title}: {chart.words}", record, columns, chart.percent)
    return figure(chart.key, chart.title, chart.words, svg, ticks, legend, record, "lines", numbers)


def chart_data(chart: Chart) -> dict[str, Any]:
    """The data that the script needs to show a step's numbers."""
    series = [{"name": line.name, "values": line.values.tolist()} for line in chart.lines]
    return {"series": series, "percent": chart.percent}


def _range(chart: Chart) -> tuple[float, float]:
    if chart.percent:
        return 0.0, 1.0
    values = np.concatenate(
        [*(line.values for line in chart.lines), [value for value, _ in chart.guides]], dtype=np.float64
    )
    values = values[np.isfinite(values) & ((values > 0) | (not chart.logarithmic))]
    if not values.size:
        return (0.1, 1.0) if chart.logarithmic else (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    if chart.logarithmic:  # whole decades
        low, high = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))
        return (low, high) if low < high else (low / 10, high * 10)
    return min(0.0, low), (high * 1.05 if high > 0 else 1.0)


def _scale(chart: Chart, low: float, high: float) -> Callable[[float], float]:
    """A function from a value to its distance from the top, in percent; on a logarithmic axis, 0 is at the bottom."""
    if not chart.logarithmic:
        return lambda value: 100 * (high - value) / (high - low)
    top, height = math.log10(high), math.log10(high) - math.log10(low)
    return lambda value: 100 * (top - math.log10(value)) / height if value > 0 else 100.0


def _ticks(chart: Chart, low: float, high: float) -> list[tuple[float, str]]:
    if chart.percent:
        return [(share / 4, f"{25 * share}%") for share in range(5)]
    if chart.logarithmic:
        first, last = round(math.log10(low)), round(math.log10(high))
        step = max(1, math.ceil((last - first) / 5))
        return [(10.0**power, power_of_ten(power)) for power in range(first, last + 1, step)]
    rough = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    size = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough)
    return [(k * size, shown(k * size)) for k in range(math.ceil(low / size), math.floor(high / size) + 1)]


def _path(values: Array, place: Callable[[float], float]) -> str:
    parts, pen_is_down = [], False
    for i, value in enumerate(values):
        if math.isfinite(value):
            x, y = 1000 * (i + 0.5) / len(values), place(value)
            parts.append(f"L{x:.1f} {y:.2f}" if pen_is_down else f"M{x:.1f} {y:.2f}h0")
        pen_is_down = math.isfinite(value)
    return "".join(parts)


# -- what all charts share --------------------------------------------------------------------------------


def figure(
    key: str,
    title: str,
    words: str,
    drawing: str,
    ticks: Sequence[tuple[float, str]],
    legend: str,
    record: Record,
    css: str,
    below: str = "",
) -> str:
    """A drawing with its axes, and the numbers of one step, which the script fills in.

    Args: ticks: (percent from the top, label).
    """
    y_axis = "".join(f'<span style="top: {top:.2f}%">{text}</span>' for top, text in ticks)
    last = len(record.samples) - 1
    at = sorted({0, (last + 1) // 4, (last + 1) // 2, 3 * (last + 1) // 4, last} if last > 7 else {0, last})
    x_axis = "".join(
        f'<span style="left: {100 * (i + 0.5) / (last + 1):.2f}%">{"" if i else "step "}'
        f"{record.samples[i].step:,}</span>"
        for i in at
    )
    return (
        f'<figure class="chart {css}" data-key="{key}"><figcaption><h3>{html.escape(title)}</h3>{html.escape(words)}'
        f'</figcaption><div class="area"><div class="y-axis" aria-hidden="true">{y_axis}</div>'
        f'<div class="drawing" role="slider" tabindex="0" aria-label="{html.escape(title)} over steps" '
        f'aria-valuemin="0" aria-valuemax="{last}" aria-valuenow="{last}">{drawing}<i class="now"></i></div>'
        f'<div class="x-axis" aria-hidden="true">{x_axis}</div></div><ul class="values">{legend}</ul>{below}</figure>'
    )


def table(title: str, record: Record, columns: Sequence[tuple[str, Array]], percent: bool = False) -> str:
    """The numbers of at most 25 samples, collapsed. Columns with "share" in their name are in percent."""
    count = len(record.samples)
    rows_shown = sorted({round(i * (count - 1) / (TABLE_ROWS - 1)) for i in range(TABLE_ROWS)})
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name, _ in columns)
    rows = "".join(
        f'<tr><th scope="row">{record.samples[i].step:,}</th><td>{record.samples[i].epoch}</td>'
        + "".join(
            f"<td>{_cell(float(values[i]), percent or 'share' in name)}</td>" for name, values in columns
        )
        + "</tr>"
        for i in rows_shown
    )
    note = f", {len(rows_shown)} of {count} samples" if len(rows_shown) < count else ""
    return (
        '<details><summary>Numbers</summary><div class="scroll"><table class="numbers">'
        f"<caption>{html.escape(title)}{note}</caption>"
        f'<thead><tr><th scope="col">step</th><th scope="col">epoch</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _cell(value: float, percent: bool) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:.1%}" if percent else shown(value)


def shown(value: float) -> str:
    """A number as the page shows it, with a true minus sign."""
    return number(value).replace("-", "−")


def power_of_ten(power: int) -> str:
    """The label of a tick."""
    return {-2: "0.01", -1: "0.1", 0: "1", 1: "10", 2: "100"}.get(power) or f"1e{power}".replace("-", "−")
