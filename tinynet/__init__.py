"""tinynet: the neural-network library you can read in an evening.

    import tinynet as tn

    (x_train, y_train), (x_test, y_test) = tn.datasets.fashion_mnist.load()
    model = tn.Sequential([tn.Rescale(1/255), tn.Flatten(), tn.Dense(128), tn.ReLU(), tn.Dense(10), tn.Softmax()],
                          input_shape=(28, 28), seed=0)
    model.fit(x_train, y_train, optimizer=tn.Adam(), loss=tn.CrossEntropy(), epochs=5)
    model.evaluate(x_test, y_test)

Each layer's backward pass is in ``tinynet/layers/``, directly below its forward pass.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tinynet import (
    datasets,
    engines,
    initializers,
    layers,
    losses,
    metrics,
    optimizers,
    pruning,
    recipes,
    schedules,
    slimming,
)
from tinynet.layers import (
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAveragePool2D,
    GlobalMaxPool2D,
    Layer,
    LeakyReLU,
    LogSoftmax,
    MaxPool2D,
    ReLU,
    Rescale,
    Reshape,
    Residual,
    Sigmoid,
    Softmax,
    Tanh,
)
from tinynet.losses import CrossEntropy, Loss, MeanSquaredError, NegativeLogLikelihood, SoftmaxCrossEntropy
from tinynet.model.sequential import Sequential, load_model
from tinynet.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from tinynet.pruning import MagnitudePruning, prune_weights
from tinynet.slimming import prune_units
from tinynet.support.errors import DeviceError, DeviceMemoryError, ModelFileError, NonFiniteError
from tinynet.training.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    ModelCheckpoint,
    ReduceLROnPlateau,
)
from tinynet.training.display import EpochTable, ProgressBar
from tinynet.training.run import History
from tinynet.transfer import transfer_weights
from tinynet.version import __version__

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "AveragePool2D",
    "BatchNorm",
    "CSVLogger",
    "Callback",
    "Conv2D",
    "CrossEntropy",
    "Dense",
    "DepthwiseConv2D",
    "DeviceError",
    "DeviceMemoryError",
    "Dropout",
    "EarlyStopping",
    "EpochTable",
    "Flatten",
    "GlobalAveragePool2D",
    "GlobalMaxPool2D",
    "History",
    "Layer",
    "LeakyReLU",
    "LogSoftmax",
    "Loss",
    "MagnitudePruning",
    "MaxPool2D",
    "MeanSquaredError",
    "ModelCheckpoint",
    "ModelFileError",
    "NegativeLogLikelihood",
    "NonFiniteError",
    "Optimizer",
    "ProgressBar",
    "RMSprop",
    "ReLU",
    "ReduceLROnPlateau",
    "Rescale",
    "Reshape",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Tanh",
    "__version__",
    "datasets",
    "engines",
    "initializers",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "optimizers",
    "plots",
    "prune_units",
    "prune_weights",
    "pruning",
    "recipes",
    "schedules",
    "slimming",
    "study",
    "transfer_weights",
]

if TYPE_CHECKING:
    from tinynet import cublas as cublas
    from tinynet import plots, study

_LOADED_WHEN_USED = ("cublas", "plots", "study")


def __getattr__(name: str) -> Any:
    if name in _LOADED_WHEN_USED:
        return importlib.import_module(f"tinynet.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
