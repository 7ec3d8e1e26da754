"""Model files: (description, arrays) to and from safetensors, with a digest over both.

The file is an ordinary safetensors file, so other programs read its arrays with the safetensors package. Its
metadata has two entries: ``tinynet``, the description as JSON, and ``sha256``, over description and arrays.
The digest finds corruption; it is no signature.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from tinynet import files
from tinynet.types import Array

FORMAT = 1
_MAX_HEADER = 1 << 20  # bytes
_KINDS = {
    "model": "a model file, which load_model(path) reads",
    "checkpoint": "a checkpoint, which fit(..., resume=path) goes on from",
}


class ModelFileError(ValueError):
    """A model file that can't be written or read, with the file's name and the cause."""


def save(
    path: str | os.PathLike[str],
    description: Mapping[str, Any],
    arrays: Mapping[str, Array],
    *,
    kind: str = "model",
) -> None:
    """Write a file, whole or not at all; raises ModelFileError if the description is no JSON.

    Args: kind: "model" or "checkpoint"; `load` refuses the other.
    """
    from safetensors.numpy import save as to_bytes

    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    marked = {} if kind == "model" else {"kind": kind}
    try:
        text = json.dumps({"format": FORMAT, **marked, **description}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ModelFileError(
            f"{os.fspath(path)}: the model's description can't be written as JSON: {error}; "
            "give layers names and numbers as arguments (an initializer by its name)"
        ) from error
    data = to_bytes(arrays, metadata={"tinynet": text, "sha256": _digest(text, arrays)})
    if int.from_bytes(data[:8], "little") > _MAX_HEADER:
        raise ModelFileError(
            f"{os.fspath(path)}: the description is over {_MAX_HEADER:,} bytes, more than load accepts"
        )
    files.write_bytes(path, data)


def load(path: str | os.PathLike[str], *, kind: str = "model") -> tuple[dict[str, Any], dict[str, Array]]:
    """The (description, arrays) of a file that `save` wrote.

    Raises: ModelFileError: if it is no such file, of another kind or damaged; FileNotFoundError: if there is none.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    name = os.fspath(path)
    with open(path, "rb") as file:
        prefix = file.read(8)
        size = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or not 2 <= size <= _MAX_HEADER:
            raise ModelFileError(f"{name}: is no tinynet model: it does not begin as a safetensors file does")
        header = file.read(size)
        data = prefix + header + file.read()
    try:
        metadata = json.loads(header.decode("utf-8"))["__metadata__"]
        text, digest = metadata["tinynet"], metadata["sha256"]
        arrays = from_bytes(data)
        description = json.loads(text)
        if description["format"] != FORMAT:
            raise ModelFileError(
                f"{name}: expected format {FORMAT}, got {description['format']!r}; update tinynet"
            )
        found = description.get("kind", "model")
        if found != kind:
            known = _KINDS.get(found) if isinstance(found, str) else None
            raise ModelFileError(
                f"{name}: expected {_KINDS[kind].partition(',')[0]}, got {known or repr(found)[:60]}"
            )
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(
            f"{name}: is damaged or no tinynet model: {type(error).__name__}: {error}"
        ) from error
    if _digest(text, arrays) != digest:
        raise ModelFileError(f"{name}: is damaged: its contents don't match its SHA-256; take another copy")
    return description, arrays


def _digest(text: str, arrays: Mapping[str, Array]) -> str:
    sha256 = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        sha256.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()
