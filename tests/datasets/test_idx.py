"""parse_idx: every type and shape can be read, and everything but a complete IDX file is refused."""

from __future__ import annotations

import contextlib
import gzip
import math
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinynet.datasets import IdxError, parse_idx

# Type codes and types, written a second time from the description of the format.
CODES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}

shapes = st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple)
seeds = st.integers(0, 2**32 - 1)


def idx_bytes(code: int, shape: tuple[int, ...], seed: int = 0) -> bytes:
    """An IDX file with random elements: any bit pattern, including NaN, infinities and denormals."""
    payload = np.random.default_rng(seed).bytes(math.prod(shape) * np.dtype(CODES[code]).itemsize)
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + payload


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("idx")


def every_source(data: bytes, folder: Path) -> list[Any]:
    """The same content in every form that parse_idx takes."""
    plain, packed = folder / "file", folder / "file.gz"
    plain.write_bytes(data)
    packed.write_bytes(gzip.compress(data, 1))
    scattered = memoryview(np.repeat(np.frombuffer(data, np.uint8), 2).tobytes())[::2]
    return [
        *(data, bytearray(data), memoryview(data), scattered),
        *(plain, str(plain), packed, str(packed)),
        *(gzip.compress(data, 1), memoryview(gzip.compress(data, 1))),
    ]


@given(st.sampled_from(sorted(CODES)), shapes, seeds)
@settings(max_examples=60, deadline=None)
def test_every_type_and_shape_comes_back(folder: Path, code: int, shape: tuple[int, ...], seed: int) -> None:
    data = idx_bytes(code, shape, seed)
    expected = np.frombuffer(data, ">" + CODES[code], offset=4 + 4 * len(shape)).reshape(shape)
    for source in every_source(data, folder):
        array = parse_idx(source)
        assert array.shape == shape
        assert array.dtype == np.dtype(CODES[code])
        assert array.dtype.isnative
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.astype(expected.dtype).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("hexadecimal", "expected"),
    [
        ("0000 0801 00000003 00 7f ff", np.array([0, 127, 255], np.uint8)),
        ("0000 0901 00000003 00 7f ff", np.array([0, 127, -1], np.int8)),
        ("0000 0b02 00000001 00000002 0102 ff00", np.array([[258, -256]], np.int16)),
        ("0000 0c01 00000002 01020304 fffffffe", np.array([16909060, -2], np.int32)),
        ("0000 0d01 00000002 3f800000 c0490fdb", np.array([1, -np.pi], np.float32)),
        ("0000 0e01 00000001 400921fb54442d18", np.array([np.pi], np.float64)),
    ],
)
def test_bytes_written_out_by_hand(hexadecimal: str, expected: np.ndarray) -> None:
    array = parse_idx(bytes.fromhex(hexadecimal))
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)


def test_the_result_is_independent_of_the_bytes() -> None:
    data = bytearray(idx_bytes(0x08, (4,)))
    array = parse_idx(data)
    before = data[:]
    array[:] = 7
    assert data == before
    data[-1] ^= 255
    assert (array == 7).all()


def test_bytes_gzipped_in_pieces() -> None:
    """A gzip file may have several members, as made by bgzip and `cat a.gz b.gz`."""
    data = idx_bytes(0x0B, (3, 5))
    packed = b"".join(gzip.compress(data[i : i + 7]) for i in range(0, len(data), 7))
    np.testing.assert_array_equal(parse_idx(packed), parse_idx(data))


@given(st.sampled_from(sorted(CODES)), shapes, seeds, st.data())
@settings(max_examples=60, deadline=None)
def test_a_file_cut_anywhere_is_refused(
    folder: Path, code: int, shape: tuple[int, ...], seed: int, draw: st.DataObject
) -> None:
    data = idx_bytes(code, shape, seed)
    for source in every_source(data[: draw.draw(st.integers(0, len(data) - 1))], folder):
        with pytest.raises(IdxError):
            parse_idx(source)


