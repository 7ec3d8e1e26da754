"""Arrays as compact text inside a page; exact unless told otherwise."""

import base64
import hashlib
import zlib
from typing import Any, NamedTuple

import numpy as np

from tinynet.support.types import Array


class Encoded(NamedTuple):
    """An array's bytes for the page's script, and what it needs to read them."""

    text: str  # base64 of zlib of the bytes, with the first bytes of all elements first
    kind: str  # NumPy's name of the element type, little-endian: "f4", "f2", "u1", ...
    scale: float  # the factor that the elements are to be multiplied by


def encode(array: Array, exact: bool = True) -> Encoded:
    """Integers unchanged; floats unchanged if ``exact``, else divided by the largest and kept to three digits."""
    scale = 1.0
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    elif array.dtype.kind in "iu" and array.dtype.itemsize > 4:
        array = array.astype(np.int32)
    elif array.dtype.kind == "f" and not exact and np.isfinite(array).all():
        scale = float(np.max(np.abs(array), initial=0)) or 1.0
        array = (array / scale).astype(np.float16)
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    # With bytes grouped by their position in the element, exponents are next to exponents and compress well.
    planes = array.reshape(-1).view(np.uint8).reshape(-1, array.dtype.itemsize).T
    text = base64.b64encode(zlib.compress(np.ascontiguousarray(planes).tobytes())).decode()
    return Encoded(text, f"{array.dtype.kind}{array.dtype.itemsize}", scale)


class ArrayStore:
    """A page's arrays. Equal contents are stored once, whatever their shape, so Flatten costs nothing."""

    def __init__(self, most_exact: int) -> None:
        self.most_exact = most_exact  # elements; larger float arrays are rounded unless `add` gets exact=True
        self.texts: list[str] = []
        self._known: dict[tuple[str, bytes, bool], dict[str, Any]] = {}

    def add(self, array: Array, exact: bool = False) -> dict[str, Any]:
        """Store the array; returns what the script needs to find and read it."""
        exact = exact or array.size <= self.most_exact or array.dtype.kind != "f"
        content = np.ascontiguousarray(array)
        key = (content.dtype.str, hashlib.sha256(content.reshape(-1).view(np.uint8).data).digest(), exact)
        if key not in self._known:
            encoded = encode(content, exact)
            self._known[key] = {"data": len(self.texts), "kind": encoded.kind, "scale": encoded.scale}
            self.texts.append(encoded.text)
        return {**self._known[key], "shape": list(array.shape)}
