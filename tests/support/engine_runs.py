"""Short runs of the recipes with one engine or the other."""

from pathlib import Path

import numpy as np

import tinynet as tn

INSTALLED = Path("/usr/share/datasets/fashion-mnist")


def made_up(n):
    """Images of ten classes: ten pictures, with noise; pixels are bytes."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 10, n)
    pictures = rng.integers(0, 156, (10, 28, 28), dtype=np.uint8)
    return pictures[y] + rng.integers(0, 100, (n, 28, 28), dtype=np.uint8), y


def real_or_made_up(n):
    """The first images of Fashion-MNIST where it is installed."""
    if not INSTALLED.is_dir():
        return made_up(n)
    (x, y), _ = tn.datasets.fashion_mnist.load()
    return x[:n], y[:n]


def train(engine, name, steps, data=made_up, dtype="float32", workers=None, **settings):
    """Train a recipe for some steps. Args: settings: of the recipe. Returns: the model, and each step's loss."""
    recipe, losses = tn.recipes.make(name, seed=0, **settings), []

    class Losses(tn.Callback):
        def on_batch_end(self, run):
            losses.append(run.batch_loss)

    model = recipe.model if dtype == "float32" else recipe.model.copy(dtype=dtype)
    given = recipe.fit_arguments() | {"epochs": 1, "verbose": 0, "callbacks": [Losses()], "workers": workers}
    with tn.engines.use(engine):
        model.fit(*data(steps * recipe.batch_size), **given)
    assert len(losses) == steps
    return model, np.array(losses)
