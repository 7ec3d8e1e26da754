"""Plots of samples, augmentation, training curves, the confusion matrix, predictions, probabilities and the model.

Every function returns a matplotlib `Figure`, which a notebook displays, and saves it as PNG, SVG or PDF if a path
is given. No function needs a display or pyplot, or leaves a setting changed; all are thread-safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tinynet.support import random
from tinynet.support.checks import check_positive_int
from tinynet.support.types import Array, PathLike, Shape
from tinynet.training.batches import Augment, augmented

# The drawing code is in tinynet/plots/, imported on first use because matplotlib is slow to import.
if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from tinynet.model.summary import LayerRow

MOST_IMAGES = 400  # more in one picture is a mistake, such as a whole data set
MOST_CLASSES = 100
SUM_TOLERANCE = 1e-2  # for the sum of a row of probabilities; loose enough for float16


class HasHistory(Protocol):
    """What `fit` returns: named lists with one entry per epoch."""

    @property
    def history(self) -> Mapping[str, Sequence[float]]: ...


class Model(Protocol):
    """The parts of a model that `plot_model` uses."""

    @property
    def input_shape(self) -> Shape: ...

    def describe(self) -> Sequence[LayerRow]: ...


def plot_samples(
    images: ArrayLike,
    labels: ArrayLike,
    class_names: Sequence[str] | None = None,
    *,
    path: PathLike | None = None,
) -> Figure:
    """Plot a grid of images, each with its class name.

    Args:
        images: (n, height, width), optionally with a last axis of 1; bytes, or floats in any range.
        labels: (n,) class numbers.
        class_names: the name of each class; by default, class numbers are shown.
        path: where to save the picture; the name must end in .png, .svg or .pdf.
    Returns:
        The figure.
    Raises:
        ValueError: if images, labels and names do not match, or the suffix is unknown.
        OSError: if the file cannot be written.
    """
    pixels = _images(images)
    numbers = _labels(labels, len(pixels))
    names = _names(class_names, int(numbers.max()) + 1)
    from tinynet.plots import images as draw
    from tinynet.plots import style

    tiles = [draw.Tile([draw.Line(names[number])]) for number in numbers]
    with style.house_style(path):
        return style.finish(draw.gallery("Samples and their classes", pixels, tiles), path)


def plot_augmented(
    images: ArrayLike,
    augment: Augment,
    generator: np.random.Generator | int | None = 0,
    *,
    versions: int = 8,
    path: PathLike | None = None,
) -> Figure:
    """Plot one row per image: the original, followed by several augmented versions of it.

    Args:
        images: (n, height, width), optionally with a last axis of 1; bytes, or floats in any range.
        augment: a function (images, generator) -> images, as `fit` takes it.
        generator: the generator that augment draws from, or a seed; None draws a seed.
        versions: how many augmented versions to show of each image.
        path: where to save the picture; the name must end in .png, .svg or .pdf.
    Returns:
        The figure; its images are in rows, the original first.
    Raises:
        ValueError: if the arrays are not images or too many, augment does not return a batch of the same shape,
            or the suffix is unknown.
        OSError: if the file cannot be written.
    """
    batch = np.asarray(images)
    originals = _images(batch)
    repeated = np.repeat(batch, check_positive_int("versions", versions), axis=0)
    if not isinstance(generator, np.random.Generator):
        seed = random.draw_seed() if generator is None else random.check_seed(generator)
        generator = random.generator(seed, random.AUGMENT)
    changed = _images(augmented(augment, repeated, generator))
    from tinynet.plots import images as draw
    from tinynet.plots import style

    with style.house_style(path):
        return style.finish(draw.augmented_rows(originals, changed), path)


def plot_predictions(
    images: ArrayLike,
    labels: ArrayLike,
    probabilities: ArrayLike,
    class_names: Sequence[str] | None = None,
    *,
    path: PathLike | None = None,
) -> Figure:
    """Plot a gallery of images, each with its predicted class, probability and actual class.

    Wrong predictions have a heavy frame, a cross and bold type, so they stand out even without colour.

    Args:
        images: (n, height, width), optionally with a last axis of 1; bytes, or floats in any range.
        labels: (n,) actual class numbers.
        probabilities: (n, k), one row per image, as `predict_proba` returns them.
        class_names: the names of the k classes; by default, class numbers are shown.
        path: where to save the picture; the name must end in .png, .svg or .pdf.
    Returns:
        The figure.
    Raises:
        ValueError: if arrays and names do not match, the rows are not probabilities, or the suffix is
            unknown.
        OSError: if the file cannot be written.
    """
    pixels = _images(images)
    chances = _probabilities(probabilities, len(pixels))
    numbers = _labels(labels, len(pixels), chances.shape[1])
    names = _names(class_names, chances.shape[1], exactly=True)
    predicted = chances.argmax(axis=1)
    from tinynet.plots import images as draw
    from tinynet.plots import style

    tiles = [
        draw.prediction_tile(names[guess], names[actual], float(row.max()))
        for guess, actual, row in zip(predicted, numbers, chances, strict=True)
    ]
    right = int((predicted == numbers).sum())
    title = f"Predictions: {right} of {len(numbers)} correct"
    with style.house_style(path):
        return style.finish(draw.gallery(title, pixels, tiles), path)


def plot_probabilities(
    image: ArrayLike,
    probabilities: ArrayLike,
    class_names: Sequence[str] | None = None,
    *,
    label: int | None = None,
    path: PathLike | None = None,
) -> Figure:
    """Plot one image next to its class probabilities, as bars and as numbers.

    Args:
        image: (height, width), optionally with a last axis of 1; bytes, or floats in any range.
        probabilities: (k,), one row of what `predict_proba` returns.
        class_names: the names of the k classes; by default, class numbers are shown.
        label: the actual class number, if known.
        path: where to save the picture; the name must end in .png, .svg or .pdf.
    Returns:
        The figure; its second axes hold the bars.
    Raises:
        ValueError: if arrays and names do not match, the numbers are not probabilities, or the suffix is
            unknown.
        OSError: if the file cannot be written.
    """
    pixels = _images(np.asarray(image)[None], one=True)[0]
    row = np.asarray(probabilities)
    if row.ndim != 1:
        raise ValueError(
            f"expected the probabilities of one image, shape (k,), got shape {row.shape}; "
            "pass one row, such as probabilities[0]"
        )
    chances = _probabilities(row[None], 1)[0]
    names = _names(class_names, len(chances), exactly=True)
    actual = None if label is None else int(_labels(np.asarray(label)[None], 1, len(chances))[0])
    from tinynet.plots import style
    from tinynet.plots.images import probability_bars

    with style.house_style(path):
        return style.finish(probability_bars(pixels, chances, names, actual), path)


def plot_confusion_matrix(
    matrix: ArrayLike, class_names: Sequence[str] | None = None, *, path: PathLike | None = None
) -> Figure:
    """Plot the confusion matrix: how many images of each actual class (row) were predicted as each class (column).

    A cell's colour shows its share of its row: blue on the diagonal, where predictions are correct, and orange
    elsewhere. The orange deepens with the square root of the share, so that rare errors are visible too.

    Args:
        matrix: (k, k) counts.
        class_names: the names of the k classes; by default, class numbers are shown.
        path: where to save the picture; the name must end in .png, .svg or .pdf.
    Returns:
        The figure; its second axes hold the matrix.
    Raises:
        ValueError: if the matrix is not square or holds anything but counts, the names do not match it, or the
            suffix is unknown.
        OSError: if the file cannot be written.
    """
    counts = _counts(matrix)
    names = _names(class_names, len(counts), exactly=True)
    from tinynet.plots import style
    from tinynet.plots.charts import confusion_matrix

    with style.house_style(path):
        return style.finish(confusion_matrix(counts, names), path)


def plot_history(
    history: HasHistory | Mapping[str, Sequence[float]], *, path: PathLike | None = None
) -> Figure:
    """Plot the curves of a training run: the loss and, if there is one, the accuracy. The best epoch is circled.

    Args:
        history: what `fit` returned, or its dictionary of lists: `loss` and, optionally, `accuracy`,
            `val_loss`, `val_accuracy` and `seconds`, with one entry per epoch.
        path: where to save the picture; the name must end in .png, .svg or .pdf.
    Returns:
        The figure, with one axes per panel.
    Raises:
        ValueError: if there is no loss or no epoch, the lists differ in length or hold no finite number, or the
            suffix is unknown.
        OSError: if the file cannot be written.
    """
    curves, seconds = _curves(history)
    from tinynet.plots import style
    from tinynet.plots.charts import training_curves

    with style.house_style(path):
        return style.finish(training_curves(curves, seconds), path)


def plot_model(model: Model, *, path: PathLike | None = None) -> Figure:
    """Plot a model's architecture: a block for each layer, sized on a log scale, with its shape and parameters.

    Args:
        model: a built model.
        path: where to save the picture; the name must end in .png, .svg or .pdf.
    Returns:
        The figure.
    Raises:
        ValueError: if it is not a model or has no layers, or the suffix is unknown.
        OSError: if the file cannot be written.
    """
    if not hasattr(model, "describe"):
        raise ValueError(
            f"expected a model, got {type(model).__name__}; build a Sequential of the layers first"
        )
    rows = list(model.describe())
    if not rows:
        raise ValueError("expected a model with layers, got one without; add a layer first")
    from tinynet.plots import style
    from tinynet.plots.layers import architecture

    with style.house_style(path):
        return style.finish(architecture(rows, tuple(model.input_shape)), path)


# Checks of the arguments. Every error says what was expected, what was found and how to fix it.


def _images(images: ArrayLike, one: bool = False) -> Array:
    """Return images as numbers of shape (n, height, width)."""
    pixels = np.asarray(images)
    found = pixels.shape[1:] if one else pixels.shape
    expected = "one image, shape (height, width)" if one else "images of shape (n, height, width)"
    if pixels.ndim == 4 and pixels.shape[3] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 3:
        fix = "pass one image, such as images[0]" if one else "reshape them, such as with reshape(-1, 28, 28)"
        raise ValueError(f"expected {expected}, got shape {found}; {fix}")
    if pixels.size == 0:
        raise ValueError(f"expected {expected}, got an empty array of shape {found}; pass at least one")
    if len(pixels) > MOST_IMAGES:
        raise ValueError(
            f"expected at most {MOST_IMAGES} images in one picture, got {len(pixels)}; pass fewer, images[:40]"
        )
    if pixels.dtype.kind not in "buif":
        raise ValueError(f"expected images of bytes or floats, got {pixels.dtype}; convert them with astype")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise ValueError("expected finite images, got NaN or infinity; fix these pixels before plotting")
    return pixels.astype(np.float64) if pixels.dtype != np.uint8 else pixels


def _labels(labels: ArrayLike, count: int, classes: int | None = None) -> Array:
    """Return class numbers as integers of shape (count,), checked to be below `classes`."""
    numbers = np.asarray(labels)
    if numbers.ndim != 1:
        raise ValueError(
            f"expected labels of shape ({count},), got shape {numbers.shape}; "
            "convert one-hot rows to class numbers with labels.argmax(1)"
        )
    if len(numbers) != count:
        raise ValueError(f"expected {count} labels, one per image, got {len(numbers)}; slice both alike")
    if numbers.dtype.kind not in "ui":
        raise ValueError(f"expected integer labels, got {numbers.dtype}; convert them with astype('int64')")
    highest = "" if classes is None else f" to {classes - 1}"
    if numbers.min() < 0 or (classes is not None and numbers.max() >= classes):
        wrong = numbers.min() if numbers.min() < 0 else numbers.max()
        raise ValueError(f"expected labels from 0{highest}, got {wrong}; number the classes from 0")
    return numbers.astype(np.int64)


def _names(class_names: Sequence[str] | None, count: int, exactly: bool = False) -> list[str]:
    """Return the names of `count` classes, at least or exactly; numbered names if none are given."""
    if count > MOST_CLASSES and exactly:
        raise ValueError(
            f"expected at most {MOST_CLASSES} classes in one picture, got {count}; "
            "plot some of them, or merge the small ones"
        )
    if class_names is None:
        return [f"class {number}" for number in range(count)]
    names = [str(name) for name in class_names]
    if isinstance(class_names, str) or len(names) < count or (exactly and len(names) > count):
        found = repr(class_names) if isinstance(class_names, str) else str(len(names))
        raise ValueError(
            f"expected {'' if exactly else 'at least '}{count} class names, got {found}; "
            "pass a list with a name for each class"
        )
    return names


def _probabilities(probabilities: ArrayLike, count: int) -> Array:
    """Return probabilities as floats of shape (count, k), checked to sum to 1 in each row."""
    given = np.asarray(probabilities)
    if given.ndim != 2 or len(given) != count or given.shape[1] == 0:
        raise ValueError(
            f"expected probabilities of shape ({count}, classes), one row per image, got shape {given.shape}; "
            "pass model.predict_proba(images) for the same images"
        )
    if given.dtype.kind not in "buif":
        raise ValueError(f"expected probabilities as floats, got {given.dtype}; convert them with astype")
    chances = given.astype(np.float64)
    inside = np.isfinite(chances) & (chances >= 0) & (chances <= 1 + SUM_TOLERANCE)
    bad = ~(inside.all(axis=1) & (abs(chances.sum(axis=1) - 1) <= SUM_TOLERANCE))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"expected rows of numbers from 0 to 1 that sum to 1, but row {row} has numbers from "
            f"{chances[row].min():.4g} to {chances[row].max():.4g} that sum to {chances[row].sum():.4g}; "
            "pass what model.predict_proba returns"
        )
    return np.minimum(chances, 1.0)


def _counts(matrix: ArrayLike) -> Array:
    """Return a confusion matrix as counts of shape (k, k)."""
    given = np.asarray(matrix)
    if given.ndim != 2 or given.shape[0] != given.shape[1] or given.size == 0:
        raise ValueError(
            f"expected a square matrix of shape (classes, classes), got shape {given.shape}; "
            "rows are actual classes, columns predicted ones"
        )
    if given.dtype.kind not in "uif" or not np.isfinite(given).all() or (given != np.floor(given)).any():
        raise ValueError(f"expected whole numbers of images, got {given.dtype}; pass counts, not shares")
    if given.min() < 0:
        raise ValueError(f"expected counts of at least 0, got {given.min():g}; each cell counts images")
    return given.astype(np.int64)


def _curves(history: HasHistory | Mapping[str, Sequence[float]]) -> tuple[dict[str, Array], float | None]:
    """Return the lists of a history as checked arrays, and the total number of seconds."""
    lists = history if isinstance(history, Mapping) else getattr(history, "history", None)
    if not isinstance(lists, Mapping):
        raise ValueError(f"expected a history, got {type(history).__name__}; pass what fit returned")
    known = ("loss", "val_loss", "accuracy", "val_accuracy")
    values = {name: np.asarray(lists[name], dtype=np.float64) for name in known if name in lists}
    if "loss" not in values:
        raise ValueError(
            f"expected a history with a list 'loss', got {sorted(lists)}; pass what fit returned"
        )
    epochs = values["loss"].size
    if epochs == 0:
        raise ValueError("expected a history of at least one epoch, got none; train first")
    for name, array in values.items():
        if array.shape != (epochs,):
            raise ValueError(
                f"expected lists of {epochs} numbers, like 'loss', got {name!r} of shape {array.shape}; "
                "every list has one number per epoch"
            )
        if not np.isfinite(array).any():
            raise ValueError(f"expected finite numbers in {name!r}, got none; leave that list out")
        values[name] = np.where(np.isfinite(array), array, np.nan)  # a gap in the curve
    seconds = float(np.sum(lists["seconds"])) if "seconds" in lists else None
    return values, seconds
