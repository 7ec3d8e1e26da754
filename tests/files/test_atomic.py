"""atomic_write: a file has its old content or the new, whatever happens in between."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.loopback import child_environment, python
from tinynet.files.atomic import atomic_write, check_writable, write_bytes

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions, links or signals")


def test_a_new_file_and_a_replaced_one(tmp_path: Path) -> None:
    path = tmp_path / "a file.bin"
    write_bytes(path, b"one")
    assert path.read_bytes() == b"one"
    write_bytes(str(path), bytearray(b"two"))
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a file.bin"]


def test_nothing_is_seen_before_the_end_and_the_file_can_be_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new content")
        file.flush()
        assert path.read_bytes() == b"old"
        file.seek(4)
        assert file.read() == b"content"
        file.close()  # some writers do
    assert path.read_bytes() == b"new content"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("old", [b"old", None])
def test_an_exception_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException], old: bytes | None
) -> None:
    path = tmp_path / "x"
    if old is not None:
        path.write_bytes(old)

    def write_and_fail() -> None:
        with atomic_write(path) as file:
            file.write(b"half of")
            raise error

    with pytest.raises(error):
        write_and_fail()
    assert os.listdir(tmp_path) == ([] if old is None else ["x"])
    assert old is None or path.read_bytes() == old


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_system_call_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows can't open a folder."""

    def refuse(*arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    write_bytes(tmp_path / "x", b"new")
    monkeypatch.undo()
    assert (tmp_path / "x").read_bytes() == b"new"


def test_the_content_is_synced_before_it_takes_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(handle: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def note_replace(source: Path, target: Path) -> None:
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_bytes(tmp_path / "x", b"new")
    assert calls == (["file", "replace", "folder"] if os.name == "posix" else ["file", "replace"])


def test_errors_name_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist; create it first") as error:
        write_bytes(tmp_path / "no" / "x", b"")
    assert error.value.filename == str(tmp_path / "no" / "x")
    with pytest.raises(OSError, match="."):
        write_bytes(tmp_path, b"")
    assert os.listdir(tmp_path) == []


def test_missing_folders_are_made_when_asked(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "b" / "x", b"deep", parents=True)
    assert (tmp_path / "a" / "b" / "x").read_bytes() == b"deep"


def test_a_long_name(tmp_path: Path) -> None:
    name = "ü" * 120
    write_bytes(tmp_path / name, b"long")
    assert os.listdir(tmp_path) == [name]


@posix
def test_permissions_are_the_ordinary_ones(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "x", b"")
        (tmp_path / "y").write_bytes(b"")
    finally:
        os.umask(old)
    new, ordinary = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "xy")
    assert new == ordinary == 0o640
    (tmp_path / "x").chmod(0o600)
    write_bytes(tmp_path / "x", b"again")
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600


@posix
def test_links_are_followed_and_pipes_written_to(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "real")
    write_bytes(tmp_path / "link", b"through")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "real").read_bytes() == b"through"

    os.mkfifo(tmp_path / "pipe")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_bytes(tmp_path / "pipe", b"piped")
    reader.join()
    assert received == [b"piped"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def places(folder: Path) -> dict[str, Path]:
    (folder / "file").write_bytes(b"old")
    (folder / "link").symlink_to(folder / "real")
    (folder / "dangling").symlink_to(folder / "missing" / "real")
    return {
        "new": folder / "new",
        "old": folder / "file",
        "link": folder / "link",
        "dangling link": folder / "dangling",
        "missing folder": folder / "missing" / "x",
        "under a file": folder / "file" / "x",
        "folder": folder,
        "device": Path(os.devnull),
        "proc": Path("/proc/x"),  # where root's permissions promise more than can be done
    }


@posix
@pytest.mark.parametrize(
    "place",
    ["new", "old", "link", "dangling link", "missing folder", "under a file", "folder", "device", "proc"],
)
def test_what_can_not_be_written_is_known_beforehand(tmp_path: Path, place: str) -> None:
    path = places(tmp_path)[place]
    before = sorted(os.listdir(tmp_path))
    if place in ("new", "old", "link", "device"):
        check_writable(path)
        write_bytes(path, b"new")
        return
    with pytest.raises(OSError, match=".") as checked:
        check_writable(path)
    assert sorted(os.listdir(tmp_path)) == before
    with pytest.raises(type(checked.value)) as written:
        write_bytes(path, b"new")
    assert checked.value.filename == written.value.filename


def test_folders_to_be_made_are_checked_too(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b" / "x", parents=True)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        check_writable(tmp_path / "file" / "b" / "x", parents=True)
    assert os.listdir(tmp_path) == ["file"]


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path: Path) -> None:
    contents = [bytes([i]) * 200_000 for i in range(8)]
    threads = [threading.Thread(target=write_bytes, args=(tmp_path / "x", data)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x").read_bytes() in contents
    assert os.listdir(tmp_path) == ["x"]


@posix
def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    code = (
        "import sys, time; from tinynet.files.atomic import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file:\n"
        "    file.write(b'half'); file.flush(); print('written', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(python(code, path), stdout=subprocess.PIPE, env=child_environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    assert path.read_bytes() == b"old"


def test_windows_waits_for_a_file_that_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, refusals = os.replace, [PermissionError(13, "in use"), PermissionError(13, "in use")]

    def sometimes(source: Path, target: Path) -> None:
        if refusals:
            raise refusals.pop()
        replace(source, target)

    monkeypatch.setattr(os, "replace", sometimes)
    monkeypatch.setattr("tinynet.files.atomic._ON_WINDOWS", True)
    write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"new"
