"""The page's cards as HTML: layers, the loss and the update. Their interactive parts are in assets/*.js."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence

from tinynet.study.comparison.compare import Comparison
from tinynet.study.gradients.report import ElementCheck
from tinynet.study.tracing import drawing
from tinynet.study.tracing.equations import Equation, equations
from tinynet.study.tracing.events import backward_notes, forward_notes
from tinynet.study.tracing.notation import layer_formulas, loss_formulas, update_formulas
from tinynet.study.tracing.records import LayerTrace, ParameterTrace, Step
from tinynet.study.tracing.source import Source, method_sources
from tinynet.study.tracing.statistics import RATIO_GUIDE, Statistics, norm, statistics
from tinynet.support.arguments import shown_arguments
from tinynet.support.types import Array, Shape

Checks = Mapping[str, Sequence[ElementCheck]]
"""The elements whose gradient was checked, by the parameter's path, such as "2.W"."""

_WORDS = {
    "fine": "fine: the two agree",
    "suspicious": "suspicious: fewer digits agree than should",
    "wrong": "wrong: this is not the slope",
    "crossed a kink": "on a kink: the slope jumps here",
}


def layer_card(record: LayerTrace, checks: Checks, updated: bool = True) -> str:
    """One layer's card: formulas, shapes, source, a place for its arrays, statistics and the gradient check.

    Args: checks: of its gradients; updated: whether there was a backward at all.
    """
    why_not = "neither this layer nor an earlier one trains" if updated else "the loss is not finite"
    owner = type(record.layer)
    shapes = equations(record)
    size = sum(parameter.value.size for parameter in record.parameters.values())
    facts = f"{shape_text(record.x.shape)} → {shape_text(record.y.shape)}"
    facts += f" · {size:,} parameters" if size else ""
    forward = _pass(
        "forward",
        "Forward",
        layer_formulas(record, "forward"),
        method_sources(owner, "forward"),
        [shapes.forward] if shapes else [],
        forward_notes(record),
    )
    if record.dy is not None:
        backward = _pass(
            "backward",
            "Backward",
            layer_formulas(record, "backward"),
            method_sources(owner, "backward"),
            shapes.backward if shapes else [],
            backward_notes(record),
        )
    else:
        backward = (
            '<section class="pass backward"><h3>Backward</h3>'
            f'<p class="note">Not run: {why_not}.</p></section>'
        )
    return (
        f'<article class="card" id="card-{record.path}" data-path="{record.path}" tabindex="-1" '
        f'style="--depth: {record.path.count(".")}" aria-labelledby="title-{record.path}">'
        f'<header><h2 id="title-{record.path}"><span class="path">{record.path}</span> {record.kind}</h2>'
        f'<p class="facts"><code>{html.escape(shown_arguments(record.layer)) or "no arguments"}</code> · '
        f"{facts}</p></header>"
        f'<div class="passes">{forward}{backward}</div>'
        f"{inspector(record.path, 'Point at any element')}"
        f"{_statistics(record.statistics(), _shapes(record.arrays()), f'{record.path} {record.kind}')}"
        f"{_check_table(record, checks)}</article>"
    )


def loss_card(step: Step) -> str:
    """The loss's card: its inputs, each example's loss, and the gradient that goes back."""
    loss = step.loss
    owner = type(loss.loss)
    forward, backward = (loss_formulas(loss.loss, direction) for direction in ("forward", "backward"))
    passes = _pass("forward", "Forward", forward, method_sources(owner, "forward"), [], [])
    passes += _pass("backward", "Backward", backward, method_sources(owner, "backward"), [], [])
    note = (
        '<p class="note">The model\'s last layer, Softmax, and the loss, CrossEntropy, are trained as one function '
        "of the logits. The gradient is the same, but it stays finite where a probability rounds to 0. "
        "So the two share this card.</p>"
        if loss.fused
        else ""
    )
    outputs = "logits" if loss.fused else "outputs"
    shown = {outputs: loss.outputs, "loss of each": loss.each, f"d{outputs}": loss.gradient}
    if loss.probabilities is not None:
        shown["probabilities"] = loss.probabilities
    stats = {name: statistics(array) for name, array in shown.items()}
    return (
        '<article class="card" id="card-loss" data-path="loss" tabindex="-1" aria-labelledby="title-loss">'
        f'<header><h2 id="title-loss">{html.escape(loss.name)}</h2>'
        f'<p class="facts">{shape_text(loss.outputs.shape)} → one number: <b>{loss.value:.6g}</b>'
        f"{_first_loss_note(step)}</p></header>{note}"
        f'<div class="passes">{passes}</div>{inspector("loss", "Point at any element, or at an example&apos;s loss")}'
        f"{_statistics(stats, _shapes(shown), loss.name)}</article>"
    )


