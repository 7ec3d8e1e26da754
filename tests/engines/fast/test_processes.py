"""Compiled loops in several threads, in forked processes, and where nothing can be written or compiled."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

import tinynet as tn
from tests.support.engine_runs import made_up, train
from tests.support.faults import NOBODY, posix
from tests.support.runs import assert_same_end, start
from tests.training.test_concurrent_fits import at_once
from tinynet.engines import choice
from tinynet.engines.operation import loops

pytest.importorskip("numba")

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="forking a process that computes is safe on Linux only"
)
ROOT = Path(__file__).parents[3]


class TestThreads:
    @pytest.fixture(autouse=True)
    def numba(self):
        with tn.engines.use("numba"):
            yield

    @pytest.mark.parametrize("pair", [("dense", "dense"), ("two_workers", "pruned")])
    def test_two_fits_at_once_end_as_one_after_the_other(self, pair):
        alone = [start(case) for case in pair]
        together = at_once(*(lambda case=case: start(case) for case in pair))
        for one, other in zip(alone, together, strict=True):
            assert_same_end(one, other)

    @pytest.mark.parametrize("name", ["mlp_bn", "cnn_small"])
    def test_eight_threads_predict_what_one_does(self, name):
        """Each its own images, many times, so that memory that they shared would show."""
        model, (images, _) = train("numba", name, 2, batch_size=8)[0], made_up(160)
        parts = [images[i : i + 20] for i in range(0, 160, 20)]
        expected = [model.predict(x) for x in parts]
        found = at_once(*(lambda x=x: [model.predict(x) for _ in range(20)] for x in parts))
        for each, one in zip(found, expected, strict=True):
            for other in each:
                np.testing.assert_array_equal(other, one)

    def test_each_part_of_a_batch_is_computed_by_loops(self):
        seen = set()

        class See(tn.Layer):
            def forward(self, x, training=False):
                seen.add((threading.current_thread().name, bool(loops.get())))
                return x

            def backward(self, dy):
                return dy

        model = tn.Sequential([See(), tn.Dense(3)], (4,), seed=0)
        given = {"optimizer": tn.SGD(), "loss": tn.SoftmaxCrossEntropy(), "verbose": 0}
        model.fit(np.zeros((12, 4)), np.zeros(12, int), workers=3, batch_size=12, **given)
        assert len(seen) > 1  # threads
        assert all(has_loops for _, has_loops in seen)

    def test_numbas_own_threads_do_not_start(self):
        import numba

        train("numba", "cnn_best", 2, workers=2, batch_size=8)
        with pytest.raises(ValueError, match="not initialized"):
            numba.threading_layer()


@linux
@pytest.mark.parametrize("name", ["mlp_adam", "cnn_small"])
def test_a_forked_process_trains_as_its_parent_does(name):
    """After a fit, which has started BLAS threads."""
    expected = train("numba", name, 3, batch_size=8)[0].params.tobytes()
    told, tell = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process that has threads
        child = os.fork()
    if child == 0:
        os.close(told)
        with open(tell, "wb") as pipe:
            try:
                pipe.write(train("numba", name, 3, batch_size=8)[0].params.tobytes())
            finally:
                pipe.flush()
                os._exit(0)
    os.close(tell)
    with open(told, "rb") as pipe:
        found = pipe.read()
    os.waitpid(child, 0)
    assert found == expected


TRAIN = """
import json, os, sys
import numba, numpy as np, tinynet as tn

def train(engine):
    tn.engines.use(engine)
    model = tn.Sequential([tn.Dense(4), tn.ReLU(), tn.Dense(3), tn.Softmax()], (4,), seed=0)
    x, y = np.random.default_rng(0).standard_normal((32, 4)), np.arange(32) % 3
    model.fit(x, y, optimizer=tn.Adam(), loss=tn.CrossEntropy(), verbose=0)
    return [tn.engines.current(), model.params.tolist()]

if os.geteuid() == 0:
    # Load everything else first: another user may not be able to read Python's own files.
    train("numpy")
    numba.njit(lambda x: x + 1)(np.ones(2))
    os.setgroups([])
    os.setgid(int(sys.argv[1]))
    os.setuid(int(sys.argv[1]))
print(json.dumps([tn.__file__, train("numpy"), train("numba")]))
"""


@posix
@pytest.mark.skipif("NUMBA_DISABLE_JIT" in os.environ, reason="nothing is compiled")
def test_without_a_folder_to_write_each_process_compiles_anew(reachable_folder):
    """The package and the user's home are read-only."""
    nothing_of_before = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(tn.__file__).parent, reachable_folder / "tinynet", ignore=nothing_of_before)
    everything = [reachable_folder, *reachable_folder.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("NUMBA", "XDG"))}
    places = dict.fromkeys(("PYTHONPATH", "HOME", "MPLCONFIGDIR"), str(reachable_folder))
    try:
        done = subprocess.run(
            [sys.executable, "-B", "-c", TRAIN, str(NOBODY)],
            cwd=reachable_folder,
            env=environment | places,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    finally:
        for path in everything:
            path.chmod(0o755)
    assert done.returncode == 0, done.stderr
    place, (_, numpy), (engine, numba) = json.loads(done.stdout)
    assert place.startswith(str(reachable_folder))
    assert engine == "numba"
    assert done.stderr.split("\n") == [
        "tinynet: Numba compiles the loops that this run needs, once; that takes some seconds",
        "",
    ]
    np.testing.assert_allclose(numba, numpy, rtol=1e-4, atol=1e-6)
    assert not list(reachable_folder.rglob("*.nb?"))


@pytest.fixture
def nothing_looked_up(monkeypatch):
    caches = choice._installed, choice._numba, choice._warn_once
    for cached in caches:
        cached.cache_clear()
    importlib.import_module("tinynet.engines.fast.operations")
    monkeypatch.setattr(tn.engines, "fast", tn.engines.fast)  # is put back afterwards
    for name in [name for name in sys.modules if name.startswith("tinynet.engines.fast")]:
        monkeypatch.delitem(sys.modules, name)
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.mark.usefixtures("nothing_looked_up")
@pytest.mark.parametrize("when", ["it is asked to compile", "the first kernel is called"])
def test_where_numba_can_not_compile_numpy_goes_on(when, monkeypatch):
    import numba

    def fail(*arguments, **options):
        raise RuntimeError("LLVM is broken")

    expected = train("numpy", "mlp_bn", 3, batch_size=8)[0]
    monkeypatch.setattr(
        numba, "njit", fail if when == "it is asked to compile" else lambda **options: lambda f: fail
    )
    with pytest.warns(UserWarning, match="Numba can't be used, so NumPy computes: ") as told:
        models = [train("auto", "mlp_bn", 3, batch_size=8)[0] for _ in range(2)]
    assert len(told) == 1
    for model in models:
        for key, array in expected.named_weights().items():
            assert array.tobytes() == model.named_weights()[key].tobytes()
