"""The named networks, each with the settings it is trained with.

The command line, the examples and the benchmarks all take them from here:
``recipes.make("mlp_adam", seed=0)``, or ``recipes.mlp_adam(seed=0)``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tinynet import schedules
from tinynet.callbacks import Callback, EarlyStopping
from tinynet.checks import check_positive_int
from tinynet.layers import BatchNorm, Dense, Dropout, Flatten, LogSoftmax, ReLU, Rescale, Softmax
from tinynet.losses import CrossEntropy, Loss, NegativeLogLikelihood
from tinynet.model import Sequential
from tinynet.optimizers import SGD, Adam, Optimizer

# Of the 60,000 the first 5,000 validate. Schedules need to know the number of steps.
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

    def fit_arguments(self) -> dict[str, Any]:
        """The keyword arguments of `Sequential.fit` that the recipe sets."""
        return {
            "optimizer": self.optimizer,
            "loss": self.loss,
            "batch_size": self.batch_size,
            "epochs": self.epochs,
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
        callbacks=[EarlyStopping("val_accuracy", patience=None)],  # the weights of the best epoch
    )


def mlp_adam(
    seed: int | None = None,
    epochs: int = 10,
    batch_size: int = 32,
    learning_rate: float = 0.001,
    training_examples: int = TRAINING_EXAMPLES,
) -> Recipe:
    """784-128-10 with Adam: the smallest network worth training.

    The rate goes down to 0: with a constant one, the last epochs differ by a percent, by chance.
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

    Batch-norm's momentum is 0.99: at 0.9 the running statistics are those of about ten batches, and noisy.
    Early stopping seldom ends a run whose rate goes to 0; it brings back the best epoch.
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


RECIPES: dict[str, Callable[..., Recipe]] = {make.__name__: make for make in (mlp_sgd, mlp_adam, mlp_bn)}


def make(name: str, **settings: Any) -> Recipe:
    """The recipe of that name; settings that are None are left at the recipe's own.

    Args: name: a key of ``RECIPES``; settings: seed, epochs, batch_size, learning_rate, training_examples.
    Raises: ValueError: if there is no such recipe, or a setting is out of range.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    settings = {key: value for key, value in settings.items() if value is not None}
    for key in ("epochs", "batch_size", "training_examples"):
        check_positive_int(key, settings.get(key, 1))
    return RECIPES[name](**settings)
