"""The forward and backward passes through a sequence of layers."""

import itertools
from collections.abc import Sequence

from tinynet.layers.activations import ReLU
from tinynet.layers.base import Layer
from tinynet.layers.dense import Dense
from tinynet.types import Array


def trains(layer: Layer) -> bool:
    """Whether the layer, or one inside it, has parameters that train."""
    return (layer.trainable and bool(layer.param_specs)) or any(map(trains, layer.children))


def forward_through(layers: Sequence[Layer], x: Array, training: bool) -> Array:
    """The last layer's y. A Dense layer's bias is added by the ReLU after it, in the same pass over the numbers."""
    pairs = itertools.zip_longest(layers, layers[1:])
    for layer, following in pairs:
        if type(layer) is Dense and type(following) is ReLU and layer.use_bias:
            x = following.forward(layer.forward(x, training, add_bias=False), training, layer.b)
            next(pairs)
        else:
            x = layer.forward(x, training)
    return x


def backward_through(layers: Sequence[Layer], dy: Array, needs_input_grad: bool) -> Array | None:
    """Write every trainable parameter's gradient and return the first layer's dx.

    If dx is not needed, it is None, and the layers below the first trainable one do nothing at all.
    """
    first = plan_gradients(layers, needs_input_grad)
    gradient: Array | None = dy
    for layer in reversed(layers[first:]):
        assert gradient is not None
        gradient = layer.backward(gradient)
    return gradient if needs_input_grad else None


def plan_gradients(layers: Sequence[Layer], needs_input_grad: bool) -> int:
    """Tell each layer whether its dx is needed, and return the index of the layer where the backward pass ends."""
    first = 0
    if not needs_input_grad:
        first = next((index for index, layer in enumerate(layers) if trains(layer)), len(layers))
    for index, layer in enumerate(layers):
        needed = needs_input_grad or index != first
        if layer.needs_input_grad is not needed:  # setting a layer's attribute is slower than reading it
            layer.needs_input_grad = needed
    return first
