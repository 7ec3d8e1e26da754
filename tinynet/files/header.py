"""Read the header of a safetensors file, and check it before anything acts on it.

    8 bytes     the size of the header, little-endian
    header      JSON: {"__metadata__": {text: text}, name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    the rest    the arrays, row by row, little-endian

The safetensors package, which reads the arrays afterwards, accepts more than this: of two entries with the same name
it takes the last, and its headers may have a hundred megabytes.
Source: https://github.com/huggingface/safetensors, section "Format".
"""

import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

MAX_HEADER = 1 << 20  # bytes
MAX_PAYLOAD = 1 << 32  # bytes of all arrays together
MAX_DEPTH = 100  # of nested lists and objects
MAX_LISTS = 100_000  # including objects, and empty ones
_MAX_DIMENSIONS = 64  # NumPy's own limit

DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "I64": np.dtype(np.int64),
    "U64": np.dtype(np.uint64),
    "I32": np.dtype(np.int32),
    "U32": np.dtype(np.uint32),
    "I16": np.dtype(np.int16),
    "U16": np.dtype(np.uint16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
"""The dtypes that arrays may have, by their safetensors names."""

_NO_BRACKETS = bytes(set(range(256)) - set(b'[]{}"'))


def check(header: bytes, payload: int) -> dict[str, str]:
    """Check a header, given without the 8 bytes before it, and return its metadata.

    Args: payload: how many bytes follow it in the file.
    Raises: ValueError: unless it is one JSON object without duplicate names, and its arrays cover the payload exactly
        and do not overlap.
    """
    table = parse_json(header.decode("utf-8"))
    if not isinstance(table, dict):
        raise ValueError("its header is not a JSON object")
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is not a mapping of text to text")
    "".join([*table, *metadata, *metadata.values()]).encode()  # raises ValueError for a lone surrogate
    position = 0
    for begin, end, name in sorted(_extent(name, entry) for name, entry in table.items()):
        if begin != position:
            raise ValueError(f"array {name!r:.60} begins at byte {begin}, expected {position}")
        position = end
    if position != payload:
        raise ValueError(f"its arrays have {position:,} bytes, but {payload:,} follow the header")
    return metadata


def _extent(name: str, entry: Any) -> tuple[int, int, str]:
    """Return where an array begins and ends, and its name; raise ValueError if its entry is inconsistent."""
    label = f"array {name!r:.60}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{label}: expected dtype, shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise ValueError(f"{label}: expected one of the dtypes {', '.join(DTYPES)}, got {code!r:.60}")
    if not _are_sizes(shape) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"{label}: expected a shape of at most {_MAX_DIMENSIONS} sizes, got {shape!r:.60}")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{label}: expected two offsets, got {offsets!r:.60}")
    # NumPy requires the product of the sizes other than 0 to fit, even if the array is empty.
    if math.prod(max(1, size) for size in shape) * DTYPES[code].itemsize > sys.maxsize:
        raise ValueError(f"{label}: no array can have the shape {shape!r:.60}")
    size = math.prod(shape) * DTYPES[code].itemsize
    begin, end = offsets
    if end - begin != size:
        raise ValueError(f"{label}: expected {size:,} bytes, got the offsets {begin} and {end}")
    return begin, end, name


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value <= sys.maxsize for value in values
    )


def parse_json(text: str) -> Any:
    """Parse JSON as `json.loads` does, within stricter limits.

    Raises: ValueError: if it is not JSON, has a duplicate name in an object or a number that is not finite, nests
        deeper than MAX_DEPTH, or has more than MAX_LISTS lists and objects.
    """
    depth, count = _brackets(text)
    if depth > MAX_DEPTH:
        raise ValueError(f"expected lists and objects nested at most {MAX_DEPTH} deep, got {depth}")
    if count > MAX_LISTS:
        raise ValueError(f"expected at most {MAX_LISTS:,} lists and objects, got {count:,}")
    return json.loads(text, object_pairs_hook=_each_once, parse_float=_finite, parse_constant=_finite)


def _brackets(text: str) -> tuple[int, int]:
    """Return how deep lists and objects are nested, and how many there are, provided that the text is JSON."""
    plain = text.encode("utf-8", "surrogatepass").replace(b"\\\\", b"").replace(b'\\"', b"")
    codes = np.frombuffer(plain.translate(None, delete=_NO_BRACKETS), np.uint8)
    within_string = np.logical_xor.accumulate(codes == ord('"'))
    steps = np.zeros(len(codes), np.int32)
    steps[(codes == ord("[")) | (codes == ord("{"))] = 1
    steps[(codes == ord("]")) | (codes == ord("}"))] = -1
    steps[within_string] = 0
    return int(np.cumsum(steps).max(initial=0)), int(np.count_nonzero(steps == 1))


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {twice!r:.60} appears twice")
    return table


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"expected finite numbers, got {text:.60}")
    return value
