"""Write files atomically: a reader finds the old content or the new, never a part of it.

The new content goes to a temporary file in the same folder, is flushed to disk, and takes the name in one
step (``os.replace``). A full disk, an exception, Ctrl-C or a killed process leaves the old file unchanged.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tinynet.support.checks import check_path
from tinynet.support.types import PathLike

_ON_WINDOWS = os.name == "nt"


@contextlib.contextmanager
def atomic_write(path: PathLike, *, parents: bool = False) -> Iterator[BinaryIO]:
    """Open ``path`` for writing so that it changes completely or not at all.

    Use it as ``with atomic_write("model.bin") as file: file.write(data)``. The file also supports reading and
    seeking, so that its content can be checked before it takes the name: raising inside the block keeps the old
    file. Symbolic links are followed. A new file gets its permissions from the umask, an existing one keeps its
    own. A device or a pipe can't be replaced and is written to directly.

    Args:
        path: the file to create or replace.
        parents: create missing parent folders.
    Yields: a binary file object, open for writing and reading.
    Raises: OSError, naming ``path``: if it cannot be written; TypeError: if it is not a str or a Path.
    """
    target = Path(os.path.realpath(check_path("path", path)))
    if parents:
        target.parent.mkdir(parents=True, exist_ok=True)
    mode = _existing_mode(target)
    if mode is not None and not stat.S_ISREG(mode):
        with open(target, "wb") as device:  # a folder raises here, as it should
            yield device
        return
    temporary = _temporary(target)
    try:
        with _named(target):
            file = open(temporary, "x+b")  # noqa: SIM115  (closed below, in every case)
        try:
            if mode is not None:
                with contextlib.suppress(OSError):
                    os.chmod(temporary, stat.S_IMODE(mode))
            yield file
            if not file.closed:
                with _named(target):
                    file.flush()
                    os.fsync(file.fileno())
        finally:
            with contextlib.suppress(
                OSError
            ):  # it is on disk, or an error that says why not is already raised
                file.close()
        with _named(target):
            _replace(temporary, target)
    except BaseException:  # Ctrl-C too
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(target.parent)


def write_bytes(path: PathLike, data: bytes | bytearray | memoryview, *, parents: bool = False) -> None:
    """Write ``data`` to ``path`` completely or not at all; see `atomic_write`."""
    with atomic_write(path, parents=parents) as file, _named(Path(path)):
        file.write(data)


def check_writable(path: PathLike, *, parents: bool = False) -> None:
    """Raises OSError, naming ``path``, if `atomic_write` could not write there: before the work, not after it.

    This creates a temporary file and removes it, because permissions alone don't tell: not to root, not in /proc.
    """
    target = Path(os.path.realpath(check_path("path", path)))
    mode = _existing_mode(target)
    if mode is not None and not stat.S_ISREG(mode):
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(
                errno.EISDIR, "expected the path of a file, but this is a folder", str(target)
            )
        if not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
        return
    place = target
    while parents and not os.path.exists(place.parent):
        place = place.parent
    temporary, given = _temporary(place), Path(path)
    # Errors name the target of a link, otherwise the path as it was given.
    with _named(target if os.path.isdir(given.parent) else given):
        try:
            open(temporary, "xb").close()
        finally:
            temporary.unlink(missing_ok=True)


def _temporary(target: Path) -> Path:
    """Another name for each writer: of concurrent writers of the same file, the last to finish wins."""
    return target.with_name(f".{target.name[:50]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _existing_mode(path: Path) -> int | None:
    try:
        return os.stat(path).st_mode
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise
        return None


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Make errors name the requested file, not the temporary one."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, FileNotFoundError):
            reason = f"the folder {str(path.parent)!r} does not exist; create it first"
        raise OSError(error.errno, reason, str(path)) from None  # OSError picks its subclass by errno


def _replace(temporary: Path, target: Path) -> None:
    """Call ``os.replace``; retry, as on Windows a virus scanner or a reader may hold the old file briefly."""
    for pause in (0.02, 0.1, 0.5):
        try:
            os.replace(temporary, target)
            return
        except PermissionError:
            if not _ON_WINDOWS:
                raise
            time.sleep(pause)
    os.replace(temporary, target)


def _sync_folder(folder: Path) -> None:
    """Flush the new name to disk. Windows and some network drives can't, and don't need to."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
