"""The page of a `Record`: charts as inline SVG, histograms as arrays that its script paints, tables of the numbers."""

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinynet import __version__
from tinynet.study.encoding import encode
from tinynet.study.findings import RATIO_GUIDE, findings
from tinynet.study.over_time import Record
from tinynet.study.page import asset, fill
from tinynet.study.probe import LEVELS, LOWEST, octave
from tinynet.types import Array

TABLE_ROWS = 25
SMOOTHING = 0.8  # what the smoothed loss keeps from one sample to the next
HIDDEN_TAIL = 0.005  # the share of elements whose sizes are not worth rows of their own

_NAMES = {"y": "output y", "dy": "gradient dy"}
_TONES = {"y": "forward", "dy": "backward"}


@dataclass
class Line:
    """A series of numbers, one for each sample."""

    name: str
    values: Array
    style: str  # its colour, as CSS
    css: str = ""  # classes


@dataclass
class Chart:
    """A chart with the samples from left to right."""

    key: str
    title: str
    words: str  # what it shows
    lines: list[Line] = field(default_factory=list)
    guides: list[tuple[float, str]] = field(default_factory=list)
    logarithmic: bool = False
    percent: bool = False


def render(record: Record) -> str:
    """The page as text."""
    counts: list[Array] = []
    data: dict[str, Any] = {
        "steps": [sample.step for sample in record.samples],
        "epochs": [sample.epoch for sample in record.samples],
        "charts": {},
    }
    if record.samples:
        charts = "".join(_line_chart(chart, record, data) for chart in overview(record))
        cards = "".join(_layer_card(path, record, data, counts) for path in record.layers)
    else:
        charts, cards = '<p class="note">No step was finished, so there is nothing to show.</p>', ""
    encoded = encode(np.concatenate([part.ravel() for part in counts]) if counts else np.zeros(1, np.uint16))
    return fill(
        "over_time.html",
        about=_about(record),
        facts=_facts(record),
        findings=_findings(record),
        charts=charts,
        cards=cards,
        skipped=_skipped(record),
        style=asset("page.css") + asset("over_time.css"),
        data=json.dumps(_finite(data), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        counts=encoded.text,
        script=asset("arrays.js") + asset("over_time.js"),
        version=__version__,
    )


def overview(record: Record) -> list[Chart]:
    """The charts of the whole model."""
    losses = record.series("loss")
    loss = Chart(
        "loss",
        "Loss",
        "of each sampled step's batch, before its update; of the probe, after it",
        [
            Line("batch", losses, "var(--muted)", "thin"),
            Line("batch, smoothed", _smooth(losses), "var(--loss)", "thick"),
            Line("probe", record.series("probe_loss"), "var(--forward)"),
        ],
    )
    if record.classes:
        loss.guides = [(math.log(record.classes), f"ln {record.classes} = {math.log(record.classes):.3f}, guessing")]
    charts = [
        loss,
        Chart(
            "ratios",
            "How far weights move in a step",
            "the norm of the update over that of the weights",
            _by_depth(record.weights, record.of_weights("ratios")),
            [(RATIO_GUIDE, "0.001, usual")],
            logarithmic=True,
        ),
        Chart(
            "norms",
            "Size of the weights' gradients",
            "the norm for the step's batch",
            _by_depth(record.weights, record.of_weights("gradient_norms")),
            logarithmic=True,
        ),
    ]
    if record.relus:
        shares = record.series("dead")
        charts.append(
            Chart("dead", "Dead ReLU units", "0 for every example of the probe; of images: channels",
                  _by_depth(record.relus, shares, "layer "), percent=True)
        )  # fmt: skip
    if record.squashing:
        shares = record.series("saturated")
        charts.append(
            Chart("saturated", "Saturated outputs", "of Sigmoid and Tanh, where the function is flat",
                  _by_depth(record.squashing, shares, "layer "), percent=True)
        )  # fmt: skip
    rate = Line("learning rate", record.series("learning_rate"), "var(--update)")
    charts.append(Chart("rate", "Learning rate", f"that {record.optimizer} was given", [rate]))
    return charts


def _by_depth(names: Sequence[str], columns: Array, prefix: str = "") -> list[Line]:
    """A line each, from the colour of the first layer to that of the last."""
    last = max(len(names) - 1, 1)
    return [
        Line(
            f"{prefix}{name}",
            columns[:, i],
            f"color-mix(in oklab, var(--shallow) {100 - 100 * i // last}%, var(--deep))",
        )
        for i, name in enumerate(names)
    ]


def _smooth(values: Array) -> Array:
    """An exponential mean, of what there is so far."""
    total, weight, smooth = 0.0, 0.0, []
    for value in values:
        total, weight = SMOOTHING * total + value, SMOOTHING * weight + 1
        smooth.append(total / weight)
    return np.array(smooth)


# -- the head of the page ------------------------------------------------------------------------------


def _about(record: Record) -> str:
    first = "after the first step and " if record.samples else ""
    thinned = " Of more than 400 samples every second was left out." if record.thinned else ""
    return (
        f"<p>A model seen from inside while it trained: {first}every {record.every:,} steps, {record.probe_size} fixed examples, "
        "the probe, ran forward and backward through a twin of it. Losses of batches, gradients and updates of weights are "
        f"those of the training itself.{thinned}</p>"
    )


def _facts(record: Record) -> str:
    end = f"{record.steps:,} of {record.planned:,}"
    if record.steps < record.planned:
        how = "an error" if record.error else "a callback, such as early stopping" if record.stopped else "Ctrl-C"
        end += f", ended by {how}"
    facts = []
    if record.samples:
        smooth = _smooth(record.series("loss"))
        facts.append(("Loss of a batch", f"{record.samples[0].loss:.4g} → {smooth[-1]:.4g}"))
        if record.classes:
            first = record.samples[0]
            name = "First loss" if first.step == 1 else f"Loss of step {first.step}"
            facts.append((name, f"{first.loss:.4g}; ln {record.classes} = {math.log(record.classes):.4g}"))
    facts += [
        ("Steps", end),
        ("Samples", f"{len(record.samples):,}, every {record.every:,} steps"),
        ("Probe", f"{record.probe_size} examples"),
        ("Optimizer", record.optimizer),
    ]
    return "".join(f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for name, value in facts)


def _findings(record: Record) -> str:
    found = findings(record)
    if not found:
        return (
            '<section class="look quiet" aria-labelledby="look-title"><h2 id="look-title">Nothing looks wrong</h2>'
            "<p>Looked for: errors, unscaled inputs, a first loss far from guessing, updates too large or too small, gradients "
            "that vanish or explode, dead and saturated units, a loss that rises.</p></section>"
        )
    items = "".join(
        f'<li data-kind="{finding.kind}">{html.escape(finding.text)}'
        + (f' <a href="#card-{finding.path}">See layer {finding.path}</a>' if finding.path in record.layers else "")
        + "</li>"
        for finding in found
    )
    return (
        '<section class="look" aria-labelledby="look-title"><h2 id="look-title">What looks wrong</h2>'
        f"<ol>{items}</ol></section>"
    )


def _skipped(record: Record) -> str:
    words = [
        f"Layers below {record.input_path} have no parameters above anything that has, so for the probe they never change, and "
        "Flatten and Reshape only give their input another shape: they have no card here."
        if record.input_path != "0"
        else "Flatten and Reshape only give their input another shape: they have no card here."
    ]
    if record.fused:
        words.append("The model's last layer, Softmax, is trained as one function with the loss; its input is shown.")
    return html.escape(" ".join(words))


# -- charts of lines -------------------------------------------------------------------------------------


def _line_chart(chart: Chart, record: Record, data: dict[str, Any]) -> str:
    data["charts"][chart.key] = {
        "series": [{"name": line.name, "values": line.values.tolist()} for line in chart.lines],
        "percent": chart.percent,
    }
    low, high = _range(chart)
    place = _scale(chart, low, high)
    paths = "".join(
        f'<path class="line {line.css}" style="stroke: {line.style}" d="{_path(line.values, place)}"/>' for line in chart.lines
    )
    guides = "".join(f'<path class="guide" d="M0 {place(value):.2f}H1000"/>' for value, _ in chart.guides)
    legend = "".join(
        f'<li><i style="background: {line.style}" class="{line.css}"></i>{html.escape(line.name)} <output></output></li>'
        for line in chart.lines
    ) + "".join(f'<li class="fixed"><i class="guide"></i>{html.escape(name)}</li>' for _, name in chart.guides)
    table = _table(
        f"{chart.title}: {chart.words}",
        record,
        [(line.name, line.values) for line in chart.lines],
        chart.percent,
    )
    ticks = [(place(value), text) for value, text in _ticks(chart, low, high)]
    svg = f'<svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true">{guides}{paths}</svg>'
    return _figure(chart.key, chart.title, chart.words, svg, ticks, legend, record, "lines") + table + "</figure>"


def _range(chart: Chart) -> tuple[float, float]:
    if chart.percent:
        return 0.0, 1.0
    values = np.concatenate([*(line.values for line in chart.lines), [value for value, _ in chart.guides]])
    values = values[np.isfinite(values) & ((values > 0) | (not chart.logarithmic))]
    if not values.size:
        return (0.1, 1.0) if chart.logarithmic else (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    if chart.logarithmic:
        # Whole decades, and never one alone.
        low, high = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))
        return (low, high) if low < high else (low / 10, high * 10)
    return min(0.0, low), (high * 1.05 if high > 0 else 1.0)