def test_each_single_cut_is_refused() -> None:
    data = idx_bytes(0x0C, (2, 3))
    packed = gzip.compress(data)
    for whole in (data, packed):
        for end in range(len(whole)):
            with pytest.raises(IdxError):
                parse_idx(whole[:end])


@given(st.binary(min_size=1, max_size=9), seeds)
@settings(max_examples=30, deadline=None)
def test_a_file_with_something_after_it_is_refused(folder: Path, more: bytes, seed: int) -> None:
    for source in every_source(idx_bytes(0x0D, (2, 2), seed) + more, folder):
        with pytest.raises(IdxError, match="found"):
            parse_idx(source)


def check_it_is_idx_or_refused(data: bytes, folder: Path) -> None:
    """Either the bytes are a complete IDX file or IdxError is raised; no other error, no large allocation."""
    for source in (data, gzip.compress(data, 1), *every_source(data, folder)[4:5]):
        tracemalloc.start()
        try:
            with contextlib.suppress(IdxError):
                array = parse_idx(source)
                assert 4 + 4 * array.ndim + array.nbytes == len(data)
                assert np.dtype(CODES[data[2]]) == array.dtype
            assert tracemalloc.get_traced_memory()[1] < 500_000
        finally:
            tracemalloc.stop()


@given(st.integers(0, 11), st.integers(0, 255))
@settings(max_examples=200, deadline=None)
@example(position=4, value=255)
@example(position=3, value=64)
@example(position=3, value=255)
def test_any_change_of_the_header(folder: Path, position: int, value: int) -> None:
    data = bytearray(idx_bytes(0x08, (3, 4)))
    data[position] = value
    check_it_is_idx_or_refused(bytes(data), folder)


@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda tail: b"\0\0\x08" + tail))
@settings(max_examples=200, deadline=None)
def test_any_bytes(folder: Path, data: bytes) -> None:
    check_it_is_idx_or_refused(data, folder)


@given(st.integers(0, 59), st.integers(1, 255))
@settings(max_examples=100, deadline=None)
def test_any_change_of_a_gzip_file_is_seen_or_harmless(position: int, flip: int) -> None:
    data = idx_bytes(0x08, (3, 8))
    packed = bytearray(gzip.compress(data, mtime=0))
    packed[position % len(packed)] ^= flip
    with contextlib.suppress(IdxError):  # else it is in the time or the system, unused here
        assert parse_idx(bytes(packed)).tobytes() == data[12:]


