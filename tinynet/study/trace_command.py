"""python -m tinynet trace: one training step on real images, or of a faulty network, as a page."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tinynet import recipes
from tinynet.model.sequential import Sequential
from tinynet.optimizers import Adam, Optimizer
from tinynet.study.comparison.compare import Comparison, compare
from tinynet.study.network import Network, inputs_of, saved_network
from tinynet.study.scenarios import catalogue, scenario
from tinynet.study.tracing import cards
from tinynet.study.tracing.trace import Trace, trace
from tinynet.support import random
from tinynet.support.checks import check_positive_int
from tinynet.support.errors import ModelFileError
from tinynet.support.types import Array

DEFAULT_RECIPE = "mlp_adam"
_IN_PYTHON = "tn.study.trace(model, x, y, loss, optimizer).to_html(path)"
IMAGES_OF_CONVOLUTIONS = 16  # a convolution's arrays are then as large as a dense layer's for 300 images


def add_command(commands: Any) -> None:
    """Add ``trace`` to the command line's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "trace", help="write a page with every number of one training step on real images"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--recipe", choices=list(recipes.RECIPES), help="a new network (default: mlp_adam)")
    which.add_argument(
        "--scenario", choices=list(catalogue.SCENARIOS), help="a faulty network, and where the fault shows"
    )
    which.add_argument("--model", type=Path, metavar="FILE", help="a saved model, with a new Adam")
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help=f"number of images (default: 32; {IMAGES_OF_CONVOLUTIONS} for convolutions)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("trace.html"),
        metavar="FILE",
        help="the page (default: trace.html)",
    )
    parser.add_argument("--text", action="store_true", help="also print the step in the terminal")
    parser.add_argument(
        "--compare",
        choices=("torch", "keras"),
        help="also compare its gradients with those of PyTorch or Keras",
    )
    parser.add_argument("--seed", type=int, default=0, help="draws the weights and the images (default: 0)")
    parser.add_argument(
        "--data-dir", type=Path, help="folder with Fashion-MNIST (default: the user's cache folder)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the page; returns 0, or 1 or 2 after an error, which is explained on standard error."""
    from tinynet.datasets import fashion_mnist

    if options.scenario and (options.batch_size or options.compare):
        print("--scenario: expected without --batch-size and --compare; leave them out", file=sys.stderr)
        return 2
    started = time.perf_counter()
    try:
        seed = random.check_seed(options.seed)
        if options.batch_size is not None:
            check_positive_int("--batch-size", options.batch_size)
        (x, y), _ = fashion_mnist.load(options.data_dir, archive=True)
        names = fashion_mnist.CLASS_NAMES
        if options.scenario:
            outcome = scenario.run(catalogue.SCENARIOS[options.scenario], x, y, seed)
            step = outcome.step
            scenario.write_page(outcome, options.output, names)
        else:
            step, comparison = _trace(options, x, y, seed)
            sections = "" if comparison is None else cards.comparison_table(comparison)
            step.to_html(options.output, class_names=names, about=_about(options, step), sections=sections)
    except (OSError, ImportError, ValueError, ModelFileError) as error:
        print(error, file=sys.stderr)
        return 1
    if options.text:
        print(f"{step}\n")
    size = options.output.stat().st_size / 1e6
    print(
        f"wrote {options.output} ({size:.1f} MB) in {time.perf_counter() - started:.1f} s; open it in a browser"
    )
    return 0


def _trace(options: argparse.Namespace, x: Array, y: Array, seed: int) -> tuple[Trace, Comparison | None]:
    network, optimizer = prepare(options.recipe, options.model, seed)
    model, loss = network.model, network.loss
    n = min(options.batch_size or default_batch_size(model), len(x))
    rows = np.sort(random.generator(seed, random.SHUFFLE).choice(len(x), n, replace=False))
    x, y = inputs_of(network, x[rows], _IN_PYTHON), y[rows]
    comparison = None
    if options.compare:
        comparison = compare(model, x, y, loss, against=options.compare)
        print(f"{comparison}\n")
    return trace(model, x, y, loss, optimizer), comparison


def _about(options: argparse.Namespace, step: Trace) -> list[str]:
    name = options.model.name if options.model else (options.recipe or DEFAULT_RECIPE)
    layers = " → ".join(type(layer).__name__ for layer in step.model.layers)
    return [
        f"{name}: {layers}, {step.model.params.size:,} parameters. One step on {len(step.x)} images of Fashion-MNIST: "
        "every array that was computed, the code that computed it, and the sum behind each number."
    ]


def prepare(recipe: str | None, path: Path | None, seed: int) -> tuple[Network, Optimizer]:
    """A new network with its recipe's optimizer, or a saved one with a new Adam."""
    if path is None:
        made = recipes.make(recipe or DEFAULT_RECIPE, seed=seed)
        return Network(made.name, made.title, made.model, made.loss, takes_bytes=True), made.optimizer
    return saved_network(path, _IN_PYTHON), Adam()


def default_batch_size(model: Sequential) -> int:
    """The default batch size, smaller if layers put out images."""
    return IMAGES_OF_CONVOLUTIONS if any(len(layer.output_shape or ()) == 3 for layer in model.layers) else 32