def _scale(chart: Chart, low: float, high: float) -> Any:
    """A value's distance from the top, in percent."""
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
        return [(10.0**power, _power(power)) for power in range(first, last + 1, step)]
    rough = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step_size = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough)
    first_tick = math.ceil(low / step_size)
    return [(k * step_size, _number(k * step_size)) for k in range(first_tick, math.floor(high / step_size) + 1)]


def _path(values: Array, place: Any) -> str:
    parts, pen_down = [], False
    for i, value in enumerate(values):
        if not math.isfinite(value):
            pen_down = False
            continue
        x, y = 1000 * (i + 0.5) / len(values), min(max(place(value), -50.0), 150.0)
        parts.append(f"L{x:.1f} {y:.2f}" if pen_down else f"M{x:.1f} {y:.2f}h0")
        pen_down = True
    return "".join(parts)


# -- cards of layers -------------------------------------------------------------------------------------


def _layer_card(path: str, record: Record, data: dict[str, Any], counts: list[Array]) -> str:
    layer = record.layers[path]
    all_counts = np.array([sample.counts for sample in record.samples])  # (samples, places, BINS)
    rms = record.series("rms")
    maps, columns = [], []
    for index, place in enumerate(record.places):
        if place.path == path:
            maps.append(
                _heatmap(index, record, all_counts[:, index], rms[:, index], record.counted[index], data, counts)
            )
            columns.append((f"{place.name}, root mean square", rms[:, index]))
            zeros = all_counts[:, index, LEVELS] / record.counted[index]
            columns.append((f"{place.name}, share of zeros", zeros))
    for names, field_name, words in ((record.relus, "dead", "dead units"), (record.squashing, "saturated", "saturated")):
        if path in names:
            columns.append((f"{words}, share", record.series(field_name)[:, names.index(path)]))
    for column, name in enumerate(record.parameters):
        if name.rpartition(".")[0] == path:
            columns.append((f"{name}, update / value", record.series("ratios")[:, column]))
    words = f"{layer.units:,} units" if layer.units > 1 else "1 unit"
    return (
        f'<article class="card" id="card-{path}" style="--depth: {path.count(".")}" aria-labelledby="title-{path}">'
        f'<header><h2 id="title-{path}"><span class="path">{path}</span> {layer.kind}</h2>'
        f'<p class="facts"><code>{html.escape(layer.arguments) or "no arguments"}</code> · {words}</p></header>'
        f'<div class="maps">{"".join(maps)}</div>{_table(f"Layer {path}, {layer.kind}", record, columns)}</article>'
    )


