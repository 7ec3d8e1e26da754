"""fashion_mnist.load: where it looks, in which order, and what it returns."""

from __future__ import annotations

import gzip
import hashlib
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.loopback import MadeUp, Server, send
from tinynet.datasets import DownloadError, fashion_mnist, parse_idx
from tinynet.datasets.fashion_mnist import cache_folder


def check(loaded: Any, made_up: MadeUp) -> None:
    (x_train, y_train), (x_test, y_test) = loaded
    for array, expected in zip((x_train, y_train, x_test, y_test), made_up.arrays, strict=True):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == np.uint8
        assert array.flags.c_contiguous
        assert array.flags.writeable


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import platformdirs

    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name, **more: tmp_path / name)
    assert cache_folder() == tmp_path / "tinynet" / "fashion-mnist"
    monkeypatch.setenv("TINYNET_DATA", str(tmp_path / "data"))
    assert cache_folder() == tmp_path / "data"
    assert cache_folder(tmp_path / "given") == tmp_path / "given"
    assert cache_folder("~/given") == Path.home() / "given"
    monkeypatch.setenv("TINYNET_DATA", "")
    assert cache_folder() == tmp_path / "tinynet" / "fashion-mnist"


@pytest.mark.parametrize("kind", [str, Path])
def test_from_data_dir(patched: MadeUp, tmp_path: Path, kind: type) -> None:
    check(fashion_mnist.load(kind(patched.put_in(tmp_path))), patched)


def test_from_the_environments_folder(
    patched: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYNET_DATA", str(patched.put_in(tmp_path)))
    check(fashion_mnist.load(), patched)
    with pytest.raises(DownloadError):  # data_dir takes precedence
        fashion_mnist.load(tmp_path / "other")


def test_the_order_of_the_sources(
    patched: MadeUp, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source has one more file than those before it and is asked only for what is still missing."""
    names = list(patched.packed)
    folders = [tmp_path / "cache", tmp_path / "system"]
    for folder, name in zip(folders, names, strict=False):
        folder.mkdir()
        (folder / name).write_bytes(patched.packed[name])
    for name in names[2:3]:
        server.on("first/" + name, send(patched.packed[name]))
    patched.serve(server, "second/")
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDERS", folders[1:])
    monkeypatch.setattr(fashion_mnist, "MIRRORS", (server.url + "second/",))
    monkeypatch.setenv("TINYNET_MIRROR", server.url + "first")
    check(fashion_mnist.load(folders[0]), patched)
    assert server.paths == [f"/first/{names[2]}", f"/first/{names[3]}", f"/second/{names[3]}"]
    assert sorted(path.name for path in folders[0].iterdir()) == sorted([names[0], *names[2:]])


def test_a_missing_data_set_is_an_os_error_with_the_way_out(patched: MadeUp, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Fashion-MNIST: 4 of 4 files were not found") as error:
        fashion_mnist.load(tmp_path / "empty")
    assert "apt install dataset-fashion-mnist" in str(error.value)
    assert not (tmp_path / "empty").exists()


def test_the_table_of_files() -> None:
    assert len(fashion_mnist.CLASS_NAMES) == 10
    sizes = [47_040_016, 60_008, 7_840_016, 10_008]
    assert [spec.raw_size for spec in fashion_mnist.FILES] == sizes
    for spec in fashion_mnist.FILES:
        for sha256 in (spec.gzip_sha256, spec.raw_sha256):
            assert len(bytes.fromhex(sha256)) == 32
    schemes = [mirror.split(":")[0] for mirror in fashion_mnist.MIRRORS]
    assert schemes == ["https", "https", "http"]
    assert all(mirror.endswith("/") for mirror in fashion_mnist.MIRRORS)


@pytest.mark.data
def test_the_real_set(fashion_mnist: Any) -> None:
    """The numbers in the paper: 6,000 and 1,000 examples of each class."""
    (x_train, y_train), (x_test, y_test) = fashion_mnist
    assert x_train.shape == (60_000, 28, 28)
    assert x_test.shape == (10_000, 28, 28)
    assert {array.dtype for array in (x_train, y_train, x_test, y_test)} == {np.dtype(np.uint8)}
    np.testing.assert_array_equal(np.bincount(y_train), np.full(10, 6_000))
    np.testing.assert_array_equal(np.bincount(y_test), np.full(10, 1_000))
    assert round(float(x_train.mean()), 4) == 72.9404
    np.testing.assert_array_equal(y_test[:5], [9, 2, 1, 1, 6])


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Upstream's four gzip files, byte for byte, made from the local ones."""
    folder = fashion_mnist.cache_folder()
    try:
        fashion_mnist.load(archive=True)
    except DownloadError as error:
        pytest.skip(f"Fashion-MNIST is not available here: {error}")
    files = {}
    for spec in fashion_mnist.FILES:
        places = [place / spec.gzip_name for place in (folder, *fashion_mnist.SYSTEM_FOLDERS)]
        data = next((place.read_bytes() for place in places if place.exists()), b"")
        if not data:
            pytest.skip(f"{spec.gzip_name} is only available decompressed here")
        if data[3] == 0:  # Debian's gzip holds no name; upstream's holds the name and the time
            when = 1504176606 if spec.name.startswith("train") else 1504176627
            head = b"\x1f\x8b\x08\x08" + struct.pack("<I", when) + b"\0\3" + spec.name.encode() + b"\0"
            data = head + data[10:]
        files[spec.gzip_name] = data
    return files


@pytest.mark.data
def test_upstreams_own_files_from_a_mirror(
    upstream: dict[str, bytes], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole download with the real bytes: the table's sizes and hashes are those of the real files."""
    for spec in fashion_mnist.FILES:
        data = upstream[spec.gzip_name]
        assert len(data) == spec.gzip_size
        assert hashlib.sha256(data).hexdigest() == spec.gzip_sha256
        assert len(gzip.decompress(data)) == spec.raw_size
        server.on(spec.gzip_name, send(data))
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDERS", ())
    monkeypatch.setenv("TINYNET_MIRROR", server.url)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "TINYNET_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    (x_train, _), _ = fashion_mnist.load(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == upstream
    np.testing.assert_array_equal(parse_idx(tmp_path / "train-images-idx3-ubyte.gz"), x_train)

    reads, needed = [], []
    for _ in range(3):  # the best of them: the machine may be busy
        start = time.process_time()
        fashion_mnist.load(tmp_path)
        middle = time.process_time()
        for data in upstream.values():
            hashlib.sha256(gzip.decompress(data))
        reads.append(middle - start)
        needed.append(time.process_time() - middle)
    assert min(reads) < 5 * min(needed)  # about once, as it does little more
