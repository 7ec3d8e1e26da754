"""The page for a `Record`: what looks wrong, charts of the whole model, a card per layer. It loads nothing else."""

import html
import json
import math
from typing import Any

import numpy as np

from tinynet.study.over_time.charts import chart_data, line_chart, overview, smooth, table
from tinynet.study.over_time.findings import findings
from tinynet.study.over_time.maps import heatmap
from tinynet.study.over_time.probe import LEVELS
from tinynet.study.over_time.record import MOST_SAMPLES, Record
from tinynet.study.tracing.encoding import encode
from tinynet.study.tracing.page import asset, fill
from tinynet.support.types import Array
from tinynet.version import __version__


def render(record: Record) -> str:
    """The page as text."""
    data: dict[str, Any] = {
        "steps": [sample.step for sample in record.samples],
        "epochs": [sample.epoch for sample in record.samples],
        "charts": {},
    }
    pictures: list[Array] = [np.zeros(1, np.uint16)]  # concatenated after a 0, so never empty
    charts, cards = '<p class="note">No step was finished, so there is nothing to show.</p>', ""
    if record.samples:
        shown = overview(record)
        charts = "".join(line_chart(chart, record) for chart in shown)
        data["charts"] |= {chart.key: chart_data(chart) for chart in shown}
        histograms = np.array([sample.counts for sample in record.samples])  # (samples, places, BINS)
        cards = "".join(_card(path, record, histograms, data["charts"], pictures) for path in record.layers)
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
        counts=encode(np.concatenate([picture.ravel() for picture in pictures])).text,
        script=asset("arrays.js") + asset("over_time.js"),
        version=__version__,
    )


def _card(path: str, record: Record, histograms: Array, charts: dict[str, Any], pictures: list[Array]) -> str:
    """A layer's card; also adds its data to ``charts`` and ``pictures``."""
    layer, maps = record.layers[path], []
    rms, columns = record.series("rms"), []
    for index, (owner, name) in enumerate(record.places):
        if owner == path:
            text, data, picture = heatmap(record, index, histograms[:, index])
            maps.append(text)
            charts[f"{path}.{name}"] = data | {"start": sum(before.size for before in pictures)}
            pictures.append(picture)
            zeros = histograms[:, index, LEVELS] / record.counted[index]
            columns += [(f"{name}, root mean square", rms[:, index]), (f"{name}, share of zeros", zeros)]
    for paths, fault in ((record.relus, "dead"), (record.squashing, "saturated")):
        if path in paths:
            columns.append((f"{fault} units, share", record.series(fault)[:, paths.index(path)]))
    ratios = record.series("ratios")
    for column, name in enumerate(record.weights):
        if name.rpartition(".")[0] == path:
            columns.append((f"{name}, update / value", ratios[:, column]))
    kind = "channel" if layer.holds_images else "unit"
    units = f"{layer.units:,} {kind}{'s' if layer.units > 1 else ''}"
    numbers = table(f"Layer {path}, {layer.kind}", record, columns)
    return (
        f'<article class="card" id="card-{path}" style="--depth: {path.count(".")}" aria-labelledby="title-{path}">'
        f'<header><h2 id="title-{path}"><span class="path">{path}</span> {html.escape(layer.kind)}</h2>'
        f'<p class="facts"><code>{html.escape(layer.arguments) or "no arguments"}</code> · {units}</p></header>'
        f'<div class="maps">{"".join(maps)}</div>{numbers}</article>'
    )


def _about(record: Record) -> str:
    thinned = (
        f" There were more than {MOST_SAMPLES} samples, so every second one was dropped."
        if record.thinned
        else ""
    )
    return (
        f"<p>A look inside a model while it trained. After the first step and every {record.every:,} steps, the same "
        f"{record.probe_size} examples, the probe, ran forward and backward through a twin of the model. Batch losses, "
        f"weight gradients and weight updates come from the training itself.{thinned}</p>"
    )


def _facts(record: Record) -> str:
    end = f"{record.steps:,} of {record.planned:,}"
    if record.steps < record.planned:
        how = (
            "an error"
            if record.error
            else "a callback, such as early stopping"
            if record.stopped
            else "Ctrl-C"
        )
        end += f", ended by {how}"
    facts = []
    if record.samples:
        first, last = record.samples[0], smooth(record.series("loss"))[-1]
        facts.append(("Batch loss", f"{first.loss:.4g} → {last:.4g}"))
        if record.classes and record.fresh:
            guess = f"ln {record.classes} = {math.log(record.classes):.4g}"
            facts.append(("First loss; loss of guessing", f"{first.loss:.4g}; {guess}"))
    facts += [
        ("Steps", end),
        ("Samples", f"{len(record.samples):,}, every {record.every:,} steps"),
        ("Probe", f"{record.probe_size} examples"),
        ("Optimizer", record.optimizer),
    ]
    return "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for name, value in facts
    )


def _findings(record: Record) -> str:
    found = findings(record)
    if not found:
        return (
            '<section class="look quiet" aria-labelledby="look-title"><h2 id="look-title">Nothing looks wrong</h2>'
            "<p>Checked for: errors, unscaled inputs, a first loss far from guessing, updates too large or too small, "
            "vanishing or exploding gradients, dead or saturated units, a rising loss.</p></section>"
        )
    has_cards = record.layers if record.samples else {}
    items = "".join(
        f'<li data-kind="{finding.kind}">{html.escape(finding.text)}'
        + (
            f' <a href="#card-{finding.path}">See layer {finding.path}</a>'
            if finding.path in has_cards
            else ""
        )
        + "</li>"
        for finding in found
    )
    return (
        '<section class="look" aria-labelledby="look-title"><h2 id="look-title">What looks wrong</h2>'
        f"<ol>{items}</ol></section>"
    )


def _skipped(record: Record) -> str:
    words = "Flatten and Reshape have no card: they only change the shape of their input."
    if record.input_path != "0":
        before = f"Nothing before layer {record.input_path} has parameters: the probe is the same there at every step."
        words = f"{before} {words}"
    if record.fused:
        words += " The final Softmax is trained as one function with the loss, so its input is shown instead."
    return html.escape(words)


def _finite(value: Any) -> Any:
    """NaN and infinity become None; other floats keep six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
