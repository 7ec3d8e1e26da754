"""Reuse features learned on some classes for other classes with few labels.

    python examples/transfer_learning.py
    python examples/transfer_learning.py --labels 5 20 --repeats 1 --epochs 1

A small convolutional network learns to distinguish T-shirts, trousers, pullovers, dresses and coats. Then other
networks learn to distinguish sandals, shirts, sneakers, bags and ankle boots from a few labels of each: either from
scratch, or starting with the first network's convolutions, with all, the lower two or none of them frozen. Prints a
table of test accuracies, and writes a plot of them to runs/transfer, or to --output.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import tinynet as tn
from tinynet import schedules
from tinynet.datasets import fashion_mnist
from tinynet.plots import comparison, style
from tinynet.support import console

OLD, NEW = range(5), range(5, 10)  # the classes
INPUT, BLOCK, BLOCKS = 2, 4, 3  # layers before the convolutions, layers of a block, blocks
HEAD = INPUT + BLOCKS * BLOCK  # where the head begins

# How many blocks are frozen (None: nothing is transferred), and the learning rate. A head alone has a long way to go.
METHODS = {
    "from scratch": (None, 0.003),
    "all features frozen": (3, 0.1),
    "lower two of three frozen": (2, 0.003),
    "features fine-tuned": (0, 0.003),
}
BATCH_SIZE = 32


def network(seed: int) -> tn.Sequential:
    """Three convolutions, and a head for five classes."""
    layers = [tn.Rescale(1 / 255), tn.Reshape((28, 28, 1))]
    for filters in (8, 16, 32):
        layers += [
            tn.Conv2D(filters, 3, padding="same", use_bias=False),
            tn.MaxPool2D(),
            tn.BatchNorm(),
            tn.ReLU(),
        ]
    return tn.Sequential(
        [*layers, tn.GlobalMaxPool2D(), tn.Dense(5), tn.Softmax()], input_shape=(28, 28), seed=seed
    )


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    (x_all, y_all), (x_test, y_test) = fashion_mnist.load(options.data_dir, archive=True)
    x_old, y_old = only(x_all, y_all, OLD, options.train_size)
    x_new, y_new = only(x_all, y_all, NEW)
    test = only(x_test, y_test, NEW, options.test_size)
    test_old = only(x_test, y_test, OLD, options.test_size)

    started = time.perf_counter()
    first = network(options.seed)
    first.fit(
        *(x_old, y_old),
        optimizer=tn.Adam(schedules.cosine(0.003, options.epochs * -(-len(x_old) // 64))),
        loss=tn.CrossEntropy(),
        batch_size=64,
        epochs=options.epochs,
        verbose=0,
    )
    print(
        f"classes 0 to 4: {len(x_old):,} images, epochs: {options.epochs}, test accuracy "
        f"{first.evaluate(*test_old)['accuracy']:.4f}, {time.perf_counter() - started:.1f} s"
    )

    print(
        f"\nclasses 5 to 9: test accuracy on {len(test[0]):,} images, mean (lowest-highest) of {options.repeats} "
        f"draw{'s' * (options.repeats > 1)} of the labels"
    )
    print(f"{'labels/class':>14}" + "".join(f"{method:>27}" for method in METHODS))
    results: dict[str, list[list[float]]] = {method: [] for method in METHODS}
    for count in options.labels:
        draws = [compare(first, x_new, y_new, count, test, options, seed) for seed in range(options.repeats)]
        for method in METHODS:
            results[method].append([scores[method] for scores in draws])
        cells = (results[method][-1] for method in METHODS)
        print(
            f"{count:>14}"
            + "".join(f"{np.mean(cell):>11.4f} ({min(cell):.4f}-{max(cell):.4f})" for cell in cells),
            flush=True,
        )

    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "transfer.png"
    plot(options.labels, results, options.repeats, path)
    print(f"\ntook {time.perf_counter() - started:.1f} s in total; wrote {path}")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Few labels: features from other classes against training from scratch."
    )
    parser.add_argument(
        "--labels", type=int, nargs="+", default=[5, 10, 20, 50, 100, 200], help="labels per class"
    )
    parser.add_argument("--repeats", type=int, default=3, help="number of draws of the labels")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of training on classes 0 to 4")
    parser.add_argument("--train-size", type=int, default=15_000, help="number of images of classes 0 to 4")
    parser.add_argument("--test-size", type=int, default=3_000, help="number of test images")
    parser.add_argument("--steps", type=int, default=150, help="training steps with the few labels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--data-dir", type=Path, help="folder of the four data files; they are downloaded if missing"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/transfer"))
    options = parser.parse_args(arguments)
    for name in ("repeats", "epochs", "train_size", "test_size", "steps"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: expected a positive int")
    if min(options.labels) < 1 or max(options.labels) > 6_000:
        parser.error("--labels: expected numbers from 1 to 6000")
    options.labels = sorted(set(options.labels))
    return options


def only(x, y, classes: range, size: int | None = None) -> tuple:
    """Return the first ``size`` images of some classes, which are renumbered from 0."""
    chosen = np.flatnonzero(np.isin(y, classes))[:size]
    return x[chosen], y[chosen].astype(np.int64) - classes.start


def compare(
    first: tn.Sequential, x, y, count: int, test: tuple, options: argparse.Namespace, draw: int
) -> dict:
    """Return the test accuracy of each method, trained with ``count`` labels of each class."""
    generator = np.random.default_rng([options.seed, count, draw])
    drawn = [
        generator.choice(np.flatnonzero(y == number), count, replace=False) for number in range(len(NEW))
    ]
    few = x[np.concatenate(drawn)], y[np.concatenate(drawn)]
    scores = {}
    for method, (frozen_blocks, rate) in METHODS.items():
        model = network(options.seed + 100 + draw)
        if frozen_blocks is not None:
            tn.transfer_weights(first, model, names=range(HEAD))
            for layer in model.layers[: INPUT + frozen_blocks * BLOCK]:
                layer.trainable = False
        fit(model, few, options.steps, rate)
        scores[method] = model.evaluate(*test)["accuracy"]
    return scores


def fit(model: tn.Sequential, data: tuple, steps: int, rate: float) -> None:
    """Train for whole epochs, with at least so many steps in total."""
    steps_per_epoch = -(-len(data[0]) // BATCH_SIZE)
    epochs = -(-steps // steps_per_epoch)
    model.fit(
        *data,
        optimizer=tn.Adam(schedules.cosine(rate, epochs * steps_per_epoch)),
        loss=tn.CrossEntropy(),
        batch_size=BATCH_SIZE,
        epochs=epochs,
        verbose=0,
    )


def plot(labels: list[int], results: dict[str, list[list[float]]], repeats: int, path: Path) -> None:
    note = f"Lines: mean of {repeats} draw{'s' * (repeats > 1)} of the labels; bands: lowest to highest."
    curves = [comparison.Curve(method, labels, values) for method, values in results.items()]
    panel = comparison.Panel("labels per new class", curves, log=True, ticks=labels)
    title = "Five new classes, with and without features from five others"
    with style.house_style(path):
        style.finish(comparison.accuracy_panels(title, note, [panel]), path)


if __name__ == "__main__":
    console.run(main, (OSError, ValueError, tn.NonFiniteError))
