"""tinynet, through `Sequential.fit` with its defaults; images stay bytes, and a Rescale layer scales each batch.

SciPy, which Numba imports if it finds it, is hidden, as if only tinynet's own extra were installed; `contender_keras`
does the same for its backends.

Options: engine ("numpy" or "numba"), which then computes all that this process trains and predicts.
"""

import sys
from typing import Any

import numpy as np
from cases import Case
from trainer import EpochEnd, Trainer, losses_through_fit

import tinynet as tn
from tinynet.training.run import Run
from tinynet.training.team import workers_for


class TinynetTrainer(Trainer):
    """tinynet."""

    def __init__(self, case: Case, weights: dict[str, np.ndarray], *arguments: Any, **settings: Any) -> None:
        super().__init__(case, weights, *arguments, **settings)
        sys.modules["scipy"] = None  # type: ignore[assignment] # makes importing it fail
        if "engine" in self.options:
            tn.engines.use(self.options["engine"])
        layers = [_layer(layer) for layer in case.layers]
        self.model = tn.Sequential(layers, case.input_shape, seed=self.seed, dtype=self.dtype)
        self.model.set_weights([weights[path] for path in self.model.named_weights()])
        rates = {key: value for key, value in case.optimizer.items() if key != "name"}
        self.optimizer = getattr(tn, case.optimizer["name"])(**rates)
        smoothed = tn.CrossEntropy(case.label_smoothing)
        self.loss = smoothed if isinstance(layers[-1], tn.Softmax) else tn.NegativeLogLikelihood()

    def load_images(self, part: str, count: int | None) -> np.ndarray:
        """Return bytes, as users have them."""
        path = self.folder / f"x_{part}.npy"
        return np.load(path) if count is None else np.load(path, mmap_mode="r")[:count].copy()

    def fit(self, x: np.ndarray, y: np.ndarray, **settings: Any) -> tn.History:
        return self.model.fit(
            x,
            y,
            optimizer=self.optimizer,
            loss=self.loss,
            batch_size=self.case.batch_size,
            verbose=0,
            **settings,
        )

    def train(self, epochs: int, on_epoch_end: EpochEnd) -> None:
        self.fit(*self.training_data(), epochs=epochs, callbacks=[_AtEpochEnd(on_epoch_end)])

    def first_step(self) -> None:
        self.fit(*self.training_data(self.case.batch_size))

    def step_losses(self, batches: np.ndarray, steps: tuple[int, ...]) -> list[float]:
        return losses_through_fit(self, batches, steps)

    def predict_classes(self, x: np.ndarray) -> np.ndarray:
        return self.model.predict_classes(x)

    def describe(self) -> dict[str, Any]:
        workers = workers_for(self.model, self.case.batch_size)
        threads = "1 worker" if workers == 1 else f"{workers} workers"
        return {"engine": tn.engines.current(), "threads": threads}


def _layer(layer: dict[str, Any]) -> tn.Layer:
    if layer["children"]:
        return tn.Residual(*map(_layer, layer["children"]))
    return getattr(tn, layer["kind"]).from_config(layer["config"])


class _AtEpochEnd(tn.Callback):
    def __init__(self, call: EpochEnd) -> None:
        self.call = call

    def on_epoch_end(self, run: Run) -> None:
        run.stop_training = self.call()
