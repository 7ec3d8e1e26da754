"""What is compiled: each kernel once for a dtype, whatever arrays a user has."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")
pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux", reason="forking a process that computes is safe on Linux only"
    ),
    pytest.mark.skipif("NUMBA_DISABLE_JIT" in os.environ, reason="nothing is compiled"),
]

ROOT = Path(__file__).parents[3]

KERNELS = {"mlp_sgd": 8, "mlp_adam": 8, "mlp_bn": 12, "cnn": 14, "cnn_small": 18, "cnn_best": 18}
"""How many kernels each recipe compiles, at most: with those that kernels call, which are not loaded with them."""


def run(*names, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.signatures", *names],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def found():
    return run()


def of_another_kind(signature, dtype):
    """Whether it is of arrays other than "carray" of this dtype; labels, winners and random bits are integers."""
    return (
        "readonly" in signature
        or ", True, aligned" in signature
        or "aligned=False" in signature
        or ({"float32": "float64", "float64": "float32"}[dtype] in signature)
    )


def test_each_run_compiles_a_kernel_once(found):
    for name, kernels in found.items():
        dtype = "float64" if name.endswith(", float64") else "float32"
        assert kernels, name
        for kernel, signatures in kernels.items():
            if dtype == "float64" and kernel.endswith("activations._rectify"):
                signatures = signatures[1:]  # it has been tried out in float32
            assert len(signatures) <= 1, (name, kernel, signatures)
            assert not any(of_another_kind(one, dtype) for one in signatures), (name, kernel, signatures)


@pytest.mark.parametrize("name", KERNELS)
def test_how_many_kernels_a_recipe_compiles(name, found):
    assert len(found[name]) <= KERNELS[name]
    assert "tinynet.engines.fast.losses._count_right" in found[name]


@pytest.mark.parametrize("files", ["*.nbi", "*.nbc"], ids=["index", "code"])
def test_a_damaged_cache_is_made_anew(files, tmp_path):
    """As a power failure may leave it."""
    kernels = run("mlp_sgd", NUMBA_CACHE_DIR=str(tmp_path))["mlp_sgd"]
    for path in (damaged := list(tmp_path.rglob(files))):
        path.write_bytes(b"")
    assert run("mlp_sgd", NUMBA_CACHE_DIR=str(tmp_path))["mlp_sgd"] == kernels
    assert all(path.stat().st_size for path in damaged)


FULL_DISK = """
from tests.support.engine_runs import train
from tests.support.faults import full_disk
with full_disk(100):
    train("numba", "mlp_sgd", 2, batch_size=8)
"""


def test_a_full_disk_costs_no_run(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path)}
    program = [sys.executable, "-c", FULL_DISK]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert not any(path.stat().st_size for path in tmp_path.rglob("*.nbc"))


def test_an_empty_cache_gets_one_file_for_each_and_is_enough_for_the_next_process(tmp_path):
    kernels = run("mlp_adam", NUMBA_CACHE_DIR=str(tmp_path))["mlp_adam"]
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb?")}
    assert len([path for path in files if path.suffix == ".nbc"]) == len(kernels)
    assert run("mlp_adam", NUMBA_CACHE_DIR=str(tmp_path))["mlp_adam"] == kernels
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb?")} == files
