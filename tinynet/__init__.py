"""tinynet: the neural-network library you can read in an evening.

    import tinynet as tn

    (x_train, y_train), (x_test, y_test) = tn.datasets.fashion_mnist.load()
    model = tn.Sequential([tn.Rescale(1/255), tn.Flatten(), tn.Dense(128), tn.ReLU(), tn.Dense(10), tn.Softmax()],
                          input_shape=(28, 28), seed=0)
    model.fit(x_train, y_train, optimizer=tn.Adam(), loss=tn.CrossEntropy(), epochs=5)
    model.evaluate(x_test, y_test)

Each layer's backward pass is in ``tinynet/layers/``, directly below its forward pass.
"""

from tinynet import (
    datasets,
    initializers,
    layers,
    losses,
    metrics,
    optimizers,
    plots,
    pruning,
    recipes,
    schedules,
    slimming,
    study,
)
from tinynet.backend import DeviceError, DeviceMemoryError
from tinynet.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    EpochTable,
    ModelCheckpoint,
    ProgressBar,
    ReduceLROnPlateau,
)
from tinynet.errors import NonFiniteError
from tinynet.history import History
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
from tinynet.model import Sequential, load_model
from tinynet.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from tinynet.pruning import MagnitudePruning, prune_weights
from tinynet.slimming import prune_units
from tinynet.storage import ModelFileError
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
