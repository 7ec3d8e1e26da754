"""A model's loss and gradients, computed by a Keras model of the same layers on Keras's configured backend.

On every backend except TensorFlow, Keras rounds float64 results to float32.
"""

import importlib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from tinynet import layers
from tinynet.layers import Layer
from tinynet.losses import CrossEntropy, Loss, MeanSquaredError, NegativeLogLikelihood, SoftmaxCrossEntropy
from tinynet.model.sequential import Sequential
from tinynet.support.types import Array

_KERAS_NAMES = {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_var": "moving_variance"}
"""Keras's names for variables, where they differ; the shapes are the same."""


def check(model: Sequential, loss: Loss) -> None:
    """Raise ValueError for a layer or loss without a counterpart, naming it."""
    _, objective = model._fuse(loss)
    for path, layer in model.walk():
        if type(layer) not in _LAYERS and type(layer) not in (layers.Residual, layers.Dropout):
            raise ValueError(
                f"layer {path} ({type(layer).__name__}): compare has no Keras counterpart for it"
            )
    if type(objective) not in _LOSSES:
        raise ValueError(f"loss: compare has no Keras counterpart for {type(objective).__name__}")


def dtype(wanted: str) -> str:
    """The dtype in which Keras computes; ModuleNotFoundError if Keras or its backend is missing."""
    return wanted if load().backend.backend() == "tensorflow" else "float32"


def gradients(
    model: Sequential, x: Array, y: Array, loss: Loss, masks: Mapping[str, Array]
) -> tuple[str, float, dict[str, Array]]:
    """Keras's name, version and backend, the loss, and the gradient of each trained parameter.

    Args: x, y: a batch in the model's dtype; masks: the mask of each dropout layer, by path.
    Raises: ValueError: if the backend, or a layer on it, does not compute the same.
    """
    keras = load()
    backend = keras.backend.backend()
    if backend not in _GRADIENTS:
        raise ValueError(f"KERAS_BACKEND: expected one of {', '.join(_GRADIENTS)}; Keras is set to {backend}")
    for path, layer in model.walk():
        if backend == "torch" and isinstance(layer, layers.AveragePool2D) and layer.padding == "same":
            raise ValueError(
                f'layer {path} (AveragePool2D): with padding="same", Keras on torch averages over the padding too; '
                "set KERAS_BACKEND=tensorflow or compare with PyTorch"
            )
    chain, objective = model._fuse(loss)
    build = _Build(keras, str(model.dtype), masks)
    inputs = keras.Input(batch_shape=x.shape, dtype=build.dtype)
    outputs = build.through(((str(index), layer) for index, layer in enumerate(chain)), inputs)
    twin = keras.Model(inputs, outputs)
    for path, layer in model.walk():
        for name in (*layer.param_specs, *layer.state_names):
            build.variable(path, name).assign(getattr(layer, name))

    def objective_of(found: Any) -> Any:
        return _LOSSES[type(objective)](keras, objective, found, keras.ops.convert_to_tensor(y))

    value, found = _GRADIENTS[backend](twin, keras.ops.convert_to_tensor(x), objective_of)
    by_variable = {
        id(variable): keras.ops.convert_to_numpy(gradient)
        for variable, gradient in zip(twin.trainable_variables, found, strict=True)
    }
    named = {
        f"{path}.{name}": by_variable[id(build.variable(path, name))]
        for path, layer in model.walk()
        if layer.trainable
        for name in layer.param_specs
    }
    return f"Keras {keras.__version__} on {backend}", float(value), named


def load() -> Any:
    """The module keras; ModuleNotFoundError if it or its backend is missing."""
    try:
        return importlib.import_module("keras")
    except ModuleNotFoundError as error:
        missing = "Keras" if error.name == "keras" else f"Keras's backend {error.name}"
        raise ModuleNotFoundError(
            f"comparing with Keras needs {missing}: python -m pip install keras tensorflow-cpu, or for another backend "
            "python -m pip install keras torch, with KERAS_BACKEND=torch in the environment",
            name=error.name,
        ) from error


class _Build:
    """Keras layers for a model's layers, by path.

    Args: dtype: of the layers; masks: of the dropout layers, by path.
    """

    def __init__(self, keras: Any, dtype: str, masks: Mapping[str, Array]) -> None:
        self.keras, self.dtype, self.masks = keras, dtype, masks
        self.twins: dict[str, Any] = {}

    def through(self, chain: Iterable[tuple[str, Layer]], x: Any) -> Any:
        """The symbolic output of a chain of layers, given with their paths."""
        for path, layer in chain:
            x = self.layer(path, layer, x)
        return x

    def layer(self, path: str, layer: Layer, x: Any) -> Any:
        """The symbolic output of one layer."""
        if isinstance(layer, layers.Residual):
            inner = [(f"{path}.{index}", child) for index, child in enumerate(layer.children)]
            cut = x if layer.projection is None else self.layer(*inner.pop(), x)
            return self.keras.layers.Add(dtype=self.dtype)([cut, self.through(inner, x)])
        if isinstance(layer, layers.Dropout):
            twin = _times(self.keras, self.masks[path], self.dtype)
        else:
            twin = _LAYERS[type(layer)](self.keras.layers, layer, self.dtype)
        twin.trainable = layer.trainable
        self.twins[path] = twin
        return twin(x)

    def variable(self, path: str, name: str) -> Any:
        """Keras's variable for a tinynet parameter or state."""
        return getattr(self.twins[path], _KERAS_NAMES.get(name, name))


def _times(keras: Any, mask: Array, dtype: str) -> Any:
    class Mask(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x * keras.ops.convert_to_tensor(mask)

    return Mask(dtype=dtype)


def _config(layer: Layer, *names: str) -> dict[str, Any]:
    return {name: getattr(layer, name) for name in names}


_LAYERS: dict[type[Layer], Callable[[Any, Any, str], Any]] = {
    layers.Rescale: lambda k, layer, dtype: k.Rescaling(
        np.float64(layer.scale),
        np.float64(layer.offset),
        dtype=dtype,  # Keras treats Python numbers as float32
    ),
    layers.Flatten: lambda k, layer, dtype: k.Flatten(dtype=dtype),
    layers.Reshape: lambda k, layer, dtype: k.Reshape(layer.target_shape, dtype=dtype),
    layers.Dense: lambda k, layer, dtype: k.Dense(**_config(layer, "units", "use_bias"), dtype=dtype),
    layers.ReLU: lambda k, layer, dtype: k.ReLU(dtype=dtype),
    layers.LeakyReLU: lambda k, layer, dtype: k.LeakyReLU(layer.negative_slope, dtype=dtype),
    layers.Sigmoid: lambda k, layer, dtype: k.Activation("sigmoid", dtype=dtype),
    layers.Tanh: lambda k, layer, dtype: k.Activation("tanh", dtype=dtype),
    layers.Softmax: lambda k, layer, dtype: k.Activation("softmax", dtype=dtype),
    layers.LogSoftmax: lambda k, layer, dtype: k.Activation("log_softmax", dtype=dtype),
    layers.BatchNorm: lambda k, layer, dtype: k.BatchNormalization(
        **_config(layer, "momentum", "epsilon"), dtype=dtype
    ),
    layers.Conv2D: lambda k, layer, dtype: k.Conv2D(
        **_config(layer, "filters", "kernel_size", "strides", "padding", "use_bias"), dtype=dtype
    ),
    layers.DepthwiseConv2D: lambda k, layer, dtype: k.DepthwiseConv2D(
        **_config(layer, "kernel_size", "strides", "padding", "depth_multiplier", "use_bias"), dtype=dtype
    ),
    layers.MaxPool2D: lambda k, layer, dtype: k.MaxPooling2D(
        **_config(layer, "pool_size", "strides", "padding"), dtype=dtype
    ),
    layers.AveragePool2D: lambda k, layer, dtype: k.AveragePooling2D(
        **_config(layer, "pool_size", "strides", "padding"), dtype=dtype
    ),
    layers.GlobalAveragePool2D: lambda k, layer, dtype: k.GlobalAveragePooling2D(dtype=dtype),
    layers.GlobalMaxPool2D: lambda k, layer, dtype: k.GlobalMaxPooling2D(dtype=dtype),
}


def _q(keras: Any, loss: Any, outputs: Any, labels: Any) -> Any:
    """The target probabilities: one-hot labels, smoothed."""
    classes, s = outputs.shape[1], loss.label_smoothing
    return keras.ops.one_hot(labels, classes, dtype=outputs.dtype) * (1 - s) + s / classes


def _of_logits(keras: Any, loss: Any, z: Any, labels: Any) -> Any:
    q = _q(keras, loss, z, labels)
    return keras.ops.sum(keras.losses.categorical_crossentropy(q, z, from_logits=True)) / len(z)


def _of_log_probabilities(keras: Any, loss: Any, log_p: Any, labels: Any) -> Any:
    return -keras.ops.sum(_q(keras, loss, log_p, labels) * log_p) / len(log_p)


# Sums and divisions, because Keras's mean divides by a float32 on some backends.
_LOSSES: dict[type[Loss], Callable[[Any, Any, Any, Any], Any]] = {
    SoftmaxCrossEntropy: _of_logits,
    CrossEntropy: lambda keras, loss, p, labels: _of_log_probabilities(keras, loss, keras.ops.log(p), labels),
    NegativeLogLikelihood: _of_log_probabilities,
    MeanSquaredError: lambda keras, loss, outputs, targets: (
        keras.ops.sum(keras.ops.square(outputs - targets)) / math.prod(outputs.shape)
    ),
}


def _by_tensorflow(twin: Any, x: Any, objective: Callable[[Any], Any]) -> tuple[Any, Any]:
    tf: Any = importlib.import_module("tensorflow")
    with tf.GradientTape() as tape:
        value = objective(twin(x, training=True))
    return value, tape.gradient(value, [variable.value for variable in twin.trainable_variables])


def _by_torch(twin: Any, x: Any, objective: Callable[[Any], Any]) -> tuple[Any, Any]:
    value = objective(twin(x, training=True))
    value.backward()
    return value.detach(), [variable.value.grad for variable in twin.trainable_variables]


def _by_jax(twin: Any, x: Any, objective: Callable[[Any], Any]) -> tuple[Any, Any]:
    jax: Any = importlib.import_module("jax")
    frozen = [variable.value for variable in twin.non_trainable_variables]

    def f(trainable: Any) -> Any:
        outputs, _ = twin.stateless_call(trainable, frozen, x, training=True)
        return objective(outputs)

    result: tuple[Any, Any] = jax.jit(jax.value_and_grad(f))(
        [variable.value for variable in twin.trainable_variables]
    )
    return result


_GRADIENTS = {"tensorflow": _by_tensorflow, "torch": _by_torch, "jax": _by_jax}
