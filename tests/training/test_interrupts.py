"""Ctrl-C: held until a batch is finished, immediate the second time; the handler is restored afterwards."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import tinynet as tn
from tinynet.training.interrupts import HeldInterrupt

X = np.random.default_rng(0).standard_normal((20, 2)).astype(np.float32)
Y = np.arange(20) % 3


def press():
    signal.raise_signal(signal.SIGINT)


def handler():
    return signal.getsignal(signal.SIGINT)


class TestHeldInterrupt:
    def test_the_first_is_held_and_the_handler_put_back(self):
        with HeldInterrupt() as interrupt:
            assert not interrupt.pending
            press()
            assert interrupt.pending
        assert interrupt.pending
        assert handler() is signal.default_int_handler
        with pytest.raises(KeyboardInterrupt):
            press()

    def test_the_second_raises_at_once_and_the_handler_is_put_back(self):
        reached = []

        def body():
            with HeldInterrupt():
                press()
                reached.append("after the first")
                press()
                reached.append("after the second")

        with pytest.raises(KeyboardInterrupt):
            body()
        assert reached == ["after the first"]
        assert handler() is signal.default_int_handler

    def test_an_error_puts_the_handler_back(self):
        with pytest.raises(ZeroDivisionError), HeldInterrupt():
            1 / 0  # noqa: B018
        assert handler() is signal.default_int_handler

    def test_another_programs_handler_is_spared_and_put_back(self):
        calls = []

        def own(number, frame):
            calls.append(number)

        signal.signal(signal.SIGINT, own)
        with HeldInterrupt() as interrupt:
            press()
        assert interrupt.pending
        assert calls == []
        press()
        assert calls == [signal.SIGINT]
        assert handler() is own

    def test_one_within_another(self):
        with HeldInterrupt() as outer:
            with HeldInterrupt() as inner:
                press()
            assert (inner.pending, outer.pending) == (True, True)  # both runs should end
            with pytest.raises(KeyboardInterrupt):
                press()
        assert handler() is signal.default_int_handler

    def test_where_it_is_ignored_it_stays_ignored(self):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with HeldInterrupt() as interrupt:
            assert handler() is signal.SIG_IGN
            press()
        assert not interrupt.pending
        assert handler() is signal.SIG_IGN

    def test_a_handler_that_python_can_not_put_back_is_left_alone(self, monkeypatch):
        monkeypatch.setattr(signal, "getsignal", lambda number: None)
        monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("the handler was replaced"))
        with HeldInterrupt() as interrupt:
            pass
        assert not interrupt.pending
        monkeypatch.undo()

    def test_in_another_thread_nothing_is_changed(self):
        found = []

        def body():
            with HeldInterrupt() as interrupt:
                found.extend([handler(), interrupt.pending])

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        assert found == [signal.default_int_handler, False]


class Press(tn.Callback):
    """Presses Ctrl-C in one of the hooks, and counts what happens after it."""

    def __init__(self, hook, at=0, times=1):
        self.hook, self.at, self.times = hook, at, times
        self.seen = {"train_begin": 0, "epoch_begin": 0, "batch_end": 0, "epoch_end": 0, "train_end": 0}

    def _come_by(self, hook):
        if hook == self.hook and self.seen[hook] == self.at:
            for _ in range(self.times):
                press()
        self.seen[hook] += 1

    def on_train_begin(self, run):
        self._come_by("train_begin")

    def on_epoch_begin(self, run):
        self._come_by("epoch_begin")

    def on_batch_end(self, run):
        self._come_by("batch_end")

    def on_epoch_end(self, run):
        self._come_by("epoch_end")

    def on_train_end(self, run):
        self._come_by("train_end")


def fit(callback, model=None, **settings):
    """Train for three epochs of five batches."""
    model = model or tn.Sequential([tn.Dense(3)], input_shape=(2,), seed=0)
    return model.fit(
        X,
        Y,
        optimizer=tn.SGD(0.1),
        loss=tn.SoftmaxCrossEntropy(),
        batch_size=4,
        epochs=3,
        callbacks=[callback],
        verbose=0,
        **settings,
    )


class TestFit:
    @pytest.mark.parametrize(
        ("hook", "at", "batches", "epochs", "where"),
        [
            ("train_begin", 0, 1, 0, "in epoch 1 of 3, after batch 1 of 5"),
            ("epoch_begin", 1, 6, 1, "in epoch 2 of 3, after batch 1 of 5"),
            ("batch_end", 2, 3, 0, "in epoch 1 of 3, after batch 3 of 5"),
            ("batch_end", 7, 8, 1, "in epoch 2 of 3, after batch 3 of 5"),
            ("batch_end", 4, 5, 1, "in epoch 1 of 3, after batch 5 of 5"),
            ("epoch_end", 1, 10, 2, "in epoch 2 of 3, after batch 5 of 5"),
            ("epoch_end", 2, 15, 3, "in epoch 3 of 3, after batch 5 of 5"),
        ],
    )
    def test_it_ends_at_the_batchs_end_with_what_is_finished(self, hook, at, batches, epochs, where):
        callback, model = Press(hook, at), tn.Sequential([tn.Dense(3)], input_shape=(2,), seed=0)
        with pytest.raises(KeyboardInterrupt, match=f"training was interrupted {where}"):
            fit(callback, model)
        assert model.history.interrupted
        assert model.history.epochs == epochs
        assert callback.seen["batch_end"] == batches
        assert callback.seen["epoch_end"] == epochs
        assert callback.seen["train_end"] == 1
        assert handler() is signal.default_int_handler

    def test_the_batch_that_it_comes_in_is_trained_to_its_end(self):
        """Ctrl-C while the third batch is prepared: it is still trained on, the fourth never begins."""
        made = []

        def augment(x, rng):
            made.append(x)
            if len(made) == 3:
                press()
            return x

        model = tn.Sequential([tn.Dense(3)], input_shape=(2,), seed=0)
        callback = Press("never")
        with pytest.raises(KeyboardInterrupt, match="after batch 3 of 5"):
            fit(callback, model, augment=augment, shuffle=False)
        assert callback.seen["batch_end"] == len(made) == 3
        expected = tn.Sequential([tn.Dense(3)], input_shape=(2,), seed=0)
        expected.fit(
            X[:12],
            Y[:12],
            optimizer=tn.SGD(0.1),
            loss=tn.SoftmaxCrossEntropy(),
            batch_size=4,
            shuffle=False,
            verbose=0,
        )
        np.testing.assert_array_equal(model.params, expected.params)

    @pytest.mark.parametrize("hook", ["train_begin", "epoch_begin", "batch_end", "epoch_end"])
    def test_the_second_raises_at_once_and_callbacks_still_end(self, hook):
        callback = Press(hook, times=2)
        with pytest.raises(KeyboardInterrupt):
            fit(callback)
        assert callback.seen["train_end"] == 1
        assert (
            callback.seen["batch_end"]
            == {"train_begin": 0, "epoch_begin": 0, "batch_end": 0, "epoch_end": 5}[hook]
        )
        assert handler() is signal.default_int_handler

    def test_an_undisturbed_run_is_not_interrupted_and_leaves_the_handler(self):
        history = fit(Press("never"))
        assert not history.interrupted
        assert history.epochs == 3
        assert handler() is signal.default_int_handler

    def test_in_another_thread_it_trains_and_leaves_the_handler(self):
        handlers, histories = [], []

        class Look(tn.Callback):
            def on_batch_end(self, run):
                handlers.append(handler())

        thread = threading.Thread(target=lambda: histories.append(fit(Look())))
        thread.start()
        thread.join()
        assert histories[0].epochs == 3
        assert set(handlers) == {signal.default_int_handler}

    def test_training_goes_on_after_an_interruption(self):
        model = tn.Sequential([tn.Dense(3)], input_shape=(2,), seed=0)
        with pytest.raises(KeyboardInterrupt, match="interrupted"):
            fit(Press("batch_end", 2), model)
        assert fit(Press("never"), model).epochs == 3


CHILD = """
import os, signal, time, warnings
import numpy as np, tinynet as tn

