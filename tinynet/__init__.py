"""tinynet: the neural-network library you can read in an evening.

    import tinynet as tn

    (x_train, y_train), (x_test, y_test) = tn.datasets.fashion_mnist.load()
    model = tn.Sequential([tn.Rescale(1/255), tn.Flatten(), tn.Dense(128), tn.ReLU(), tn.Dense(10), tn.Softmax()],
                          input_shape=(28, 28), seed=0)
    model.fit(x_train, y_train, optimizer=tn.Adam(), loss=tn.CrossEntropy(), epochs=5)
    model.evaluate(x_test, y_test)

The backward of X is in ``tinynet/layers/``, directly below its forward.
"""

__version__ = "0.1.0"

from tinynet import (
    datasets,
    initializers,
    layers,
    losses,
    metrics,
    optimizers,
    plots,
    recipes,
    schedules,
    study,
)
from tinynet.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    EpochTable,
    ModelCheckpoint,
    ProgressBar,
    ReduceLROnPlateau,
)
from tinynet.history import History
from tinynet.layers import (
    BatchNorm,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Rescale,
    Sigmoid,
    Softmax,
    Tanh,
)
from tinynet.losses import CrossEntropy, Loss, MeanSquaredError, NegativeLogLikelihood, SoftmaxCrossEntropy
from tinynet.model import Sequential, load_model
from tinynet.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from tinynet.storage import ModelFileError
from tinynet.training import NonFiniteError

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "BatchNorm",
    "CSVLogger",
    "Callback",
    "CrossEntropy",
    "Dense",
    "Dropout",
    "EarlyStopping",
    "EpochTable",
    "Flatten",
    "History",
    "Layer",
    "LeakyReLU",
    "LogSoftmax",
    "Loss",
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
    "recipes",
    "schedules",
    "study",
]
