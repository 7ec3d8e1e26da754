"""The choice of the engine, also where Numba is missing or broken."""

import os
import sys
import threading

import numpy as np
import pytest

import tinynet as tn
from tinynet.engines import choice
from tinynet.engines.operation import loops
from tinynet.support.errors import EngineError


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Nothing chosen, nothing looked up."""
    monkeypatch.setattr(choice, "_chosen", None)
    monkeypatch.delenv("TINYNET_ENGINE", raising=False)
    caches = choice._installed, choice._numba, choice._warn_once
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.fixture
def without_numba(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)


@pytest.fixture
def broken_numba(monkeypatch):
    """Installed, but it can't be imported."""
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: object())
    for name in [name for name in sys.modules if name.startswith("tinynet.engines.fast.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numba", None)


def fitted():
    model = tn.Sequential([tn.Dense(3), tn.ReLU(), tn.Dense(2), tn.Softmax()], (4,), seed=0)
    x, y = np.random.default_rng(0).standard_normal((20, 4)), np.arange(20) % 2
    seen = []

    class See(tn.Callback):
        def on_batch_end(self, run):
            seen.append(tn.engines.current())

    model.fit(x, y, optimizer=tn.Adam(), loss=tn.CrossEntropy(), epochs=2, verbose=0, callbacks=[See()])
    return model, set(seen)


@pytest.mark.usefixtures("without_numba")
def test_without_numba_numpy_computes_and_numba_is_refused_by_name(monkeypatch):
    assert tn.engines.current() == "numpy"
    assert fitted()[1] == {"numpy"}
    with pytest.raises(EngineError, match=r"Numba is not installed; install it with .*tinynet\[fast\]"):
        tn.engines.use("numba")
    assert tn.engines.current() == "numpy"
    monkeypatch.setenv("TINYNET_ENGINE", "numba")
    with pytest.raises(EngineError, match="not installed"):
        fitted()


@pytest.mark.usefixtures("broken_numba")
def test_a_broken_numba_is_said_once_and_numpy_goes_on():
    with pytest.warns(UserWarning, match="Numba can't be used, so NumPy computes"):
        assert fitted()[1] == {"numpy"}
    assert fitted()[1] == {"numpy"}  # without a warning, which would be an error
    with pytest.raises(EngineError, match="Numba can't be used"):
        tn.engines.use("numba")


@pytest.mark.parametrize("name", ["Numba", "fast", "", None])
def test_other_names_are_refused(name, monkeypatch):
    with pytest.raises(ValueError, match="engine: expected 'auto', 'numpy' or 'numba', got"):
        tn.engines.use(name)
    monkeypatch.setenv("TINYNET_ENGINE", str(name))
    with pytest.raises(ValueError, match="TINYNET_ENGINE: expected 'auto'"):
        tn.engines.current()


class TestWithNumba:
    @pytest.fixture(autouse=True)
    def numba(self):
        pytest.importorskip("numba")

    def test_it_is_taken_where_it_is_installed(self):
        assert tn.engines.current() == "numba"
        assert fitted()[1] == {"numba"}
        assert not loops.get()  # outside a run, NumPy computes

    def test_a_choice_holds_until_the_end_of_its_block(self, monkeypatch):
        with tn.engines.use("numpy"):
            assert fitted()[1] == {"numpy"}
            with tn.engines.use("numba"):
                assert fitted()[1] == {"numba"}
            assert tn.engines.current() == "numpy"
        tn.engines.use("numpy")
        assert tn.engines.current() == "numpy"
        tn.engines.use("auto")
        assert tn.engines.current() == "numba"

    def test_the_environment_sets_the_first_choice(self, monkeypatch):
        monkeypatch.setenv("TINYNET_ENGINE", "numpy")
        assert fitted()[1] == {"numpy"}
        with tn.engines.use("numba"):
            assert fitted()[1] == {"numba"}

    def test_a_run_keeps_its_engine(self):
        x, y = np.zeros((8, 4)), np.arange(8) % 2
        model, seen = tn.Sequential([tn.Dense(2)], (4,), seed=0), []

        class Change(tn.Callback):
            def on_batch_end(self, run):
                tn.engines.use("numpy")
                seen.append(tn.engines.current())

        given = {"optimizer": tn.SGD(), "loss": tn.SoftmaxCrossEntropy(), "verbose": 0, "batch_size": 4}
        model.fit(x, y, callbacks=[Change()], **given)
        assert seen == ["numba", "numba"]
        assert tn.engines.current() == "numpy"

    def test_another_thread_has_the_choice_but_not_the_run(self):
        seen = []
        with choice.running("numba"):
            thread = threading.Thread(target=lambda: seen.append(bool(loops.get())))
            thread.start()
            thread.join()
        assert seen == [False]

    def test_numbas_threads_never_start(self):
        import numba

        fitted()
        with pytest.raises(ValueError, match="not initialized"):
            numba.threading_layer()

    @pytest.mark.skipif("NUMBA_DISABLE_JIT" in os.environ, reason="NumPy's own numbers overflow in Python")
    def test_an_overflow_is_found(self):
        params, optimizer = np.ones(3, np.float32), tn.Adam()
        with (
            choice.running("numba"),
            pytest.raises(tn.NonFiniteError, match="overflow encountered in v.*: v"),
        ):
            optimizer.step(params, np.array([1, 3e19, 1], np.float32))

    def test_a_resumed_run_says_that_the_engine_differs(self, tmp_path):
        x, y = np.random.default_rng(0).standard_normal((20, 4)), np.arange(20) % 2
        given = {"loss": tn.SoftmaxCrossEntropy(), "verbose": 0, "checkpoint": tmp_path / "c"}
        for engine, epochs in (("numpy", 1), ("numba", 2)):
            model = tn.Sequential([tn.Dense(2)], (4,), seed=0)
            with tn.engines.use(engine):
                if epochs == 1:
                    model.fit(x, y, optimizer=tn.SGD(), epochs=epochs, **given)
                    continue
                with pytest.warns(UserWarning, match="engine numba here, numpy in the checkpoint"):
                    model.fit(x, y, optimizer=tn.SGD(), epochs=epochs, resume=tmp_path / "c", **given)
