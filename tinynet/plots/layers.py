"""The picture of a model: its layers from top to bottom, each with its shape and parameters.

A block stands for its layer's output. Feature vectors are bars, wider for more features. Images are stacks of
sheets: larger sheets for more pixels, more sheets for more channels. All sizes are on log scales. A layer that
works on its input in place, such as ReLU after Dense, is a slim bar joined to the block it works on. A layer made
of layers is a frame around them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Patch, Rectangle

from tinynet.plots import style as look
from tinynet.support.types import Shape

if TYPE_CHECKING:
    from tinynet.model.summary import LayerRow

# Fill and edge of a block by the kind of layer; the names next to the blocks say the same.
WEIGHTS = ("#bcdcf0", look.BLUE)
ACTIVATION = ("#fbe3b3", "#a87000")
NORMALISATION = ("#bfe6d8", "#007a59")
DROPOUT = ("#f0d9e6", "#a8517f")
OTHER = ("#e9ecef", look.MUTED)
COLORS = {
    "BatchNorm": NORMALISATION,
    "Dropout": DROPOUT,
    **dict.fromkeys(("ReLU", "LeakyReLU", "Sigmoid", "Tanh", "Softmax", "LogSoftmax"), ACTIVATION),
}

# All lengths are inches.
BAR, SLIM, LINE = (
    0.34,
    0.22,
    0.25,
)  # heights of a bar, of a bar joined to another, and of a frame's first line
GAP, JOINT, CLOSING = 0.2, 0.03, 0.34  # between blocks, between joined blocks, and at the end of a frame
WIDEST, NARROWEST = 2.4, 0.3  # the bar of the largest output, the bar of a single number
LARGEST_SHEET, SMALLEST_SHEET, SHEET_RIGHT, SHEET_UP = 0.5, 0.14, 0.07, 0.022
FRAME = 0.3  # between a frame and its contents
INDENT = 0.14  # for the names of layers inside a layer
LONGEST_KIND, LONGEST_DETAIL = 1.8, 3.2


class _Row(NamedTuple):
    """A line of the picture: a layer, or the input."""

    name: str
    kind: str
    detail: str
    shape: Shape
    params: int
    multiply_adds: int
    depth: int = 0  # how many layers it is nested in
    is_frame: bool = False
    is_joined: bool = False
    width: float = 0.0  # of the block
    height: float = BAR
    top: float = 0.0
    end: float = 0.0  # for a frame, the bottom of its contents

    @property
    def middle(self) -> float:
        return self.top + self.height / 2


class _Columns(NamedTuple):
    """Positions of the table's columns: left edges, then the right edges of shape and numbers."""

    name: float
    kind: float
    detail: float
    shape: float
    params: float
    multiply_adds: float


def architecture(layers: Sequence[LayerRow], input_shape: Shape) -> Figure:
    """Draw the layers of a model.

    Args:
        layers: at least one row, as returned by `describe`.
        input_shape: the shape of one example.
    Returns:
        The figure.
    """
    rows = _place(_size(_rows(layers, input_shape)), look.MARGIN + look.TITLE_HEIGHT + 0.32)
    bottom = rows[-1].top + rows[-1].height + CLOSING * rows[-1].depth
    total = _Row(
        "",
        "Total",
        "",
        (),
        sum(row.params for row in rows),
        sum(row.multiply_adds for row in rows),
        top=bottom + 0.14,
    )
    count = sum(row.depth == 0 for row in rows[1:])
    title = f"Model: {count} layer{'s' * (count > 1)}, {total.params:,} parameter{'s' * (total.params != 1)}"

    figure = look.new_figure()
    diagram = max(row.width for row in rows) + 2 * FRAME * max(row.depth for row in rows)
    columns = _columns(figure, [*rows, total], look.MARGIN + diagram + 0.3)
    page = look.inch_axes(figure, columns.multiply_adds + look.MARGIN, total.top + BAR + look.MARGIN)
    look.write_title(page, title)
    _write_table(page, rows, total, columns)
    _draw_blocks(page, rows, look.MARGIN + diagram / 2)
    for row in rows:
        if row.is_frame:
            inset = FRAME * row.depth
            _draw_frame(page, row, look.MARGIN + inset, diagram - 2 * inset)
    return figure


# The rows: their contents, sizes and positions.


