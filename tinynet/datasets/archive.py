"""A data set from the package archive of the Linux distribution: Debian, Ubuntu and those derived from them.

``apt-get`` runs with its lists, cache and downloads in a temporary folder. It checks the archive's signatures with
the system's keys and uses the system's mirrors and proxies. It needs no root, installs nothing and leaves the system
as it is.
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

# Read after the system's settings. The hooks are meant for the system's own lists (one empties its download cache),
# and the descriptions of desktop applications are many megabytes that are not needed here.
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
APT::Sandbox::User "root"; // when run as root, stay root: the user _apt can't enter our folder
"""


class ArchiveError(Exception):
    """The package could not be taken from the distribution's archive; the message says why."""


def unavailable() -> str:
    """Why this machine can't use such an archive, or "" if it can."""
    missing = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]
    return f"no {' and no '.join(missing)} on this machine" if missing else ""


@contextmanager
def unpacked(
    package: str, *, update_seconds: float = 120.0, download_seconds: float = 600.0
) -> Iterator[Path]:
    """Download a package and unpack it into a temporary folder, which is deleted on exit.

    Args:
        package: name of the package.
        update_seconds, download_seconds: time limits of the two steps.
    Yields: the folder; a file that the package installs as ``/usr/share/x`` is ``usr/share/x`` in it.
    Raises: ArchiveError: if there is no apt-get, it does not know the package, or a step fails.
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
        # A broken third-party source makes the update fail, but the other lists are there: try the download anyway.
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
    """Run a command in ``folder``; return its exit status and its output."""
    import subprocess

    environment = os.environ | {"LC_ALL": "C"}
    try:
        # A session of its own, so that apt-get's helpers are stopped with it.
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
            raise ArchiveError(f"{command[0]} did not finish within {seconds:g} s and was stopped") from None
        except BaseException:  # Ctrl-C: apt-get, in another session, does not receive it
            _stop(process.pid)
            raise
    return process.returncode, output.decode(errors="replace")


def _stop(pid: int) -> None:
    if sys.platform != "win32":
        with suppress(OSError):
            os.killpg(pid, signal.SIGKILL)


def _last_lines(output: str) -> str:
    """apt-get's own errors and warnings if it printed any, else the last lines of its output."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("E:", "W:", "Err:"))] or lines
    return " / ".join(told[-3:]) or "it printed nothing"