def update_card(step: Step) -> str:
    """The update's card: the optimizer's formula, and how far each parameter moved relative to its size."""
    sources = method_sources(type(step.optimizer), "update")
    body = _pass("update", "Update", update_formulas(step.optimizer), sources, [], [])
    rows = "".join(
        _ratio_row(f"{layer.path}.{name}", parameter)
        for layer in step.walk()
        for name, parameter in layer.parameters.items()
    )
    words = "The loss is not finite, so nothing was updated, as in fit."
    if step.updated:
        words = (
            f"The loss went from {step.loss_before:.6g} to {step.loss_after:.6g}, a change of {step.change:+.4g}. "
            f"Gradient · update, the slope times the step, predicted {step.predicted_change:+.4g}. "
            "If the gradient is right, the difference comes from the curvature."
        ).replace("-", "−")
    return (
        '<article class="card" id="card-update" data-path="update" tabindex="-1" aria-labelledby="title-update">'
        f'<header><h2 id="title-update">{type(step.optimizer).__name__}</h2>'
        f'<p class="facts">learning rate {step.learning_rate:.4g}, step {step.optimizer_step}</p></header>'
        f'<div class="passes">{body}</div><p class="note">{html.escape(words)}</p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="How far each parameter moved">'
        '<table class="numbers"><caption>How far each parameter moved: norms and their ratio. '
        f"The line marks {RATIO_GUIDE:g}, a usual ratio.</caption><thead><tr><th>parameter</th><th>|value|</th>"
        "<th>|gradient|</th><th>|update|</th><th>update / value</th><th></th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></article>"
    )


def comparison_table(comparison: Comparison) -> str:
    """tinynet's gradients compared with another library's."""
    rows = "".join(
        f'<tr><th scope="row"><code>{row.name}</code></th><td>{shape_text(row.shape)}</td>'
        f"<td>{number(row.max_difference)}</td><td>{number(row.relative_difference)}</td>"
        f'<td class="verdict {"fine" if row.ok else "wrong"}">{html.escape(row.verdict)}</td></tr>'
        for row in comparison.rows
    )
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in comparison.notes)
    return (
        f'<section class="comparison"><h2>Compared with {html.escape(comparison.against)}</h2>'
        f'<p class="note">The same weights, the same {comparison.examples} examples, {comparison.dtype}. The loss is '
        f"{comparison.loss:.6g} in tinynet and {comparison.other_loss:.6g} in the other library.</p>{notes}"
        '<div class="scroll" tabindex="0" role="region" aria-label="Differences between the gradients">'
        '<table class="numbers"><caption class="hidden">Differences between the '
        "gradients</caption><thead>"
        "<tr><th>gradient of</th><th>shape</th><th>largest difference</th><th>relative to the largest "
        "gradient</th><th></th></tr>"
        f"</thead><tbody>{rows}</tbody></table></div></section>"
    )


def inspector(path: str, title: str) -> str:
    """The place for a card's arrays, which the script fills in."""
    return (
        f'<section class="inspector" data-path="{path}"><h3>{title}</h3>'
        f'<div class="tabs" role="group" aria-label="arrays of card {path}"></div><div class="view"></div></section>'
    )


def shape_text(shape: Shape) -> str:
    """A shape as text: ``32 × 784``."""
    return " × ".join(f"{size:,}" for size in shape)


