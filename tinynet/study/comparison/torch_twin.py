"""A model's loss and gradients, computed by PyTorch's functions and autograd.

Images stay (n, h, w, c) between layers, and parameters have tinynet's shapes. Where a PyTorch function needs another
layout, its arguments are permuted, and autograd returns the gradients in tinynet's layout.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tinynet import layers
from tinynet.layers import Layer
from tinynet.layers.windows.geometry import Windows, windows
from tinynet.losses import CrossEntropy, Loss, MeanSquaredError, NegativeLogLikelihood, SoftmaxCrossEntropy
from tinynet.model.sequential import Sequential
from tinynet.support.types import Array


def check(model: Sequential, loss: Loss) -> None:
    """Raise ValueError for a layer or loss without a counterpart, naming it."""
    _, objective = model._fuse(loss)
    for path, layer in model.walk():
        if type(layer) not in _LAYERS and type(layer) not in (layers.Residual, layers.Dropout):
            raise ValueError(
                f"layer {path} ({type(layer).__name__}): compare has no PyTorch counterpart for it"
            )
    if type(objective) not in _LOSSES:
        raise ValueError(f"loss: compare has no PyTorch counterpart for {type(objective).__name__}")


def dtype(wanted: str) -> str:
    """The dtype in which PyTorch computes; ModuleNotFoundError if PyTorch is missing."""
    load()
    return wanted


def gradients(
    model: Sequential, x: Array, y: Array, loss: Loss, masks: Mapping[str, Array]
) -> tuple[str, float, dict[str, Array]]:
    """PyTorch's name and version, the loss, and the gradient of each trained parameter.

    Args: x, y: a batch in the model's dtype; masks: the mask of each dropout layer, by path.
    """
    torch = load()
    chain, objective = model._fuse(loss)
    params = {
        f"{path}.{name}": torch.tensor(getattr(layer, name), requires_grad=layer.trainable)
        for path, layer in model.walk()
        for name in layer.param_specs
    }
    run = _Run(torch, params, {path: torch.tensor(mask) for path, mask in masks.items()})
    outputs = run.through({str(index): layer for index, layer in enumerate(chain)}, torch.tensor(x))
    value = _LOSSES[type(objective)](torch.nn.functional, objective, outputs, torch.tensor(y))
    value.backward()
    found = {name: p.grad.numpy() for name, p in params.items() if p.requires_grad}
    return f"PyTorch {torch.__version__}", value.item(), found


def load() -> Any:
    """The module torch; ModuleNotFoundError if it is missing."""
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "comparing with PyTorch needs PyTorch: python -m pip install torch", name="torch"
        ) from error


class _Run:
    """One forward pass.

    Args: params: by tinynet's names, in its shapes; masks: of the dropout layers, by path.
    """

    def __init__(self, torch: Any, params: Mapping[str, Any], masks: Mapping[str, Any]) -> None:
        self.torch, self.F, self.params, self.masks = torch, torch.nn.functional, params, masks

    def through(self, chain: Mapping[str, Layer], x: Any) -> Any:
        """The output of a chain of layers, given by path, for x."""
        for path, layer in chain.items():
            x = self.layer(path, layer, x)
        return x

    def layer(self, path: str, layer: Layer, x: Any) -> Any:
        """The output of one layer for x."""
        if isinstance(layer, layers.Dropout):
            return x * self.masks[path]
        if isinstance(layer, layers.Residual):
            inner = {f"{path}.{index}": child for index, child in enumerate(layer.children)}
            cut = x
            if layer.projection is not None:
                (last, projection) = inner.popitem()
                cut = self.layer(last, projection, x)
            return cut + self.through(inner, x)
        return _LAYERS[type(layer)](
            self, layer, x, {name: self.params[f"{path}.{name}"] for name in layer.param_specs}
        )

    def padded(self, x: Any, places: Windows, value: float = 0.0) -> Any:
        """Images (n, h, w, c) as (n, c, h, w), with the padding that the windows need."""
        down, across = places
        return self.F.pad(
            x.permute(0, 3, 1, 2), (across.before, across.after, down.before, down.after), value=value
        )


def _images(x: Any) -> Any:
    """(n, c, h, w) as (n, h, w, c)."""
    return x.permute(0, 2, 3, 1)


def _places(layer: Any) -> Windows:
    assert layer.input_shape is not None
    size = layer.pool_size if hasattr(layer, "pool_size") else layer.kernel_size
    strides = size if layer.strides is None else layer.strides
    return windows(layer.input_shape, size, strides, layer.padding, "window")


def _conv(run: _Run, layer: Any, x: Any, p: dict[str, Any]) -> Any:
    places = _places(layer)
    strides = [axis.stride for axis in places]
    return _images(run.F.conv2d(run.padded(x, places), p["W"].permute(3, 2, 0, 1), p.get("b"), strides))


def _depthwise(run: _Run, layer: Any, x: Any, p: dict[str, Any]) -> Any:
    places, (kh, kw, c, multiplier) = _places(layer), layer.W.shape
    kernel = p["W"].permute(2, 3, 0, 1).reshape(c * multiplier, 1, kh, kw)
    strides = [axis.stride for axis in places]
    return _images(run.F.conv2d(run.padded(x, places), kernel, p.get("b"), strides, groups=c))


def _max_pool(run: _Run, layer: Any, x: Any, p: dict[str, Any]) -> Any:
    places = _places(layer)
    size, strides = [axis.size for axis in places], [axis.stride for axis in places]
    return _images(run.F.max_pool2d(run.padded(x, places, -np.inf), size, strides))


def _average_pool(run: _Run, layer: Any, x: Any, p: dict[str, Any]) -> Any:
    places = _places(layer)
    size, strides = [axis.size for axis in places], [axis.stride for axis in places]
    ones = run.padded(run.torch.ones_like(x), places)
    share = run.F.avg_pool2d(ones, size, strides)  # the part of each window that is not padding
    return _images(run.F.avg_pool2d(run.padded(x, places), size, strides) / share)


def _batchnorm(run: _Run, layer: Any, x: Any, p: dict[str, Any]) -> Any:
    rows = x.reshape(-1, x.shape[-1])
    mean, var = (run.torch.tensor(array) for array in (layer.running_mean, layer.running_var))
    y = run.F.batch_norm(rows, mean, var, p["gamma"], p["beta"], training=layer.trainable, eps=layer.epsilon)
    return y.reshape(x.shape)


_LAYERS: dict[type[Layer], Callable[[_Run, Any, Any, dict[str, Any]], Any]] = {
    layers.Rescale: lambda run, layer, x, p: x * layer.scale + layer.offset,
    layers.Flatten: lambda run, layer, x, p: x.reshape(len(x), -1),
    layers.Reshape: lambda run, layer, x, p: x.reshape(len(x), *layer.target_shape),
    layers.Dense: lambda run, layer, x, p: run.F.linear(x, p["W"].T, p.get("b")),
    layers.ReLU: lambda run, layer, x, p: run.F.relu(x),
    layers.LeakyReLU: lambda run, layer, x, p: run.F.leaky_relu(x, layer.negative_slope),
    layers.Sigmoid: lambda run, layer, x, p: run.torch.sigmoid(x),
    layers.Tanh: lambda run, layer, x, p: run.torch.tanh(x),
    layers.Softmax: lambda run, layer, x, p: run.F.softmax(x, dim=-1),
    layers.LogSoftmax: lambda run, layer, x, p: run.F.log_softmax(x, dim=-1),
    layers.BatchNorm: _batchnorm,
    layers.Conv2D: _conv,
    layers.DepthwiseConv2D: _depthwise,
    layers.MaxPool2D: _max_pool,
    layers.AveragePool2D: _average_pool,
    layers.GlobalAveragePool2D: lambda run, layer, x, p: x.mean(dim=(1, 2)),
    layers.GlobalMaxPool2D: lambda run, layer, x, p: run.F.max_pool2d(
        x.permute(0, 3, 1, 2), tuple(x.shape[1:3])
    ).flatten(1),
}


def _cross_entropy_of_probabilities(F: Any, loss: Any, p: Any, labels: Any) -> Any:
    q = (
        F.one_hot(labels, p.shape[1]).to(p.dtype) * (1 - loss.label_smoothing)
        + loss.label_smoothing / p.shape[1]
    )
    return -(q * p.log()).sum() / len(p)


_LOSSES: dict[type[Loss], Callable[[Any, Any, Any, Any], Any]] = {
    SoftmaxCrossEntropy: lambda F, loss, z, labels: F.cross_entropy(
        z, labels, label_smoothing=loss.label_smoothing
    ),
    CrossEntropy: _cross_entropy_of_probabilities,
    NegativeLogLikelihood: lambda F, loss, log_p, labels: F.nll_loss(log_p, labels),
    MeanSquaredError: lambda F, loss, outputs, targets: F.mse_loss(outputs, targets),
}
