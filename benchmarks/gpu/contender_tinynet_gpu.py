"""tinynet on the GPU, through `Sequential.fit` with its defaults; images stay bytes, on the device too."""

from typing import Any

import numpy as np
from cases import TRAINING_IMAGES, Case
from clocks import WallClock, cupy_clock
from contender_tinynet import TinynetTrainer
from trainer_gpu import GpuTrainer

import tinynet as tn
from tinynet.engines import devices
from tinynet.engines.gpu import cublas


class GpuTinynetTrainer(GpuTrainer, TinynetTrainer):
    """tinynet."""

    def __init__(self, case: Case, weights: dict[str, np.ndarray], *arguments: Any, **settings: Any) -> None:
        super().__init__(case, weights, *arguments, **settings)
        self.cupy: Any = None
        if self.on_gpu:
            self.cupy = allow_tf32(self.options["tf32"])
            self.model.to("gpu")
        self.recipe: tn.recipes.Recipe | None = None
        if self.options.get("schedule"):
            self.recipe = tn.recipes.make(case.name, training_examples=TRAINING_IMAGES)
            self.optimizer = self.recipe.optimizer

    def fit(self, x: np.ndarray, y: np.ndarray, **settings: Any) -> tn.History:
        augment = None if self.recipe is None else self.recipe.augment
        return super().fit(x, y, augment=augment, **settings)

    def predict_classes(self, x: np.ndarray) -> np.ndarray:
        return self.model.predict_proba(x, average_flips=self.case.average_flips).argmax(axis=1)

    def wait(self) -> None:
        if self.cupy is not None:
            self.cupy.cuda.runtime.deviceSynchronize()

    def clock(self) -> WallClock:
        return super().clock() if self.cupy is None else cupy_clock(self.cupy)

    def describe(self) -> dict[str, Any]:
        if self.cupy is None:
            return super().describe()
        return {"tf32": f"matrix products {'TF32' if cublas.tf32_allowed() else 'float32'}"}


def allow_tf32(allowed: bool) -> Any:
    """Set tinynet's TF32 switch and return CuPy. Raise DeviceError without CuPy or without a GPU."""
    cupy = devices.get_device("gpu").cupy
    cublas.allow_tf32(allowed)
    return cupy