def _rows(layers: Sequence[LayerRow], input_shape: Shape) -> list[_Row]:
    """Return the input and the layers as rows, nested and joined."""
    rows = [_Row("", "Input", "", tuple(input_shape), 0, 0)]
    for index, layer in enumerate(layers):
        parent = layer.name.rpartition(".")[0]
        follower = layers[index + 1].name if index + 1 < len(layers) else ""
        shape, before = tuple(layer.output_shape), rows[-1]
        in_place = shape == before.shape and (layer.params == 0 or layer.kind == "BatchNorm")
        is_frame = follower.startswith(layer.name + ".")
        siblings = before.name.rpartition(".")[0] == parent and not before.is_frame
        rows.append(
            _Row(
                layer.name,
                layer.kind,
                layer.detail,
                shape,
                layer.params,
                layer.multiply_adds,
                layer.name.count("."),
                is_frame,
                in_place and siblings and not is_frame,
            )
        )
    return rows


def _size(rows: Sequence[_Row]) -> list[_Row]:
    """Return the rows with the sizes of their blocks."""
    largest = max(math.prod(row.shape) for row in rows)
    side = max((length for row in rows if len(row.shape) > 1 for length in row.shape[:2]), default=1)
    sized: list[_Row] = []
    for row in rows:
        if row.is_frame:
            width, height = 0.0, LINE
        elif row.is_joined:
            width, height = sized[-1].width, SLIM
        elif len(row.shape) < 2:
            width, height = _log_scale(math.prod(row.shape), largest, NARROWEST, WIDEST), BAR
        else:
            sheet_height, sheet_width = (
                _log_scale(length, side, SMALLEST_SHEET, LARGEST_SHEET) for length in row.shape[:2]
            )
            behind = _sheets(row.shape) - 1
            width, height = sheet_width + SHEET_RIGHT * behind, sheet_height + SHEET_UP * behind
        sized.append(row._replace(width=width, height=height))
    return sized


def _place(rows: Sequence[_Row], top: float) -> list[_Row]:
    """Return the rows with their positions on the page, the first one at `top`."""
    placed: list[_Row] = []
    for row in rows:
        if placed:
            before = placed[-1]
            top = before.top + before.height + (JOINT if row.is_joined else GAP)
            top += CLOSING * max(before.depth - row.depth, 0)
        placed.append(row._replace(top=top))
    for index, frame in enumerate(placed):
        if frame.is_frame:
            inside = [row for row in placed if row.name.startswith(frame.name + ".")]
            levels = inside[-1].depth - frame.depth  # inner frames that end where this one does
            end = inside[-1].top + inside[-1].height + CLOSING * (levels - 1)
            placed[index] = frame._replace(end=end)
    return placed


# The table.


def _columns(figure: Figure, rows: Sequence[_Row], left: float) -> _Columns:
    """Return columns as wide as their contents."""
    name = left
    kind = name + look.widest(figure, [row.name for row in rows]) + 0.14
    kinds = [look.text_width(figure, row.kind, weight="bold") for row in rows]
    indents = [INDENT * row.depth for row in rows]
    detail = kind + max(min(a, LONGEST_KIND) + b for a, b in zip(kinds, indents, strict=True)) + 0.14
    shape = detail + min(look.widest(figure, [row.detail for row in rows]), LONGEST_DETAIL) + 0.3
    shape += look.widest(figure, ["output", *(_shape_text(row.shape) for row in rows)])
    params = shape + 0.3 + look.widest(figure, ["parameters", f"{rows[-1].params:,}"], weight="bold")
    multiply_adds = (
        params + 0.3 + look.widest(figure, ["multiply-adds", f"{rows[-1].multiply_adds:,}"], weight="bold")
    )
    return _Columns(name, kind, detail, shape, params, multiply_adds)


def _write_table(page: Axes, rows: Sequence[_Row], total: _Row, columns: _Columns) -> None:
    figure = look.figure_of(page)
    heading = look.MARGIN + look.TITLE_HEIGHT + 0.1
    page.text(columns.kind, heading, "layer", va="center_baseline", color=look.MUTED)
    for text in ("output", "parameters", "multiply-adds"):
        x = getattr(columns, {"output": "shape", "parameters": "params"}.get(text, "multiply_adds"))
        page.text(x, heading, text, ha="right", va="center_baseline", color=look.MUTED)
    for row in rows:
        kind = look.shorten(figure, row.kind, LONGEST_KIND, weight="bold")
        detail = look.shorten(figure, row.detail, LONGEST_DETAIL)
        page.text(columns.name, row.middle, row.name, va="center_baseline", color=look.MUTED)
        page.text(columns.kind + INDENT * row.depth, row.middle, kind, va="center_baseline", weight="bold")
        page.text(columns.detail, row.middle, detail, va="center_baseline", color=look.MUTED)
        page.text(columns.shape, row.middle, _shape_text(row.shape), ha="right", va="center_baseline")
        if row.name and (not row.is_frame or row.params or row.multiply_adds):
            _write_numbers(page, row, columns, "normal")
    page.plot([columns.name, columns.multiply_adds], [total.top - 0.04] * 2, color=look.RULE, linewidth=0.8)
    page.text(columns.kind, total.middle, "Total", va="center_baseline", weight="bold")
    _write_numbers(page, total, columns, "bold")


