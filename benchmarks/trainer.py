"""The benchmark's interface to every library: a `Trainer`, made in a fresh process for one case."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cases import Case, load_scaled

EpochEnd = Callable[[], bool]
"""Called at the end of each epoch, inside the library's own loop; returns whether to stop training."""


class Trainer(ABC):
    """One library, training one case.

    It is made from the case and the initial weights. Everything else that takes time, such as loading the images, is
    done by the methods, and so is part of the times from process start.

    Args:
        folder: holds the images, ``x_train.npy`` and so on.
        seed: for shuffling and dropout.
        images: how many training images to use; None takes all.
        dtype: "float32"; "float64" only to compare losses.
        options: settings of this contender, such as the backend and the number of threads.
    """

    def __init__(
        self,
        case: Case,
        weights: dict[str, np.ndarray],
        folder: Path,
        *,
        seed: int = 0,
        images: int | None = None,
        dtype: str = "float32",
        options: dict[str, Any] | None = None,
    ) -> None:
        self.case, self.weights, self.folder = case, weights, folder
        self.seed, self.images, self.dtype, self.options = seed, images, dtype, options or {}

    def load_images(self, part: str, count: int | None) -> np.ndarray:
        """Load images as the library gets them: floats in 0..1, scaled once and not at every step, its fastest way."""
        return load_scaled(self.folder / f"x_{part}.npy", self.case.input_scale(), self.dtype, count)

    def load_labels(self, part: str, count: int | None) -> np.ndarray:
        """Load class numbers (n,)."""
        return np.load(self.folder / f"y_{part}.npy")[:count].astype(np.int64)

    def training_data(self, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Load the first ``count`` images and labels; None takes as many as the measurement uses."""
        count = self.images if count is None else count
        return self.load_images("train", count), self.load_labels("train", count)

    @abstractmethod
    def train(self, epochs: int, on_epoch_end: EpochEnd) -> None:
        """Train on all images, shuffled in each epoch."""

    @abstractmethod
    def first_step(self) -> None:
        """Train on the first batch of images, and load only that."""

    @abstractmethod
    def step_losses(self, batches: np.ndarray, steps: tuple[int, ...]) -> list[float]:
        """Train on batches of these rows, in this order, and return the losses of some steps, counted from 1.

        A step's loss is that of its batch before the step's update. ``batches`` is (steps, batch size), of indices.
        """

    @abstractmethod
    def predict_classes(self, x: np.ndarray) -> np.ndarray:
        """Return the most probable class (n,) of each image."""

    def accuracy(self) -> float:
        """Return the share of test images that the network classifies correctly."""
        predicted = self.predict_classes(self.load_images("test", None))
        return float(np.mean(predicted == self.load_labels("test", None)))

    def wait(self) -> None:  # noqa: B027 (most need to do nothing)
        """Wait until a device has done all its work; on the CPU there is none."""

    def describe(self) -> dict[str, Any]:
        """Return what the report should say about this process: threads, kernels; called at the end of training."""
        return {}


def spans(steps: tuple[int, ...]) -> list[tuple[int, int]]:
    """Split the steps so that each one of interest is alone: (1, 10) gives (0, 1), (1, 9), (9, 10)."""
    edges = sorted({0, *(step - 1 for step in steps), *steps})
    return list(itertools.pairwise(edges))


def losses_through_fit(trainer: Any, batches: np.ndarray, steps: tuple[int, ...]) -> list[float]:
    """`Trainer.step_losses` for a library whose ``fit`` takes ``shuffle`` and returns a history, Keras or tinynet."""
    x, y = trainer.training_data()
    losses = {}
    for start, stop in spans(steps):
        rows = batches[start:stop].reshape(-1)
        losses[stop] = float(trainer.fit(x[rows], y[rows], shuffle=False).history["loss"][-1])
    return [losses[step] for step in steps]
