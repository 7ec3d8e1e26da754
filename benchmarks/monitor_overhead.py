"""The cost of TrainingMonitor: the same epoch with and without it, in turn.

    python benchmarks/monitor_overhead.py --recipe mlp_adam [--every N] [--train-size N] [--pairs N]

A pair is two epochs, one after the other; which comes first alternates from pair to pair. Writing the page is not part
of the epoch's time and is reported separately.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from tinynet import recipes
from tinynet.datasets import fashion_mnist
from tinynet.study import TrainingMonitor
from tinynet.support import console
from tinynet.support.types import Array
from tinynet.training.run import Run


class Timed(TrainingMonitor):
    """Also records how long writing the page took."""

    page_seconds = 0.0

    def on_train_end(self, run: Run) -> None:
        started = time.perf_counter()
        super().on_train_end(run)
        self.page_seconds = time.perf_counter() - started


def epoch(name: str, x: Array, y: Array, monitor: TrainingMonitor | None) -> float:
    """Return the seconds of the training steps of one epoch."""
    recipe = recipes.make(name, seed=0)
    settings = recipe.fit_arguments() | {"epochs": 1, "verbose": 0}
    history = recipe.model.fit(x, y, callbacks=[] if monitor is None else [monitor], **settings)
    return history.history["seconds"][0]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="mlp_adam", choices=list(recipes.RECIPES))
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--train-size", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=9)
    options = parser.parse_args(arguments)
    (x, y), _ = fashion_mnist.load(archive=True)
    x, y, probe = x[: options.train_size], y[: options.train_size], (x[-64:], y[-64:])
    without, watched, pages = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for pair in range(options.pairs + 1):
            for with_monitor in (False, True) if pair % 2 else (True, False):
                monitor = Timed(Path(folder) / "page.html", *probe, every=options.every)
                seconds = epoch(options.recipe, x, y, monitor if with_monitor else None)
                if pair:  # the first warms up
                    (watched if with_monitor else without).append(seconds)
                    pages += [monitor.page_seconds] * with_monitor
    ratios = [one / other for one, other in zip(watched, without, strict=True)]
    for label, seconds in (("without", without), ("with", watched)):
        print(f"{label:<8} {statistics.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f})")
    print(
        f"{options.recipe}, every {options.every} steps: {statistics.median(ratios) - 1:+.1%}, the median over "
        f"{options.pairs} pairs ({min(ratios) - 1:+.1%} to {max(ratios) - 1:+.1%}); by the smallest times "
        f"{min(watched) / min(without) - 1:+.1%}; the page takes {statistics.median(pages):.3f} s"
    )
    return 0


if __name__ == "__main__":
    console.run(main)
