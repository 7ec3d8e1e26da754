"""The V-shaped plot: the error of numeric gradients against the step size, with a panel for each tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tinynet.plots import style as look
from tinynet.support.types import Array

PANEL_WIDTH, PANEL_HEIGHT = 2.3, 1.7  # inches
GAP, TITLE_GAP = 0.25, 0.42  # inches between panels, horizontally and vertically
LEFT, TOP, BOTTOM = 0.95, 1.15, 1.5  # inches around the panels
LEGEND_WIDTH = 6.4  # inches
SMALLEST, LARGEST = 1e-13, 10.0  # limits of the errors shown

# The verdicts on errors: see `tinynet.study.gradients.report.band`.
BANDS = (
    ("fine: up to 1e-6", SMALLEST, 1e-6, look.GREEN),
    ("suspicious: up to 1e-3", 1e-6, 1e-3, look.ORANGE),
    ("wrong: above 1e-3", 1e-3, LARGEST, look.VERMILION),
)
BAND_ALPHA, RANGE_ALPHA = 0.12, 0.3


class Panel(NamedTuple):
    """One tensor.

    errors: (steps, elements); crossed: (steps,), whether most of the differences crossed a kink; rounding: the
    expected rounding error, times the step.
    """

    title: str
    errors: Array
    crossed: Array
    rounding: float


def error_by_step(title: str, note: str, steps: Sequence[float], panels: Sequence[Panel]) -> Figure:
    """Draw a panel for each tensor, all with the same axes, and one legend below them.

    Args: note: a line below the title; steps: powers of ten; panels: at least one.
    """
    columns = _columns(len(panels))
    rows = -(-len(panels) // columns)
    figure = look.new_figure()
    words = [look.text_width(figure, title, look.TITLE_SIZE, "bold"), look.text_width(figure, note)]
    panels_width = columns * (PANEL_WIDTH + GAP) - GAP
    panels_height = rows * (PANEL_HEIGHT + TITLE_GAP) - TITLE_GAP
    width = max(LEFT + panels_width, look.MARGIN + max(*words, LEGEND_WIDTH)) + look.MARGIN
    height = TOP + panels_height + BOTTOM
    page = look.inch_axes(figure, width, height)
    look.write_title(page, title)
    page.text(look.MARGIN, look.MARGIN + 0.3, note, color=look.MUTED, va="top")
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        left, top = LEFT + column * (PANEL_WIDTH + GAP), TOP + row * (PANEL_HEIGHT + TITLE_GAP)
        axes = look.inset_axes(page, left, top, PANEL_WIDTH, PANEL_HEIGHT)
        _draw_panel(axes, panel, np.asarray(steps))
        is_lowest, is_first = number + columns >= len(panels), column == 0
        axes.tick_params(labelbottom=is_lowest, labelleft=is_first)
        axes.set(xlabel="step size" if is_lowest else "", ylabel="relative error" if is_first else "")
    figure.legend(
        handles=_legend(),
        loc="lower left",
        bbox_to_anchor=(look.MARGIN / width, look.MARGIN / height),
        borderaxespad=0,
        borderpad=0,
        ncols=2,
        columnspacing=3.0,
        frameon=False,
    )
    return figure


def _columns(panels: int) -> int:
    """Return three or four, whichever leaves the lowest row fuller; four for many panels."""
    return min(panels, 3 if panels <= 12 and -panels % 3 < -panels % 4 else 4)


def _legend() -> list[Line2D | Patch]:
    points: dict[str, Any] = {"color": look.BLUE, "marker": "o", "markersize": 4}
    across = "median, where most differences cross a kink"
    return [
        Line2D([], [], label="median over the elements", **points),
        Line2D([], [], label=across, markerfacecolor=look.PAPER, **points),
        Patch(color=look.BLUE, alpha=RANGE_ALPHA, linewidth=0, label="smallest to largest"),
        Line2D([], [], color=look.INK, linestyle="--", linewidth=1.0, label="expected from rounding alone"),
        *(Patch(color=color, alpha=2 * BAND_ALPHA, linewidth=0, label=label) for label, _, _, color in BANDS),
    ]


def _draw_panel(axes: Axes, panel: Panel, steps: Array) -> None:
    for _, low, high, color in BANDS:
        axes.axhspan(low, high, color=color, alpha=BAND_ALPHA, linewidth=0, zorder=0)
    errors = np.clip(panel.errors, SMALLEST, LARGEST)
    lowest, medians, highest = errors.min(axis=1), np.median(errors, axis=1), errors.max(axis=1)
    axes.fill_between(steps, lowest, highest, color=look.BLUE, alpha=RANGE_ALPHA, linewidth=0, zorder=2)
    axes.plot(steps, panel.rounding / steps, "--", color=look.INK, linewidth=1.0, zorder=3)
    axes.plot(steps, medians, color=look.BLUE, linewidth=1.6, zorder=4)
    for crossed, face in ((False, look.BLUE), (True, look.PAPER)):
        there = panel.crossed == crossed
        points: dict[str, Any] = {"color": look.BLUE, "markerfacecolor": face, "markersize": 4.0}
        axes.plot(steps[there], medians[there], "o", zorder=5, **points)
    axes.set(xscale="log", yscale="log", xlim=(min(steps) / 2, max(steps) * 2), ylim=(SMALLEST, LARGEST))
    axes.set_title(panel.title, pad=4, size=look.TEXT_SIZE)
    axes.xaxis.set_major_locator(FixedLocator([step for step in steps if round(np.log10(step)) % 3 == 0]))
    axes.yaxis.set_major_locator(FixedLocator([10.0**power for power in range(-12, 1, 3)]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(_power))
    axes.tick_params(length=0)


def _power(value: float, _position: object) -> str:
    return "1" if value == 1 else f"1e{round(np.log10(value))}"
