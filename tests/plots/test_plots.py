"""Plots: what is drawn is read back from the figures, and the files from disk."""

import functools
import io
import pickle
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.text import Annotation, Text

from tinynet import plots
from tinynet.datasets.augment import Compose, RandomErasing, RandomFlip, RandomShift
from tinynet.model.summary import LayerRow
from tinynet.plots.style import percent
from tinynet.support import random

NAMES = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]
LONG = [
    "A long name of a class, $5 off $",
    "a_b^c",
    "Überkleid",
    *[f"Long-sleeved pullover {n}" for n in range(7)],
]
COUNTS = np.random.default_rng(1).integers(0, 60, (10, 10)) * np.random.default_rng(2).integers(
    0, 2, (10, 10)
)
COUNTS += np.diag(np.arange(850, 950, 10))


def images(count, dtype=np.uint8):
    values = np.random.default_rng(0).integers(0, 256, (count, 28, 28))
    return values.astype(np.uint8) if dtype == np.uint8 else (values / 255).astype(dtype)


def labels(count, classes=10):
    return np.arange(count) % classes


def flipped(x, generator):
    return x[:, :, ::-1]


def probabilities(count, classes=10):
    """Every third prediction is wrong."""
    rows = np.random.default_rng(3).random((count, classes))
    rows[np.arange(count), (labels(count, classes) + (np.arange(count) % 3 == 2)) % classes] += 9
    return (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)


def history(epochs, **without):
    steps = np.arange(1, epochs + 1)
    lists = {
        "loss": 0.25 + 0.5 * np.exp(-steps / 6),
        "accuracy": 0.92 - 0.2 * np.exp(-steps / 6),
        "val_loss": 0.31 + 0.4 * np.exp(-steps / 5) + 0.004 * steps,
        "val_accuracy": 0.89 - 0.15 * np.exp(-steps / 5) - 0.0005 * steps,
        "learning_rate": 0.01 * np.ones(epochs),
        "seconds": 0.5 * np.ones(epochs),
    }
    return {name: values.tolist() for name, values in lists.items() if without.get(name, True)}


def row(name, kind, shape, params=0, detail="", multiply_adds=None):
    return LayerRow(
        name, kind, detail, shape, params, params if multiply_adds is None else multiply_adds, params
    )


def model(rows, input_shape=(28, 28)):
    return SimpleNamespace(input_shape=input_shape, describe=lambda: rows)