def _heatmap(
    index: int,
    record: Record,
    found: Array,
    rms: Array,
    counted: int,
    data: dict[str, Any],
    counts: list[Array],
) -> str:
    """A place's histograms, a column for each sample: negative sizes below, zero in the middle, positive above."""
    path, name = record.places[index]
    bins = shown_bins(found)
    rows = merged(found, bins)  # (samples, rows)
    key = f"{path}.{name}"
    ends = [octave(number) for number in bins]
    data["charts"][key] = {
        "start": sum(part.size for part in counts),
        "rows": [
            [-1 if number < LEVELS else 1 if number > LEVELS else 0, low, high]
            for number, (low, high) in zip(bins, ends, strict=True)
        ],
        "total": counted,
        "tone": _TONES.get(name, "update"),
        "rms": rms.tolist(),
    }
    counts.append(np.ascontiguousarray(rows.T, np.uint16))
    size = record.sizes[index]
    sampled = f", {counted:,} random ones of {size:,} elements" if counted < size else f", {size:,} elements"
    words = {"y": "of the probe", "dy": "of the loss of the probe, with respect to y"}.get(name, "of the step's batch")
    legend = (
        '<li>root mean square <output data-of="rms"></output></li><li><output data-of="zero"></output></li>'
        '<li class="point"><output data-of="point"></output></li>'
    )
    ticks = _size_ticks(bins)
    return (
        _figure(
            key, _NAMES.get(name, f"gradient {name}"), words + sampled, '<canvas aria-hidden="true"></canvas>', ticks, legend,
            record, f"map {_TONES.get(name, 'update')}",
        )
        + "</figure>"
    )  # fmt: skip


