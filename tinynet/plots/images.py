"""Plots of images: galleries, and one image next to its class probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tinynet.plots import style as look
from tinynet.support.types import Array

SIDE, GAP, LINE_HEIGHT = 1.3, 0.22, 0.165  # inches: a gallery image, the gap between two, a caption line
WIDEST_PAGE = 15.5
GREY = "#a9b1ba"


class Line(NamedTuple):
    """A line of text under an image; long text is shortened, but its ending is kept."""

    text: str
    ending: str = ""
    color: str = look.INK
    weight: str = "normal"


class Tile(NamedTuple):
    """The caption and the frame of a gallery image."""

    caption: list[Line]
    frame: str = look.RULE
    frame_width: float = 0.8


def prediction_tile(predicted: str, actual: str, confidence: float) -> Tile:
    """Return the tile of a prediction: a mark, the predicted class, its probability, the actual class."""
    ending, second = f" {look.percent(confidence, 0)}", Line(f"actual {actual}", "", look.MUTED)
    if predicted == actual:
        return Tile([Line(f"✓ {predicted}", ending, look.BLUE), second])
    first = Line(f"✗ {predicted}", ending, look.VERMILION, "bold")
    return Tile([first, second], look.VERMILION, 2.4)


def gallery(title: str, images: Array, tiles: Sequence[Tile]) -> Figure:
    """Draw images in rows, with captions below them.

    Args:
        title: the title of the picture.
        images: (n, height, width).
        tiles: one per image, all with the same number of caption lines.
    Returns:
        The figure.
    """
    figure = look.new_figure()
    lines = {line for tile in tiles for line in tile.caption}
    widest = max(
        look.text_width(figure, line.text + line.ending, look.SMALL_SIZE, line.weight) for line in lines
    )
    width = min(max(SIDE, widest), 1.5 * SIDE)
    height = SIDE + 0.07 + LINE_HEIGHT * len(tiles[0].caption)
    columns = _columns(len(images), int((WIDEST_PAGE + GAP) / (width + GAP)))
    rows = math.ceil(len(images) / columns)
    content = max(columns * (width + GAP) - GAP, look.text_width(figure, title, look.TITLE_SIZE, "bold"))
    top = look.MARGIN + look.TITLE_HEIGHT
    page = look.inch_axes(figure, content + 2 * look.MARGIN, top + rows * (height + GAP) - GAP + look.MARGIN)
    look.write_title(page, title)
    limits = _brightness(images)
    for index, (image, tile) in enumerate(zip(images, tiles, strict=True)):
        x = look.MARGIN + index % columns * (width + GAP)
        y = top + index // columns * (height + GAP)
        _show_image(page, image, x, y, SIDE, limits, tile)
        for number, line in enumerate(tile.caption):
            baseline = y + SIDE + 0.07 + LINE_HEIGHT * (number + 0.75)
            _write_line(page, line, x, baseline, width)
    return figure


def augmented_rows(originals: Array, changed: Array) -> Figure:
    """Draw a row for each image: the original and, set apart from it, its augmented versions.

    Args:
        originals: (n, height, width).
        changed: (n * versions, height, width), the versions of the first image first.
    Returns:
        The figure.
    """
    figure = look.new_figure()
    title, pitch, apart = "Augmented images", SIDE + 0.09, 0.25
    count, versions = len(originals), len(changed) // len(originals)
    width = max(
        pitch * (1 + versions) - 0.09 + apart, look.text_width(figure, title, look.TITLE_SIZE, "bold")
    )
    top = look.MARGIN + look.TITLE_HEIGHT + 0.2
    page = look.inch_axes(figure, width + 2 * look.MARGIN, top + count * pitch - 0.09 + look.MARGIN)
    look.write_title(page, title)
    second = look.MARGIN + pitch + apart
    for x, heading in ((look.MARGIN, "original"), (second, "augmented versions")):
        page.text(x, top - 0.1, heading, size=look.SMALL_SIZE, color=look.MUTED)
    limits = _brightness(np.concatenate([originals, changed]))
    for row, original in enumerate(originals):
        y = top + row * pitch
        _show_image(page, original, look.MARGIN, y, SIDE, limits, Tile([], look.MUTED, 1.4))
        for column, version in enumerate(changed[row * versions : (row + 1) * versions]):
            _show_image(page, version, second + column * pitch, y, SIDE, limits, Tile([]))
    return figure


def _columns(count: int, most: int) -> int:
    """Return a number of columns that arranges `count` tiles in a wide block with few gaps."""
    fewest, most = min(5, most), min(10, most)
    if count <= fewest:
        return count
    ideal = min(max(round(1.3 * math.sqrt(count)), fewest), most)
    choice = range(max(ideal - 2, fewest), min(ideal + 2, most) + 1)
    return min(choice, key=lambda columns: (-count % columns, abs(columns - ideal)))


def _write_line(page: Axes, line: Line, x: float, y: float, width: float) -> None:
    size, weight = look.SMALL_SIZE, line.weight
    figure = look.figure_of(page)
    room = width - look.text_width(figure, line.ending, size, weight) if line.ending else width
    text = look.shorten(figure, line.text, room, size, weight) + line.ending
    page.text(x, y, text, size=size, color=line.color, weight=weight)


def _show_image(
    page: Axes, image: Array, x: float, y: float, side: float, limits: tuple[float, float], tile: Tile
) -> None:
    """Draw an image in a square of the page, dark on light, keeping its proportions."""
    height, width = (side * length / max(image.shape) for length in image.shape)
    left, top = x + (side - width) / 2, y + (side - height) / 2
    page.imshow(
        image,
        extent=(left, left + width, top + height, top),
        aspect="auto",
        cmap="gray_r",
        vmin=limits[0],
        vmax=limits[1],
    )
    page.add_patch(
        Rectangle((x, y), side, side, fill=False, edgecolor=tile.frame, linewidth=tile.frame_width, zorder=3)
    )


def _brightness(images: Array) -> tuple[float, float]:
    """Return the values shown as white and black, the same for all images of a picture."""
    low, high = float(images.min()), float(images.max())
    if images.dtype == np.uint8 or (low >= 0 and 1 < high <= 255):
        return 0.0, 255.0
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high if high > low else low + 1.0


def probability_bars(image: Array, chances: Array, names: Sequence[str], actual: int | None) -> Figure:
    """Draw an image and, next to it, a line for each class: its name and its probability, as a number and as a bar.

    Args:
        image: (height, width).
        chances: (k,) probabilities.
        names: the names of the k classes.
        actual: the actual class, if known.
    Returns:
        The figure; its second axes hold the bars.
    """
    classes, guess = len(chances), int(chances.argmax())
    figure = look.new_figure()
    names = [look.shorten(figure, name, 2.2, weight="bold") for name in names]
    numbers = [look.percent(chance) for chance in chances]

    # The lines fill the height of the image; if they are few, they are centred on it.
    pitch = min(max(2.0 / classes, 0.27), 0.4)
    side = min(max(pitch * classes, 2.0), 2.7)
    top = look.MARGIN + look.TITLE_HEIGHT
    first = top + max(side - pitch * classes, 0.0) / 2
    names_end = look.MARGIN + side + 0.3 + look.widest(figure, names, weight="bold")
    numbers_end = names_end + 0.12 + look.widest(figure, [*numbers, "10.0%"], weight="bold")
    left, length = numbers_end + 0.12, 2.6
    words = {} if actual in (None, guess) else {guess: "predicted", actual: "actual"}
    ends = [length * chances[index] + look.text_width(figure, word) for index, word in words.items()]
    width = left + max([length + 0.2, *ends]) + look.MARGIN
    height = max(top + side, first + pitch * classes + 0.18) + look.MARGIN

    page = look.inch_axes(figure, width, height)
    title = look.shorten(
        figure, _verdict(names, guess, actual), width - 2 * look.MARGIN, look.TITLE_SIZE, "bold"
    )
    look.write_title(page, title)
    _show_image(page, image, look.MARGIN, top, side, _brightness(image), Tile([]))
    bars = look.inset_axes(page, left, first, length, pitch * classes)
    _draw_bars(bars, chances, guess, words)
    for index, (name, number) in enumerate(zip(names, numbers, strict=True)):
        y = first + pitch * (index + 0.5)
        weight = "bold" if index == guess else "normal"
        page.text(names_end, y, name, ha="right", va="center_baseline", weight=weight)
        page.text(numbers_end, y, number, ha="right", va="center_baseline", weight=weight)
    return figure


def _verdict(names: Sequence[str], guess: int, actual: int | None) -> str:
    if actual is None:
        return f"Predicted {names[guess]}"
    return f"{'✓' if actual == guess else '✗'} Predicted {names[guess]}, actual {names[actual]}"


def _draw_bars(axes: Axes, chances: Array, guess: int, words: Mapping[int, str]) -> None:
    """Draw a bar for each class, and the words at the ends of their bars; there are words if the guess is wrong."""
    classes = len(chances)
    color = look.VERMILION if words else look.BLUE
    colors = [color if index == guess else GREY for index in range(classes)]
    axes.barh(range(classes), chances, height=0.64, color=colors)
    axes.set(xlim=(0.0, 1.0), ylim=(classes - 0.5, -0.5), yticks=[])
    axes.set_xticks([0.0, 0.5, 1.0], ["0", "50%", "100%"])
    axes.tick_params(length=0, labelsize=look.SMALL_SIZE)
    axes.grid(axis="x")
    axes.spines["bottom"].set_visible(False)
    for index, word in words.items():
        axes.annotate(
            word,
            (chances[index], index),
            (6, 0),
            textcoords="offset points",
            va="center_baseline",
            size=look.SMALL_SIZE,
            color=look.MUTED,
            bbox=look.PATCH,
        )
