"""Named networks with their training settings.

The command line, the examples and the benchmarks all take them from here:
``recipes.make("mlp_adam", seed=0)``, or ``recipes.mlp_adam(seed=0)``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tinynet import schedules
from tinynet.datasets.augment import Compose, RandomErasing, RandomFlip, RandomShift
from tinynet.layers import (
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalMaxPool2D,
    Layer,
    LogSoftmax,
    MaxPool2D,
    ReLU,
    Rescale,
    Reshape,
    Residual,
    Softmax,
)
from tinynet.losses import CrossEntropy, Loss, NegativeLogLikelihood
from tinynet.model.sequential import Sequential
from tinynet.optimizers import SGD, Adam, AdamW, Optimizer
from tinynet.support.checks import check_positive_int
from tinynet.training.batches import Augment
from tinynet.training.callbacks import Callback, EarlyStopping

# The first 5,000 of the 60,000 images are for validation. Schedules need the number of steps.
TRAINING_EXAMPLES = 55_000


@dataclass
class Recipe:
    """A model and how to train it."""

    name: str
    title: str
    model: Sequential
    optimizer: Optimizer
    loss: Loss
    batch_size: int
    epochs: int
    validation_size: int = 5_000
    callbacks: list[Callback] = field(default_factory=list)
    augment: Augment | None = None
    average_flips: bool = False  # predict test images from the mean probabilities of image and mirror image

    def fit_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of `Sequential.fit` that the recipe sets."""
        return {
            "optimizer": self.optimizer,
            "loss": self.loss,
            "batch_size": self.batch_size,
            "epochs": self.epochs,
            "augment": self.augment,
        }


def mlp_sgd(
    seed: int | None = None,
    epochs: int = 30,
    batch_size: int = 32,
    learning_rate: float = 0.01,
    training_examples: int = TRAINING_EXAMPLES,
) -> Recipe:
    """784-300-100-10 with plain SGD, the classic first network."""
    model = Sequential(
        [
            *(Rescale(1 / 255), Flatten()),
            *(Dense(300), ReLU()),
            *(Dense(100), ReLU()),
            *(Dense(10), Softmax()),
        ],
        input_shape=(28, 28),
        seed=seed,
    )
    return Recipe(
        "mlp_sgd",
        "784-300-100-10, ReLU, SGD",
        model,
        SGD(learning_rate),
        CrossEntropy(),
        batch_size,
        epochs,
        callbacks=[EarlyStopping("val_accuracy", patience=None)],  # restores the weights of the best epoch
    )


