"""The plots of a report: bars with ranges for each case, and curves over width and batch size."""

import statistics
from pathlib import Path
from typing import Any

import summary
from contenders import CONTENDERS, LIMIT, OWN, REFERENCE
from matplotlib.ticker import LogLocator, NullLocator
from summary import Results, Spread

from tinynet.plots import style

# A colour for each library, shared by its variants; only tinynet's is strong.
COLOURS = {
    REFERENCE: style.VERMILION,
    "keras-tensorflow": style.ORANGE,
    "keras-jax": style.GREEN,
    "keras-torch": style.PURPLE,
    "torch": style.BLUE,
    "sklearn": style.SKY,
    LIMIT: style.MUTED,
}
BAR = 0.27  # height of a bar in inches
LONGEST = 5.0  # longer bars are cut: how many times as long as the median bar
WIDTH = 9.5


def draw(results: Results, folder: Path) -> list[str]:
    """Write the plots for which there are results, and return their file names."""
    written = []
    if any(_bars(results, case) for case in results["time"]):
        draw_epochs(results, folder / "epochs.png")
        written.append("epochs.png")
    if any(_curves(results, family) for family in ("width", "batch")):
        draw_scaling(results, folder / "scaling.png")
        written.append("scaling.png")
    return written


def _bars(results: Results, case: str) -> dict[str, Spread]:
    """Return seconds per epoch by contender, fastest first."""
    found = {name: summary.epoch_seconds(results, case, name) for name in results["time"][case]}
    bars = {name: seconds for name, seconds in found.items() if seconds is not None}
    return dict(sorted(bars.items(), key=lambda item: item[1].median))


def draw_epochs(results: Results, path: Path) -> None:
    """Draw a panel per case and a bar per contender, as long as the median, with a line over the range.

    Without a cut, one very slow contender would leave no length for the others.
    """
    bars = {case: found for case in results["time"] if (found := _bars(results, case))}
    heights = [len(found) * BAR + 0.2 for found in bars.values()]
    with style.house_style(path):
        figure = style.new_figure(WIDTH, sum(heights) + 0.75 * len(bars) + 0.5, layout="constrained")
        panels = figure.subplots(len(bars), 1, squeeze=False, height_ratios=heights)[:, 0]
        for panel, (case, found) in zip(panels, bars.items(), strict=True):
            _draw_bars(panel, case, found)
        panels[-1].set_xlabel("seconds per epoch: median, and the range of all epochs but the first")
        style.finish(figure, path)


def _draw_bars(panel: Any, case: str, bars: dict[str, Spread]) -> None:
    middle = statistics.median(seconds.median for seconds in bars.values())
    longest = min(max(seconds.high for seconds in bars.values()), LONGEST * middle)
    for place, (name, seconds) in enumerate(bars.items()):
        colour = COLOURS[CONTENDERS[name].library]
        strong = name in (*OWN, LIMIT)
        median, low, high = (min(value, longest) for value in seconds)
        panel.barh(place, median, height=0.72, color=colour, alpha=1 if strong else 0.6)
        panel.plot([low, high], [place, place], color=style.INK, linewidth=1.2)
        panel.text(
            high + 0.008 * longest,
            place,
            f" {seconds.median:.3g}" + (", cut" if seconds.high > longest else ""),
            va="center",
            size=style.SMALL_SIZE,
            weight="bold" if name in OWN else "normal",
        )
    panel.set_yticks(range(len(bars)), [CONTENDERS[name].title for name in bars])
    for label, name in zip(panel.get_yticklabels(), bars, strict=True):
        label.set_weight("bold" if name in OWN else "normal")
        label.set_color(style.INK)
    panel.set_ylim(len(bars) - 0.4, -0.6)
    panel.set_xlim(0, longest * 1.1)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x")
    panel.set_title(case)


def _curves(results: Results, family: str) -> dict[str, dict[int, float]]:
    names = results["scaling"].get(family, {})
    curves = {name: summary.scaling_seconds(results, family, name) for name in names}
    return {name: points for name, points in curves.items() if points}


def draw_scaling(results: Results, path: Path) -> None:
    """Draw two panels with logarithmic axes: seconds per 60,000 images against width and against batch size."""
    families = {"width": "hidden width, batches of 64", "batch": "batch size, 256 hidden units"}
    with style.house_style(path):
        figure = style.new_figure(WIDTH, 4.6, layout="constrained")
        panels = figure.subplots(1, 2)
        for panel, (family, label) in zip(panels, families.items(), strict=True):
            curves = _curves(results, family)
            for name, points in curves.items():
                _draw_curve(panel, name, points)
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            sizes = sorted({size for points in curves.values() for size in points})
            panel.set_xticks(sizes, [str(size) for size in sizes])
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_locator(NullLocator())
            panel.set(xlabel=label, ylabel="seconds per 60,000 images")
            panel.grid(which="major")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        style.finish(figure, path)


def _draw_curve(panel: Any, name: str, points: dict[int, float]) -> None:
    contender = CONTENDERS[name]
    is_variant = contender.name != contender.library
    panel.plot(
        list(points),
        list(points.values()),
        color=COLOURS[contender.library],
        linestyle="--" if is_variant else "-",
        linewidth=2.6 if name in OWN else 1.5,
        marker="o",
        markersize=5 if name in OWN else 3.5,
        zorder=3 if name in OWN else 2,
        label=contender.title,
    )
