"""Make a trained network smaller, by single weights or by whole channels, and see what each costs and gains.

    python examples/prune_fashion.py
    python examples/prune_fashion.py --model runs/mlp_bn/model.safetensors
    python examples/prune_fashion.py --sparsities 0.9 --shares 0.5 --train-size 2000 --epochs 1

Trains a small convolutional network, or takes --model, and prunes it to several levels, each followed by a short
fine-tuning. The unpruned network gets the same fine-tuning, so that all are trained alike. Prints a table, and writes
a plot of test accuracy against parameters and against prediction time to runs/prune, or to --output.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import tinynet as tn
from tinynet import schedules
from tinynet.datasets import fashion_mnist
from tinynet.engines import cpu
from tinynet.plots import comparison, style
from tinynet.support import console

UNPRUNED, WEIGHTS, UNITS = "unpruned", "single weights zeroed", "whole units removed"
BATCH_SIZE = 64
TIMED_IMAGES = 1_000


class Result(NamedTuple):
    """One network, fine-tuned."""

    method: str
    level: float
    model: tn.Sequential
    params: int  # only those that are not 0
    accuracy: float
    seconds: list[float]  # of predictions of TIMED_IMAGES

    @property
    def milliseconds(self) -> float:
        return 1000 * statistics.median(self.seconds)


def network(seed: int) -> tn.Sequential:
    layers = [tn.Rescale(1 / 255), tn.Reshape((28, 28, 1))]
    for filters in (16, 32, 64):
        layers += [
            tn.Conv2D(filters, 3, padding="same", use_bias=False),
            tn.MaxPool2D(),
            tn.BatchNorm(),
            tn.ReLU(),
        ]
    layers += [tn.Flatten(), tn.Dense(64), tn.ReLU(), tn.Dense(10), tn.Softmax()]
    return tn.Sequential(layers, input_shape=(28, 28), seed=seed)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    (x_all, y_all), (x_test, y_test) = fashion_mnist.load(options.data_dir, archive=True)
    train = x_all[: options.train_size], y_all[: options.train_size]
    test = x_test[: options.test_size], y_test[: options.test_size]

    started = time.perf_counter()
    if options.model is not None:
        model = tn.load_model(options.model)
        print(f"{options.model}: {model.params.size:,} parameters", end="")
    else:
        model = network(options.seed)
        fit(model, train, options.epochs, 0.003)
        print(f"trained {model.params.size:,} parameters on {len(train[0]):,} images", end="")
    print(f", test accuracy {model.evaluate(*test)['accuracy']:.4f}, {time.perf_counter() - started:.1f} s\n")

    results = [finish(UNPRUNED, 0.0, model.copy(), train, test, options)]
    for sparsity in options.sparsities:
        results.append(finish(WEIGHTS, sparsity, model.copy(), train, test, options))
    for share in options.shares:
        results.append(finish(UNITS, share, tn.prune_units(model, share), train, test, options))
    measure(results, x_test[:TIMED_IMAGES], options.timings)
    print(table(results))

    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "pruning.png"
    plot(results, options.timings, path)
    print(f"\ntook {time.perf_counter() - started:.1f} s in total; wrote {path}")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Prune a network: single weights, or whole units and channels."
    )
    parser.add_argument("--model", type=Path, help="a model file to prune; default: train one")
    parser.add_argument(
        "--sparsities",
        type=float,
        nargs="*",
        default=[0.5, 0.8, 0.9, 0.95, 0.98],
        help="shares of weights to prune",
    )
    parser.add_argument(
        "--shares",
        type=float,
        nargs="*",
        default=[0.25, 0.5, 0.65, 0.8, 0.9],
        help="shares of each layer's units to remove",
    )
    parser.add_argument("--epochs", type=int, default=3, help="epochs of training")
    parser.add_argument("--tune-epochs", type=int, default=1, help="epochs of fine-tuning")
    parser.add_argument("--train-size", type=int, default=20_000, help="number of training images")
    parser.add_argument("--test-size", type=int, default=10_000, help="number of test images")
    parser.add_argument("--timings", type=int, default=9, help="predictions to time for each network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--data-dir", type=Path, help="folder of the four data files; they are downloaded if missing"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/prune"))
    options = parser.parse_args(arguments)
    for name in ("epochs", "tune_epochs", "train_size", "test_size", "timings"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: expected a positive int")
    if not all(0 <= level < 1 for level in (*options.sparsities, *options.shares)):
        parser.error("--sparsities, --shares: expected numbers of at least 0 and below 1")
    options.sparsities, options.shares = sorted(options.sparsities), sorted(options.shares)
    return options


def finish(
    method: str, level: float, model: tn.Sequential, train: tuple, test: tuple, options: argparse.Namespace
) -> Result:
    """Fine-tune the model; single weights are pruned during the first half."""
    steps = options.tune_epochs * -(-len(train[0]) // BATCH_SIZE)
    pruning = [tn.MagnitudePruning(level, ramp_steps=steps // 2, every=10)] if method == WEIGHTS else []
    fit(model, train, options.tune_epochs, 0.001, pruning)
    accuracy = model.evaluate(*test)["accuracy"]
    return Result(method, level, model, int(np.count_nonzero(model.params)), accuracy, [])


def fit(
    model: tn.Sequential, train: tuple, epochs: int, rate: float, callbacks: list[tn.Callback] = ()
) -> None:
    model.fit(
        *train,
        optimizer=tn.Adam(schedules.cosine(rate, epochs * -(-len(train[0]) // BATCH_SIZE))),
        loss=model.loss or tn.CrossEntropy(),
        batch_size=BATCH_SIZE,
        epochs=epochs,
        callbacks=callbacks,
        verbose=0,
    )


def measure(results: list[Result], images, times: int) -> None:
    """Time predictions on one core, in rounds over all networks, so that disturbances affect all of them."""
    with cpu.blas_threads(1):
        for result in results:
            result.model.predict(images)  # not timed: the first is slower
        for _ in range(times):
            for result in results:
                started = time.perf_counter()
                result.model.predict(images)
                result.seconds.append(time.perf_counter() - started)


def table(results: list[Result]) -> str:
    lines = [
        f"{'method':<24}{'pruned':>7}{'parameters':>12}{'multiply-adds':>15}"
        f"{f'ms for {TIMED_IMAGES:,} images':>21}{'test accuracy':>15}"
    ]
    lines += [
        f"{row.method:<24}{row.level:>7.0%}{row.params:>12,}{row.model.multiply_adds():>15,}{row.milliseconds:>21.1f}"
        f"{row.accuracy:>15.4f}"
        for row in results
    ]
    return "\n".join(
        [*lines, "parameters: only those that are not 0; multiply-adds: all that are computed, even with 0"]
    )


def plot(results: list[Result], times: int, path: Path) -> None:
    whole = results[0]
    panels = []
    for label, value, log in (
        ("nonzero parameters", lambda row: row.params, True),
        (f"milliseconds for {TIMED_IMAGES:,} images, one core", lambda row: row.milliseconds, False),
    ):
        curves = []
        for method in (WEIGHTS, UNITS):
            rows = [row for row in results if row.method == method]
            # Zeroed weights are still multiplied: their times differ only by chance.
            joined = log or method == UNITS
            curves.append(
                comparison.Curve(
                    method, [value(row) for row in rows], [[row.accuracy] for row in rows], joined
                )
            )
        reference = (UNPRUNED, value(whole), whole.accuracy)
        panels.append(
            comparison.Panel(label, [curve for curve in curves if curve.x], log, reference=reference)
        )
    note = (
        f"Each point is a network, fine-tuned after pruning; its time is the median of {times} predictions."
    )
    with style.house_style(path):
        title = "Pruning: single weights or whole units"
        style.finish(comparison.accuracy_panels(title, note, panels), path)


if __name__ == "__main__":
    console.run(main, (OSError, ValueError, tn.NonFiniteError))
