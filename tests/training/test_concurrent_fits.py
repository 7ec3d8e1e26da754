"""Concurrent fits: allowed for two models, refused for one; and prediction from many threads."""

import os
import pickle
import signal
import sys
import threading

import numpy as np
import pytest

import tinynet as tn
from tests.support.runs import CASES, assert_same_end, start, vectors


def at_once(*bodies):
    """Run each function in its own thread; return their results, or raise the first error."""
    results, errors = [None] * len(bodies), []

    def work(index, body):
        try:
            results[index] = body()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(bodies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(1200)
        assert not thread.is_alive()
    if errors:
        raise errors[0]
    return results


@pytest.mark.parametrize(
    "pair", [("dense", "dense"), ("two_workers", "two_workers"), ("two_workers", "pruned")]
)
def test_two_models_train_side_by_side_as_one_after_the_other(pair, tmp_path):
    """With dropout, batch-norm, shuffles, augmentation, worker threads, and a checkpoint each."""
    alone = [start(case) for case in pair]
    together = at_once(
        *(
            lambda case=case, index=index: start(case, checkpoint=tmp_path / str(index))
            for index, case in enumerate(pair)
        )
    )
    for one, other in zip(alone, together, strict=True):
        assert_same_end(one, other)


@pytest.mark.parametrize("case", ["dense", "two_workers"])
def test_many_threads_predict_and_evaluate_one_model(case):
    """Each gets what it would get alone; so does a thread that trains a model with the same layers meanwhile."""
    model, _, _ = start(case)
    _, arguments = CASES[case]()
    x, y = arguments["x"], arguments["y"]
    expected, scores = model.predict(x), model.evaluate(x, y)
    wrong = []

    def work(batch_size):
        for _ in range(30):
            if not np.array_equal(model.predict(x), expected) or model.evaluate(x, y) != scores:
                wrong.append(batch_size)

    at_once(*(lambda: work(256) for _ in range(4)), lambda: start(case, epochs=8, callbacks=[]))
    assert not wrong


class During(tn.Callback):
    """Does something once, after the first batch; keeps what it returned or raised."""

    def __init__(self, action):
        self.action, self.raised = action, []

    def on_batch_end(self, run):
        if not self.raised:
            try:
                self.raised.append(self.action(run))
            except RuntimeError as error:
                self.raised.append(error)


def fit(model, *callbacks, optimizer=None, **settings):
    x, y = vectors(30)
    return model.fit(
        x,
        y,
        optimizer=optimizer or tn.Adam(),
        loss=tn.SoftmaxCrossEntropy(),
        callbacks=callbacks,
        verbose=0,
        **settings,
    )


def small(seed=0):
    return tn.Sequential([tn.Dense(3)], (4,), seed=seed)


class TestOneModel:
    @pytest.mark.parametrize("same_thread", [True, False])
    def test_is_not_trained_twice_at_once(self, same_thread):
        """The second is refused with nothing changed, and the first continues undisturbed."""
        model, alone = small(), small()

        def second(run):
            before = run.model.get_weights(), run.model.step
            try:
                return fit(run.model) if same_thread else at_once(lambda: fit(run.model))
            finally:
                np.testing.assert_equal((run.model.get_weights(), run.model.step), before)

        during = During(second)
        fit(model, during, epochs=2)
        (error,) = during.raised
        assert isinstance(error, RuntimeError)
        assert (
            str(error)
            == "this Sequential is in use by another fit; wait until that ends, or give each fit its own"
        )
        fit(alone, epochs=2)
        np.testing.assert_array_equal(model.params, alone.params)

    def test_nor_two_models_with_one_optimizer(self):
        optimizer = tn.Adam()
        during = During(lambda run: fit(small(1), optimizer=optimizer))
        fit(small(), during, optimizer=optimizer)
        assert "this Adam is in use by another fit" in str(during.raised[0])

    def test_a_copy_and_an_unpickled_one_are_other_models(self):
        def copies(run):
            return [fit(run.model.copy()).epochs, fit(pickle.loads(pickle.dumps(run.model))).epochs]

        during = During(copies)
        fit(small(), during)
        assert during.raised == [[1, 1]]

    @pytest.mark.parametrize(
        "error", [None, ValueError("bad"), KeyboardInterrupt(), tn.NonFiniteError("nan"), SystemExit(3)]
    )
    def test_is_free_again_after_every_way_out(self, error):
        class Fail(tn.Callback):
            def on_batch_end(self, run):
                if error is not None:
                    raise error

        model, optimizer = small(), tn.Adam()
        if error is None:
            fit(model, Fail(), optimizer=optimizer)
        else:
            with pytest.raises(type(error)):
                fit(model, Fail(), optimizer=optimizer)
        with pytest.raises(ValueError, match="does not measure"):
            fit(model, tn.EarlyStopping(), optimizer=optimizer)
        with pytest.raises(FileNotFoundError):
            fit(model, resume="missing", optimizer=optimizer)
        assert fit(model, optimizer=optimizer).epochs == 1

    def test_is_free_again_after_ctrl_c(self):
        model, optimizer = small(), tn.Adam()
        with pytest.raises(KeyboardInterrupt, match="interrupted"):
            fit(model, During(lambda run: signal.raise_signal(signal.SIGINT)), optimizer=optimizer)
        assert fit(model, optimizer=optimizer).epochs == 1

    @pytest.mark.skipif(
        sys.platform != "linux", reason="forking a process that computes is safe on Linux only"
    )
    @pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
    def test_a_forked_child_trains_its_copy(self):
        def fork(run):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    status = fit(run.model).epochs - 1
                finally:
                    os._exit(status)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        during = During(fork)
        fit(small(), during)
        assert during.raised == [0]

    def test_of_many_threads_that_begin_together_exactly_one_trains(self):
        model, barrier = small(), threading.Barrier(8)
        slow = threading.Event()
        outcomes = []

        class Hold(tn.Callback):
            def on_batch_end(self, run):
                slow.wait(600)

        def work():
            barrier.wait(600)
            try:
                outcomes.append(fit(model, Hold()).epochs)
            except RuntimeError:
                outcomes.append("refused")
                if len(outcomes) == 7:
                    slow.set()

        at_once(*[work] * 8)
        assert sorted(outcomes, key=str) == [1, *["refused"] * 7]
