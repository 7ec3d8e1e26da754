"""Comparison plots: accuracies of several methods against a varied quantity, with the range over repeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
)

from tinynet.plots import style as look

COLORS = (look.BLUE, look.VERMILION, look.GREEN, look.PURPLE)
MARKERS = ("o", "s", "^", "D")
PANEL_WIDTH, ONLY_WIDTH, HEIGHT = 4.6, 6.6, 4.6  # inches; widths of one of several panels and of a single one


class Curve(NamedTuple):
    """One method: the accuracies of its repeats at each x, drawn as their mean and range."""

    label: str
    x: Sequence[float]
    accuracies: Sequence[Sequence[float]]
    joined: bool = True  # whether a line connects the points


class Panel(NamedTuple):
    """Curves over one x axis. ``ticks``: the x values to label; ``reference``: a point to mark: label, x, accuracy."""

    x_label: str
    curves: Sequence[Curve]
    log: bool = False
    ticks: Sequence[float] | None = None
    reference: tuple[str, float, float] | None = None


def accuracy_panels(title: str, note: str, panels: Sequence[Panel], y_label: str = "test accuracy") -> Figure:
    """Draw panels side by side with a shared accuracy axis, and one legend below them.

    Args: note: a line below the title that explains the points and the ranges.
    Returns: the figure, with one axes per panel.
    """
    width = PANEL_WIDTH * len(panels) if len(panels) > 1 else ONLY_WIDTH
    engine = ConstrainedLayoutEngine(w_pad=0.16, h_pad=0.12, rect=(0, 0, 1, 1 - 0.62 / HEIGHT))
    figure = look.new_figure(width, HEIGHT, engine)
    left, top = look.MARGIN / width, 1 - look.MARGIN / HEIGHT
    figure.text(left, top, title, size=look.TITLE_SIZE, weight="bold", va="top")
    figure.text(left, top - 0.28 / HEIGHT, note, color=look.MUTED, va="top")
    all_axes: list[Axes] = list(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0])
    for axes, panel in zip(all_axes, panels, strict=True):
        _draw_panel(axes, panel)
    all_axes[0].set_ylabel(y_label)
    handles, labels = all_axes[0].get_legend_handles_labels()
    columns = len(labels) if len(panels) > 1 else 2
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, columnspacing=3.0
    )
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> None:
    if panel.reference is not None:
        label, x, accuracy = panel.reference
        axes.axhline(accuracy, color=look.RULE, linewidth=1.0, zorder=1)
        axes.plot(x, accuracy, "*", color=look.INK, markersize=11, linestyle="none", label=label, zorder=4)
    for curve, color, marker in zip(panel.curves, COLORS, MARKERS, strict=False):
        _draw_curve(axes, curve, color, marker)
    axes.set_xlabel(panel.x_label)
    if panel.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    if panel.ticks is not None:
        axes.xaxis.set_major_locator(FixedLocator(list(panel.ticks)))
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(_percents))
    axes.grid(axis="y")
    axes.tick_params(length=0)


def _draw_curve(axes: Axes, curve: Curve, color: str, marker: str) -> None:
    means = [sum(values) / len(values) for values in curve.accuracies]
    lowest, highest = ([pick(values) for values in curve.accuracies] for pick in (min, max))
    settings: dict[str, Any] = {"color": color, "zorder": 3}
    if curve.joined:
        axes.fill_between(curve.x, lowest, highest, color=color, alpha=0.15, linewidth=0, zorder=2)
    else:
        axes.vlines(curve.x, lowest, highest, color=color, linewidth=1.2, alpha=0.5, zorder=2)
    line = "-" if curve.joined else "none"
    axes.plot(curve.x, means, linestyle=line, marker=marker, markersize=5, label=curve.label, **settings)


def _percents(value: float, _position: object) -> str:
    return f"{100 * value:.6g}%"


def _thousands(value: float, _position: object) -> str:
    return f"{value:,.10g}"
