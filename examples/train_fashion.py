"""Train a network on Fashion-MNIST, show what it learned, and save the model.

    python examples/train_fashion.py                      # the default recipe, mlp_bn
    python examples/train_fashion.py --recipe mlp_adam --epochs 3
    python examples/train_fashion.py --recipe all         # every recipe, with a table to compare them
    python examples/train_fashion.py --resume             # resume after Ctrl-C or any other interruption

Writes the model, its history, its checkpoint and plots to runs/<recipe>, or to --output. The checkpoint, written after
each epoch and on Ctrl-C, is kept: resuming a finished run shows its results again.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import tinynet as tn
from tinynet import metrics, plots, recipes
from tinynet.datasets import fashion_mnist, train_validation_split
from tinynet.support import console


class Result(NamedTuple):
    """A line of the table at the end of --recipe all."""

    recipe: str
    params: int
    epochs: int
    seconds: float
    test_accuracy: float
    interrupted: bool


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    names = list(recipes.RECIPES) if options.recipe == "all" else [options.recipe]
    data = fashion_mnist.load(options.data_dir, archive=True)
    results = []
    for name in names:
        folder = options.output or Path("runs")
        if options.recipe == "all" or options.output is None:
            folder = folder / name
        results.append(train(name, data, options, folder))
        if results[-1].interrupted:
            return console.INTERRUPTED
    if len(results) > 1:
        print(table(results))
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a network on Fashion-MNIST.")
    parser.add_argument("--recipe", default="mlp_bn", choices=[*recipes.RECIPES, "all"])
    parser.add_argument("--epochs", type=int, help="default: the recipe's own, as for the next two options")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--learning-rate", type=float, help="its peak, if the recipe has a schedule")
    parser.add_argument(
        "--train-size", type=int, help="number of training images; default: all but those for validation"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--data-dir", type=Path, help="folder of the four data files; they are downloaded if missing"
    )
    parser.add_argument(
        "--device", default="cpu", choices=["cpu", "gpu", "auto"], help="auto: the GPU if there is one"
    )
    parser.add_argument("--output", type=Path, help="default: runs/<recipe>")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="resume from the checkpoint in the output folder; needs the same options",
    )
    return parser.parse_args(arguments)


def train(name: str, data: tuple, options: argparse.Namespace, folder: Path) -> Result:
    """Train one recipe and write all results to a folder."""
    (x_all, y_all), (x_test, y_test) = data
    recipe = recipes.make(
        name,
        training_examples=options.train_size,
        seed=options.seed,
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
    )
    model = recipe.model.to(options.device)
    (x_train, y_train), validation = (x_all, y_all), None
    if recipe.validation_size:
        (x_train, y_train), validation = train_validation_split(x_all, y_all, recipe.validation_size)
    x_train, y_train = x_train[: options.train_size], y_train[: options.train_size]
    folder.mkdir(parents=True, exist_ok=True)

    print(f"{recipe.name}: {recipe.title}")
    print(
        f"{len(x_train):,} training, {recipe.validation_size:,} validation and {len(x_test):,} test images; "
        f"up to {recipe.epochs} epochs, batches of {recipe.batch_size}, seed {options.seed}\n"
    )
    model.summary()
    print()

    checkpoint = folder / "checkpoint.safetensors"
    # With several recipes, those after the interrupted one have not begun.
    resume = options.resume and (options.recipe != "all" or checkpoint.exists())
    started = time.perf_counter()
    try:
        model.fit(
            x_train,
            y_train,
            validation_data=validation,
            callbacks=[*recipe.callbacks, tn.EpochTable(), tn.CSVLogger(folder / "history.csv")],
            checkpoint=checkpoint,
            resume=checkpoint if resume else None,
            **recipe.fit_arguments(),
        )
    except KeyboardInterrupt:
        if model.history is None or not model.history.interrupted:
            # A second Ctrl-C, or one before the first batch.
            raise KeyboardInterrupt(
                "stopped; --resume continues from the last checkpoint, if there is one"
            ) from None
    history = model.history
    seconds = time.perf_counter() - started
    model.save(folder / "model.safetensors")
    if history.interrupted:
        print(f"\ninterrupted after {history.epochs} epochs; the model so far is saved")
        print("to resume, use the same options and --resume", flush=True)

    probabilities = model.predict_proba(x_test, average_flips=recipe.average_flips)
    predicted = probabilities.argmax(axis=1)
    accuracy = metrics.accuracy(y_test, predicted)
    took = f", {seconds:.1f} s since the run was resumed" if resume else f" in {seconds:.1f} s"
    print(f"\ntrained {history.epochs} epochs{took}")
    if recipe.average_flips:
        single = metrics.accuracy(y_test, model.predict_classes(x_test))
        print(f"averaged over each test image and its mirror image; without that: {single:.4f}")
    print(f"test accuracy: {accuracy:.4f}\n")
    print(metrics.classification_report(y_test, predicted, fashion_mnist.CLASS_NAMES))
    print_first(probabilities[:5], y_test[:5])

    if history.epochs:
        plots.plot_history(history, path=folder / "history.png")
    plots.plot_samples(x_train[:40], y_train[:40], fashion_mnist.CLASS_NAMES, path=folder / "samples.png")
    if recipe.augment is not None:
        plots.plot_augmented(x_train[:6], recipe.augment, path=folder / "augmented.png")
    matrix = metrics.confusion_matrix(y_test, predicted)
    plots.plot_confusion_matrix(matrix, fashion_mnist.CLASS_NAMES, path=folder / "confusion_matrix.png")
    shown = slice(0, 25)
    plots.plot_predictions(
        x_test[shown],
        y_test[shown],
        probabilities[shown],
        fashion_mnist.CLASS_NAMES,
        path=folder / "predictions.png",
    )
    plots.plot_probabilities(
        x_test[0],
        probabilities[0],
        fashion_mnist.CLASS_NAMES,
        label=int(y_test[0]),
        path=folder / "probabilities.png",
    )
    plots.plot_model(model, path=folder / "model.png")

    print(f"\nwrote to {folder}:")
    for path in sorted(folder.iterdir()):
        print(f"  {path.name:<22}{path.stat().st_size / 1024:9,.1f} KB")
    params = sum(row.params for row in model.describe())
    return Result(name, params, history.epochs, seconds, accuracy, history.interrupted)


def print_first(probabilities, labels) -> None:
    """Print the class probabilities of a few images, and their predicted classes."""
    width = max(map(len, fashion_mnist.CLASS_NAMES))
    print(f"\nthe first {len(labels)} test images:")
    print(f"{'':<{width}}" + "".join(f"{'#' + str(index):>10}" for index in range(len(labels))))
    for index, name in enumerate(fashion_mnist.CLASS_NAMES):
        print(f"{name:<{width}}" + "".join(f"{row[index]:>10.4f}" for row in probabilities))
    for index, (row, label) in enumerate(zip(probabilities, labels, strict=True)):
        guess = int(row.argmax())
        verdict = "right" if guess == label else f"wrong, it is {fashion_mnist.CLASS_NAMES[label]}"
        print(f"#{index}: {fashion_mnist.CLASS_NAMES[guess]} ({row[guess]:.1%}): {verdict}")


def table(results: list[Result]) -> str:
    lines = [f"\n{'recipe':<12}{'parameters':>12}{'epochs':>8}{'seconds':>9}{'test accuracy':>15}"]
    lines += [
        f"{row.recipe:<12}{row.params:>12,}{row.epochs:>8}{row.seconds:>9.1f}{row.test_accuracy:>15.4f}"
        for row in results
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    console.run(main, (OSError, ValueError, tn.NonFiniteError, tn.DeviceError, tn.DeviceMemoryError))
