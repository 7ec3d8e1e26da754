"""A full disk and a read-only folder, simulated by limits of the process, which bind root too."""

import contextlib
import os

import pytest

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX limits and permissions")
NOBODY = 65534


@contextlib.contextmanager
def full_disk(room=0):
    """No file of this process can grow beyond this many bytes. Print nothing that goes to a file."""
    resource = pytest.importorskip("resource")
    former, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (former, most))


@contextlib.contextmanager
def read_only(folder):
    """Nothing can be created in a `reachable_folder`; root gives up its privileges meanwhile."""
    is_root = os.geteuid() == 0
    os.chmod(folder, 0o555)
    if is_root:
        try:
            os.seteuid(NOBODY)
        except OSError as error:
            pytest.skip(f"root keeps its privileges here: {error}")
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        os.chmod(folder, 0o755)