def shown_bins(found: Array) -> list[int]:
    """The bins that a heatmap has rows for, from the largest to the most negative.

    Args: found: counts (samples, BINS).
    """
    total = found.sum(axis=0, dtype=np.int64)
    sizes = total[LEVELS:].copy()
    sizes[1:] += total[LEVELS - 1 :: -1]
    sizes[0] = 0
    if not sizes.any():
        return [LEVELS]
    largest = int(np.flatnonzero(sizes)[-1])
    # Sizes so small that hardly an element has them are counted as zero: a wide range would hide the rest.
    smallest = int(np.searchsorted(np.cumsum(sizes), HIDDEN_TAIL * sizes.sum(), side="right"))
    smallest = max(1, min(smallest, largest))
    positive = range(LEVELS + largest, LEVELS + smallest - 1, -1) if total[LEVELS + 1 :].any() else range(0)
    negative = range(LEVELS - smallest, LEVELS - largest - 1, -1) if total[:LEVELS].any() else range(0)
    return [*positive, LEVELS, *negative]


def merged(found: Array, bins: Sequence[int]) -> Array:
    """The counts (samples, rows) of these bins; what is left out is added to the middle, where zero is."""
    rows = found[:, bins].astype(np.int64)
    rows[:, bins.index(LEVELS)] += found.sum(axis=1, dtype=np.int64) - rows.sum(axis=1)
    return rows


