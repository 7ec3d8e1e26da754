"""The distribution's archive, with a fake apt-get and dpkg-deb, and once with the real ones."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.loopback import LOAD, MadeUp, child_environment, python, until
from tinynet.datasets import DownloadError, archive, fashion_mnist

pytestmark = pytest.mark.skipif(os.name != "posix", reason="apt-get exists on Debian and its derivatives")


class FakeApt:
    """A fake apt-get and dpkg-deb, in a folder at the front of PATH."""

    def __init__(self, folder: Path, tree: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.log = folder / "calls"
        self.log.write_text("")
        # The arguments end in "update" or "download PACKAGE".
        self.script("apt-get", 'case "$*" in *update) true;; *) echo deb > "$PWD/package_1_all.deb";; esac')
        self.script("dpkg-deb", f'cp -r {shlex.quote(str(tree))}/. "$3"')

    def script(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {shlex.quote(str(self.log))}\n{body}\n')
        path.chmod(0o755)

    def on(self, update: str = "true", download: str = "true") -> None:
        self.script("apt-get", f'case "$*" in *update) {update};; *) {download};; esac')

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patched: MadeUp) -> FakeApt:
    tree = tmp_path / "tree"
    patched.put_in(tree / fashion_mnist.PACKAGE.folder)
    fake = FakeApt(tmp_path, tree)
    monkeypatch.setenv("PATH", f"{fake.bin}:/usr/bin:/bin")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    return fake


def failure(cache: Path) -> str:
    with pytest.raises(DownloadError) as error:
        fashion_mnist.load(cache, archive=True)
    assert not cache.exists() or list(cache.iterdir()) == []
    return str(error.value)


def test_the_package_is_downloaded_unpacked_and_kept(
    apt: FakeApt, patched: MadeUp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (x_train, y_train), (x_test, y_test) = fashion_mnist.load(tmp_path / "cache", archive=True)
    for array, expected in zip((x_train, y_train, x_test, y_test), patched.arrays, strict=True):
        assert array.tobytes() == expected.tobytes()
    assert {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir()} == patched.packed
    update, download, unpack = apt.calls
    assert update.endswith(" update")
    assert download.endswith(" download dataset-fashion-mnist")
    assert unpack.startswith("dpkg-deb -x ")
    for call in (update, download):  # nothing is written to the system's folders
        assert f"Dir::State::lists={tmp_path / 'tmp'}" in call
        assert f"Dir::Cache={tmp_path / 'tmp'}" in call
    assert list((tmp_path / "tmp").iterdir()) == []
    assert capsys.readouterr().err == (
        "tinynet: getting Fashion-MNIST by `apt-get download dataset-fashion-mnist`; this installs nothing\n"
    )
    fashion_mnist.load(tmp_path / "cache", archive=True)
    assert len(apt.calls) == 3


def test_it_is_not_asked_without_leave_nor_offline(
    apt: FakeApt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DownloadError, match="not asked; pass archive=True to allow it"):
        fashion_mnist.load(tmp_path / "cache")
    monkeypatch.setenv("TINYNET_OFFLINE", "1")
    assert "TINYNET_OFFLINE is set" in failure(tmp_path / "cache")
    assert apt.calls == []


def test_it_is_not_asked_when_the_files_are_there(apt: FakeApt, patched: MadeUp, tmp_path: Path) -> None:
    fashion_mnist.load(patched.put_in(tmp_path / "cache"), archive=True)
    assert apt.calls == []


def test_a_broken_source_among_good_ones_does_no_harm(apt: FakeApt, patched: MadeUp, tmp_path: Path) -> None:
    apt.on(update="echo 'E: The repository is not signed.'; exit 100", download='echo deb > "$PWD/p.deb"')
    (x_train, _), _ = fashion_mnist.load(tmp_path / "cache", archive=True)
    assert x_train.shape == patched.arrays[0].shape


@pytest.mark.parametrize(
    ("update", "download", "message"),
    [
        ("true", "echo 'E: Unable to locate package'; exit 100", "failed: E: Unable to locate package"),
        (
            "echo 'W: Failed to fetch http://x'",
            "echo 'E: No package'; exit 100",
            "W: Failed to fetch http://x / E: No",
        ),
        ("true", "true", "failed: it printed nothing"),
        ("true", "echo 1; echo 2; echo 3; echo 4; exit 1", "failed: 2 / 3 / 4"),
    ],
)
def test_what_apt_get_says_is_passed_on(
    apt: FakeApt, tmp_path: Path, update: str, download: str, message: str
) -> None:
    apt.on(update, download)
    text = failure(tmp_path / "cache")
    assert "the distribution's archive (package dataset-fashion-mnist): apt-get download" in text
    assert message in text
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_package_that_cannot_be_unpacked(apt: FakeApt, tmp_path: Path) -> None:
    apt.script("dpkg-deb", "echo 'dpkg-deb: error: not a Debian package' >&2; exit 2")
    assert "could not unpack package_1_all.deb: dpkg-deb: error: not a" in failure(tmp_path / "cache")


def test_a_package_with_other_files(apt: FakeApt, tmp_path: Path) -> None:
    data = tmp_path / "tree" / fashion_mnist.PACKAGE.folder / "train-images-idx3-ubyte.gz"
    data.write_bytes(b"something else")
    assert "found 14 bytes" in failure(tmp_path / "cache")
    data.unlink()
    assert "No such file" in failure(tmp_path / "cache")


def test_no_apt_get(tmp_path: Path, patched: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no apt-get and no dpkg-deb on this machine" in failure(tmp_path / "cache")
    with pytest.raises(DownloadError, match="no apt-get and no dpkg-deb on this machine"):
        fashion_mnist.load(tmp_path / "cache")


def test_an_apt_get_that_cannot_run(apt: FakeApt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(apt.bin))  # otherwise the system's own would be tried next
    (apt.bin / "apt-get").write_text("#!/no/such/interpreter\n")
    assert "apt-get could not be started" in failure(tmp_path / "cache")


def gone(pid: int) -> bool:
    """Whether the process has ended; a zombie counts as ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False
    return state in "ZX"


