"""A data set from the archive of the Linux distribution: Debian, Ubuntu and their descendants.

``apt-get`` is run with list, cache and download folders of our own, in a temporary folder: it checks the
archive's signatures with the system's keys and uses the system's mirrors and proxies. It needs no root,
changes nothing of the system and installs nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

# Read after the system's settings. Hooks are for the system's own lists (one empties its download cache), and
# descriptions of desktop applications are many megabytes that nobody reads here.
_SETTINGS = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Acquire::Languages "none";
Acquire::Retries "1";
Acquire::http::Timeout "10";
Acquire::https::Timeout "10";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Debug::NoLocking "1";
APT::Sandbox::User "root"; // as root, keep root: the user _apt may not enter our folder
"""


class ArchiveError(Exception):
    """The distribution's archive did not give the package; the message says why."""


def unavailable() -> str:
    """Why this machine has no such archive, or "" where it has one."""
    missing = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]
    return f"no {' and no '.join(missing)} on this machine" if missing else ""


@contextmanager
def unpacked(
    package: str, *, update_seconds: float = 120.0, download_seconds: float = 600.0
) -> Iterator[Path]:
    """Download a package and unpack it into a temporary folder, which is deleted at the end.

    Args:
        package: its name.
        update_seconds, download_seconds: how long the two steps may take.
    Yields: the folder; a file that the package would install as ``/usr/share/x`` is ``usr/share/x`` in it.
    Raises: ArchiveError: if there is no apt-get, or it does not know the package, or anything fails.
    """
    reason = unavailable()
    if reason:
        raise ArchiveError(reason)
    with tempfile.TemporaryDirectory(prefix="tinynet-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        for name in ("lists/partial", "cache/archives/partial", "download", "tree"):
            (folder / name).mkdir(parents=True)
        (folder / "settings").write_text(_SETTINGS, encoding="ascii")
        apt_get = [
            *("apt-get", "-q", "-c", str(folder / "settings")),
            *("-o", f"Dir::State::lists={folder / 'lists'}", "-o", f"Dir::Cache={folder / 'cache'}"),
        ]
        # One broken third-party source fails the update, but not the lists of the others: go on and see.
        _, update_output = _run([*apt_get, "update"], folder, update_seconds)
        status, output = _run([*apt_get, "download", package], folder / "download", download_seconds)
        packages = list((folder / "download").glob("*.deb"))
        if status != 0 or not packages:
            raise ArchiveError(f"apt-get download {package} failed: {_last_lines(update_output + output)}")
        status, output = _run(["dpkg-deb", "-x", str(packages[0]), str(folder / "tree")], folder, 120.0)
        if status != 0:
            raise ArchiveError(f"dpkg-deb could not unpack {packages[0].name}: {_last_lines(output)}")
        yield folder / "tree"


def _run(command: Sequence[str], folder: Path, seconds: float) -> tuple[int, str]:
    """Run a command in ``folder``; return its exit status and what it printed."""
    import subprocess

    environment = os.environ | {"LC_ALL": "C"}
    try:
        # A session of its own: apt-get's helpers are stopped together with it.
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise ArchiveError(f"{command[0]} could not be started: {error}") from error
    with process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            _stop(process.pid)
            raise ArchiveError(f"{command[0]} was stopped after {seconds:g} s without an end") from None
        except BaseException:  # Ctrl-C reaches only us, because of the session of its own
            _stop(process.pid)
            raise
    return process.returncode, output.decode(errors="replace")


def _stop(pid: int) -> None:
    if sys.platform != "win32":
        with suppress(OSError):
            os.killpg(pid, signal.SIGKILL)


def _last_lines(output: str) -> str:
    """apt-get's own errors and warnings if it printed any, else the end of what it said."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("E:", "W:", "Err:"))] or lines
    return " / ".join(told[-3:]) or "it said nothing"
