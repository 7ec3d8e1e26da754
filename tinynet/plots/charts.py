"""Charts: training curves and the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator, PercentFormatter, ScalarFormatter

from tinynet.plots import style as look
from tinynet.support.types import Array

LABEL_GAP = 9  # points between the end of a curve and its label


def confusion_matrix(counts: Array, names: Sequence[str]) -> Figure:
    """Draw the counts as coloured cells.

    Args:
        counts: (k, k), one row per actual class.
        names: the names of the k classes.
    Returns:
        The figure; its second axes hold the cells.
    """
    classes, total, right = len(counts), int(counts.sum()), int(counts.trace())
    title = "Confusion matrix"
    summary = f"{right:,} of {total:,} correct ({look.percent(right / max(total, 1))})"
    legend = "Shade: share of the row. Blue: correct. Orange: wrong."

    figure = look.new_figure()
    names = [look.shorten(figure, name, 2.2) for name in names]
    names_width = look.widest(figure, names)
    number_width = look.text_width(figure, f"{counts.max():,}", weight="bold")
    cell = max(number_width + 0.14, min(max(4.6 / classes, 0.46), 0.8))
    tilted = names_width > cell - 0.08
    under = 0.1 + (0.72 * names_width + 0.12 if tilted else 0.16)  # the names below the cells
    left, top, size = look.MARGIN + 0.3 + names_width + 0.1, look.MARGIN + 0.9, cell * classes
    text_width = max(
        look.text_width(figure, title, look.TITLE_SIZE, "bold"), look.widest(figure, [summary, legend])
    )
    width = max(left + size, look.MARGIN + text_width) + look.MARGIN
    page = look.inch_axes(figure, width, top + size + under + 0.3 + look.MARGIN)
    look.write_title(page, title)
    page.text(look.MARGIN, look.MARGIN + 0.42, summary, va="center_baseline")
    page.text(look.MARGIN, look.MARGIN + 0.64, legend, va="center_baseline", color=look.MUTED)
    words: dict[str, Any] = {"ha": "center", "va": "center", "color": look.MUTED}
    page.text(look.MARGIN + 0.08, top + size / 2, "actual", rotation=90, **words)
    page.text(left + size / 2, top + size + under + 0.2, "predicted", **words)
    cells = look.inset_axes(page, left, top, size, size)
    _draw_cells(cells, counts)
    cells.set_xticks(range(classes), names, color=look.INK)
    cells.set_yticks(range(classes), names, color=look.INK)
    cells.tick_params(length=0, pad=6, labelsize=look.TEXT_SIZE)
    if tilted:
        for text in cells.get_xticklabels():
            text.set(rotation=45, ha="right", rotation_mode="anchor")
    return figure


def _draw_cells(axes: Axes, counts: Array) -> None:
    axes.imshow(_cell_colors(counts), aspect="auto")
    axes.spines[:].set_visible(False)
    end = len(counts) - 0.5
    edges = np.arange(1, len(counts)) - 0.5
    axes.hlines(edges, -0.5, end, color=look.PAPER, linewidth=1.2)
    axes.vlines(edges, -0.5, end, color=look.PAPER, linewidth=1.2)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(
            column,
            row,
            f"{count:,}",
            ha="center",
            va="center_baseline",
            color="black" if count else look.MUTED,
            weight="bold" if row == column else "normal",
        )


def _cell_colors(counts: Array) -> Array:
    """Return colours (k, k, 3): each cell's share of its row, in blue on the diagonal and orange off it.

    Both scales stay light enough for black numbers.
    """
    # A class without images has a row of zeros: don't divide by 0.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    diagonal = np.eye(len(counts), dtype=bool)
    strength = np.where(diagonal, shares, np.sqrt(np.minimum(2 * shares, 1.0)))[..., None]  # (k, k, 1)
    weak, strong = (  # (k, k, 3)
        np.where(diagonal[..., None], to_rgb(blue), to_rgb(orange))
        for blue, orange in (("#edf5fb", "#fff4ea"), ("#3f9bd8", look.VERMILION))
    )
    return np.where(counts[..., None] > 0, weak + (strong - weak) * strength, to_rgb("#f5f6f7"))


def training_curves(curves: Mapping[str, Array], seconds: float | None) -> Figure:
    """Draw a panel for the loss, and one for the accuracy if there is one.

    Args:
        curves: arrays (epochs,) by name: loss and, if known, accuracy, val_loss, val_accuracy; NaN is a gap.
        seconds: how long the training took, if known.
    Returns:
        The figure.
    """
    count = len(curves["loss"])
    measures = [name for name in ("loss", "accuracy") if name in curves or f"val_{name}" in curves]
    width = 4.9 * len(measures)
    figure = look.new_figure(width, 3.8, ConstrainedLayoutEngine(w_pad=0.16, h_pad=0.12))
    epochs = f"{count} epoch{'s' * (count > 1)}"
    took = "" if seconds is None else f" in {_duration(seconds)}"
    title = f"Training: {epochs}{took}"
    figure.suptitle(title, x=look.MARGIN / width, ha="left", size=look.TITLE_SIZE, weight="bold")
    panels = np.atleast_1d(figure.subplots(1, len(measures)))
    labels = [_draw_panel(panel, measure, curves) for panel, measure in zip(panels, measures, strict=True)]
    figure.draw_without_rendering()  # the ends of the curves are known only after this
    for pair in labels:
        _spread(pair)
    return figure


def _draw_panel(axes: Axes, measure: str, curves: Mapping[str, Array]) -> list[Annotation]:
    """Draw the curves of one measure, circle the best epoch, and return the labels at the curves' ends."""
    count = len(curves["loss"])
    labels = [_draw_curve(axes, name, curves[name]) for name in (measure, f"val_{measure}") if name in curves]
    judged = f"val_{measure}" if f"val_{measure}" in curves else measure
    axes.set_title(measure.capitalize(), pad=26)
    axes.annotate(
        _mark_best(axes, judged, curves[judged]),
        (0.0, 1.0),
        (0, 12),
        xycoords="axes fraction",
        textcoords="offset points",
        size=look.SMALL_SIZE,
        color=look.MUTED,
    )
    room = 0.5 if count == 1 else 0.03 * (count - 1)
    axes.set(xlim=(1 - room, count + room), xlabel="epoch")
    axes.margins(y=0.4 if count == 1 else 0.06)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(_plain_numbers() if measure == "loss" else _Percents(1.0))
    axes.grid(axis="y")
    axes.tick_params(length=0)
    return labels


