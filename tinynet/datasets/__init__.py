"""Data: Fashion-MNIST, IDX files, validation splits, augmentation, and images from picture files."""

import importlib
from typing import TYPE_CHECKING, Any

from tinynet.datasets import augment
from tinynet.datasets.idx import IdxError, parse_idx
from tinynet.datasets.split import train_validation_split

if TYPE_CHECKING:
    from tinynet.datasets import fashion_mnist
    from tinynet.datasets.convert import from_image_file
    from tinynet.datasets.download import DownloadError

__all__ = [
    "DownloadError",
    "IdxError",
    "augment",
    "fashion_mnist",
    "from_image_file",
    "parse_idx",
    "train_validation_split",
]

# Loaded when they are used: importing tinynet takes a tenth less without them.
_LATER = {"DownloadError": "download", "from_image_file": "convert"}


def __getattr__(name: str) -> Any:
    if name == "fashion_mnist":
        return importlib.import_module("tinynet.datasets.fashion_mnist")
    if name in _LATER:
        return getattr(importlib.import_module(f"tinynet.datasets.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
