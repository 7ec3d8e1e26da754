"""Written files stay complete: after kills, on full disks, in read-only folders."""

import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import tinynet as tn
from tests.support.faults import full_disk, posix, read_only
from tests.support.loopback import child_environment
from tinynet.files import storage
from tinynet.plots import style

# Saves two models alternately in a child that is killed at a random moment, and loads what is there then: 200 times,
# and until 10 of the kills came in the middle of a save, which on a busy machine takes more.
KILLS = """
import os, random, signal, sys, time
import numpy as np
import tinynet as tn

path, rounds, halves = sys.argv[1], 0, 0
models = [tn.Sequential([tn.Dense(64)], input_shape=(50,), seed=seed) for seed in (1, 2)]
start = time.perf_counter()
for model in models:
    model.save(path)
seconds = (time.perf_counter() - start) / 2  # a save
while rounds < 200 or (halves < 10 and rounds < 5000):
    child = os.fork()
    if child == 0:
        while True:
            for model in models:
                model.save(path)
    time.sleep(random.uniform(0, 3) * seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = tn.load_model(path)
    if not any(np.array_equal(found.params, model.params) for model in models):
        sys.exit(f"neither of the two models is there after {rounds} kills")
    rounds, halves = rounds + 1, len(os.listdir(os.path.dirname(path))) - 1
"""


@posix
def test_killed_200_times_while_saving_there_is_a_whole_model_each_time(tmp_path):
    path = tmp_path / "model.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", KILLS, path],
        env=child_environment(OPENBLAS_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    halves = [name for name in os.listdir(tmp_path) if name != path.name]
    assert all(name.startswith(".model.safetensors.") and name.endswith(".tmp") for name in halves)
    assert len(halves) >= 10  # so often it was killed during a save


def model(seed=0):
    return tn.Sequential([tn.Dense(60), tn.Dense(3)], input_shape=(20,), seed=seed)


def history():
    made = tn.History()
    for epoch in range(30):
        made.append({"loss": 1 / (epoch + 1), "seconds": 0.1234567890123456})
    return made


def picture():
    figure = Figure(figsize=(1, 1))
    figure.figimage(np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8))
    return figure


WRITERS = {
    "model": lambda path: model().save(path),
    "checkpoint": lambda path: storage.save(path, {}, model().named_weights(), kind="checkpoint"),
    "history": lambda path: tn.CSVLogger(path).on_epoch_end(types.SimpleNamespace(history=history())),
    "picture": lambda path: style.finish(picture(), path),  # like all of tinynet.plots
}


@pytest.fixture(params=WRITERS)
def write(request):
    """Return everything that the library writes, as functions of the path."""
    return WRITERS[request.param]


def refused(write, path, kind):
    """Check that writing fails with an error that names the file, and leaves it and its folder unchanged."""
    before = {name: (path.parent / name).read_bytes() for name in os.listdir(path.parent)}
    with pytest.raises(kind) as error:
        write(path)
    assert error.value.filename == str(path)
    assert error.value.strerror
    return before


def unchanged(folder, before):
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == before


@posix
@pytest.mark.parametrize("room", [0, 1000])
@pytest.mark.parametrize("existing", [True, False])
def test_a_full_disk(write, room, existing, tmp_path):
    write(tmp_path / "other.png")
    path = tmp_path / "x.png"
    if existing:
        path.write_bytes(b"the old content")
    with full_disk(room):
        before = refused(write, path, OSError)
    unchanged(tmp_path, before)
    write(path)
    assert path.stat().st_size == (tmp_path / "other.png").stat().st_size


@posix
def test_a_small_tmpfs(write, tmp_path):
    write(tmp_path / "other.png")
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"nothing can be mounted here: {error}")
    if mounted.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    try:
        path = disk / "x.png"
        path.write_bytes(b"the old content")
        (disk / "filler").write_bytes(b"x" * 4096)
        before = refused(write, path, OSError)
        unchanged(disk, before)
        (disk / "filler").unlink()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@posix
@pytest.mark.parametrize("existing", [True, False])
def test_a_read_only_folder(write, existing, reachable_folder):
    write(reachable_folder / "other.png")
    path = reachable_folder / "x.png"
    if existing:
        path.write_bytes(b"the old content")
        path.chmod(0o666)
    with read_only(reachable_folder):
        before = refused(write, path, PermissionError)
    unchanged(reachable_folder, before)
    write(path)


def test_a_folder_that_is_a_file(write, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file") as error:
        write(tmp_path / "file" / "x.png")
    assert error.value.filename == str(tmp_path / "file" / "x.png")
    assert os.listdir(tmp_path) == ["file"]


def test_a_model_that_can_not_be_saved_is_as_before(tmp_path):
    made = model()
    before = made.params.copy()
    with pytest.raises(FileNotFoundError, match="create it first"):
        made.save(Path(tmp_path) / "nowhere" / "m")
    np.testing.assert_array_equal(made.params, before)
