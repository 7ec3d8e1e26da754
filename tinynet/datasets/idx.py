"""The IDX file format of MNIST and the data sets modelled on it.

    offset  bytes       meaning
    0       2           zero
    2       1           type code: 08 unsigned byte, 09 signed byte, 0B short, 0C int, 0D float, 0E double
    3       1           d, the number of dimensions
    4       4 each      d sizes, unsigned
    4+4d    the rest    the elements, row by row (the last index runs fastest)

Every number is big-endian. Source: Yann LeCun, Corinna Cortes and Christopher Burges, "The MNIST database of
handwritten digits", section "The IDX file format", http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_MAGIC = b"\x1f\x8b"
_COMPRESSED = {GZIP_MAGIC: "gzip", b"\xfd7zX": "xz", b"PK\3\4": "zip", b"BZh": "bzip2", b"(\xb5/\xfd": "zstd"}
_MAX_DIMENSIONS = 64  # NumPy's own limit
_MAX_GZIP_RATIO = 1032  # deflate's densest code is 2 bits for 258 bytes
_CHUNK = 1 << 20


class IdxError(ValueError):
    """The data is not one complete IDX file; the message says what was expected and found, and what to do."""


def parse_idx(bytes_or_path: bytes | bytearray | memoryview | str | os.PathLike[str]) -> NDArray[Any]:
    """Read an IDX file, gzipped or not, into an array.

    The header is compared with the file's size before the array is allocated. The size of a gzipped file is not
    known in advance: no more than one byte beyond what the header announces is decompressed, and memory grows with
    what has been read.

    Args:
        bytes_or_path: the content of the file, or its path.
    Returns: a writable C-contiguous array of the file's shape and type, in the machine's byte order.
    Raises:
        IdxError: (a ValueError) if the data is empty, truncated, too long, damaged, or not IDX.
        OSError: if the file can't be read (FileNotFoundError if it does not exist).
    Source: see the description of the format in this module.
    """
    if isinstance(bytes_or_path, (bytes, bytearray, memoryview)):
        data = bytes(bytes_or_path)  # bytes are not copied
        return _parse(io.BytesIO(data), len(data), f"IDX data of {len(data):,} bytes")
    if not isinstance(bytes_or_path, (str, os.PathLike)):
        raise TypeError(f"parse_idx expects bytes or a path, got {type(bytes_or_path).__name__}")
    with open(bytes_or_path, "rb") as file:
        return _parse(file, os.fstat(file.fileno()).st_size, os.fsdecode(bytes_or_path))


def compression(data: bytes) -> str | None:
    """The format that compressed the data, by its first four bytes, if it is a well-known one."""
    return next((kind for begins, kind in _COMPRESSED.items() if data.startswith(begins)), None)


def _parse(file: io.BufferedIOBase, size: int, name: str) -> NDArray[Any]:
    """Read the ``size`` bytes of ``file``; ``name`` stands for it in messages."""
    gzipped = file.read(2) == GZIP_MAGIC
    file.seek(0)
    if not gzipped:
        dtype, shape = _read_header(file, name)
        expected = math.prod(shape) * dtype.itemsize
        _check_size(expected, size - 4 - 4 * len(shape), shape, dtype, name)
        array = np.empty(shape, dtype)
        if file.readinto(array.reshape(-1).view(np.uint8).data) != expected:
            raise IdxError(f"{name}: the file changed while it was read; try again")
        return _native(array)

    # GzipFile verifies the checksum at the end of the file, which is only reached by reading beyond the data.
    with _gzip_errors(name), gzip.GzipFile(fileobj=file) as stream:
        dtype, shape = _read_header(stream, name)
        expected = math.prod(shape) * dtype.itemsize
        if expected > size * _MAX_GZIP_RATIO:
            _check_size(expected, f"{size:,} gzipped bytes, which can't hold as many", shape, dtype, name)
        raw = bytearray()
        while chunk := stream.read(min(_CHUNK, expected + 1 - len(raw))):
            raw += chunk
    found: int | str = f"more than {expected:,}" if len(raw) > expected else len(raw)
    _check_size(expected, found, shape, dtype, name)
    return _native(np.frombuffer(raw, dtype).reshape(shape))


def _read_header(stream: io.BufferedIOBase, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Read the header and check all that can be checked without the data."""
    magic = stream.read(4)
    if not magic:
        raise IdxError(f"{name}: expected an IDX file, found no data; download the file again")
    kind = compression(magic)
    if kind is not None:
        where = " inside gzip" if isinstance(stream, gzip.GzipFile) else ""
        raise IdxError(
            f"{name}: expected an IDX file, plain or gzipped once, found {kind} data{where}; decompress it first"
        )
    if magic[:2] != b"\0\0"[: len(magic)]:
        raise IdxError(
            f"{name}: expected an IDX file, which begins with the bytes 00 00, found {magic.hex(' ')}"
            f" ({magic!r}); check what the file is (a web page? another format?) and download it again"
        )
    if len(magic) < 4:
        raise IdxError(f"{name}: expected a header of 4 bytes, found {len(magic)}; download the file again")
    code, dimensions = magic[2], magic[3]
    if code not in TYPES:
        known = ", ".join(f"{known:02x}" for known in TYPES)
        raise IdxError(
            f"{name}: expected a type code among {known} (hex), found {code:02x}; download the file again"
        )
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise IdxError(
            f"{name}: expected 1 to {_MAX_DIMENSIONS} dimensions, found {dimensions}; download the file again"
        )
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise IdxError(
            f"{name}: expected a header of {4 + 4 * dimensions} bytes ({dimensions} dimensions),"
            f" found {4 + len(sizes)}; download the file again"
        )
    dtype = np.dtype(TYPES[code])
    shape = struct.unpack(f">{dimensions}I", sizes)
    # NumPy requires the product of the nonzero sizes to fit, even if the array is empty.
    if math.prod(max(1, n) for n in shape) * dtype.itemsize > sys.maxsize:
        raise IdxError(
            f"{name}: expected an array that this machine can address, found shape {shape}"
            f" of {dtype.itemsize}-byte elements; download the file again"
        )
    return dtype, shape


def _check_size(
    expected: int, found: int | str, shape: tuple[int, ...], dtype: np.dtype[Any], name: str
) -> None:
    if found == expected:
        return
    text = f"{found:,}" if isinstance(found, int) else found
    raise IdxError(
        f"{name}: expected {expected:,} bytes of data after the header (shape {shape}, {dtype.itemsize} bytes"
        f" per element), found {text}; download the file again"
    )


@contextlib.contextmanager
def _gzip_errors(name: str) -> Iterator[None]:
    """Turn the four errors that a damaged gzip stream can raise into IdxError."""
    try:
        yield
    except EOFError:
        found = "it ends too early"
    except (gzip.BadGzipFile, zlib.error, struct.error) as error:
        found = str(error)
    else:
        return
    raise IdxError(f"{name}: expected a complete gzip file, found a damaged one ({found}); download it again")


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """The big-endian ``array`` in the machine's byte order, swapped in place."""
    if not array.dtype.isnative:
        array = array.byteswap(inplace=True)
    return array.view(array.dtype.newbyteorder("="))
