"""Train recipes with several seeds, and print the table of accuracies in the README.

    python benchmarks/accuracy.py                                  # every recipe, seeds 0, 1 and 2
    python benchmarks/accuracy.py --recipes mlp_adam --seeds 3 4

The tested weights are those that the recipe's own callbacks keep: of the best validation epoch with early stopping,
otherwise of the last epoch; nothing is chosen by the test images. "Flip averaging" means that the probabilities of a
test image and its mirror image are averaged, if the recipe says so. Seconds are those of fit, including validation.
"""

import argparse
import statistics
import time

from tinynet import metrics, recipes
from tinynet.datasets import fashion_mnist, train_validation_split
from tinynet.support import console


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", nargs="+", default=list(recipes.RECIPES), choices=list(recipes.RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="default: each recipe's own")
    parser.add_argument("--data-dir")
    options = parser.parse_args(arguments)
    (x_all, y_all), (x_test, y_test) = fashion_mnist.load(options.data_dir, archive=True)
    print("| recipe | parameters | epochs | seconds | test accuracy, mean | by seed |")
    print("|---|---|---|---|---|---|")
    for name in options.recipes:
        accuracies, seconds, epochs = [], [], []
        for seed in options.seeds:
            recipe = recipes.make(name, seed=seed, epochs=options.epochs)
            train, validation = (x_all, y_all), None
            if recipe.validation_size:
                train, validation = train_validation_split(x_all, y_all, recipe.validation_size)
            started = time.perf_counter()
            history = recipe.model.fit(
                *train,
                validation_data=validation,
                callbacks=recipe.callbacks,
                verbose=0,
                **recipe.fit_arguments(),
            )
            seconds.append(time.perf_counter() - started)
            epochs.append(history.epochs)
            probabilities = recipe.model.predict_proba(x_test, average_flips=recipe.average_flips)
            accuracies.append(metrics.accuracy(y_test, probabilities.argmax(axis=1)))
        params = sum(row.params for row in recipe.model.describe())
        by_seed = ", ".join(
            f"{seed}: {accuracy:.4f}" for seed, accuracy in zip(options.seeds, accuracies, strict=True)
        )
        flips = ", flip averaging" if recipe.average_flips else ""
        print(
            f"| `{name}` | {params:,} | {span(epochs, '.0f')} | {span(seconds, '.1f')} "
            f"| {statistics.mean(accuracies):.4f}{flips} | {by_seed} |",
            flush=True,
        )
    return 0


def span(values: list[float], form: str) -> str:
    """Format the smallest and the largest value, or a single value if they look the same."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


if __name__ == "__main__":
    console.run(main)
