"""The GPU benchmark's interface to every library, in addition to `trainer.Trainer`."""

from abc import abstractmethod
from typing import Any

import numpy as np
from clocks import WallClock
from trainer import Trainer


class GpuTrainer(Trainer):
    """One library, training one case on a GPU or, for a rehearsal, on the CPU.

    Options: "device", "gpu" or "cpu"; "tf32", whether matrix products and convolutions may round their float32 inputs
    to TF32; "schedule", whether to train with the recipe's learning rates and augmentation.
    """

    @property
    def on_gpu(self) -> bool:
        return bool(self.options["device"] == "gpu")

    @property
    def augment(self) -> dict[str, Any] | None:
        """How to change training images, as in `cases.Case`."""
        return self.case.augment if self.options.get("schedule") else None

    def rates(self) -> np.ndarray:
        """Return the learning rate of each step; the last one applies to all further steps."""
        if not self.options.get("schedule"):
            return np.array([self.case.optimizer["learning_rate"]])
        return np.load(self.folder / f"rates_{self.case.name}.npy")

    def training_data(self, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Like `Trainer.training_data`; if more images are wanted than there are, they are repeated."""
        count = self.images if count is None else count
        x, y = super().training_data(count)
        if count is None or count <= len(x):
            return x, y
        rows = np.arange(count) % len(x)
        return x[rows], y[rows]

    def clock(self) -> WallClock:
        """Return a clock for epochs, with device events if the library has them."""
        return WallClock(self.wait)

    @abstractmethod
    def wait(self) -> None:
        """Wait until the device has done all its work."""

    def first_step(self) -> None:
        """Not measured on the GPU."""
        raise NotImplementedError