def dense_model(depth):
    rows = [row("0", "Rescale", (28, 28), detail="scale=1/255"), row("1", "Flatten", (784,))]
    width = 784
    for _ in range(depth):
        units = max(width // 2, 10)
        rows.append(row(str(len(rows)), "Dense", (units,), width * units + units, f"units={units}"))
        rows.append(row(str(len(rows)), "ReLU", (units,)))
        width = units
    return model(rows)


def residual_model():
    shape = (14, 14, 32)
    rows = [
        row(
            "0",
            "Conv2D",
            (28, 28, 32),
            320,
            "filters=32, kernel_size=3, padding='same', and much more than fits",
        ),
        row("1", "ReLU", (28, 28, 32)),
        row("2", "MaxPool2D", shape),
        row("3", "Residual", shape),
        row("3.0", "BatchNorm", shape, 128),
        row("3.1", "Residual", shape),
        row("3.1.0", "Conv2D", shape, 9248),
        row("3.1.1", "ReLU", shape),
        row("4", "GlobalMaxPool2D", (32,)),
        row("5", "Dense", (10,), 330, "units=10"),
    ]
    return model(rows, (28, 28, 1))


PICTURES = {
    "samples": lambda **to: plots.plot_samples(images(40), labels(40), NAMES, **to),
    "one sample": lambda **to: plots.plot_samples(images(1, np.float32), labels(1), **to),
    "samples, long names": lambda **to: plots.plot_samples(images(13), labels(13), LONG, **to),
    "augmented": lambda **to: plots.plot_augmented(images(4), RandomShift(2), **to),
    "one augmented": lambda **to: plots.plot_augmented(images(1, np.float32), flipped, versions=1, **to),
    "history": lambda **to: plots.plot_history(history(30), **to),
    "history of one epoch": lambda **to: plots.plot_history(SimpleNamespace(history=history(1)), **to),
    "history of a loss": lambda **to: plots.plot_history({"loss": [0.5, 0.5]}, **to),
    "history of extremes": lambda **to: plots.plot_history(
        {"loss": [3e4, 1e-5], "val_loss": [3e4, 2e-5]}, **to
    ),
    "matrix": lambda **to: plots.plot_confusion_matrix(COUNTS, NAMES, **to),
    "matrix of three": lambda **to: plots.plot_confusion_matrix(COUNTS[:3, :3], ["cat", "dog", "bird"], **to),
    "matrix of large counts": lambda **to: plots.plot_confusion_matrix([[1234567, 0], [0, 0]], **to),
    "matrix, long names": lambda **to: plots.plot_confusion_matrix(COUNTS * 100, LONG, **to),
    "predictions": lambda **to: plots.plot_predictions(
        images(40), labels(40), probabilities(40), NAMES, **to
    ),
    "one prediction": lambda **to: plots.plot_predictions(images(1), labels(1), probabilities(1), **to),
    "predictions, long names": lambda **to: plots.plot_predictions(
        images(7), labels(7), probabilities(7), LONG, **to
    ),
    "probabilities": lambda **to: plots.plot_probabilities(images(1)[0], probabilities(1)[0], NAMES, **to),
    "probabilities, right": lambda **to: plots.plot_probabilities(
        images(1)[0], probabilities(1)[0], NAMES, label=0, **to
    ),
    "probabilities, wrong": lambda **to: plots.plot_probabilities(
        images(1)[0], probabilities(1)[0], LONG, label=3, **to
    ),
    "probabilities of two": lambda **to: plots.plot_probabilities(images(1)[0], [0.0, 1.0], label=0, **to),
    "model": lambda **to: plots.plot_model(dense_model(3), **to),
    "tiny model": lambda **to: plots.plot_model(model([row("0", "Dense", (1,), 5)], (4,)), **to),
    "deep model": lambda **to: plots.plot_model(dense_model(10), **to),
    "model of layers in layers": lambda **to: plots.plot_model(residual_model(), **to),
}
drawn = functools.cache(lambda name: PICTURES[name]())  # for tests that only look
every_picture = pytest.mark.parametrize("name", PICTURES)


def texts(figure):
    """Return the visible texts of a figure."""
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    undrawn = undrawn_tick_labels(figure)
    return [text for text in found if text not in undrawn]


def undrawn_tick_labels(figure):
    """Return the labels of ticks beyond the ends of an axis, which are not drawn."""
    labels = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            out = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
            labels |= {label for tick in out for label in (tick.label1, tick.label2)}
    return labels


def written(figure):
    return [text.get_text() for text in texts(figure)]


# Every picture.


@every_picture
def test_png_file(name, tmp_path):
    path = tmp_path / "picture.png"
    figure = PICTURES[name](path=path)
    pixels = imread(path)
    width, height = figure.get_size_inches()
    assert pixels.shape[:2] == pytest.approx((height * 144, width * 144), abs=1)
    assert pixels[..., :3].std() > 0.02
    border = np.concatenate(
        [pixels[:4].ravel(), pixels[-4:].ravel(), pixels[:, :4].ravel(), pixels[:, -4:].ravel()]
    )
    assert (border == 1).all(), "something touches the edge of the paper"


@pytest.mark.parametrize(
    "name", ["one prediction", "history", "matrix of three", "model of layers in layers"]
)
def test_svg_and_pdf_files(name, tmp_path):
    figure = PICTURES[name](path=str(tmp_path / "picture.SVG"))
    root = ElementTree.parse(tmp_path / "picture.SVG").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert float(root.get("width").removesuffix("pt")) == pytest.approx(figure.get_figwidth() * 72, rel=1e-3)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 5
    PICTURES[name](path=tmp_path / "picture.pdf")
    assert (tmp_path / "picture.pdf").read_bytes().startswith(b"%PDF")
    first = (tmp_path / "picture.SVG").read_bytes()
    PICTURES[name](path=tmp_path / "picture.SVG")
    assert (tmp_path / "picture.SVG").read_bytes() == first


@every_picture
def test_nothing_written_overlaps_or_is_cut(name):
    figure = drawn(name)
    paper = figure.bbox
    boxes = []
    for text in texts(figure):
        box = Text.get_window_extent(text)
        assert paper.x0 <= box.x0, text
        assert paper.y0 <= box.y0, text
        assert box.x1 <= paper.x1, text
        assert box.y1 <= paper.y1, text
        if text.get_rotation() in (0, 90):  # the boxes around slanted names overlap, the names do not
            boxes.append((text, box))
    for index, (one, box) in enumerate(boxes):
        for other, other_box in boxes[:index]:
            apart = (
                box.x0 >= other_box.x1
                or other_box.x0 >= box.x1
                or box.y0 >= other_box.y1
                or other_box.y0 >= box.y1
            )
            assert apart, f"{one.get_text()!r} runs into {other.get_text()!r}"


@pytest.mark.parametrize("name", ["one sample", "history", "matrix of three", "model"])
def test_shows_itself_in_a_notebook(name):
    figure = drawn(name)
    png, size = figure._repr_png_()
    width, height = figure.get_size_inches()
    assert imread(io.BytesIO(png)).shape[1] == pytest.approx(width * 144, abs=1)
    assert size == {"width": round(width * 96), "height": round(height * 96)}


def test_imports_matplotlib_when_first_used_and_pyplot_never():
    code = """
import sys
from tinynet import plots
steps = [set(sys.modules)]
figure = plots.plot_history({"loss": [1.0]})
steps.append(set(sys.modules))
figure._repr_png_()
steps.append(set(sys.modules))
print([[name in step for step in steps] for name in ("matplotlib", "matplotlib.figure", "matplotlib.pyplot")])
"""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout == "[[False, True, True], [False, True, True], [False, False, False]]\n"


def test_style_of_the_program_is_neither_used_nor_changed():
    plain = PICTURES["history"]()._repr_png_()
    settings = {"text.usetex": True, "axes.facecolor": "black", "ytick.color": "red", "figure.dpi": 30}
    with matplotlib.rc_context(settings):
        before = dict(matplotlib.rcParams)
        figure = PICTURES["history"]()
        assert dict(matplotlib.rcParams) == before
        assert figure._repr_png_() == plain
        pixels = io.BytesIO()
        with matplotlib.rc_context({"text.usetex": False}):
            figure.savefig(pixels, dpi=144)  # as a program does, outside of our style
        pixels.seek(0)
        np.testing.assert_array_equal(imread(pixels), imread(io.BytesIO(plain[0])))


def test_style_is_put_back_after_an_error(tmp_path):
    before = dict(matplotlib.rcParams)
    with pytest.raises(FileNotFoundError, match="missing"):
        plots.plot_history({"loss": [1.0]}, path=tmp_path / "missing" / "picture.png")
    assert dict(matplotlib.rcParams) == before


def test_fonts_of_the_program_serve_signs_that_ours_lacks():
    # U+E000 is in no DejaVu font, but in one that comes with matplotlib.
    with matplotlib.rc_context({"font.family": ["STIXNonUnicode"]}):
        plots.plot_samples(images(1), [0], ["\ue000"])
    with pytest.warns(UserWarning, match="missing from"):
        plots.plot_samples(images(1), [0], ["\ue000"])


def test_threads_draw_what_one_draws():
    names = ["samples, long names", "history", "matrix of three", "model"] * 2
    alone = {name: PICTURES[name]()._repr_png_() for name in set(names)}
    before = dict(matplotlib.rcParams)
    found = {}

    def draw(index):
        found[index] = PICTURES[names[index]]()._repr_png_()

    threads = [threading.Thread(target=draw, args=(index,)) for index in range(len(names))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[index] == alone[name] for index, name in enumerate(names)] == [True] * len(names)
    assert dict(matplotlib.rcParams) == before


def test_figures_can_be_pickled():
    figure = PICTURES["history"]()
    assert pickle.loads(pickle.dumps(figure))._repr_png_() == figure._repr_png_()


def test_input_is_left_as_it_was():
    pictures, chances = images(3, np.float32), probabilities(3)
    pictures.flags.writeable = chances.flags.writeable = False
    plots.plot_predictions(pictures, labels(3), chances)
    plots.plot_probabilities(pictures[0], chances[0])
    counts = COUNTS.copy()
    plots.plot_confusion_matrix(counts)
    np.testing.assert_array_equal(counts, COUNTS)


# What each picture shows.


@pytest.mark.parametrize("count", [1, 2, 5, 6, 13, 40, 100])
def test_samples_show_every_image_with_its_class(count):
    figure = plots.plot_samples(images(count), labels(count), NAMES)
    drawn = figure.axes[0].images
    assert len(drawn) == count
    for artist, image in zip(drawn, images(count), strict=True):
        np.testing.assert_array_equal(artist.get_array(), image)
    assert written(figure)[1:] == [NAMES[label] for label in labels(count)]
    lefts = sorted({round(artist.get_extent()[0], 6) for artist in drawn})
    tops = sorted({round(artist.get_extent()[3], 6) for artist in drawn})
    assert len(np.unique(np.diff(lefts).round(6))) <= 1  # evenly spaced
    assert len(np.unique(np.diff(tops).round(6))) <= 1
    assert len(lefts) >= len(tops)  # wider than high


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        (images(2), (0, 255)),
        (np.zeros((2, 28, 28), np.uint8), (0, 255)),
        (images(2, np.float32), (0, 1)),
        (images(2).astype(np.float64), (0, 255)),
        (images(2, np.float64) * 4 - 2, (-2, 2)),
        (np.full((2, 28, 28), -3.0), (-3, -2)),
        (images(2)[..., None], (0, 255)),
        (images(2) > 100, (0, 1)),
        (images(2)[:, ::-2], (0, 255)),
    ],
)
def test_images_of_any_range(values, limits):
    figure = plots.plot_samples(values, labels(2))
    for artist in figure.axes[0].images:
        assert artist.get_clim() == pytest.approx(limits, abs=0.05)


