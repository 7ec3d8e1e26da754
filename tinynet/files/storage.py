"""Model files and checkpoints: save and load (description, arrays) as safetensors, with a digest of both.

Each is an ordinary safetensors file, so other programs can read its arrays with the safetensors package. Its
metadata has two entries: ``tinynet``, the description as JSON, and ``sha256``, the digest of description and
arrays. The digest detects corruption; it is not a signature.
"""

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np

from tinynet.files.atomic import write_bytes
from tinynet.support.checks import check_path
from tinynet.support.errors import ModelFileError
from tinynet.support.types import Array

FORMAT = 1
MAX_HEADER = 1 << 20  # bytes
MAX_PAYLOAD = 1 << 32  # bytes of all arrays together
MAX_DEPTH = 100  # of lists and objects in the description

_KINDS = {
    "model": "a model file, which load_model(path) reads",
    "checkpoint": "a checkpoint, which fit(..., resume=path) resumes",
}

_FOREIGN = {
    b"\x80": "a pickle, which can run arbitrary code and is never read here",
    b"PK\x03\x04": "a zip archive, like .keras, .npz and PyTorch files",
    b"\x89HDF": "an HDF5 file, like Keras's .h5 files",
}
"""The first bytes of files that are often mistaken for models."""


_SUFFIXES = (
    ".h5",
    ".hdf5",
    ".keras",
    ".pt",
    ".pth",
    ".onnx",
    ".npy",
    ".npz",
    ".pkl",
    ".pickle",
    ".joblib",
    ".tflite",
    ".pb",
    ".ckpt",
    ".bin",
)


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Raise ValueError for the suffix of another format."""
    stem, suffix = os.path.splitext(os.fspath(path))
    if suffix.lower() in _SUFFIXES:
        raise ValueError(
            f"{stem}{suffix}: tinynet writes safetensors files, and {suffix} is the suffix of another format; give "
            f"'{stem}.safetensors'"
        )


def save(
    path: str | os.PathLike[str],
    description: Mapping[str, Any],
    arrays: Mapping[str, Array],
    kind: str = "model",
) -> None:
    """Write a file, completely or not at all.

    Args: as `encode`.
    Raises: as `encode`; OSError: if the file can't be written. The old file is then unchanged.
    """
    write_bytes(path, encode(path, description, arrays, kind))


def encode(
    path: str | os.PathLike[str],
    description: Mapping[str, Any],
    arrays: Mapping[str, Array],
    kind: str = "model",
) -> bytes:
    """Return the content of the file that `save` writes.

    Args:
        path: the file that errors name.
        description: names, numbers and lists that JSON can represent.
        arrays: arrays of floats, integers or booleans, by name.
        kind: "model" or "checkpoint"; `load` accepts only the kind that it is asked for.
    Raises: ValueError: for the suffix of another format. ModelFileError: if the description is not JSON, or the file
        is larger than `load` accepts.
    """
    name = check_path("path", path)
    check_suffix(name)
    marked = {} if kind == "model" else {"kind": kind}  # the first files, all models, don't have it
    try:
        text = json.dumps({"format": FORMAT, **marked, **description}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{name}: the {kind}'s description can't be written as JSON: {error}; "
            "use names and numbers as arguments of layers (an initializer by its name)"
        ) from error
    try:
        return _to_bytes(text, arrays)
    except ValueError as error:
        raise ModelFileError(f"{name}: the {kind} can't be written: {error}") from error


def _to_bytes(text: str, arrays: Mapping[str, Array]) -> bytes:
    """The file's content; raises ValueError if `load` would not take it."""
    from safetensors.numpy import save as to_bytes

    _parse(text)
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise ValueError(f"array {name!r}: expected floats, integers or booleans, got {array.dtype}")
    if sum(array.nbytes for array in arrays.values()) > MAX_PAYLOAD:
        raise ValueError(f"its arrays are over {MAX_PAYLOAD:,} bytes, more than load accepts")
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    data = _in_order(to_bytes(arrays, metadata={"tinynet": text, "sha256": _digest(text, arrays)}))
    if int.from_bytes(data[:8], "little") > MAX_HEADER:
        raise ValueError(f"its description is over {MAX_HEADER:,} bytes, more than load accepts")
    return data


