"""Data: Fashion-MNIST, IDX files, validation splits, augmentation, and images from picture files."""

from tinynet.datasets import augment, fashion_mnist
from tinynet.datasets.convert import from_image_file
from tinynet.datasets.download import DownloadError
from tinynet.datasets.idx import IdxError, parse_idx
from tinynet.datasets.split import train_validation_split

__all__ = [
    "DownloadError",
    "IdxError",
    "augment",
    "fashion_mnist",
    "from_image_file",
    "parse_idx",
    "train_validation_split",
]
