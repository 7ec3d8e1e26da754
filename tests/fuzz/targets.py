"""What is fuzzed. A target takes any bytes and returns, whatever they are; anything it raises is a defect."""

import atexit
import contextlib
import functools
import gzip
import hashlib
import os
import shutil
import tempfile
import warnings

import numpy as np
import safetensors.numpy

import tinynet as tn
import tinynet.training.checkpoint
from tinynet.datasets import IdxError, parse_idx
from tinynet.datasets.download import BadFileError, FileSpec, unpack
from tinynet.files import storage

_CONTENT = b"\0\0\x08\1\0\0\0\x05hello"
_PACKED = gzip.compress(_CONTENT, mtime=0)
_SPEC = FileSpec(
    "hello",
    len(_PACKED),
    hashlib.sha256(_PACKED).hexdigest(),
    len(_CONTENT),
    hashlib.sha256(_CONTENT).hexdigest(),
)
_FOLDER = tempfile.mkdtemp(prefix="tinynet-fuzz-")
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
_PATH = os.path.join(_FOLDER, "file")
_ARRAYS = {"0.W": np.ones((3, 2), np.float32), "0.b": np.zeros(2, np.float32)}


def idx(data: bytes) -> None:
    """`parse_idx`: an array of the file's sizes, with every byte of its data, or IdxError."""
    with contextlib.suppress(IdxError):
        array = parse_idx(data)
        assert array.dtype.isnative
        if not data.startswith(b"\x1f\x8b"):
            assert 4 + 4 * array.ndim + array.nbytes == len(data)


def gzipped(data: bytes) -> None:
    """The downloader's gzip reader: the one right content, or BadFileError."""
    with contextlib.suppress(BadFileError):
        packed, content = unpack(data, _SPEC)
        assert content == _CONTENT
        assert gzip.decompress(packed) == _CONTENT


def model(data: bytes) -> None:
    """`load_model`: a model that can predict, or ModelFileError with the file's name."""
    with _refusals(data):
        loaded = tn.load_model(_PATH)
        assert all(array.flags.writeable for array in loaded.named_weights().values())


def description(data: bytes) -> None:
    """`load_model`, where the digest is right and the bytes are the description: the fuzzer can't make a digest."""
    try:
        text = data.decode()
        digest = storage._digest(text, _ARRAYS)
        file = safetensors.numpy.save(_ARRAYS, {"tinynet": text, "sha256": digest})
    except ValueError:
        return
    model(file)


def checkpoint(data: bytes) -> None:
    """The checkpoint reader: what a run needs to go on, or ModelFileError with the file's name."""
    with _refusals(data):
        saved = tinynet.training.checkpoint.read(_PATH)
        assert sum(array.nbytes for array in saved.weights.values()) < len(data)


def resume(data: bytes) -> None:
    """`fit(resume=...)`, where the digest is right and the bytes are the description: it goes on, or ValueError."""
    arrays = _checkpoint()
    try:
        text = data.decode()
        digest = storage._digest(text, arrays)
        file = safetensors.numpy.save(dict(arrays), {"tinynet": text, "sha256": digest})
    except ValueError:
        return
    checkpoint(file)
    with contextlib.suppress(ValueError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as that it was written elsewhere
        _train(resume=_PATH)


@functools.cache
def _checkpoint() -> dict[str, np.ndarray]:
    """The arrays of a good checkpoint."""
    path = os.path.join(_FOLDER, "checkpoint")
    _train(epochs=1, checkpoint=path)  # of two: so that there is something to go on with
    return storage.load(path, kind="checkpoint")[1]


def _train(epochs: int = 2, **settings: str) -> None:
    x, y = np.arange(12.0).reshape(4, 3) / 12, np.array([0, 1, 1, 0])
    layers = [tn.Dense(2), tn.BatchNorm(), tn.Dropout(0.2), tn.Dense(2), tn.Softmax()]
    model = tn.Sequential(layers, input_shape=(3,), seed=0)
    callbacks = [tn.EarlyStopping("loss", patience=5)]
    model.fit(
        x,
        y,
        optimizer=tn.Adam(),
        loss=tn.CrossEntropy(),
        batch_size=2,
        epochs=epochs,
        callbacks=callbacks,
        verbose=0,
        **settings,
    )


@contextlib.contextmanager
def _refusals(data: bytes):
    with open(_PATH, "wb") as file:
        file.write(data)
    try:
        yield
    except tn.ModelFileError as error:
        if not str(error).startswith(f"{_PATH}: ") or len(str(error)) < len(_PATH) + 10:
            raise AssertionError("the error does not name the file and the cause") from error


TARGETS = {
    "idx": idx,
    "gzip": gzipped,
    "model": model,
    "description": description,
    "checkpoint": checkpoint,
    "resume": resume,
}