def test_image_keeps_its_proportions():
    figure = plots.plot_samples(np.zeros((1, 10, 20)), [0])
    left, right, bottom, top = figure.axes[0].images[0].get_extent()
    assert (right - left) / (bottom - top) == pytest.approx(2)


AUGMENT = Compose(RandomFlip(), RandomShift(2), RandomErasing(8))


@pytest.mark.parametrize(("count", "versions"), [(1, 1), (1, 9), (5, 3)])
@pytest.mark.parametrize("channels", [(), (1,)])
def test_augmented_images_are_beside_their_originals(count, versions, channels):
    x = images(count).reshape(count, 28, 28, *channels)
    figure = plots.plot_augmented(x, AUGMENT, np.random.default_rng(5), versions=versions)
    drawn = figure.axes[0].images
    assert len(drawn) == count * (1 + versions)
    repeated = np.repeat(images(count), versions, axis=0)
    changed = AUGMENT(repeated, np.random.default_rng(5)).reshape(count, versions, 28, 28)
    shown = np.array([artist.get_array() for artist in drawn]).reshape(count, 1 + versions, 28, 28)
    np.testing.assert_array_equal(shown[:, 0], images(count))
    np.testing.assert_array_equal(shown[:, 1:], changed)
    places = np.array([artist.get_extent() for artist in drawn]).reshape(count, 1 + versions, 4)
    assert (np.diff(places[:, :, 0], axis=1) > 0).all()  # to the right
    assert (np.diff(places[:, :, 3], axis=0) > 0).all()  # and downwards
    assert (np.ptp(places[:, :, 3], axis=1) == 0).all()
    assert written(figure) == ["Augmented images", "original", "augmented versions"]
    assert {artist.get_clim() for artist in drawn} == {(0, 255)}


