"""The style shared by all pictures: colours and fonts, the blank page, and saving a page to a file.

pyplot is never imported: a `Figure` made directly is in no global state and needs no display.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import LayoutEngine

from tinynet.files.atomic import write_bytes

# The palette of Okabe and Ito (2008), distinguishable with every common kind of colour blindness.
BLUE, ORANGE, GREEN, SKY, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#CC79A7"
INK, MUTED, RULE, PAPER = "#1f2328", "#59606a", "#cfd4da", "#ffffff"

TEXT_SIZE, SMALL_SIZE, TITLE_SIZE = 9.5, 8.5, 12.0  # points
MARGIN = 0.25  # inches of empty space around every picture
TITLE_HEIGHT = 0.42  # inches at the top of a page for the title
DPI = 144

# The background of text that a grid line may cross.
PATCH = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8}

FORMATS = ("png", "svg", "pdf")

STYLE: dict[str, Any] = {
    "text.parse_math": False,  # a class called "$5 bag" is a name, not a formula
    "text.color": INK,
    "font.size": TEXT_SIZE,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": TEXT_SIZE + 1,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": "#e8ebee",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "image.interpolation": "nearest",  # no smoothing of pixels
    "svg.hashsalt": "tinynet",  # equal pictures give equal files
    "pdf.fonttype": 42,  # text in a PDF stays text
}

# rc_context changes the settings of the whole process and restores them: two threads in it at once would restore
# each other's. So only one picture is drawn at a time.
_LOCK = threading.RLock()


class Picture(Figure):
    """A figure that a notebook displays; plain figures are displayed only once pyplot is imported."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        with house_style():
            png = encode(self, "png")
        # The size in CSS pixels: sharp, and displayed no larger than in print.
        width, height = (round(inches * 96) for inches in self.get_size_inches())
        return png, {"width": width, "height": height}


@contextmanager
def house_style(path: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Draw in tinynet's style, whatever style the program uses; its settings are restored at the end.

    Args:
        path: where the picture will be saved, checked before any work is done.
    Raises:
        ValueError: if the path's suffix is not a supported format.
    """
    if path is not None:
        file_format(path)
    with _LOCK:
        # DejaVu Sans comes with matplotlib. The program's own fonts follow it, for characters that DejaVu lacks:
        # a program that sets a Japanese font gets Japanese class names.
        fonts = {
            "font.family": ["DejaVu Sans", *matplotlib.rcParams["font.family"]],
            "font.sans-serif": matplotlib.rcParams["font.sans-serif"],
        }
        with matplotlib.style.context(["default", STYLE, fonts]):
            yield


def new_figure(width: float = 1.0, height: float = 1.0, layout: LayoutEngine | None = None) -> Picture:
    """Return a blank page of this size in inches that can measure text."""
    figure = Picture(figsize=(width, height), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def inch_axes(figure: Figure, width: float, height: float) -> Axes:
    """Set the figure's size, and return axes that cover it, with inches as units and y pointing down."""
    figure.set_size_inches(width, height)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0.0, width), ylim=(height, 0.0))  # setting limits turns autoscaling off
    axes.set_axis_off()
    return axes


def inset_axes(page: Axes, x: float, y: float, width: float, height: float) -> Axes:
    """Add axes to a page made by `inch_axes`, at this position and size in inches, with y from the top."""
    figure = figure_of(page)
    page_width, page_height = figure.get_size_inches()
    bottom = page_height - y - height
    axes = figure.add_axes((x / page_width, bottom / page_height, width / page_width, height / page_height))
    axes.patch.set_visible(False)  # what the page shows around a plot may extend into it
    return axes


def figure_of(axes: Axes) -> Figure:
    """Return the figure that holds the axes."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    return figure


def write_title(axes: Axes, text: str) -> None:
    """Write the picture's title at the top left of a page made by `inch_axes`."""
    axes.text(MARGIN, MARGIN, text, size=TITLE_SIZE, weight="bold", va="top")


def text_width(figure: Figure, text: str, size: float = TEXT_SIZE, weight: str = "normal") -> float:
    """Return the width of a line of text on this figure, in inches."""
    artist = figure.text(0.0, 0.0, text, size=size, weight=weight)
    width = artist.get_window_extent().width / figure.dpi
    artist.remove()
    return float(width)


def shorten(figure: Figure, text: str, width: float, size: float = TEXT_SIZE, weight: str = "normal") -> str:
    """Return the text on one line, ending in an ellipsis if it would be wider than `width` inches."""
    text = " ".join(text.split())
    if text_width(figure, text, size, weight) <= width:
        return text
    low, high = 0, len(text)  # keeping `low` characters fits, keeping `high` does not
    while high - low > 1:
        middle = (low + high) // 2
        fits = text_width(figure, text[:middle].rstrip() + "…", size, weight) <= width
        low, high = (middle, high) if fits else (low, middle)
    return text[:low].rstrip() + "…"


def widest(figure: Figure, texts: Sequence[str], size: float = TEXT_SIZE, weight: str = "normal") -> float:
    """Return the width in inches of the widest text; 0.0 if there is none."""
    return max((text_width(figure, text, size, weight) for text in set(texts)), default=0.0)


def finish(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    """Fix the figure's layout, and save it if a path is given.

    Args:
        figure: the completed figure.
        path: the file to write, completely or not at all; its suffix chooses the format.
    Returns:
        The same figure.
    Raises:
        OSError: if the file cannot be written.
    """
    # Ticks are created, and the layout engine runs, when a figure is first drawn. Doing this here, in our style,
    # makes the figure look the same when the program draws it later in its own style.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    if path is not None:
        write_bytes(path, encode(figure, file_format(path)))
    return figure


def file_format(path: str | os.PathLike[str]) -> str:
    """Return the format named by a path's suffix: png, svg or pdf.

    Raises:
        ValueError: if it is none of them.
    """
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise ValueError(
            f"expected a path that ends in .png, .svg or .pdf, got {os.fspath(path)!r}; "
            "the suffix chooses the format"
        )
    return suffix


def encode(figure: Figure, format: str) -> bytes:
    """Return the figure as the bytes of a PNG, SVG or PDF file; equal figures give equal bytes."""
    dates: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format, dpi=DPI, metadata=dates.get(format))
    return buffer.getvalue()


def percent(share: float, decimals: int = 1) -> str:
    """Format a share as a percentage; a share that merely rounds to 100% or 0% gives >99.9% or <0.1%."""
    text, step = f"{share:.{decimals}%}", 10.0**-decimals
    if share < 1 and text == f"{1:.{decimals}%}":
        return f">{100 - step:.{decimals}f}%"
    if share > 0 and text == f"{0:.{decimals}%}":
        return f"<{step:.{decimals}f}%"
    return text