def _draw_curve(axes: Axes, name: str, values: Array) -> Annotation:
    """Draw one curve and label its end."""
    if name.startswith("val_"):
        label, color, ink, width, marker = "validation", look.BLUE, look.BLUE, 2.2, "s"
    else:
        label, color, ink, width, marker = (
            "training",
            look.ORANGE,
            "#8f6300",
            1.6,
            "o",
        )  # text needs a darker ink
    # With few epochs, mark each one; with many, the line is enough.
    few = len(values) <= 20
    epochs = np.arange(1, len(values) + 1)
    axes.plot(
        epochs, values, color=color, linewidth=width, marker=marker if few else "", markersize=4.5, label=name
    )
    last = int(np.flatnonzero(np.isfinite(values))[-1])
    end = (float(epochs[last]), float(values[last]))
    return axes.annotate(
        label, end, (LABEL_GAP, 0), textcoords="offset points", va="center", color=ink, bbox=look.PATCH
    )


def _mark_best(axes: Axes, name: str, values: Array) -> str:
    """Circle the best epoch of a curve, and return a text that explains the circle."""
    is_loss = name.endswith("loss")
    best = int(np.nanargmin(values) if is_loss else np.nanargmax(values))
    axes.plot(
        best + 1, values[best], "o", markersize=10, fillstyle="none", color=look.INK, markeredgewidth=1.3
    )
    value = f"{values[best]:.4g}" if is_loss else f"{values[best]:.1%}"
    words = name.replace("val_", "validation ") if name.startswith("val_") else f"training {name}"
    return f"○ {'lowest' if is_loss else 'highest'} {words}: {value}, epoch {best + 1}"


class _Percents(PercentFormatter):
    """Shares as percentages; all ticks get as many decimals as the most precise one needs."""

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        percents = 100 * np.asarray(values)
        decimals = next(
            (n for n in range(6) if np.allclose(percents, percents.round(n), rtol=0, atol=1e-9)), 6
        )
        return [f"{percent:.{decimals}f}%" for percent in percents]


def _plain_numbers() -> ScalarFormatter:
    """Return a formatter without a common factor, which would appear above the axis, where the title is."""
    formatter = ScalarFormatter(useOffset=False)
    formatter.set_scientific(False)
    return formatter


def _spread(labels: Sequence[Annotation]) -> None:
    """Move the two labels of a panel apart if their curves end so close that they would overlap."""
    if len(labels) < 2:
        return
    ends = [label.axes.transData.transform(label.xy)[1] for label in labels if label.axes is not None]
    lower, upper = (labels[index] for index in np.argsort(ends, kind="stable"))
    points = abs(ends[1] - ends[0]) * 72 / look.DPI
    if (overlap := 13.0 - points) > 0:
        lower.set_position((LABEL_GAP, -overlap / 2))
        upper.set_position((LABEL_GAP, overlap / 2))


def _duration(seconds: float) -> str:
    """Format a duration: 4.2 s, 58 s, 3 min 20 s."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