def test_an_apt_get_that_hangs_is_stopped_with_its_helpers(apt: FakeApt, tmp_path: Path) -> None:
    helper, ended = tmp_path / "helper", tmp_path / "ended"
    apt.on(update=f"(sleep 60; touch {ended}) & echo $! > {helper}; wait")
    for seconds in (0.3, 3, 30):  # a slow machine may not even have started the helper
        with (
            pytest.raises(
                archive.ArchiveError, match=rf"apt-get did not finish within {seconds} s and was stopped"
            ),
            archive.unpacked("anything", update_seconds=seconds),
        ):
            pass
        if helper.exists() and helper.read_text():
            break
    assert until(lambda: gone(int(helper.read_text())))
    assert not ended.exists()
    assert list((tmp_path / "tmp").iterdir()) == []


# Told by a child process as it begins to wait for another; that may be running before Popen has returned.
WAITS = """
import subprocess
def wait(*arguments, _wait=subprocess.Popen._communicate, **more):
    print("waiting", flush=True)
    return _wait(*arguments, **more)
subprocess.Popen._communicate = wait
"""


def test_ctrl_c_stops_apt_get_and_cleans_up(apt: FakeApt, patched: MadeUp, tmp_path: Path) -> None:
    apt.on(update=f"echo $$ > {tmp_path}/started; exec sleep 60")
    code = WAITS + LOAD.replace("load(sys.argv[1])", "load(sys.argv[1], archive=True)")
    environment = child_environment(TMPDIR=str(tmp_path / "tmp"))
    command = python(code, tmp_path / "cache", patched.json)
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        started = tmp_path / "started"
        assert until(lambda: started.exists() and started.read_text().strip() != "")
        assert process.stdout is not None
        assert process.stdout.readline() == b"waiting\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=1200)
    assert b"KeyboardInterrupt" in errors
    assert gone(int(started.read_text()))
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.data
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the archive is that of Debian and Ubuntu")
def test_the_real_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if archive.unavailable():
        pytest.skip(archive.unavailable())
    monkeypatch.setattr(fashion_mnist, "MIRRORS", ())
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDERS", ())
    monkeypatch.delenv("TINYNET_MIRROR", raising=False)
    lists = Path("/var/lib/apt/lists")
    before = lists.stat().st_mtime_ns if lists.exists() else None
    try:
        (x_train, _), _ = fashion_mnist.load(tmp_path / "cache", archive=True)
    except DownloadError as error:
        pytest.skip(f"the package is not available here: {error}")
    assert x_train.shape == (60000, 28, 28)
    assert len(list((tmp_path / "cache").iterdir())) == 4
    assert before is None or lists.stat().st_mtime_ns == before
