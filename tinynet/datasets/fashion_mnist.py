"""Fashion-MNIST: 70,000 grey images of clothes, 28 x 28, in ten classes.

Source: Han Xiao, Kashif Rasul and Roland Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
Machine Learning Algorithms", 2017, https://arxiv.org/abs/1708.07747. The data is under the MIT licence.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinynet.datasets.download import FileSpec, Package, fetch
from tinynet.datasets.idx import parse_idx

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

FILES = (
    FileSpec(
        "train-images-idx3-ubyte",
        gzip_size=26421880,
        gzip_sha256="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        raw_size=47040016,
        raw_sha256="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    FileSpec(
        "train-labels-idx1-ubyte",
        gzip_size=29515,
        gzip_sha256="a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        raw_size=60008,
        raw_sha256="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    FileSpec(
        "t10k-images-idx3-ubyte",
        gzip_size=4422102,
        gzip_sha256="346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        raw_size=7840016,
        raw_sha256="5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    FileSpec(
        "t10k-labels-idx1-ubyte",
        gzip_size=5148,
        gzip_sha256="67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        raw_size=10008,
        raw_sha256="0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)

MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/"
    "b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",  # last: plain http
)

SYSTEM_FOLDERS = (Path("/usr/share/datasets/fashion-mnist"),)  # of the Debian and Ubuntu package
PACKAGE = Package("dataset-fashion-mnist", "usr/share/datasets/fashion-mnist")

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def load(
    data_dir: str | os.PathLike[str] | None = None, *, archive: bool = False, progress: bool = True
) -> tuple[Pair, Pair]:
    """Load Fashion-MNIST, downloading it first if it is not on this machine (31 MB, once).

    The files are looked for in the cache folder, then where Debian and Ubuntu install them, then on the mirrors (the
    address in ``TINYNET_MIRROR`` first), and last in the distribution's archive. Each is checked against the SHA-256
    of its content. With ``TINYNET_OFFLINE=1`` no connection is made.

    Args:
        data_dir: the cache folder; None means the environment variable ``TINYNET_DATA``, or else the user's cache
            folder. It may hold the four files gzipped or decompressed, each in a folder of its own name or not, also
            with a dot as in ``train-images.idx3-ubyte``.
        archive: allow ``apt-get download`` as the last resort, where it exists; it needs no root and installs nothing.
        progress: show a progress bar for downloads if standard error is a terminal.
    Returns: ``(x_train, y_train), (x_test, y_test)``, uint8 arrays of shapes (60000, 28, 28), (60000,),
        (10000, 28, 28) and (10000,); pixels 0 to 255, labels 0 to 9 as in `CLASS_NAMES`.
    Raises: tinynet.datasets.DownloadError: (an OSError) if no source has the files; it lists every source, why it
        failed, and how to install the files by hand.
    """
    contents = fetch(
        "Fashion-MNIST",
        FILES,
        cache_folder(data_dir),
        folders=SYSTEM_FOLDERS,
        mirrors=_mirrors(),
        package=PACKAGE,
        use_archive=archive,
        progress=progress,
    )
    x_train, y_train, x_test, y_test = (parse_idx(contents.pop(spec.name)) for spec in FILES)
    return (x_train, y_train), (x_test, y_test)


def cache_folder(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder where `load` looks first and keeps the files; it may not exist yet."""
    chosen = os.environ.get("TINYNET_DATA") if data_dir is None else data_dir
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("tinynet", appauthor=False) / "fashion-mnist"


def _mirrors() -> tuple[str, ...]:
    first = os.environ.get("TINYNET_MIRROR", "").strip()
    return (first, *MIRRORS) if first else MIRRORS