def _size_ticks(bins: Sequence[int]) -> list[tuple[float, str]]:
    """Places of powers of ten, in percent from the top."""
    height, middle = len(bins), bins.index(LEVELS)
    ticks = [(100 * (middle + 0.5) / height, "≈ 0")]
    for rows, sign, side in ((bins[:middle], "", 1), (bins[middle + 1 :], "−", -1)):
        if not rows:
            continue
        largest = max(abs(number - LEVELS) for number in rows)
        low = LOWEST + largest - len(rows)  # exponent where the smallest row begins
        first, last = math.ceil(low * math.log10(2)), math.floor((LOWEST + largest) * math.log10(2))
        step = max(1, math.ceil((last - first + 1) * 8 / height)) if height > 8 else max(1, last - first)
        for power in range(last, first - 1, -step):
            distance = power / math.log10(2) - low  # rows from the one in the middle
            if distance < 1:
                continue  # too near to its label
            row = middle - distance if side > 0 else middle + 1 + distance
            ticks.append((100 * row / height, f"{sign}{_power(power)}"))
    return ticks


# -- what both kinds share ---------------------------------------------------------------------------------


def _figure(
    key: str,
    title: str,
    words: str,
    drawing: str,
    ticks: Sequence[tuple[float, str]],
    legend: str,
    record: Record,
    css: str,
) -> str:
    """A chart with its axes; left open, for what follows."""
    y_axis = "".join(f'<span style="top: {top:.2f}%">{text}</span>' for top, text in ticks)
    samples = len(record.samples)
    where = sorted({0, samples // 4, samples // 2, 3 * samples // 4, samples - 1} if samples > 8 else {0, samples - 1})
    x_axis = "".join(
        f'<span style="left: {100 * (i + 0.5) / samples:.2f}%">{record.samples[i].step:,}</span>' for i in where
    )
    lines = "".join(f'<b style="top: {top:.2f}%"></b>' for top, _ in ticks) if css == "lines" else ""
    return (
        f'<figure class="chart {css}" data-key="{key}"><figcaption><h3>{html.escape(title)}</h3> {html.escape(words)}</figcaption>'
        f'<div class="area"><div class="y-axis" aria-hidden="true">{y_axis}</div>'
        f'<div class="picture-area" role="slider" tabindex="0" aria-label="{html.escape(title)} over steps" aria-valuemin="0" '
        f'aria-valuemax="{samples - 1}" aria-valuenow="{samples - 1}">{lines}{drawing}<i class="now"></i></div>'
        f'<div class="x-axis" aria-hidden="true">{x_axis}</div></div><ul class="values">{legend}</ul>'
    )


def _table(
    title: str, record: Record, columns: Sequence[tuple[str, Array]], percent: bool = False
) -> str:
    """The numbers, of at most 25 samples."""
    count = len(record.samples)
    shown = sorted({round(i * (count - 1) / (TABLE_ROWS - 1)) for i in range(TABLE_ROWS)})
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name, _ in columns)
    rows = "".join(
        f'<tr><th scope="row">{record.samples[i].step:,}</th><td>{record.samples[i].epoch}</td>'
        + "".join(f"<td>{_cell(float(values[i]), percent or 'share' in name)}</td>" for name, values in columns)
        + "</tr>"
        for i in shown
    )
    note = f", {len(shown)} of {count} samples" if len(shown) < count else ""
    return (
        f'<details><summary>Numbers</summary><div class="scroll"><table class="numbers"><caption>{html.escape(title)}{note}'
        f'</caption><thead><tr><th scope="col">step</th><th scope="col">epoch</th>{head}</tr></thead><tbody>{rows}</tbody>'
        "</table></div></details>"
    )


def _cell(value: float, percent: bool) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:.1%}" if percent else _number(value)


def _number(value: float) -> str:
    text = f"{value:.3g}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.1e}"
    return text.replace("-", "−")


def _power(power: int) -> str:
    return {-2: "0.01", -1: "0.1", 0: "1", 1: "10", 2: "100"}.get(power) or f"1e{power}".replace("-", "−")


def _finite(value: Any) -> Any:
    """NaN and infinity as None, and six digits of the rest."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