def test_augmented_images_are_drawn_from_a_seed():
    def shown(*seed):
        artists = plots.plot_augmented(images(2), AUGMENT, *seed).axes[0].images
        return np.array([artist.get_array() for artist in artists])

    np.testing.assert_array_equal(shown(), shown(0))
    np.testing.assert_array_equal(shown(7), shown(random.generator(7, random.AUGMENT)))
    assert (shown(7) != shown(0)).any()
    assert (shown(None) != shown(None)).any()


def test_augmentation_that_writes_to_its_batch_changes_no_original():
    def darken(x, generator):
        x //= 2
        return x

    x = images(2)
    artists = plots.plot_augmented(x, darken, versions=1).axes[0].images
    np.testing.assert_array_equal(x, images(2))
    np.testing.assert_array_equal(artists[0].get_array(), x[0])
    np.testing.assert_array_equal(artists[1].get_array(), x[0] // 2)


def test_predictions_tell_right_from_wrong():
    count = 12
    chances = probabilities(count)
    figure = plots.plot_predictions(images(count), labels(count), chances, NAMES)
    lines = written(figure)
    right = chances.argmax(axis=1) == labels(count)
    assert lines[0] == f"Predictions: {right.sum()} of {count} correct"
    frames = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    bold = [text.get_weight() == "bold" for text in texts(figure)]
    for index in range(count):
        predicted, confidence = NAMES[chances[index].argmax()], f"{chances[index].max():.0%}"
        mark = "✓" if right[index] else "✗"
        assert lines[1 + 2 * index] == f"{mark} {predicted} {confidence}"
        assert lines[2 + 2 * index] == f"actual {NAMES[labels(count)[index]]}"
        assert bold[1 + 2 * index] != right[index]
        assert (frames[index].get_linewidth() > 2) != right[index]


def test_long_names_are_shortened_and_confidences_are_not():
    figure = plots.plot_predictions(
        images(1), [3], [[0.1, 0.2, 0.0, 0.7]], ["a", "b", "c", "very long " * 20]
    )
    assert written(figure)[1].startswith("✓ very long very")
    assert written(figure)[1].endswith("… 70%")


@pytest.mark.parametrize(
    ("share", "whole", "precise"),
    [
        (1.0, "100%", "100.0%"),
        (0.9999, ">99%", ">99.9%"),
        (0.996, ">99%", "99.6%"),
        (0.5, "50%", "50.0%"),
        (0.004, "<1%", "0.4%"),
        (0.0001, "<1%", "<0.1%"),
        (0.0, "0%", "0.0%"),
    ],
)
def test_percentages_call_nothing_certain_or_impossible_that_is_not(share, whole, precise):
    assert percent(share, 0) == whole
    assert precise in written(plots.plot_probabilities(images(1)[0], [share, 1 - share]))


@pytest.mark.parametrize("label", [None, 0, 3])
def test_probabilities_are_the_bars(label):
    chances = probabilities(1)[0]  # 0 is the most probable
    figure = plots.plot_probabilities(images(1)[0], chances, NAMES, label=label)
    page, bars = figure.axes
    assert [bar.get_width() for bar in bars.patches] == pytest.approx(chances.tolist())
    assert bars.get_xlim() == (0, 1)
    colors = [bar.get_facecolor() for bar in bars.patches]
    assert colors.count(colors[0]) == 1
    lines = [text.get_text() for text in page.texts]
    assert lines[1:] == [
        text for pair in zip(NAMES, [f"{c:.1%}" for c in chances], strict=True) for text in pair
    ]
    title = {None: "Predicted T-shirt/top", 0: "✓ Predicted T-shirt/top, actual T-shirt/top"}
    assert lines[0] == title.get(label, "✗ Predicted T-shirt/top, actual Dress")
    words = {text.get_text(): text.xy for text in bars.texts}
    wrong = {"predicted": (chances[0], 0), "actual": (chances[3], 3)}
    assert words == (wrong if label == 3 else {})
    # Names and numbers are level with their bars, and the numbers are right-aligned.
    for index, bar in enumerate(bars.patches):
        middle = bars.transData.transform((0, bar.get_y() + bar.get_height() / 2))[1]
        for text in page.texts[1 + 2 * index : 3 + 2 * index]:
            assert page.transData.transform(text.get_position())[1] == pytest.approx(middle, abs=0.5)
    assert len({text.get_position()[0] for text in page.texts[2::2]}) == 1


@pytest.mark.parametrize(
    "counts", [COUNTS, COUNTS[:3, :3], [[0, 0], [12345, 6]], [[7]], COUNTS.astype(float)]
)
def test_matrix_cells_are_the_counts(counts):
    counts = np.asarray(counts)
    figure = plots.plot_confusion_matrix(counts)
    cells = figure.axes[1]
    shown = {text.get_position(): text for text in cells.texts}
    assert len(shown) == counts.size
    assert len(cells.images) == 1
    colors = cells.images[0].get_array()
    for (actual, predicted), count in np.ndenumerate(counts):
        text = shown[predicted, actual]
        assert text.get_text() == f"{int(count):,}"
        assert contrast(to_rgb(text.get_color()), colors[actual, predicted]) >= 4.5
        if count:
            red, _, blue = colors[actual, predicted]
            assert (blue > red) == (actual == predicted)
    ticks = [tick.get_text() for tick in cells.get_yticklabels()]
    assert ticks == [tick.get_text() for tick in cells.get_xticklabels()]
    assert ticks == [f"class {number}" for number in range(len(counts))]
    right, total = int(counts.trace()), int(counts.sum())
    assert any(line.startswith(f"{right:,} of {total:,} correct") for line in written(figure))


def contrast(one, other):
    """Return the WCAG contrast ratio of two colours."""

    def luminance(color):
        color = np.asarray(color)
        linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def test_matrix_is_shaded_by_the_share_of_the_row():
    counts = np.array([[90, 10, 0], [900, 0, 100], [25, 25, 50]])
    colors = plots.plot_confusion_matrix(counts).axes[1].images[0].get_array()
    np.testing.assert_allclose(colors[0, 1], colors[1, 2])  # 10% each
    paleness = colors.sum(axis=2)
    assert paleness[0, 0] < paleness[2, 2]
    assert paleness[1, 0] < paleness[2, 0] < paleness[0, 1] < paleness[0, 2]


def curves(axes):
    return {line.get_label(): line.get_ydata() for line in axes.lines if not line.get_label().startswith("_")}


@pytest.mark.parametrize("epochs", [1, 2, 10, 30])
def test_curves_are_the_history(epochs):
    lists = history(epochs)
    figure = plots.plot_history(lists)
    for axes, measure in zip(figure.axes, ["loss", "accuracy"], strict=True):
        drawn = curves(axes)
        assert set(drawn) == {measure, f"val_{measure}"}
        for name, values in drawn.items():
            assert list(values) == lists[name]
        for line in axes.lines[:2]:
            assert list(line.get_xdata()) == list(range(1, epochs + 1))
        assert {text.get_text() for text in axes.texts} > {"training", "validation"}
        ring = axes.lines[-1]
        values = np.array(lists[f"val_{measure}"])
        best = int(values.argmin() if measure == "loss" else values.argmax())
        assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (best + 1, values[best])
        value = f"{values[best]:.4g}" if measure == "loss" else f"{values[best]:.1%}"
        assert any(f"validation {measure}: {value}, epoch {best + 1}" in line for line in written(figure))
        ticks = axes.get_xticks()
        assert (ticks == ticks.round()).all()
    title = f"Training: {epochs} epoch{'s' * (epochs > 1)} in "
    assert any(line.startswith(title) for line in written(figure))


@pytest.mark.parametrize(
    ("lists", "panels"),
    [
        ({"loss": [1.0, 0.5]}, [{"loss"}]),
        ({"loss": [1.0, 0.5], "val_loss": [1.0, 0.7]}, [{"loss", "val_loss"}]),
        ({"loss": (1.0,), "accuracy": np.array([0.5])}, [{"loss"}, {"accuracy"}]),
        ({"loss": [1.0], "val_accuracy": [0.5]}, [{"loss"}, {"val_accuracy"}]),
        ({"loss": [1.0], "something": ["else"]}, [{"loss"}]),
    ],
)
def test_history_shows_what_there_is(lists, panels):
    figure = plots.plot_history(lists)
    assert [set(curves(axes)) for axes in figure.axes] == panels


@pytest.mark.parametrize(
    ("seconds", "text"),
    [([0.25, 0.25], "0.5 s"), ([20, 25.4], "45 s"), ([59.7, 0], "1 min 0 s"), ([100, 100], "3 min 20 s")],
)
def test_history_names_the_time(seconds, text):
    assert f"Training: 2 epochs in {text}" in written(
        plots.plot_history({"loss": [2, 1], "seconds": seconds})
    )


def test_history_with_gaps():
    figure = plots.plot_history({"loss": [3.0, 1.0, np.nan], "val_loss": [np.inf, 2.0, 3.0]})
    np.testing.assert_array_equal(curves(figure.axes[0])["val_loss"], [np.nan, 2, 3])
    assert any("2, epoch 2" in line for line in written(figure))
    ends = {text.get_text(): text.xy for text in figure.axes[0].texts if isinstance(text, Annotation)}
    assert ends["training"] == (2, 1)
    assert ends["validation"] == (3, 3)


def test_labels_of_curves_that_end_together_are_apart():
    figure = plots.plot_history({"loss": [1, 0.5], "val_loss": [0.9, 0.5001]})
    boxes = {t.get_text(): Text.get_window_extent(t) for t in figure.axes[0].texts}
    assert boxes["validation"].y0 >= boxes["training"].y1


def blocks(figure):
    return [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]


def test_model_names_every_layer_with_its_numbers():
    picture = dense_model(3)
    rows = picture.describe()
    figure = plots.plot_model(picture)
    lines = written(figure)
    total = sum(row.params for row in rows)
    assert lines[0] == f"Model: 8 layers, {total:,} parameters"
    table = {}
    for text in texts(figure):
        table.setdefault(text.get_position()[1], []).append(text.get_text())
    _, heading, first, *lines_of_layers, _ = table.values()
    assert heading == ["layer", "output", "parameters", "multiply-adds"]
    assert first == ["Input", "28 × 28"]
    for layer, cells in zip(rows, lines_of_layers, strict=True):
        shape = " × ".join(map(str, layer.output_shape))
        expected = [
            layer.name,
            layer.kind,
            layer.detail,
            shape,
            f"{layer.params:,}",
            f"{layer.multiply_adds:,}",
        ]
        assert cells == [text for text in expected if text]
    assert lines[-3:] == ["Total", f"{total:,}", f"{sum(row.multiply_adds for row in rows):,}"]


def test_model_blocks_shrink_with_the_layers_and_groups_touch():
    bars = blocks(plots.plot_model(dense_model(4)))  # Rescale, Flatten, then Dense and ReLU four times
    boxes = [bar.get_path().get_extents(bar.get_patch_transform()) for bar in bars]
    widths = [box.width for box in boxes[1:]]
    assert len(boxes) == 10
    assert widths == sorted(widths, reverse=True)
    for index in range(2, 10, 2):
        dense, relu = boxes[index], boxes[index + 1]
        assert dense.width == pytest.approx(relu.width)
        assert 0 < relu.y0 - dense.y1 < 0.05  # joined
        assert dense.y0 - boxes[index - 1].y1 > 0.1
        assert bars[index].get_facecolor() != bars[index + 1].get_facecolor()


def test_model_shows_images_as_sheets_and_frames_the_layers_in_layers():
    figure = plots.plot_model(residual_model())
    sheets = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    sizes = sorted({round(sheet.get_width(), 6) for sheet in sheets})
    assert len(sizes) == 2  # of 14 x 14 and 28 x 28 pixels
    assert len(sheets) == 1 + 4 * 6  # one channel: 1 sheet; 32 channels: 1 + log2(32) sheets, four times
    frames = [patch for patch in blocks(figure) if patch.get_linestyle() != "solid"]
    outer, inner = sorted(
        (f.get_path().get_extents(f.get_patch_transform()) for f in frames), key=lambda box: box.y0
    )
    assert outer.x0 < inner.x0
    assert inner.x1 < outer.x1
    assert inner.y1 < outer.y1
    assert [line for line in written(figure) if line == "+"] == ["+", "+"]
    assert "Model: 6 layers, 10,026 parameters" in written(figure)


def test_model_of_the_library():
    import tinynet as tn

    layers = [tn.Rescale(1 / 255), tn.Flatten(), tn.Dense(128), tn.ReLU(), tn.Dense(10), tn.Softmax()]
    figure = plots.plot_model(tn.Sequential(layers, input_shape=(28, 28), seed=0))
    assert "Model: 6 layers, 101,770 parameters" in written(figure)


# Bad input.

ONE, TWO, TEN = images(1)[0], images(2), np.full((2, 10), 0.1)
REFUSED = {
    plots.plot_samples: [
        ((TWO, [0, 1, 2]), "expected 2 labels, one per image, got 3; slice"),
        ((TWO[:0], []), r"got an empty array of shape \(0, 28, 28\); pass at least one"),
        ((ONE, [1]), r"got shape \(28, 28\); reshape"),
        ((np.zeros((2, 784)), [1, 2]), r"got shape \(2, 784\); reshape them"),
        ((np.zeros((2, 8, 8, 3)), [1, 2]), r"got shape \(2, 8, 8, 3\)"),
        ((np.zeros((401, 4, 4)), labels(401)), "at most 400 images in one picture, got 401; pass"),
        ((np.full((1, 4, 4), np.nan), [0]), "expected finite images, got NaN"),
        ((np.full((1, 4, 4), "x"), [0]), "expected images of bytes or floats, got <U1"),
        ((np.ones((1, 4, 4), complex), [0]), "expected images of bytes or floats"),
        ((TWO, np.eye(2)), r"got shape \(2, 2\); convert one-hot .*argmax\(1\)"),
        ((TWO, [0.0, 1.0]), "expected integer labels, got float64; convert"),
        ((TWO, [True, False]), "expected integer labels, got bool"),
        ((TWO, [-1, 1]), "expected labels from 0, got -1; number the classes"),
        ((TWO, [0, 2], ["a", "b"]), "at least 3 class names, got 2; pass a list"),
        ((TWO, [0, 1], "ab"), "at least 2 class names, got 'ab'; pass a list"),
    ],
    plots.plot_augmented: [
        ((ONE, flipped), r"got shape \(28, 28\); reshape"),
        ((images(51), flipped), "at most 400 images in one picture, got 408; pass"),
        ((TWO, lambda x, generator: x[1:]), r"augment: .* shape \(16, 28, 28\), got shape \(15, 28, 28\)"),
        ((TWO, lambda x, generator: x * np.nan), "expected finite images, got NaN"),
        ((TWO, flipped, -1), "seed: expected a non-negative int or None, got -1"),
        ((TWO, flipped, "7"), "seed: .* got '7'"),
    ],
    plots.plot_predictions: [
        ((TWO, [0, 1], TEN[0]), r"shape \(2, classes\).* got shape \(10,\); pass model.predict_proba"),
        ((images(3), [0, 1, 2], TEN), r"shape \(3, classes\).* got shape \(2, 10\)"),
        ((TWO, [0, 1], TEN * 2), "row 0 has numbers from 0.2 to 0.2 that sum to 2; pass"),
        ((TWO, [0, 1], np.log(TEN)), "that sum to -23.03; .*predict_proba"),
        ((TWO, [0, 1], TEN * np.nan), "that sum to nan"),
        ((TWO, [0, 1], TEN.astype(str)), "probabilities as floats, got <U"),
        ((TWO, [0, 10], TEN), "expected labels from 0 to 9, got 10"),
        ((TWO, [0, 1], TEN, NAMES[:9]), "expected 10 class names, got 9"),
        ((TWO, [0, 1], TEN, [*NAMES, "x"]), "expected 10 class names, got 11"),
    ],
    plots.plot_probabilities: [
        ((images(1), TEN[0]), r"one image.* got shape \(1, 28, 28\); pass one image"),
        ((ONE, TEN[:1]), r"shape \(k,\), got shape \(1, 10\); pass one row"),
        ((ONE, []), r"got shape \(1, 0\)"),
        ((ONE, np.full(200, 0.005)), "at most 100 classes .* got 200"),
    ],
    plots.plot_confusion_matrix: [
        ((COUNTS[:2],), r"square matrix .* got shape \(2, 10\); rows are"),
        (([],), r"square matrix .* got shape \(0,\)"),
        (([[0.5, 0.5], [0, 1]],), "whole numbers .* got float64; pass counts"),
        (([[-1]],), "expected counts of at least 0, got -1; each cell counts"),
        (([[np.nan]],), "whole numbers"),
        ((COUNTS, NAMES[:2]), "expected 10 class names, got 2"),
        ((np.ones((101, 101), int),), "at most 100 classes .* got 101"),
    ],
    plots.plot_history: [
        (({},), r"with a list 'loss', got \[\]; pass what fit returned"),
        (({"loss": []},), "at least one epoch, got none; train first"),
        (({"loss": [1, 2], "val_loss": [1]},), r"of 2 numbers.* 'val_loss' of shape \(1,\)"),
        (({"loss": [np.nan]},), "expected finite numbers in 'loss', got none"),
        (([1.0],), "expected a history, got list; pass what fit returned"),
    ],
    plots.plot_model: [
        ((model([]),), "a model with layers, got one without; add a layer"),
        ((["Dense"],), "expected a model, got list; build a Sequential"),
    ],
}


@pytest.mark.parametrize(
    ("plot", "arguments", "message"),
    [(plot, arguments, message) for plot, cases in REFUSED.items() for arguments, message in cases],
)
def test_bad_input_is_refused(plot, arguments, message):
    with pytest.raises(ValueError, match=message):
        plot(*arguments)


def test_a_number_of_versions_is_refused():
    with pytest.raises(ValueError, match="versions: expected a positive int, got 0"):
        plots.plot_augmented(TWO, flipped, versions=0)


def test_a_label_out_of_range_is_refused():
    with pytest.raises(ValueError, match="labels from 0 to 9, got 10"):
        plots.plot_probabilities(ONE, TEN[0], label=10)


@pytest.mark.parametrize(
    "name", ["samples", "augmented", "history", "matrix", "predictions", "probabilities", "model"]
)
def test_an_unknown_suffix_is_refused(name, tmp_path):
    for path in ("a.jpg", "png", ".png", "a.png.gz"):
        with pytest.raises(ValueError, match=r"ends in .png, .svg or .pdf, got '.*'; the suffix"):
            PICTURES[name](path=tmp_path / path)
    assert not list(tmp_path.iterdir())


def test_a_refused_picture_leaves_the_old_file(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="finite"):
        plots.plot_history({"loss": [np.nan]}, path=path)
    assert path.read_bytes() == b"old"
    plots.plot_history({"loss": [1.0]}, path=path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]