def _write_numbers(page: Axes, row: _Row, columns: _Columns, weight: str) -> None:
    for x, number in ((columns.params, row.params), (columns.multiply_adds, row.multiply_adds)):
        color = look.INK if number else look.MUTED
        page.text(x, row.middle, f"{number:,}", ha="right", va="center_baseline", weight=weight, color=color)


def _shape_text(shape: Shape) -> str:
    return " × ".join(map(str, shape))


# The diagram.


def _draw_blocks(page: Axes, rows: Sequence[_Row], middle: float) -> None:
    """Draw every block, and the arrows between those that are not joined."""
    bottom = None
    for row in rows:
        if row.is_frame:
            continue
        if bottom is not None and not row.is_joined:
            page.annotate(
                "",
                (middle, row.top - 0.01),
                (middle, bottom + 0.01),
                arrowprops={
                    "arrowstyle": "-|>,head_length=0.3,head_width=0.16",
                    "color": look.MUTED,
                    "linewidth": 1.0,
                    "shrinkA": 0,
                    "shrinkB": 0,
                },
            )
        if row.is_joined or len(row.shape) < 2:
            _draw_bar(page, row, middle)
        else:
            _draw_sheets(page, row, middle)
        bottom = row.top + row.height


def _draw_bar(page: Axes, row: _Row, middle: float) -> None:
    fill, edge = _color(row)
    corner = min(0.04, row.width / 4)
    # The rounding is added around the box, so the box is drawn smaller.
    page.add_patch(
        FancyBboxPatch(
            (middle - row.width / 2 + corner, row.top + corner),
            row.width - 2 * corner,
            row.height - 2 * corner,
            boxstyle=f"round,pad={corner},rounding_size={corner}",
            facecolor=fill,
            edgecolor=edge,
            linewidth=1.0,
            zorder=2,
        )
    )


def _draw_sheets(page: Axes, row: _Row, middle: float) -> None:
    """Draw the sheets from back (upper right) to front (lower left)."""
    fill, edge = _color(row)
    last = _sheets(row.shape) - 1
    width, height = row.width - SHEET_RIGHT * last, row.height - SHEET_UP * last
    left = middle - row.width / 2
    for behind in range(last, -1, -1):
        corner = (left + SHEET_RIGHT * behind, row.top + SHEET_UP * (last - behind))
        page.add_patch(
            Rectangle(corner, width, height, facecolor=fill, edgecolor=edge, linewidth=0.9, zorder=2)
        )


def _draw_frame(page: Axes, row: _Row, left: float, width: float) -> None:
    """Draw the frame around the layers in a layer and, for Residual, the shortcut around them."""
    top, bottom, middle = row.top - 0.02, row.end + CLOSING - 0.06, left + width / 2
    patches: list[Patch] = [
        FancyBboxPatch(
            (left + 0.05, top + 0.05),
            width - 0.1,
            bottom - top - 0.1,
            boxstyle="round,pad=0.05,rounding_size=0.05",
            facecolor="none",
            edgecolor=look.MUTED,
            linewidth=0.9,
            linestyle=(0, (4, 3)),
        )
    ]
    if row.kind == "Residual":
        split, join, around = row.middle, row.end + 0.14, left + 0.14
        page.plot(
            [middle, around, around, middle], [split, split, join, join], color=look.MUTED, linewidth=1.0
        )
        page.plot([middle, middle], [row.end - 0.2, join], color=look.MUTED, linewidth=1.0, zorder=1)
        patches.append(Circle((middle, join), 0.075, facecolor=look.PAPER, edgecolor=look.MUTED, zorder=4))
        page.text(middle, join, "+", ha="center", va="center_baseline", size=look.SMALL_SIZE, zorder=5)
    for patch in patches:
        page.add_patch(patch)


def _color(row: _Row) -> tuple[str, str]:
    return COLORS.get(row.kind, WEIGHTS if row.params else OTHER)


def _log_scale(number: int, largest: int, low: float, high: float) -> float:
    """Return `low` for 1, `high` for `largest`, and in between a value on the log scale."""
    return low + (high - low) * math.log(max(number, 1)) / math.log(max(largest, 2))


def _sheets(shape: Shape) -> int:
    """Return how many sheets stand for the channels: one, and one more for each doubling."""
    return 1 + round(math.log2(max(math.prod(shape[2:]), 1)))
