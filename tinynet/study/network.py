"""A network for the commands: with its loss, and images in the form that it was fitted on."""

import math
from pathlib import Path
from typing import NamedTuple

from tinynet.losses import Loss
from tinynet.model import heads
from tinynet.model.sequential import Sequential, load_model
from tinynet.support.types import Array


class Network(NamedTuple):
    """The network that a command works with."""

    name: str
    heading: str
    model: Sequential
    loss: Loss
    takes_bytes: bool  # takes images as bytes; if False, scaled to 0..1


def saved_network(path: Path, instead: str) -> Network:
    """The network in a file.

    Args: instead: the Python call that the error suggests for other networks.
    Raises: FileNotFoundError, ModelFileError: as `load_model`; ValueError: if it was fitted for regression.
    """
    model = load_model(path)
    loss = model.loss or heads.loss_for(model.layers[-1])
    if not loss.is_classification:
        raise ValueError(
            f"{path}: expected a model of classes, as Fashion-MNIST has; it was fitted with {loss!r}. "
            f"Use Python instead: {instead}"
        )
    takes_bytes = model.fitted_on_bytes or model.step == 0  # an unfitted model takes bytes, as the recipes do
    return Network(str(path.name), str(path), model, loss, takes_bytes)


def inputs_of(network: Network, images: Array, instead: str) -> Array:
    """Images (n, 28, 28) of bytes, in the shape and range that the network takes; ValueError if they don't fit."""
    model = network.model
    if math.prod(model.input_shape) != math.prod(images.shape[1:]):
        raise ValueError(
            f"the model takes inputs of shape {model.input_shape}, but Fashion-MNIST's images have shape "
            f"{images.shape[1:]}. Use Python instead: {instead}"
        )
    x: Array = images.reshape(-1, *model.input_shape)
    return x if network.takes_bytes else x / 255