HEADER = b"\0\0\x08"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "found no data; download the file again"),
        (b"\0", "expected a header of 4 bytes, found 1"),
        (b"\0\0\x08", "expected a header of 4 bytes, found 3"),
        (b"<!DOCTYPE html>", "begins with the bytes 00 00, found 3c 21 44 4f"),
        (b"\1", "begins with the bytes 00 00, found 01"),
        (b"\0\1\x08\1\0\0\0\0", "begins with the bytes 00 00"),
        (b"\0\0\x0a\1\0\0\0\0", "type code among 08, 09, 0b, 0c, 0d, 0e .* found 0a"),
        (b"\0\0\x08\0", "expected 1 to 64 dimensions, found 0"),
        (b"\0\0\x08\x41" + b"\0\0\0\1" * 65 + b"x", "expected 1 to 64 dimensions, found 65"),
        (b"\0\0\x08\2\0\0\0\1\0\0", r"expected a header of 12 bytes \(2 dimensions\), found 10"),
        (HEADER + b"\x08" + b"\xff" * 32, "that this machine can address"),
        (HEADER + b"\x04" + b"\0" * 4 + b"\xff" * 12, "that this machine can address"),
        (HEADER + b"\1\0\0\0\3ab", r"expected 3 bytes of data .*shape \(3,\).* found 2"),
        (HEADER + b"\1\0\0\0\3abcd", "expected 3 bytes of data .*, found (4|more than 3)"),
        (HEADER + b"\2\xff\xff\xff\xff\0\1\0\0a", "expected 281,474,976,645,120 bytes .* found"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_each_error_says_what_was_expected_and_found(
    tmp_path: Path, data: bytes, message: str, pack: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(IdxError, match=message):
        parse_idx(pack(data))
    path = tmp_path / "the-file"
    path.write_bytes(pack(data))
    with pytest.raises(IdxError, match=message) as error:
        parse_idx(path)
    assert str(error.value).startswith(str(path))
    assert "again" in str(error.value)


@pytest.mark.parametrize(
    ("kind", "begins"),
    [
        ("gzip", b""),
        ("xz", b"\xfd7zXZ\0"),
        ("bzip2", b"BZh9"),
        ("zip", b"PK\3\4"),
        ("zstd", b"(\xb5/\xfd"),
    ],
)
def test_other_compression_is_named(kind: str, begins: bytes) -> None:
    data = gzip.compress(idx_bytes(0x08, (3,))) if kind == "gzip" else begins + bytes(99)
    if kind != "gzip":
        with pytest.raises(IdxError, match=f"plain or gzipped once, found {kind} data; decompress it first"):
            parse_idx(data)
    with pytest.raises(IdxError, match=f"found {kind} data inside gzip; decompress it first"):
        parse_idx(gzip.compress(data))


def test_64_dimensions_are_read() -> None:
    assert parse_idx(idx_bytes(0x08, (1,) * 64)).shape == (1,) * 64


@pytest.mark.parametrize("change", ["cut", "check sum", "after"])
def test_a_damaged_gzip_file_is_named_so(tmp_path: Path, change: str) -> None:
    packed = bytearray(gzip.compress(idx_bytes(0x08, (50,))))
    if change == "cut":
        del packed[-4:]
    elif change == "check sum":
        packed[-6] ^= 1
    else:
        packed += b"something else"
    path = tmp_path / "x.gz"
    path.write_bytes(packed)
    with pytest.raises(IdxError, match=r"x\.gz: expected a complete gzip file, found a damaged one"):
        parse_idx(path)


def test_no_more_is_decompressed_than_the_header_announces(tmp_path: Path) -> None:
    bomb = gzip.compress(b"\0\0\x08\1\0\0\0\x0a" + bytes(200_000_000))
    (tmp_path / "bomb.gz").write_bytes(bomb)
    for source in (bomb, tmp_path / "bomb.gz"):
        tracemalloc.start()
        try:
            with pytest.raises(IdxError, match="expected 10 bytes .* found more than 10"):
                parse_idx(source)
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()


def test_a_gzip_file_that_announces_too_much_costs_no_memory() -> None:
    """Its size is not known in advance: memory grows with what is read, not with what is announced."""
    liar = gzip.compress(b"\0\0\x08\1\x06\0\0\0" + bytes(100_000))  # 100 MB announced, 100 kB there
    tracemalloc.start()
    try:
        with pytest.raises(IdxError, match="expected 100,663,296 bytes"):
            parse_idx(liar)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def test_a_plain_file_is_read_straight_into_the_array(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(idx_bytes(0x0C, (1000, 1000)))
    tracemalloc.start()
    try:
        array = parse_idx(path)
        assert tracemalloc.get_traced_memory()[1] < array.nbytes + 500_000
    finally:
        tracemalloc.stop()


def test_a_missing_file_stays_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        parse_idx(tmp_path / "nothing")
    with pytest.raises(OSError, match="."):
        parse_idx(tmp_path)


@pytest.mark.parametrize("source", [None, 3, [0, 0, 8, 1], np.zeros(3, np.uint8)])
def test_other_types_are_refused(source: Any) -> None:
    with pytest.raises(TypeError, match="expects bytes or a path, got"):
        parse_idx(source)