def number(value: float) -> str:
    """A number as the page's tables show it."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
    text = f"{value:.3g}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.2e}"
    return text.replace("-", "−")


def _pass(
    phase: str,
    title: str,
    formulas: Sequence[str],
    sources: Sequence[Source],
    shapes: Iterable[Equation],
    notes: Sequence[str],
) -> str:
    shown = "".join(f'<p class="formula">{line}</p>' for line in formulas)
    box = f'<div class="formulas">{shown}</div>' if shown else ""
    figures = "".join(
        f'<figure class="shapes"><div>{drawing.equation(shape)}</div>'
        f"<figcaption><code>{html.escape(str(shape))}</code> {html.escape(shape.why)}</figcaption></figure>"
        for shape in shapes
    )
    remarks = "".join(f'<p class="note">{html.escape(note)}.</p>' for note in notes)
    code = "".join(map(_source, sources))
    return (
        f'<section class="pass {phase}" data-phase="{phase}"><h3>{title}</h3>'
        f"{box}{figures}{code}{remarks}</section>"
    )


def _source(source: Source) -> str:
    lines = []
    for line in source.text.splitlines():
        code, mark, comment = line.partition("#")
        dim = f'<span class="comment">{html.escape(mark + comment)}</span>' if mark else ""
        # A word joiner keeps an arrow whole where a line wraps.
        lines.append(f"<span>{html.escape(code)}{dim}</span>".replace("-&gt;", "-\u2060&gt;"))
    last = source.first_line + len(lines) - 1
    label = f"{source.file}, lines {source.first_line} to {last}"
    return (
        f'<figure class="source"><figcaption>{html.escape(label)}</figcaption>'
        '<pre style="counter-reset: line '
        f'{source.first_line - 1}"><code>{"".join(lines)}</code></pre></figure>'
    )


def _shapes(arrays: Mapping[str, Array]) -> dict[str, Shape]:
    return {name: array.shape for name, array in arrays.items()}


def _statistics(stats: Mapping[str, Statistics], shapes: Mapping[str, Shape], title: str) -> str:
    rows = "".join(
        f'<tr data-array="{name}"><th scope="row"><code>{name}</code></th><td>{shape_text(shapes[name])}</td>'
        f"<td>{drawing.histogram(found, name)}</td>"
        + "".join(f"<td>{number(value)}</td>" for value in (found.mean, found.std, found.min, found.max))
        + f"<td>{'' if math.isnan(found.zeros) else f'{found.zeros:.0%}'}</td></tr>"
        for name, found in stats.items()
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Statistics of {html.escape(title)}">'
        '<table class="numbers statistics"><caption class="hidden">Statistics of '
        f"{html.escape(title)}"
        "</caption><thead><tr><th>array</th><th>shape</th><th>histogram</th><th>mean</th><th>std</th><th>min</th>"
        f"<th>max</th><th>zeros</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _check_table(record: LayerTrace, checks: Checks) -> str:
    rows = []
    for name, parameter in record.parameters.items():
        for element in checks.get(f"{record.path}.{name}", ()):
            index = ", ".join(map(str, element.index))
            shown = "" if parameter.gradient is None else number(float(parameter.gradient[element.index]))
            verdict = _WORDS[element.band]
            band = "kink" if element.crossed else element.band
            rows.append(
                f'<tr><th scope="row"><code>d{name}[{index}]</code></th><td>{number(element.numeric)}</td>'
                f"<td>{number(element.analytic)}</td><td>{shown}</td><td>{number(element.error)}</td>"
                f'<td class="verdict {band}">{verdict}</td></tr>'
            )
    if not rows:
        return ""
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="The gradient check">'
        '<table class="numbers check"><caption>Is the gradient right? For a few elements: the slope of the loss, '
        "measured in float64 by moving that one parameter up and down, compared with what backward gives"
        "</caption><thead><tr><th>element</th><th>measured slope</th><th>backward, float64</th><th>in this step</th>"
        f"<th>difference</th><th></th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _ratio_row(path: str, parameter: ParameterTrace) -> str:
    gradient = "frozen" if parameter.gradient is None else number(norm(parameter.gradient))
    ratio = parameter.ratio
    bar = ""
    if ratio:
        # Logarithmic, from 1e-6 to 1; the guide is in the middle.
        width = 100 * min(max((math.log10(ratio) + 6) / 6, 0.01), 1)
        words = f"update / value {ratio:.1e}"
        bar = f'<div class="ratio" role="img" aria-label="{words}"><i style="width: {width:.0f}%"></i><b></b></div>'
    return (
        f'<tr><th scope="row"><code>{path}</code></th><td>{number(norm(parameter.value))}</td><td>{gradient}</td>'
        f"<td>{number(norm(parameter.update))}</td><td>{'' if ratio is None else f'{ratio:.1e}'.replace('-', '−')}</td>"
        f"<td>{bar}</td></tr>"
    )


def _first_loss_note(step: Step) -> str:
    probabilities = step.loss.probabilities
    if probabilities is None or step.step:
        return ""
    classes = probabilities.shape[1]
    return f" · guessing among {classes} classes gives ln {classes} = {math.log(classes):.4g}"
