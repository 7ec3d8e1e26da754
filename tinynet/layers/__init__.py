"""The layers. Each layer's backward pass is directly below its forward pass."""

from tinynet.layers.activations import LeakyReLU, LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
from tinynet.layers.base import Layer
from tinynet.layers.batchnorm import BatchNorm
from tinynet.layers.conv import Conv2D
from tinynet.layers.dense import Dense
from tinynet.layers.depthwise import DepthwiseConv2D
from tinynet.layers.dropout import Dropout
from tinynet.layers.flatten import Flatten, Reshape
from tinynet.layers.pooling import AveragePool2D, GlobalAveragePool2D, GlobalMaxPool2D, MaxPool2D
from tinynet.layers.rescale import Rescale
from tinynet.layers.residual import Residual

__all__ = [
    "AveragePool2D",
    "BatchNorm",
    "Conv2D",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "Flatten",
    "GlobalAveragePool2D",
    "GlobalMaxPool2D",
    "Layer",
    "LeakyReLU",
    "LogSoftmax",
    "MaxPool2D",
    "ReLU",
    "Rescale",
    "Reshape",
    "Residual",
    "Sigmoid",
    "Softmax",
    "Tanh",
]
