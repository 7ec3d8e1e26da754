"""scikit-learn's MLPClassifier, one call of `partial_fit` per epoch, which keeps the optimizer's state between calls.

`fit` with ``warm_start`` would reset the moments at each epoch. float32 images in 0..1, flattened.
"""

from typing import Any

import numpy as np
from cases import CLASSES, Case
from sklearn.neural_network import MLPClassifier
from trainer import EpochEnd, Trainer


class _StartingFrom(MLPClassifier):
    """An MLPClassifier with given initial weights.

    They must be in place before the first `partial_fit` makes the optimizer, so this replaces the method that draws
    them, layer by layer.
    """

    def _init_coef(self, fan_in: int, fan_out: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        W, b = self.initial_layers.pop(0)
        assert W.shape == (fan_in, fan_out)
        return W.astype(dtype), b.astype(dtype)


class SklearnTrainer(Trainer):
    """scikit-learn."""

    def __init__(self, case: Case, weights: dict[str, np.ndarray], *arguments: Any, **settings: Any) -> None:
        super().__init__(case, weights, *arguments, **settings)
        extra = case.kinds() - {"Flatten", "Dense", "ReLU"}
        if extra:
            raise ValueError(f"MLPClassifier has no {', '.join(sorted(extra))}")
        dense = [layer for layer in case.hidden_layers() if layer["kind"] == "Dense"]
        optimizer = {
            "SGD": {"solver": "sgd", "momentum": 0.0, "nesterovs_momentum": False},
            "Adam": {"solver": "adam"}
            | {key: value for key, value in case.optimizer.items() if key in ("beta_1", "beta_2", "epsilon")},
        }[case.optimizer["name"]]
        self.model = _StartingFrom(
            hidden_layer_sizes=tuple(layer["config"]["units"] for layer in dense[:-1]),
            alpha=0.0,
            batch_size=case.batch_size,
            learning_rate_init=case.optimizer["learning_rate"],
            random_state=np.random.RandomState(self.seed),  # an int would shuffle every epoch in the same way
            **optimizer,
        )
        self.model.initial_layers = [
            (weights[f"{layer['path']}.W"], weights[f"{layer['path']}.b"]) for layer in dense
        ]

    def load_images(self, part: str, count: int | None) -> np.ndarray:
        x = super().load_images(part, count)
        return x.reshape(len(x), -1)

    def _fit(self, x: np.ndarray, y: np.ndarray) -> None:
        self.model.partial_fit(x, y, classes=np.arange(CLASSES))

    def train(self, epochs: int, on_epoch_end: EpochEnd) -> None:
        x, y = self.training_data()
        for _ in range(epochs):
            self._fit(x, y)
            if on_epoch_end():
                return

    def first_step(self) -> None:
        self._fit(*self.training_data(self.case.batch_size))

    def step_losses(self, batches: np.ndarray, steps: tuple[int, ...]) -> list[float]:
        x, y = self.training_data()
        losses = []
        for rows in batches[: max(steps)]:
            self._fit(x[rows], y[rows])
            losses.append(float(self.model.loss_))
        return [losses[step - 1] for step in steps]

    def predict_classes(self, x: np.ndarray) -> np.ndarray:
        return self.model.predict(x)
