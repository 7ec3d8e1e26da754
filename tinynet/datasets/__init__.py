"""Data: reading IDX files, fetching and loading Fashion-MNIST, setting examples aside for validation."""

from tinynet.datasets import fashion_mnist
from tinynet.datasets.download import DownloadError
from tinynet.datasets.idx import IdxError, parse_idx
from tinynet.datasets.split import train_validation_split

__all__ = ["DownloadError", "IdxError", "fashion_mnist", "parse_idx", "train_validation_split"]