def mlp_adam(
    seed: int | None = None,
    epochs: int = 10,
    batch_size: int = 32,
    learning_rate: float = 0.001,
    training_examples: int = TRAINING_EXAMPLES,
) -> Recipe:
    """784-128-10 with Adam: the smallest network worth training.

    The learning rate falls to 0: with a constant rate, the last epochs differ by a percent, by chance.
    """
    model = Sequential(
        [
            *(Rescale(1 / 255), Flatten()),
            *(Dense(128), ReLU()),
            *(Dense(10), Softmax()),
        ],
        input_shape=(28, 28),
        seed=seed,
    )
    steps = epochs * -(-training_examples // batch_size)
    return Recipe(
        "mlp_adam",
        "784-128-10, ReLU, Adam with a cosine schedule, early stopping",
        model,
        Adam(schedules.cosine(learning_rate, steps)),
        CrossEntropy(),
        batch_size,
        epochs,
        callbacks=[EarlyStopping("val_accuracy", patience=3)],
    )


def mlp_bn(
    seed: int | None = None,
    epochs: int = 16,
    batch_size: int = 64,
    learning_rate: float = 0.002,
    training_examples: int = TRAINING_EXAMPLES,
) -> Recipe:
    """784-512-256-128-10 with batch-norm and dropout after each hidden layer, and a one-cycle schedule.

    The momentum of batch-norm is 0.99: at 0.9, the running statistics cover about ten batches and are noisy.
    Early stopping rarely ends a run whose learning rate falls to 0, but it restores the best epoch.
    """
    model = Sequential(
        [
            *(Rescale(1 / 255), Flatten()),
            *(Dense(512), BatchNorm(momentum=0.99), ReLU(), Dropout(0.1)),
            *(Dense(256), BatchNorm(momentum=0.99), ReLU(), Dropout(0.1)),
            *(Dense(128), BatchNorm(momentum=0.99), ReLU(), Dropout(0.1)),
            *(Dense(10), LogSoftmax()),
        ],
        input_shape=(28, 28),
        seed=seed,
    )
    steps = epochs * -(-training_examples // batch_size)
    return Recipe(
        "mlp_bn",
        "784-512-256-128-10, batch-norm, ReLU, dropout, Adam with a one-cycle schedule, early stopping",
        model,
        Adam(schedules.one_cycle(learning_rate, steps, warm_up_share=0.2), weight_decay=0.2),
        NegativeLogLikelihood(),
        batch_size,
        epochs,
        callbacks=[EarlyStopping("val_accuracy", patience=8)],
    )


def cnn(
    seed: int | None = None,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 0.002,
    training_examples: int = TRAINING_EXAMPLES,
) -> Recipe:
    """Two convolutions and a dense layer, the classic small network for images.

    Pooling before ReLU gives the same result as pooling after it, as both preserve the order of numbers, and leaves
    ReLU a quarter of the work.
    """
    model = Sequential(
        [
            *(Rescale(1 / 255), Reshape((28, 28, 1))),
            *(Conv2D(32, 3), MaxPool2D(), ReLU()),
            *(Conv2D(64, 3), MaxPool2D(), ReLU()),
            *(Flatten(), Dense(128), ReLU()),
            *(Dense(10), Softmax()),
        ],
        input_shape=(28, 28),
        seed=seed,
    )
    steps = epochs * -(-training_examples // batch_size)
    return Recipe(
        "cnn",
        "convolutions 32-64, dense 128-10, max-pooling, ReLU, Adam with a one-cycle schedule",
        model,
        Adam(schedules.one_cycle(learning_rate, steps, warm_up_share=0.2)),
        CrossEntropy(),
        batch_size,
        epochs,
        callbacks=[EarlyStopping("val_accuracy", patience=None)],  # restores the weights of the best epoch
    )


def _convolution(filters: int, pool: bool = False) -> list[Layer]:
    """Convolution, batch-norm and ReLU. Batch-norm has its own bias and, after the pool, a quarter of the work."""
    return [
        Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal"),
        *([MaxPool2D()] if pool else []),
        BatchNorm(),
        ReLU(),
    ]


def cnn_small(
    seed: int | None = None,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 0.004,
    training_examples: int = TRAINING_EXAMPLES,
) -> Recipe:
    """Fewer than 100,000 parameters: convolutions with batch-norm, a residual block, and no augmentation.

    The learning rate falls to 0, and the last epoch's weights are kept: validation is only monitored.
    """
    model = Sequential(
        [
            *(Rescale(1 / 255), Reshape((28, 28, 1))),
            *_convolution(32, pool=True),
            *_convolution(64, pool=True),
            *_convolution(64),
            Residual(*_convolution(64)),
            *(GlobalMaxPool2D(), Dropout(0.2)),
            *(Dense(10), Softmax()),
        ],
        input_shape=(28, 28),
        seed=seed,
    )
    steps = epochs * -(-training_examples // batch_size)
    return Recipe(
        "cnn_small",
        "convolutions 32-64-64-64, batch-norm, one residual block, AdamW with a one-cycle schedule",
        model,
        AdamW(schedules.one_cycle(learning_rate, steps, warm_up_share=0.25), weight_decay=0.05),
        CrossEntropy(label_smoothing=0.1),
        batch_size,
        epochs,
    )


def cnn_best(
    seed: int | None = None,
    epochs: int = 14,
    batch_size: int = 128,
    learning_rate: float = 0.006,
    training_examples: int = 60_000,
) -> Recipe:
    """The most accurate: batch-norm, a residual block, augmentation, label smoothing, weight decay, one cycle.

    It trains on all 60,000 images. The schedule is fixed in advance and nothing is selected during training, so there
    is no validation. At test time, the probabilities of an image and its mirror image are averaged.
    """
    model = Sequential(
        [
            *(Rescale(1 / 255), Reshape((28, 28, 1))),
            *_convolution(8),
            *_convolution(32, pool=True),
            *_convolution(64, pool=True),
            *_convolution(128),
            *(Residual(*_convolution(128)), MaxPool2D()),
            *_convolution(128),
            GlobalMaxPool2D(),
            *(Dense(10), Softmax()),
        ],
        input_shape=(28, 28),
        seed=seed,
    )
    steps = epochs * -(-training_examples // batch_size)
    return Recipe(
        "cnn_best",
        "convolutions 8-32-64-128-128-128, batch-norm, one residual block, augmentation, AdamW, one-cycle schedule",
        model,
        AdamW(schedules.one_cycle(learning_rate, steps, warm_up_share=0.25), weight_decay=0.05),
        CrossEntropy(label_smoothing=0.1),
        batch_size,
        epochs,
        validation_size=0,
        augment=Compose(RandomFlip(), RandomShift(2), RandomErasing(8, probability=0.35)),
        average_flips=True,
    )


RECIPES: dict[str, Callable[..., Recipe]] = {
    make.__name__: make for make in (mlp_sgd, mlp_adam, mlp_bn, cnn, cnn_small, cnn_best)
}


def make(name: str, **settings: Any) -> Recipe:
    """Return the recipe of that name; settings that are None keep the recipe's defaults.

    Args: name: a key of ``RECIPES``; settings: seed, epochs, batch_size, learning_rate, training_examples.
    Raises: ValueError: if there is no such recipe, or a setting is out of range.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    settings = {key: value for key, value in settings.items() if value is not None}
    for key in ("epochs", "batch_size", "training_examples"):
        check_positive_int(key, settings.get(key, 1))
    return RECIPES[name](**settings)
