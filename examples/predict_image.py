"""Classify pictures of clothes: PNG, JPEG, WebP or other files, of any size, on a plain background, light or dark.

    python examples/predict_image.py shirt.png
    python examples/predict_image.py photos/*.jpg --model runs/mlp_adam/model.safetensors

Each is converted to a 28 x 28 image in the way that Fashion-MNIST's were. A plot of that image, which is what the
network sees, and of the ten probabilities is written to runs/predictions, or to --output. The model is one that
train_fashion.py saved.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import tinynet as tn
from tinynet import plots
from tinynet.datasets import fashion_mnist, from_image_file
from tinynet.support import console

NAMES = fashion_mnist.CLASS_NAMES


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    model = load(options.model)
    options.output.mkdir(parents=True, exist_ok=True)
    failures, written = 0, set()
    for path in options.images:
        try:
            image = from_image_file(path)
        except (OSError, ValueError) as error:  # the other pictures may be good
            complain(f"{path}: {error.strerror}" if isinstance(error, OSError) and error.strerror else error)
            failures += 1
            continue
        probabilities = model.predict_proba(image.reshape(1, *model.input_shape))[0]
        first, second = np.argsort(probabilities)[:-3:-1]
        print(
            f"{path}: {NAMES[first]} ({probabilities[first]:.1%}), "
            f"then {NAMES[second]} ({probabilities[second]:.1%})"
        )
        target = free_name(options.output, path.stem, written)
        plots.plot_probabilities(image, probabilities, NAMES, path=target)
        written.add(target)
        print(f"  {target}")
    return 1 if failures else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Classify pictures of clothes.")
    parser.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE", help="a picture: PNG, JPEG, WebP, GIF, TIFF, BMP"
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=Path("runs/mlp_bn/model.safetensors"),
        help="default: %(default)s, which train_fashion.py writes",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/predictions"), help="a folder; default: %(default)s"
    )
    return parser.parse_args(arguments)


def load(path: Path) -> tn.Sequential:
    """Load a model that takes images of the data set; raise ValueError or OSError for any other."""
    try:
        model = tn.load_model(path)
    except FileNotFoundError:
        raise ValueError(
            f"{path}: there is no such model; train one with python examples/train_fashion.py"
        ) from None
    if model.input_shape not in ((28, 28), (28, 28, 1)) or model.output_shape != (len(NAMES),):
        raise ValueError(
            f"{path}: expected a model from images (28, 28) to {len(NAMES)} classes, "
            f"got one from {model.input_shape} to {model.output_shape}; use one that train_fashion.py saved"
        )
    if not model.fitted_on_bytes:
        complain(
            f"{path}: this model was not fitted on an array of bytes; if it was fitted on numbers from 0 to 1, "
            "its predictions for these bytes are meaningless"
        )
    return model


def free_name(folder: Path, stem: str, taken: set[Path]) -> Path:
    """Return the path of the plot; if two images from different folders share a name, the second gets a number."""
    names = (folder / f"{stem}_probabilities{number}.png" for number in ("", *range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


def complain(problem: object) -> None:
    print(f"predict_image.py: {problem}", file=sys.stderr)


if __name__ == "__main__":
    console.run(main, (OSError, ValueError))
