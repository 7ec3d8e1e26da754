"""What is for study computes with NumPy, whose lines a reader can follow, whatever engine is chosen."""

import functools

import numpy as np
import pytest

import tinynet as tn
from tests.study.test_exercises import solution, write
from tinynet.study import gradcheck, step_through, trace
from tinynet.study.exercises import EXERCISES, check

LOOPS = pytest.importorskip("tinynet.engines.fast.operations").LOOPS


@pytest.fixture
def called(monkeypatch):
    """The names of the loops that were called, with Numba chosen."""
    names = []
    for name, loop in list(LOOPS.items()):

        @functools.wraps(loop)
        def watched(*arguments, name=name, loop=loop, **options):
            names.append(name)
            return loop(*arguments, **options)

        monkeypatch.setitem(LOOPS, name, watched)
    with tn.engines.use("numba"):
        yield names


def network():
    layers = [
        *(tn.Conv2D(2, 3), tn.MaxPool2D(), tn.ReLU(), tn.Flatten()),
        *(tn.Dense(4), tn.BatchNorm(), tn.ReLU(), tn.Dropout(0.2), tn.Dense(3), tn.Softmax()),
    ]
    return tn.Sequential(layers, (6, 6, 1), seed=0)


def batch():
    return np.random.default_rng(0).standard_normal((6, 6, 6, 1)), np.arange(6) % 3


def test_training_prediction_and_evaluation_call_loops(called):
    """Otherwise the tests below would show nothing."""
    model, given = network(), {"loss": tn.CrossEntropy(), "optimizer": tn.Adam()}
    for work in (
        lambda: model.fit(*batch(), verbose=0, **given),
        lambda: model.train_step(*batch(), **given),
        lambda: model.predict(batch()[0]),
        lambda: model.evaluate(*batch()),
        lambda: model.loss_and_gradients(*batch(), tn.CrossEntropy()),
    ):
        called.clear()
        work()
        assert {"take_windows", "max_pool"} <= set(called)


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_trace_calls_none(called, dry_run):
    trace(network(), *batch(), tn.CrossEntropy(), tn.Adam(), dry_run=dry_run)
    assert list(step_through(network(), *batch(), tn.CrossEntropy(), tn.Adam(), dry_run=dry_run))
    assert not called


def test_a_traced_step_is_that_of_numpy_to_the_bit(called):
    traced, trained = network(), network()
    trace(traced, *batch(), tn.CrossEntropy(), tn.Adam())
    with tn.engines.use("numpy"):
        trained.fit(
            *batch(), loss=tn.CrossEntropy(), optimizer=tn.Adam(), shuffle=False, verbose=0, workers=1
        )
    for key, array in trained.named_weights().items():
        assert array.tobytes() == traced.named_weights()[key].tobytes(), key


def test_a_gradient_check_calls_none(called):
    gradcheck(network(), *batch(), tn.CrossEntropy(), max_elements=3).check()
    gradcheck(tn.MaxPool2D(), batch()[0], max_elements=3).check()
    assert not called


@pytest.mark.parametrize("name", EXERCISES)
def test_an_exercise_calls_none(called, name, tmp_path):
    assert check(name, write(tmp_path, name, solution(name))).right
    assert not called


def test_a_gradient_check_in_a_callback_is_right_too(called):
    """There the engine is that of the run."""
    reports = []

    class Check(tn.Callback):
        def on_epoch_end(self, run):
            reports.append(gradcheck(run.model, *batch(), tn.CrossEntropy(), max_elements=3))

    network().fit(*batch(), loss=tn.CrossEntropy(), optimizer=tn.Adam(), callbacks=[Check()], verbose=0)
    reports[0].check()
