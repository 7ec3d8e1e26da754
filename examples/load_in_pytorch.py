"""Rebuild a saved tinynet model in PyTorch from its file alone, and compare the predictions of both.

    python examples/load_in_pytorch.py
    python examples/load_in_pytorch.py --model runs/cnn/model.safetensors

Everything above `main` needs only torch and safetensors, so you can copy it. A model file is an ordinary safetensors
file. Its metadata["tinynet"] describes the layers as JSON, and arrays are named after their places: "2.W" is the W of
layer 2, "5.0.W" that of the first layer in the Residual at 5. Three things differ from PyTorch: Dense's W is (in, out),
a kernel is (height, width, in, out), and images are (n, height, width, channels), which matters for Flatten. Keras has
all three as here, so ``layer.set_weights([arrays["2.W"], arrays["2.b"]])`` is enough there.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

try:
    import torch
    from safetensors import safe_open
    from torch import nn
    from torch.nn import functional as F
except ImportError:
    sys.exit(
        "load_in_pytorch.py: PyTorch is not installed; "
        "python -m pip install torch --index-url https://download.pytorch.org/whl/cpu installs it"
    )


def in_pytorch(path):
    """Return the network in a model file, ready to predict; like tinynet's, it takes x (n, *input_shape)."""
    with safe_open(path, "pt") as file:
        description = json.loads(file.metadata()["tinynet"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is not a mapping)
    return chain("", description["layers"], arrays).eval()


def chain(path, layers, arrays):
    return nn.Sequential(*(make(f"{path}{place}", layer, arrays) for place, layer in enumerate(layers)))


def make(place, layer, arrays):
    """Return the module for a layer, which is described as {"type": ..., "config": ..., "custom": ...}."""
    kind, config = layer["type"], layer["config"]
    own = {
        name.rpartition(".")[2]: array for name, array in arrays.items() if name.rpartition(".")[0] == place
    }
    W, b = own.get("W"), own.get("b")
    match "a custom layer" if layer["custom"] else kind:
        case "Dense":
            return with_arrays(nn.Linear(*W.shape, bias=b is not None), weight=W.T, bias=b)
        case "Conv2D":
            kernel = W.permute(3, 2, 0, 1)  # (out, in, height, width)
            inner = nn.Conv2d(*W.shape[2:], W.shape[:2], config["strides"], bias=b is not None)
            return Images(with_arrays(inner, weight=kernel, bias=b), config["padding"])
        case "DepthwiseConv2D":
            kernel = W.permute(2, 3, 0, 1).flatten(0, 1)[:, None]  # (in multiplier, 1, height, width)
            channels, size = (W.shape[2], len(kernel)), W.shape[:2]
            inner = nn.Conv2d(*channels, size, config["strides"], groups=W.shape[2], bias=b is not None)
            return Images(with_arrays(inner, weight=kernel, bias=b), config["padding"])
        case "MaxPool2D":
            inner = nn.MaxPool2d(config["pool_size"], config["strides"])
            return Images(inner, config["padding"], fill=-torch.inf)
        case "AveragePool2D":
            return AveragePool(nn.AvgPool2d(config["pool_size"], config["strides"]), config["padding"])
        case "GlobalMaxPool2D":
            return Function(lambda x: x.amax((1, 2)))
        case "GlobalAveragePool2D":
            return Function(lambda x: x.mean((1, 2)))
        case "BatchNorm":
            inner = nn.BatchNorm1d(len(own["gamma"]), config["epsilon"], 1 - config["momentum"])
            with_arrays(inner, weight=own["gamma"], bias=own["beta"])
            inner.running_mean, inner.running_var = own["running_mean"], own["running_var"]
            return Features(inner)
        case "Residual":
            return Residual(place, config, arrays)
        case "Rescale":
            return Function(lambda x: x * config["scale"] + config["offset"])
        case "Reshape":
            return Function(lambda x: x.reshape(len(x), *config["target_shape"]))
        case "Flatten":
            return nn.Flatten()  # of images (n, height, width, channels), as in tinynet
        case "Dropout":
            return nn.Dropout(config["rate"])
        case "LeakyReLU":
            return nn.LeakyReLU(config["negative_slope"])
        case "Softmax" | "LogSoftmax":
            return getattr(nn, kind)(dim=-1)
        case "ReLU" | "Sigmoid" | "Tanh":
            return getattr(nn, kind)()
    raise ValueError(f"layer {place}, {kind!r}, is not known to this program: add it to `make`")


def with_arrays(module, **arrays):
    for name, array in arrays.items():
        if array is not None:
            setattr(module, name, nn.Parameter(array.contiguous()))
    return module


class Images(nn.Module):
    """Applies a module for images (n, channels, height, width) to images (n, height, width, channels)."""

    def __init__(self, inner, padding, fill=0.0):
        super().__init__()
        self.inner, self.padding, self.fill = inner, padding, fill

    def forward(self, x):
        x = x.permute(0, 3, 1, 2)
        if self.padding == "same":  # ceil(pixels / stride) windows; an odd padding pixel goes at the end
            margins = []
            sizes, strides = (pair(value) for value in (self.inner.kernel_size, self.inner.stride))
            for pixels, size, stride in zip(x.shape[2:], sizes, strides, strict=True):
                missing = max(0, (-(-pixels // stride) - 1) * stride + size - pixels)
                margins = [missing // 2, missing - missing // 2, *margins]  # the last axis first
            x = F.pad(x, margins, value=self.fill)
        return self.inner(x).permute(0, 2, 3, 1)


def pair(value):
    return value if isinstance(value, (tuple, list)) else (value, value)


class AveragePool(Images):
    """Average pooling in which padding does not count."""

    def forward(self, x):
        return super().forward(x) / super().forward(torch.ones_like(x))


class Features(nn.Module):
    """Applies a module for rows (n, features) to the last axis of x."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.reshape(-1, x.shape[-1])).reshape(x.shape)


class Residual(nn.Module):
    def __init__(self, place, config, arrays):
        super().__init__()
        layers = [layer["layer"] for layer in config["layers"]]
        self.layers = chain(f"{place}.", layers, arrays)
        cut = config["projection"]  # its place is after the layers
        self.cut = nn.Identity() if cut is None else make(f"{place}.{len(layers)}", cut["layer"], arrays)

    def forward(self, x):
        return self.cut(x) + self.layers(x)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def main(arguments=None):
    import tinynet as tn

    options = parse(arguments)
    model = tn.load_model(options.model)
    network = in_pytorch(options.model)
    print(network)
    x = inputs(model, options.examples)
    ours = model.predict(x)
    with torch.no_grad():
        theirs = network(torch.from_numpy(x.astype(model.dtype))).numpy()
    difference = float(np.abs(ours - theirs).max())
    agree = int((ours.argmax(-1) == theirs.argmax(-1)).sum())
    print(
        f"{len(x):,} examples: largest difference {difference:.1e}, the same class for {agree:,} of {len(x):,}"
    )
    return 0 if np.allclose(ours, theirs, rtol=1e-4, atol=1e-5) else 1


def parse(arguments):
    parser = argparse.ArgumentParser(description="Load a tinynet model into PyTorch.")
    parser.add_argument(
        "--model",
        type=Path,
        default=Path("runs/mlp_bn/model.safetensors"),
        help="default: %(default)s, which train_fashion.py writes",
    )
    parser.add_argument(
        "--examples", type=int, default=1000, help="how many to predict; default: %(default)s"
    )
    return parser.parse_args(arguments)


def inputs(model, count):
    """Return test images of Fashion-MNIST if the model takes such images, otherwise random numbers."""
    from tinynet.datasets import fashion_mnist

    if model.input_shape in ((28, 28), (28, 28, 1)):
        _, (x, _) = fashion_mnist.load(archive=True)
        return x[:count].reshape(-1, *model.input_shape)
    return np.random.default_rng(0).standard_normal((count, *model.input_shape))


if __name__ == "__main__":
    from tinynet.support import console

    console.run(main, (OSError, ValueError))
