"""Small drawings as inline SVG: histograms, and matrices with named sides. The page's style sheet sets the colours."""

import html
import math

from tinynet.study.tracing.equations import Equation, Matrix
from tinynet.study.tracing.statistics import Statistics

HISTOGRAM_WIDTH, HISTOGRAM_HEIGHT = 132, 30
_TEXT = 12  # pixels


def histogram(stats: Statistics, name: str) -> str:
    """Bars of equal width. Their height is the square root of the count, so that rare values are visible."""
    if stats.size == stats.non_finite:
        return "<span>no finite elements</span>"
    top = math.sqrt(max(stats.counts)) or 1
    width = HISTOGRAM_WIDTH / len(stats.counts)
    bars = []
    for i, count in enumerate(stats.counts):
        if count:
            height = max(1.0, (HISTOGRAM_HEIGHT - 2) * math.sqrt(count) / top)
            bars.append(f"M{i * width:.1f} {HISTOGRAM_HEIGHT}v{-height:.1f}h{width * 0.88:.2f}v{height:.1f}z")
    low, high = stats.edges
    zero = ""
    if low < 0 < high:
        x = HISTOGRAM_WIDTH * -low / (high - low)
        zero = f'<path class="zero" d="M{x:.1f} 0V{HISTOGRAM_HEIGHT}"/>'
    label = f"histogram of {name}, from {stats.min:.3g} to {stats.max:.3g}"
    return (
        f'<svg class="histogram" viewBox="0 0 {HISTOGRAM_WIDTH} {HISTOGRAM_HEIGHT}" width="{HISTOGRAM_WIDTH}" '
        f'height="{HISTOGRAM_HEIGHT}" role="img" aria-label="{html.escape(label)}">'
        f'<path class="bars" d="{"".join(bars)}"/>{zero}</svg>'
    )


def equation(shapes: Equation) -> str:
    """Matrices as rectangles, each side in the colour of its axis. The axis that is summed over is drawn thick."""
    summed = shapes.left.columns.name
    parts = [
        matrix(shapes.result, summed),
        '<span class="sign">=</span>',
        matrix(shapes.left, summed),
        '<span class="sign">·</span>',
        matrix(shapes.right, summed),
    ]
    if shapes.added:
        parts.append(f'<span class="sign">{html.escape(shapes.added)}</span>')
    return (
        f'<div class="equation" role="img" aria-label="{html.escape(_spoken(shapes))}">{"".join(parts)}</div>'
    )


def matrix(shown: Matrix, summed: str) -> str:
    """A rectangle whose sides grow with the logarithm of its axes' lengths."""
    width, height = max(_side(shown.columns.size), 10 * len(shown.name) + 8), _side(shown.rows.size)
    top_label = f"{shown.columns.name} {shown.columns.size:,}"
    left_label = f"{shown.rows.name} {shown.rows.size:,}"
    margin = _TEXT + 6
    room = max(width, 6.4 * len(top_label))  # labels may be longer than their side
    tall = max(height, 6.4 * len(left_label))
    x, y = margin, margin
    across, down = margin + room + 2, margin + tall + 2
    name = html.escape(shown.name)
    sign = '<tspan dy="-0.45em" font-size="75%">T</tspan>' if shown.transposed else ""
    turned = f"translate({_TEXT} {y + height / 2 if height >= 6.4 * len(left_label) else y + tall / 2:.0f}) rotate(-90)"
    top_x = x + (width if width >= 6.4 * len(top_label) else room) / 2
    return (
        f'<svg class="matrix" viewBox="0 0 {across:.0f} {down:.0f}" width="{across:.0f}" height="{down:.0f}" '
        f'aria-hidden="true">'
        f'<rect class="body{" turned" if shown.transposed else ""}" x="{x}" y="{y}" width="{width}" '
        f'height="{height}"/>'
        f"{_edge(shown.columns.name, summed, f'M{x} {y}h{width}')}"
        f"{_edge(shown.rows.name, summed, f'M{x} {y}v{height}')}"
        f'<text class="{_colour(shown.columns.name)}" x="{top_x:.0f}" y="{_TEXT}" text-anchor="middle">'
        f"{html.escape(top_label)}</text>"
        f'<text class="{_colour(shown.rows.name)}" transform="{turned}" text-anchor="middle">'
        f"{html.escape(left_label)}</text>"
        f'<text class="name" x="{x + width / 2:.0f}" y="{y + height / 2 + 5:.0f}" text-anchor="middle">'
        f"{name}{sign}</text>"
        "</svg>"
    )


def _side(size: int) -> int:
    return 20 + round(10 * math.log2(max(size, 1)))


def _edge(axis: str, summed: str, path: str) -> str:
    return f'<path class="{_colour(axis)}{" summed" if axis == summed else ""}" d="{path}"/>'


def _colour(axis: str) -> str:
    """The CSS class of an axis: examples, inputs or outputs."""
    if axis in ("in", "kh · kw · c_in"):
        return "axis-in"
    return "axis-out" if axis in ("out", "c_out") else "axis-n"


def _spoken(shapes: Equation) -> str:
    def say(shown: Matrix) -> str:
        side = " transposed" if shown.transposed else ""
        rows, columns = shown.rows, shown.columns
        return f"{shown.name}{side}, {rows.size} ({rows.name}) by {columns.size} ({columns.name})"

    return f"{say(shapes.result)}, equals {say(shapes.left)}, times {say(shapes.right)}{shapes.added}"