def _in_order(data: bytes) -> bytes:
    """The same file with sorted metadata, which safetensors writes in random order: one model is one file."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the arrays stay aligned
    return b"".join([len(text).to_bytes(8, "little"), text, memoryview(data)[start:]])


def load(path: str | os.PathLike[str], kind: str = "model") -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the (description, arrays) of a file that `save` wrote; the arrays are read-only.

    The safetensors package checks the header, and the digest the rest. Memory is bounded by twice the file's size
    plus what a header of 1 MiB can need; a foreign file is refused once its header is read.

    Raises: ModelFileError: if it is not such a file, is of another kind, is damaged or can't be read;
        FileNotFoundError: if there is no file.
    """
    from safetensors import SafetensorError

    name = check_path("path", path)
    try:
        mode = os.stat(path).st_mode  # before opening it: opening a pipe would wait for a writer
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise _Refusal(f"is not a tinynet {kind}: it is not a regular file")
        with open(path, "rb") as file:
            return _from_bytes(*_read(file, kind), kind)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ModelFileError(f"{name}: can't be read: {error.strerror or error}") from error
    except _Refusal as error:
        raise ModelFileError(f"{name}: {error}") from error
    except (SafetensorError, ValueError, KeyError, RecursionError, MemoryError) as error:
        cause = str(error) or type(error).__name__
        raise ModelFileError(f"{name}: is damaged or not a tinynet {kind}: {cause}") from error


class _Refusal(Exception):
    """Why a file is rejected, in a sentence that lacks only the file's name."""


def _read(file: BinaryIO, kind: str) -> tuple[bytes, str, str]:
    """All of the file, and from its metadata the description and the digest; the rest of the header is not checked."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise _Refusal(f"is not a tinynet {kind}: it is not a regular file")
    prefix = file.read(8)
    size = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or not 2 <= size <= MAX_HEADER:
        looks = next((f" but {what}" for begins, what in _FOREIGN.items() if prefix.startswith(begins)), "")
        raise _Refusal(f"is not a tinynet {kind}{looks}: it does not begin like a safetensors file")
    payload = status.st_size - 8 - size
    if payload < 0:
        raise _Refusal(f"is damaged or not a tinynet {kind}: it ends before its header does")
    if payload > MAX_PAYLOAD:
        raise _Refusal(f"is not a tinynet {kind}: it has more than {MAX_PAYLOAD:,} bytes")
    match json.loads(file.read(size)):
        case {"__metadata__": {"tinynet": str(text), "sha256": str(digest), **more}} if not more:
            file.seek(0)
            return file.read(status.st_size), text, digest
    raise ValueError("its metadata is not a description and its digest")


def _from_bytes(data: bytes, text: str, digest: str, kind: str) -> tuple[dict[str, Any], dict[str, Array]]:
    from safetensors.numpy import load as from_bytes

    description = _parse(text)
    if not isinstance(description, dict) or "format" not in description:
        raise ValueError("its description does not name a format")
    if description["format"] != FORMAT:
        raise _Refusal(f"expected format {FORMAT}, got {description['format']!r:.60}; update tinynet")
    arrays: dict[str, Array] = from_bytes(data)
    if _digest(text, arrays) != digest:
        raise _Refusal("is damaged: its contents don't match its SHA-256; get another copy")
    if any(array.dtype == bool and array.view(np.uint8).max(initial=0) > 1 for array in arrays.values()):
        raise ValueError("a boolean in it is neither 0 nor 1")
    found = description.get("kind", "model")
    if found != kind:
        known = _KINDS.get(found) if isinstance(found, str) else None
        raise _Refusal(f"expected {_KINDS[kind].partition(',')[0]}, got {known or repr(found)[:60]}")
    return description, arrays


def _parse(text: str) -> Any:
    """The description as `json.loads` gives it; raises ValueError if it is no JSON or nested too deeply."""
    with contextlib.suppress(RecursionError):
        description = json.loads(text)
        items = [description]
        for _ in range(MAX_DEPTH):
            items = [inside for item in items for inside in _inside(item)]
        if not any(isinstance(item, (list, dict)) for item in items):
            return description
    raise ValueError(f"expected lists and objects nested at most {MAX_DEPTH} deep")


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _digest(text: str, arrays: Mapping[str, Array]) -> str:
    sha256 = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        sha256.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        sha256.update(array.data)
    return sha256.hexdigest()
