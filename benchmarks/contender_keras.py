"""Keras 3 through `Model.fit`, on the backend named by the options; float32 images in 0..1.

The other backends and scikit-learn, which Keras imports if it finds them, are hidden, as if only this backend's
extra were installed: otherwise JAX's first step would wait for TensorFlow.

Options: backend ("tensorflow", "jax", "torch"); jit_compile and steps_per_execution, as in `compile`. No metrics are
computed, which saves Keras what tinynet's training accuracy costs.
"""

import os
import random
import sys
from typing import Any

import numpy as np
from cases import Case
from trainer import EpochEnd, Trainer, losses_through_fit


class KerasTrainer(Trainer):
    """Keras on one of its backends."""

    def __init__(self, case: Case, weights: dict[str, np.ndarray], *arguments: Any, **settings: Any) -> None:
        super().__init__(case, weights, *arguments, **settings)
        os.environ["KERAS_BACKEND"] = self.options["backend"]
        os.environ["KERAS_HOME"] = str(self.folder / "keras")  # defaults, whatever the user's configuration
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        if self.dtype == "float64":
            os.environ["JAX_ENABLE_X64"] = "1"
        for other in {"tensorflow", "jax", "torch", "sklearn"} - {self.options["backend"]}:
            sys.modules[other] = None  # type: ignore[assignment] # makes importing it fail
        import keras

        self.keras = keras
        keras.config.set_floatx(self.dtype)
        self._seed()
        self.model = keras.Sequential([keras.layers.Input(case.input_shape)])
        for layer in case.hidden_layers():
            self.model.add(self._layer(layer["kind"], layer["config"]))
        for twin, layer in zip(self.model.layers, case.hidden_layers(), strict=True):
            values = [array for name, array in weights.items() if name.startswith(f"{layer['path']}.")]
            if values:  # W, b; or gamma, beta, running_mean, running_var: the same order as in Keras
                twin.set_weights(values)
        settings = {key: value for key, value in case.optimizer.items() if key != "name"}
        self.model.compile(
            optimizer=getattr(keras.optimizers, case.optimizer["name"])(**settings),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=self.options.get("jit_compile", "auto"),
            steps_per_execution=self.options.get("steps_per_execution", 1),
        )

    def _seed(self) -> None:
        """Do what `keras.utils.set_random_seed` does, which would import TensorFlow with any backend."""
        random.seed(self.seed)
        np.random.seed(self.seed)  # noqa: NPY002 (Keras shuffles with it)
        if self.options["backend"] == "tensorflow":
            import tensorflow

            tensorflow.random.set_seed(self.seed)
        if self.options["backend"] == "torch":
            import torch

            torch.manual_seed(self.seed)

    def _layer(self, kind: str, config: dict[str, Any]) -> Any:
        layers = self.keras.layers
        if kind == "Flatten":
            return layers.Flatten()
        if kind == "Reshape":
            return layers.Reshape(config["target_shape"])
        if kind == "ReLU":
            return layers.ReLU()
        if kind == "Dense":
            return layers.Dense(config["units"], use_bias=config["use_bias"])
        if kind == "Conv2D":
            arguments = {key: config[key] for key in ("strides", "padding", "use_bias")}
            return layers.Conv2D(config["filters"], config["kernel_size"], **arguments)
        if kind == "MaxPool2D":
            return layers.MaxPooling2D(config["pool_size"], config["strides"], config["padding"])
        if kind == "BatchNorm":
            return layers.BatchNormalization(momentum=config["momentum"], epsilon=config["epsilon"])
        if kind == "Dropout":
            return layers.Dropout(config["rate"])
        raise ValueError(f"{kind}: no translation to Keras")

    def load_labels(self, part: str, count: int | None) -> np.ndarray:
        return super().load_labels(part, count).astype(np.int32)

    def fit(self, x: np.ndarray, y: np.ndarray, **settings: Any) -> Any:
        return self.model.fit(x, y, batch_size=self.case.batch_size, verbose=0, **settings)

    def train(self, epochs: int, on_epoch_end: EpochEnd) -> None:
        trainer = self

        class AtEpochEnd(self.keras.callbacks.Callback):
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                trainer._wait()
                trainer.model.stop_training = on_epoch_end()

        self.fit(*self.training_data(), epochs=epochs, callbacks=[AtEpochEnd()])

    def first_step(self) -> None:
        self.fit(*self.training_data(self.case.batch_size))
        self._wait()

    def _wait(self) -> None:
        """Wait until all steps are computed, as JAX returns early. Every step changes the last bias."""
        self.keras.ops.convert_to_numpy(self.model.trainable_variables[-1])

    def step_losses(self, batches: np.ndarray, steps: tuple[int, ...]) -> list[float]:
        return losses_through_fit(self, batches, steps)

    def predict_classes(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.model.predict(x, batch_size=1000, verbose=0)).argmax(axis=1)

    def describe(self) -> dict[str, Any]:
        backend = self.options["backend"]
        if backend == "tensorflow":
            return {"kernels": "TensorFlow's own (Eigen, oneDNN)", "threads": "TensorFlow's own choice"}
        if backend == "jax":
            return {"kernels": "XLA's own", "threads": "XLA's own choice"}
        from contender_torch import describe_torch

        return describe_torch()