signal.signal(signal.SIGINT, signal.default_int_handler)
arrived, tell = os.pipe()
os.set_blocking(tell, False)
signal.set_wakeup_fd(tell)
batches = []

def augment(x, rng):
    if len(batches) == 2:
        print("in a batch", flush=True)
        os.read(arrived, 1)
        print("held", flush=True)
        {after}
    return x

class Count(tn.Callback):
    def on_batch_end(self, run):
        batches.append(run.batch)

    def on_train_end(self, run):
        print("callbacks end", flush=True)

model = tn.Sequential([tn.Dense(3)], input_shape=(2,), seed=0)
x, y = np.ones((40, 2), np.float32), np.zeros(40, int)
warnings.simplefilter("ignore")
try:
    model.fit(x, y, optimizer=tn.SGD(), loss=tn.SoftmaxCrossEntropy(), batch_size=4, epochs=1000,
              callbacks=[Count()], augment=augment, verbose=0)
except KeyboardInterrupt:
    print("tidied" if model.history.interrupted else "raised", len(batches), flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to send to another process's main thread")
class TestARealProcess:
    def run(self, after, signals):
        """Return the child's output after Ctrl-C in its third batch."""
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD.format(after=after)], stdout=subprocess.PIPE, text=True
        )
        give_up = threading.Timer(600, child.kill)
        give_up.start()
        with child:
            lines = []
            for heard in ("in a batch\n", "held\n")[:signals]:
                lines.append(child.stdout.readline())
                assert lines[-1] == heard
                child.send_signal(signal.SIGINT)
            lines += child.stdout
        give_up.cancel()
        assert child.returncode == 0
        return "".join(lines)

    def test_one_signal_ends_the_run_after_the_batch(self):
        output = self.run(after="pass", signals=1)
        assert output == "in a batch\nheld\ncallbacks end\ntidied 3\n"

    def test_a_second_one_ends_it_within_the_batch(self):
        output = self.run(after="time.sleep(600)", signals=2)
        assert output == "in a batch\nheld\ncallbacks end\nraised 2\n"
