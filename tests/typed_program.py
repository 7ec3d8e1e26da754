"""A small program as a user with a type checker writes it; pyright must find nothing in it (`.ci/run lint`).

But for the mistakes at its end: there, each comment is an error itself if pyright does not find the mistake.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tinynet as tn


class Softplus(tn.Layer):
    """A layer of the user's own."""

    cache_names = ("_x",)
    _x: NDArray[Any]

    def forward(self, x: NDArray[Any], training: bool = False) -> NDArray[Any]:
        if training:
            self._x = x
        y: NDArray[Any] = np.logaddexp(0, x)
        return y

    def backward(self, dy: NDArray[Any]) -> NDArray[Any]:
        dx: NDArray[Any] = dy / (1 + np.exp(-self._x))
        return dx


class Watch(tn.Callback):
    def on_epoch_end(self, run: Any) -> None:
        print(run.epoch, run.mean_loss())


def main(folder: Path) -> float:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 5)).astype(np.float32), rng.integers(0, 3, 64)
    model = tn.Sequential([tn.Dense(8), Softplus(), tn.Dense(3), tn.Softmax()], input_shape=(5,), seed=0)
    history: tn.History = model.fit(
        x,
        y,
        optimizer=tn.AdamW(tn.schedules.cosine(0.01, steps=20), clip_norm=1.0),
        loss=tn.CrossEntropy(label_smoothing=0.1),
        batch_size=16,
        epochs=5,
        validation_split=0.25,
        callbacks=[tn.EarlyStopping("val_loss", patience=2), Watch()],
        verbose=0,
        checkpoint=folder / "checkpoint.safetensors",
    )
    scores: dict[str, float] = model.evaluate(x, y)
    probabilities: NDArray[Any] = model.predict_proba(x)
    first = model.layers[0]
    assert isinstance(first, tn.Dense)
    print(first.W.shape, first.dW.shape, probabilities.shape, history.history["loss"][-1])
    model.save(folder / "model.safetensors")
    again = tn.load_model(folder / "model.safetensors", custom_layers={"Softplus": Softplus})
    report = tn.study.gradcheck(again, x[:4].astype(np.float64), y[:4], tn.CrossEntropy())
    report.check()
    doubled = again.copy(dtype=np.float64).copy(dtype=np.dtype("float32")).to("auto")
    print(doubled.dtype)
    figure = tn.plots.plot_history(history, path=folder / "history.png")
    print(figure, tn.engines.gpu.allow_tf32)
    return scores["accuracy"]


def mistakes(model: tn.Sequential) -> None:
    """Misspelt options, which a type checker finds; not to be called."""
    tn.Conv2D(8, 3, padding="sme")  # pyright: ignore[reportArgumentType]
    tn.DepthwiseConv2D(3, padding="sme")  # pyright: ignore[reportArgumentType]
    tn.MaxPool2D(2, padding="sme")  # pyright: ignore[reportArgumentType]
    tn.AveragePool2D(2, padding="sme")  # pyright: ignore[reportArgumentType]
    tn.Sequential([tn.Dense(2)], (3,), device="gpo")  # pyright: ignore[reportArgumentType]
    tn.Sequential([tn.Dense(2)], (3,), dtype="float16")  # pyright: ignore[reportArgumentType]
    tn.load_model("model.safetensors", device="gpo")  # pyright: ignore[reportArgumentType]
    model.to("cuda")  # pyright: ignore[reportArgumentType]
    model.copy(device="gpo")  # pyright: ignore[reportArgumentType]
    tn.EarlyStopping("val_los")  # pyright: ignore[reportArgumentType]
    tn.ModelCheckpoint("m.safetensors", mode="minimum")  # pyright: ignore[reportArgumentType]
    tn.ReduceLROnPlateau(monitor="acc")  # pyright: ignore[reportArgumentType]
    tn.prune_weights(model, 0.5, scope="globl")  # pyright: ignore[reportArgumentType]
    tn.MagnitudePruning(0.5, scope="globl")  # pyright: ignore[reportArgumentType]
    tn.prune_units(model, 0.5, criterion="l2")  # pyright: ignore[reportArgumentType]
    x = np.zeros((2, 3), np.float32)
    tn.study.compare(model, x, [0, 1], tn.CrossEntropy(), against="jax")  # pyright: ignore[reportArgumentType]
