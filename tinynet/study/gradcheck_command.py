"""python -m tinynet gradcheck: check every gradient of a recipe's network or a saved one on a real batch."""

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tinynet import recipes
from tinynet.datasets import fashion_mnist
from tinynet.engines import cpu
from tinynet.model.sequential import Sequential
from tinynet.study.gradients.check import gradcheck
from tinynet.study.gradients.step_sizes import StepSizes, step_sizes
from tinynet.study.network import Network, inputs_of, saved_network
from tinynet.support.types import Array

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_IN_PYTHON = "tn.study.gradcheck(model, x, y, loss)"

# Up to these sizes every element is compared, which takes a second or two.
_FEW_PARAMETERS, _FEW_INPUTS = 2_000, 10_000

_SAMPLE = 20  # elements of each tensor in larger networks
_SWEEP_SAMPLE, _SMALL_SWEEP_SAMPLE = 5, 3  # elements in the sweep; the second for large networks
_LARGE = 5_000_000  # multiply-adds per example


def add_command(commands: "Commands") -> None:
    """Register ``gradcheck`` with the command line; ``options.run(options)`` runs it and returns the exit status."""
    parser = commands.add_parser(
        "gradcheck",
        help="compare every gradient of a network with the slope of its loss",
        description="Compare the gradients from backward with central differences of the loss, tensor by tensor, on a "
        "batch of Fashion-MNIST. The exit status is 0 if all are fine, and 1 if one is not or after an error.",
    )
    network = parser.add_mutually_exclusive_group()
    network.add_argument("--recipe", choices=recipes.RECIPES, default="mlp_adam", help="default: %(default)s")
    network.add_argument("--model", type=Path, metavar="FILE", help="a saved model instead")
    parser.add_argument(
        "--batch-size", type=_positive_int, default=8, metavar="N", help="images; default: %(default)s"
    )
    parser.add_argument(
        "--elements",
        type=_positive_int,
        metavar="N",
        help="how many elements of each tensor to compare, drawn by --seed; default: all in a network with fewer than "
        f"{_FEW_PARAMETERS:,} parameters, {_SAMPLE} otherwise",
    )
    parser.add_argument(
        "--epsilon", type=_positive, default=1e-6, help="step of the differences; default: %(default)g"
    )
    parser.add_argument("--seed", type=_seed, default=0, help="default: %(default)s")
    parser.add_argument(
        "--sweep",
        type=_picture_file,
        nargs="?",
        const=Path("gradcheck_sweep.png"),
        metavar="FILE",
        help="also measure the error with steps from 1e-1 to 1e-12, and draw it as png, svg or pdf; "
        "default: %(const)s",
    )
    parser.add_argument(
        "--data-dir", type=Path, help="folder with Fashion-MNIST; default: the user's cache folder"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the check; returns 0 if every gradient is fine, else 1. Errors are explained on standard error."""
    try:
        return _run(options)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}" if error.filename else error, file=sys.stderr)
    except ValueError as error:
        print(error, file=sys.stderr)
    return 1


def _run(options: argparse.Namespace) -> int:
    if options.sweep is not None and not options.sweep.parent.is_dir():
        raise ValueError(
            f"{options.sweep}: the folder {options.sweep.parent} does not exist; create it first"
        )
    network = _network(options)
    model, loss = network.model, network.loss
    x, y = _batch(network, options.batch_size, options.data_dir)
    y = loss.check_targets(y, model.output_shape)
    elements = _elements(model, x) if options.elements is None else options.elements
    print(f"{network.heading}; {model.params.size:,} parameters")
    print(
        f"{len(x)} images; {'every element' if elements is None else f'up to {elements} elements'} of each tensor",
        flush=True,  # the check may take a while
    )
    with cpu.blas_threads(1):  # the products are small: two threads would wait for each other
        report = gradcheck(
            model, x, y, loss, epsilon=options.epsilon, max_elements=elements, seed=options.seed
        )
        print(f"\n{report}", flush=True)
        if options.sweep is not None:
            most = _SMALL_SWEEP_SAMPLE if model.multiply_adds() > _LARGE else _SWEEP_SAMPLE
            most = most if options.elements is None else options.elements
            sweep = step_sizes(model, x, y, loss, max_elements=most, seed=options.seed)
            print(f"\n{sweep}")
            if sweep.tensors:
                _draw(sweep, network.name, options.sweep)
                print(f"wrote {options.sweep}")
    return 0 if report.ok else 1


def _network(options: argparse.Namespace) -> Network:
    if options.model is None:
        recipe = recipes.make(options.recipe, seed=options.seed)
        return Network(recipe.name, f"{recipe.name}: {recipe.title}", recipe.model, recipe.loss, True)
    return saved_network(options.model, _IN_PYTHON)


def _batch(network: Network, size: int, data_dir: Path | None) -> tuple[Array, Array]:
    """The first training images, in the shape that the model takes, and their labels."""
    (images, labels), _ = fashion_mnist.load(data_dir, archive=True)
    if size > len(images):
        raise ValueError(
            f"--batch-size: expected at most {len(images):,}, the number of training images; got {size:,}"
        )
    return inputs_of(network, images[:size], _IN_PYTHON), labels[:size]


def _elements(model: Sequential, x: Array) -> int | None:
    """How many elements of each tensor to compare: None for all, or as many as take a few seconds."""
    return None if model.params.size < _FEW_PARAMETERS and x.size <= _FEW_INPUTS else _SAMPLE


def _draw(sweep: StepSizes, name: str, path: Path) -> None:
    from tinynet.plots import style
    from tinynet.plots.sweep import Panel, error_by_step

    panels = [
        Panel(
            f"{tensor.name} {tensor.shape}",
            tensor.errors,
            tensor.crossed.mean(axis=1) > 0.5,
            tensor.rounding,
        )
        for tensor in sweep.tensors
    ]
    title = f"{name}: error of numeric gradients by step size"
    note = "Long steps: the function's bends and kinks. Short steps: rounding."
    with style.house_style(path):
        style.finish(error_by_step(title, note, sweep.epsilons, panels), path)


def _positive_int(text: str) -> int:
    return int(_checked(text, int, "a whole number of at least 1", low=1))


def _positive(text: str) -> float:
    return _checked(text, float, "a number above 0", low=sys.float_info.min)


def _seed(text: str) -> int:
    return int(_checked(text, int, "a whole number of at least 0", low=0))


def _checked(text: str, kind: type[int] | type[float], expected: str, low: float) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not low <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return value


def _picture_file(text: str) -> Path:
    from tinynet.plots.style import file_format

    try:
        file_format(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)
