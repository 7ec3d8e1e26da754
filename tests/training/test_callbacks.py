"""Callbacks: what they do, however training ends, and that a run resumes from their state as if it had not stopped."""

import contextlib
import csv
import io
import math
import os
import signal
import subprocess
import sys
import time
import types

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import tinynet as tn
import tinynet.study
from tests.support.faults import posix, read_only
from tinynet.training.callbacks import check_hooks
from tinynet.training.loop import Run

X = np.random.default_rng(0).standard_normal((20, 2)).astype(np.float32)
Y = np.arange(20) % 3


def classifier(seed=0):
    layers = [tn.Dense(4), tn.BatchNorm(), tn.ReLU(), tn.Dense(3), tn.Softmax()]
    return tn.Sequential(layers, input_shape=(2,), seed=seed)


def fit(model, *callbacks, x=X, y=Y, **settings):
    defaults = {
        "optimizer": tn.Adam(0.05),
        "loss": tn.CrossEntropy(),
        "verbose": 0,
        "validation_data": (x, y),
    }
    return model.fit(x, y, callbacks=callbacks, **(defaults | settings))


# -- a run whose validation losses are given in advance ---------------------------------------------


class Script(tn.Callback):
    """Sets the only weight w to a given value in each epoch; the losses of that epoch are w squared."""

    def __init__(self, weights):
        self.weights = weights

    def on_epoch_begin(self, run):
        run.model.layers[0].W = [[self.weights[run.epoch]]]


def one_weight():
    return tn.Sequential([tn.Dense(1, use_bias=False)], input_shape=(1,), seed=0)


def play(weights, *callbacks, model=None, epochs=None, **settings):
    """Train with the script: the learning rate is 0, so nothing else changes the weight."""
    x, y = np.ones((6, 1), np.float32), np.zeros((6, 1), np.float32)
    return fit(
        one_weight() if model is None else model,
        Script(weights),
        *callbacks,
        x=x,
        y=y,
        epochs=epochs or len(weights),
        batch_size=2,
        **({"optimizer": tn.SGD(0.0), "loss": tn.MeanSquaredError()} | settings),
    )


def drive(callback, values, start=0, monitor="val_loss", model=None, optimizer=None):
    """Drive a callback through epochs with these values, without training; the weights are the epoch's number."""
    model = model or one_weight()
    run = Run(model, optimizer or tn.SGD(0.1), tn.CrossEntropy(), 10_000, 1, has_validation=True, epoch=start)
    run.resumed = start > 0
    callback.on_train_begin(run)
    for run.epoch, value in enumerate(values, start):
        run.history.append({"loss": 0.0, "accuracy": 0.0} | {monitor: value})
        model.params[...] = run.epoch
        callback.on_epoch_end(run)
        if run.stop_training:
            break
    return run


class Act(tn.Callback):
    """Does something in one hook of one epoch."""

    def __init__(self, hook, action, epoch=3):
        self.hook, self.action, self.epoch = hook, action, epoch

    def _come_by(self, hook, run):
        if (hook, run.epoch) == (self.hook, self.epoch):
            self.action()

    def on_batch_end(self, run):
        self._come_by("batch end", run)

    def on_epoch_end(self, run):
        self._come_by("epoch end", run)

    def on_train_end(self, run):
        self._come_by("train end", run)


def fail():
    raise OSError("the disk is full")


def press():
    signal.raise_signal(signal.SIGINT)


@pytest.fixture
def python_handler():
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


WEIGHTS = [3.0, 1.0, 2.0, 4.0, 5.0]

WAYS_OUT = {
    "the end": ([], contextlib.nullcontext),
    "an error in a batch": ([Act("batch end", fail)], lambda: pytest.raises(OSError, match="disk is full")),
    "an error after an epoch": (
        [Act("epoch end", fail)],
        lambda: pytest.raises(OSError, match="disk is full"),
    ),
    "an error at the end": (
        [Act("train end", fail, epoch=4)],
        lambda: pytest.raises(OSError, match="disk is full"),
    ),
    "Ctrl-C in a batch": (
        [Act("batch end", press)],
        lambda: pytest.raises(KeyboardInterrupt, match="interrupted in epoch 4 of 5, after batch 1 of 3"),
    ),
    "Ctrl-C after an epoch": (
        [Act("epoch end", press)],
        lambda: pytest.raises(KeyboardInterrupt, match="interrupted in epoch 4 of 5, after batch 3 of 3"),
    ),
    "Ctrl-C twice": (
        [Act("batch end", lambda: (press(), press()))],
        lambda: pytest.raises(KeyboardInterrupt),
    ),
}


class TestEarlyStopping:
    @pytest.mark.usefixtures("python_handler")
    @pytest.mark.parametrize("way", WAYS_OUT)
    @pytest.mark.parametrize("first", [True, False], ids=["before the other", "after the other"])
    def test_the_best_weights_are_back_on_every_way_out(self, way, first):
        others, expectation = WAYS_OUT[way]
        stopping = tn.EarlyStopping(patience=None)
        model = one_weight()
        with expectation():
            play(WEIGHTS, *([stopping, *others] if first else [*others, stopping]), model=model)
        assert model.layers[0].W == 1
        assert stopping.best_epoch == 1

    def test_on_a_loss_that_becomes_nan(self):
        model = one_weight()
        with pytest.raises(tn.NonFiniteError, match="epoch 4, batch 1: the loss is nan"):
            play([3.0, 1.0, 2.0, math.nan], tn.EarlyStopping(patience=None), model=model)
        assert model.layers[0].W == 1

    def test_on_stopping_early(self):
        model = one_weight()
        history = play(WEIGHTS, tn.EarlyStopping(patience=2), model=model)
        assert history.history["val_loss"] == [9, 1, 4, 16]
        assert model.layers[0].W == 1
        assert not history.interrupted

    def test_batch_norms_statistics_are_part_of_the_weights(self):
        model = classifier()
        history = fit(model, tn.EarlyStopping(patience=None), optimizer=tn.SGD(2.0), epochs=12, batch_size=5)
        losses = history.history["val_loss"]
        assert losses[-1] != min(losses)
        assert model.evaluate(X, Y)["loss"] == min(losses)

    def test_without_restoring_the_last_weights_stay(self):
        model = one_weight()
        stopping = tn.EarlyStopping(patience=2, restore_best_weights=False)
        play(WEIGHTS, stopping, model=model)
        assert model.layers[0].W == 4
        assert stopping.best_weights is None

    @pytest.mark.usefixtures("python_handler")
    def test_with_no_epoch_finished_the_weights_stay(self):
        model = one_weight()
        with pytest.raises(KeyboardInterrupt, match="in epoch 1 of 5, after batch 1 of 3"):
            play(WEIGHTS, tn.EarlyStopping(), Act("batch end", press, epoch=0), model=model)
        assert model.layers[0].W == 3

    @pytest.mark.parametrize(
        ("values", "settings", "epochs", "best_epoch"),
        [
            ([5, 4, 3, 2], {}, 4, 3),
            ([5, 4, 4, 3], {}, 3, 1),
            ([5, 4, 4, 3], {"patience": 1}, 3, 1),
            ([5, 4, 4, 3], {"patience": 2}, 4, 3),
            ([5, 6, 7, 8, 4], {"patience": 3}, 4, 0),
            ([5, 6, 4, 5, 5, 5], {"patience": 2}, 5, 2),
            ([5, 4.5, 4.1, 3.9], {"min_delta": 1.0, "patience": 3}, 4, 3),
            ([5, 4, 3, 2.5], {"min_delta": 1.0}, 2, 0),
            ([5, 6, 7], {"mode": "max"}, 3, 2),
            ([5, 6, 5, 7], {"mode": "max"}, 3, 1),
            ([0.5, 0.6, 0.6], {"monitor": "val_accuracy"}, 3, 1),
            ([0.5, 0.4, 0.6], {"monitor": "accuracy", "mode": "min"}, 3, 1),
            ([5, 6, 7, 8], {"patience": None}, 4, 0),
            ([math.nan, 5, math.nan], {"patience": 2}, 3, 1),
            ([math.nan, math.nan, 5], {"patience": 2}, 2, None),
            ([math.inf, math.inf, 5], {"patience": 2}, 3, 2),
            ([math.inf, math.inf, 5], {"patience": 1}, 2, 0),
        ],
    )
    def test_when_it_stops(self, values, settings, epochs, best_epoch):
        stopping = tn.EarlyStopping(**settings)
        run = drive(stopping, values, monitor=stopping.monitor)
        assert run.history.epochs == epochs
        assert stopping.best_epoch == best_epoch
        stopping.on_train_end(run)
        assert run.model.params == (epochs - 1 if best_epoch is None else best_epoch)

    @given(
        st.lists(st.sampled_from([1.0, 2.0, 2.5, 3.0, math.nan]), min_size=1, max_size=15),
        st.integers(0, 4),
        st.sampled_from([0.0, 0.5, 1.0]),
        st.sampled_from(["min", "max"]),
    )
    def test_against_the_rule_in_plain_words(self, values, patience, min_delta, mode):
        stopping = tn.EarlyStopping("loss", patience, min_delta, mode)
        run = drive(stopping, values, monitor="loss")
        sign = 1 if mode == "min" else -1
        best, best_epoch, since = math.inf, None, 0
        for epoch, value in enumerate(values):
            if sign * value < best - min_delta:
                best, best_epoch, since = sign * value, epoch, 0
            else:
                since += 1
            if since >= max(patience, 1):
                break
        assert (run.epoch, stopping.best_epoch) == (epoch, best_epoch)
        assert run.stop_training == (since >= max(patience, 1))

    def test_a_second_run_begins_anew(self):
        stopping, model = tn.EarlyStopping(patience=2), one_weight()
        play([0.5, 0.5], stopping, model=model)
        assert play(WEIGHTS, stopping, model=model).epochs == 4
        assert model.layers[0].W == 1

    def test_a_run_that_is_refused_does_not_bring_older_weights_back(self):
        stopping, model = tn.EarlyStopping(), classifier()
        fit(model, stopping)
        other = classifier(seed=1)
        before = other.params.copy()
        with pytest.raises(
            ValueError, match="EarlyStopping monitors 'val_loss', which this run does not measure"
        ):
            fit(other, stopping, validation_data=None)
        np.testing.assert_array_equal(other.params, before)
        wider = tn.Sequential([tn.Dense(3), tn.Softmax()], input_shape=(2,), seed=0)
        with pytest.raises(ValueError, match="does not measure"):
            fit(wider, stopping, validation_data=None)


class TestMonitors:
    """What EarlyStopping, ModelCheckpoint and ReduceLROnPlateau share."""

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (
                lambda: tn.EarlyStopping("val_acc"),
                "EarlyStopping monitor: expected one of loss, accuracy.*'val_acc'",
            ),
            (lambda: tn.EarlyStopping(mode="maximum"), "EarlyStopping mode: expected 'auto', 'min' or 'max'"),
            (lambda: tn.EarlyStopping(min_delta=-1), "EarlyStopping min_delta: expected a number"),
            (lambda: tn.EarlyStopping(patience=-1), "EarlyStopping patience: expected a positive int"),
            (lambda: tn.EarlyStopping(patience=2.7), "EarlyStopping patience: expected a positive int"),
            (lambda: tn.ModelCheckpoint("m", monitor="f1"), "ModelCheckpoint monitor: expected one of"),
            (
                lambda: tn.ReduceLROnPlateau(factor=1.0),
                r"ReduceLROnPlateau factor: expected a number in .*, 1\)",
            ),
            (lambda: tn.ReduceLROnPlateau(factor=0), "ReduceLROnPlateau factor: expected a number"),
            (lambda: tn.ReduceLROnPlateau(patience=0), "ReduceLROnPlateau patience: expected a positive int"),
            (lambda: tn.ReduceLROnPlateau(min_learning_rate=-1), "min_learning_rate: expected a number"),
        ],
    )
    def test_bad_arguments(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()

    @pytest.mark.parametrize(
        "make",
        [
            lambda path: tn.EarlyStopping(),
            lambda path: tn.ModelCheckpoint(path, save_best_only=True),
            lambda path: tn.ReduceLROnPlateau(),
        ],
    )
    def test_what_is_not_measured_is_refused_before_training(self, make, tmp_path):
        model = classifier()
        before = model.params.copy()
        with pytest.raises(ValueError, match="learning_rate, seconds; pass validation_data to fit"):
            fit(model, make(tmp_path / "m"), validation_data=None)
        np.testing.assert_array_equal(model.params, before)
        assert os.listdir(tmp_path) == []

    def test_a_regression_has_no_accuracy_to_watch(self):
        with pytest.raises(ValueError, match="it measures loss, val_loss, learning_rate, seconds$"):
            play(WEIGHTS, tn.EarlyStopping("val_accuracy"))


class Forgets(tn.Layer):
    """A layer that can't be saved: it does not keep its argument."""

    def __init__(self, size):
        super().__init__()

    def forward(self, x, training=False):
        return x

    def backward(self, dy):
        return dy


UNWRITABLE = {
    "a dangling link": "dangling",
    "under a file": "file/x",
    "a folder": "folder",
    "a missing folder": "missing/x",
}

WRITERS = {
    "ModelCheckpoint": lambda path: {"callbacks": [tn.ModelCheckpoint(path)]},
    "CSVLogger": lambda path: {"callbacks": [tn.CSVLogger(path)]},
    "TrainingMonitor": lambda path: {"callbacks": [tn.study.TrainingMonitor(path, X, Y)]},
    "checkpoint": lambda path: {"checkpoint": path},
}


class TestFiles:
    """What writes finds out before training whether it can."""

    @posix
    @pytest.mark.parametrize(
        ("writer", "place"),
        [
            (writer, place)
            for writer in WRITERS
            for place in UNWRITABLE
            if writer != "TrainingMonitor"
            or place in ("under a file", "a folder")  # it makes missing folders
        ],
    )
    def test_what_can_not_be_written_is_refused_before_training(self, writer, place, tmp_path):
        (tmp_path / "dangling").symlink_to(tmp_path / "missing" / "x")
        (tmp_path / "file").write_bytes(b"")
        (tmp_path / "folder").mkdir()
        path = tmp_path / UNWRITABLE[place]
        before, model = sorted(os.listdir(tmp_path)), classifier()
        start = model.params.copy()
        with pytest.raises((OSError, ValueError), match=f"{path.name}|missing"):
            model.fit(X, Y, optimizer=tn.Adam(), loss=tn.CrossEntropy(), verbose=0, **WRITERS[writer](path))
        np.testing.assert_array_equal(model.params, start)
        assert sorted(os.listdir(tmp_path)) == before

    @posix
    @pytest.mark.parametrize("writer", WRITERS)
    def test_so_is_a_read_only_folder(self, writer, reachable_folder):
        model = classifier()
        start, settings = model.params.copy(), WRITERS[writer](reachable_folder / "x")
        with read_only(reachable_folder), pytest.raises(PermissionError, match="x"):
            model.fit(X, Y, optimizer=tn.Adam(), loss=tn.CrossEntropy(), verbose=0, **settings)
        np.testing.assert_array_equal(model.params, start)

    @posix
    @pytest.mark.parametrize("spelling", ["m", "./m", "folder/../m", "link"])
    @pytest.mark.parametrize("make", [tn.ModelCheckpoint, tn.CSVLogger])
    def test_two_that_would_write_one_file_are_refused(self, make, spelling, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "folder").mkdir()
        (tmp_path / "link").symlink_to("m")
        with pytest.raises(ValueError, match=f"checkpoint and {make.__name__} would write the same file"):
            fit(classifier(), make(spelling), checkpoint=tmp_path / "m")
        with pytest.raises(
            ValueError, match=f"ModelCheckpoint and {make.__name__} would write the same file"
        ):
            fit(classifier(), tn.ModelCheckpoint(tmp_path / "m"), make(spelling))
        assert sorted(os.listdir(tmp_path)) == ["folder", "link"]


class TestModelCheckpoint:
    def test_a_file_for_each_epoch(self, tmp_path):
        play(WEIGHTS, tn.ModelCheckpoint(tmp_path / "epoch-{epoch}.safetensors"))
        assert sorted(os.listdir(tmp_path)) == [f"epoch-{epoch}.safetensors" for epoch in range(1, 6)]
        for epoch, weight in enumerate(WEIGHTS, start=1):
            model = tn.load_model(tmp_path / f"epoch-{epoch}.safetensors")
            assert weight == model.layers[0].W

    def test_one_file_with_the_last(self, tmp_path):
        play(WEIGHTS, tn.ModelCheckpoint(str(tmp_path / "model")))
        assert os.listdir(tmp_path) == ["model"]
        assert tn.load_model(tmp_path / "model").layers[0].W == 5

    @pytest.mark.parametrize(
        ("settings", "saved"),
        [
            ({}, [1, 2]),
            ({"min_delta": 10.0}, [1]),
            ({"mode": "max"}, [1, 4, 5]),
            ({"monitor": "loss"}, [1, 2]),
        ],
    )
    def test_only_the_best_so_far(self, settings, saved, tmp_path):
        play(WEIGHTS, tn.ModelCheckpoint(tmp_path / "{epoch}", save_best_only=True, **settings))
        assert sorted(map(int, os.listdir(tmp_path))) == saved

    def test_the_best_file_holds_the_best_model(self, tmp_path):
        play(WEIGHTS, tn.ModelCheckpoint(tmp_path / "best", save_best_only=True))
        best = tn.load_model(tmp_path / "best")
        assert best.layers[0].W == 1
        assert best.evaluate(np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)) == {"loss": 1.0}

    def test_it_needs_no_validation_to_save_every_epoch(self, tmp_path):
        fit(classifier(), tn.ModelCheckpoint(tmp_path / "model"), validation_data=None)
        assert os.listdir(tmp_path) == ["model"]

    def test_a_missing_folder_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere' does not exist; create it first"):
            play(WEIGHTS, tn.ModelCheckpoint(tmp_path / "nowhere" / "model"))

    @pytest.mark.parametrize("goes_on", [True, False], ids=["the same model", "another model"])
    def test_a_second_fit_replaces_only_what_is_worse(self, goes_on, tmp_path):
        callback, model = tn.ModelCheckpoint(tmp_path / "best", save_best_only=True), one_weight()
        play([3.0, 1.0], callback, model=model)
        play([2.0, 4.0], callback, model=model if goes_on else None)
        assert tn.load_model(tmp_path / "best").layers[0].W == 1
        play([0.5], callback, model=model if goes_on else None)
        assert tn.load_model(tmp_path / "best").layers[0].W == 0.5

    def test_a_model_that_was_not_saved_is_not_remembered_as_the_best(self, tmp_path, monkeypatch):
        callback, model = tn.ModelCheckpoint(tmp_path / "best", save_best_only=True), one_weight()
        play([3.0], callback, model=model)
        monkeypatch.setattr(type(model), "save", lambda *_: fail())
        with pytest.raises(OSError, match="disk is full"):
            play([1.0], callback, model=model)
        monkeypatch.undo()
        play([2.0], callback, model=model)
        assert tn.load_model(tmp_path / "best").layers[0].W == 2

    def test_the_epoch_is_formatted_as_python_does(self, tmp_path):
        fit(classifier(), tn.ModelCheckpoint(tmp_path / "m-{epoch:02d}.safetensors"), epochs=2)
        assert {path.name for path in tmp_path.iterdir()} == {"m-01.safetensors", "m-02.safetensors"}

    def test_the_name_can_have_what_was_measured(self, tmp_path):
        play(
            [3.0, 1.0],
            tn.ModelCheckpoint(tmp_path / "{epoch:02d}-{val_loss:.3f}-{learning_rate}.safetensors"),
        )
        assert sorted(os.listdir(tmp_path)) == ["01-9.000-0.0.safetensors", "02-1.000-0.0.safetensors"]

    @pytest.mark.parametrize(
        "name", ["{val_acc}", "{}", "{0}", "{epoch", "{epoch:x.y}", "{loss:d}", "{epoch.x}"]
    )
    def test_other_braces_are_refused_with_the_names_that_exist(self, name):
        with pytest.raises(
            ValueError, match="no names in braces except epoch, loss, accuracy, val_loss.*got"
        ):
            tn.ModelCheckpoint(f"m-{name}.safetensors")

    def test_what_this_run_does_not_measure_is_refused_before_training(self, tmp_path):
        with pytest.raises(ValueError, match="except epoch, loss, learning_rate, seconds, .*got"):
            play(WEIGHTS, tn.ModelCheckpoint(tmp_path / "{val_loss}"), validation_data=None)
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize(
        ("layers", "message"),
        [
            (lambda: [tn.Dense(2, kernel_initializer=lambda shape, rng: np.ones(shape))], "by its name"),
            (lambda: [Forgets(3), tn.Dense(2)], "does not keep its argument 'size'"),
            (lambda: [tn.Dense(2), *(tn.ReLU() for _ in range(1000))], "has 1,001 layers"),
        ],
        ids=["a callable initializer", "no config", "too many layers"],
    )
    def test_a_model_that_no_file_can_hold_is_refused_before_training(self, layers, message, tmp_path):
        model = tn.Sequential(layers(), input_shape=(2,), seed=0)
        before = model.params.copy()
        with pytest.raises(ValueError, match=message):
            fit(model, tn.ModelCheckpoint(tmp_path / "m"), loss=tn.MeanSquaredError(), y=X)
        np.testing.assert_array_equal(model.params, before)
        assert os.listdir(tmp_path) == []


class TestReduceLROnPlateau:
    @pytest.mark.parametrize(
        ("values", "settings", "rate"),
        [
            ([5, 4, 3, 2], {}, 0.1),
            ([5, 5, 5], {}, 0.05),
            ([5, 5, 5, 5], {}, 0.05),
            ([5, 5, 5, 5, 5], {}, 0.025),
            ([5, 5, 4, 4, 4], {}, 0.05),
            ([5, 5, 5], {"min_learning_rate": 0.08}, 0.08),
            ([5, 5, 5, 5, 5], {"min_learning_rate": 0.08}, 0.08),
            ([5, 5, 5], {"min_learning_rate": 0.3}, 0.1),
            ([5, 4.9, 4.8, 4.7, 4.6], {"min_delta": 0.5}, 0.025),
            ([0.5, 0.6, 0.7], {"monitor": "val_accuracy"}, 0.1),
            ([0.5, 0.4, 0.3], {"monitor": "val_accuracy"}, 0.05),
            ([5, math.nan, math.nan], {}, 0.05),
        ],
    )
    def test_the_rate_after_these_epochs(self, values, settings, rate):
        plateau = tn.ReduceLROnPlateau(**({"factor": 0.5, "patience": 2} | settings))
        optimizer = tn.SGD(0.1)
        drive(plateau, values, monitor=plateau.monitor, optimizer=optimizer)
        assert optimizer.learning_rate == pytest.approx(rate)

    @given(st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=1, max_size=30), st.integers(1, 4))
    def test_each_wait_of_patience_epochs_multiplies_once(self, values, patience):
        optimizer = tn.SGD(1.0)
        drive(tn.ReduceLROnPlateau(factor=0.5, patience=patience), values, optimizer=optimizer)
        best, since, rate = math.inf, 0, 1.0
        for value in values:
            best, since = (value, 0) if value < best else (best, since + 1)
            if since == patience:
                rate, since = rate / 2, 0
        assert optimizer.learning_rate == rate

    def test_the_next_epoch_trains_with_it(self):
        history = play([1.0] * 4, tn.ReduceLROnPlateau(factor=0.5, patience=1), optimizer=tn.SGD(1e-12))
        assert history.history["learning_rate"] == [1e-12, 1e-12, 5e-13, 2.5e-13]

    def test_a_schedule_is_refused(self):
        with pytest.raises(
            ValueError, match="needs a constant learning rate, but the optimizer has a schedule"
        ):
            play(WEIGHTS, tn.ReduceLROnPlateau(), optimizer=tn.SGD(tn.schedules.cosine(0.1, 10)))

    def test_a_second_run_begins_anew(self):
        plateau = tn.ReduceLROnPlateau(factor=0.5, patience=2)
        drive(plateau, [1.0, 1.0])
        optimizer = tn.SGD(0.1)
        drive(plateau, [5.0, 5.0], optimizer=optimizer)
        assert (optimizer.learning_rate, plateau.best, plateau.wait) == (0.1, 5.0, 1)


@st.composite
def cut_runs(draw):
    """The values of a run, and an epoch in it at which to stop and resume."""
    values = draw(st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0, math.nan]), min_size=4, max_size=16))
    return values, draw(st.integers(1, len(values) - 1))


class TestState:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: tn.EarlyStopping(patience=6),
            lambda: tn.EarlyStopping(patience=2),
            lambda: tn.ReduceLROnPlateau(factor=0.5, patience=2),
        ],
        ids=["patient", "impatient", "plateau"],
    )
    @given(run=cut_runs())
    def test_a_run_cut_in_two_goes_on_as_the_whole(self, make, run):
        values, cut = run
        whole, first, second = make(), make(), make()
        expected, reached = drive(whole, values), drive(first, values[:cut])
        if not reached.stop_training:
            second.set_state(first.state())
            reached = drive(second, values[cut:], start=cut, optimizer=reached.optimizer)
            assert vars(second) == vars(whole)
            assert reached.epoch == expected.epoch
            assert reached.stop_training == expected.stop_training
            assert reached.optimizer.learning_rate == expected.optimizer.learning_rate
            whole.on_train_end(expected)
            second.on_train_end(reached)
            np.testing.assert_array_equal(reached.model.params, expected.model.params)

    def test_the_wait_goes_on(self):
        first, second = tn.EarlyStopping(patience=3), tn.EarlyStopping(patience=3)
        drive(first, [1.0, 2.0, 2.0])
        second.set_state(first.state())
        assert drive(second, [2.0, 2.0], start=3).epoch == 3

    def test_the_rate_is_the_optimizers(self):
        """The checkpoint keeps the rate, as others may change it too; the state holds only what is waited for."""
        first, second = (tn.ReduceLROnPlateau(factor=0.5, patience=1) for _ in range(2))
        optimizer = drive(first, [1.0, 2.0, 2.0]).optimizer
        optimizer.learning_rate = 0.07
        second.set_state(first.state())
        assert drive(second, [0.5], start=3, optimizer=optimizer).optimizer.learning_rate == 0.07

    def test_the_best_so_far_of_a_checkpoint(self, tmp_path):
        first, second = (tn.ModelCheckpoint(tmp_path / "{epoch}", save_best_only=True) for _ in range(2))
        drive(first, [3.0, 2.0])
        second.set_state(first.state())
        drive(second, [2.5, 1.5], start=2)
        assert sorted(os.listdir(tmp_path)) == ["1", "2", "4"]

    @pytest.mark.parametrize(
        "make",
        [
            lambda path: tn.EarlyStopping(patience=5),
            lambda path: tn.ReduceLROnPlateau(patience=1),
            lambda path: tn.ModelCheckpoint(path, save_best_only=True),
            lambda path: tn.CSVLogger(path),
            lambda path: tn.Callback(),
        ],
        ids=["EarlyStopping", "ReduceLROnPlateau", "ModelCheckpoint", "CSVLogger", "Callback"],
    )
    def test_is_made_of_plain_values_and_accepted_back(self, make, tmp_path):
        def leaves(value):
            if isinstance(value, dict | list):
                return [
                    leaf
                    for part in (value.values() if isinstance(value, dict) else value)
                    for leaf in leaves(part)
                ]
            return [value]

        first, second = (make(tmp_path / "file") for _ in range(2))
        drive(first, [2.0, 3.0, 1.0])
        state = first.state()
        assert {type(leaf) for leaf in leaves(state)} <= {type(None), int, float, str, np.ndarray}
        second.set_state(state)
        assert second.state() == state

    @pytest.mark.parametrize(
        ("make", "change"),
        [
            (tn.EarlyStopping, {"best": "low"}),
            (tn.EarlyStopping, {"wait": None}),
            (tn.EarlyStopping, {"best_epoch": 1.5}),
            (tn.EarlyStopping, {"best_weights": 3}),
            (tn.EarlyStopping, {"best_weights": [[1.0]]}),
            (tn.ReduceLROnPlateau, {"best": [1.0]}),
            (tn.ReduceLROnPlateau, {"wait": True}),
            (tn.ReduceLROnPlateau, {"learning_rate": "0.1"}),
            (lambda: tn.MagnitudePruning(0.5), {"step": 0.5}),
            (lambda: tn.MagnitudePruning(0.5), {"initial": None}),
            (lambda: tn.MagnitudePruning(0.5), {"names": ["0.W"]}),
        ],
    )
    def test_one_with_values_of_other_kinds_is_refused(self, make, change):
        with pytest.raises(ValueError, match=f"{next(iter(change))}: expected|zip"):
            make().set_state(make().state() | change)

    def test_the_weights_in_a_state_are_the_bests_and_no_views(self):
        stopping, model = tn.EarlyStopping(patience=5), one_weight()
        drive(stopping, [2.0, 1.0, 3.0], model=model)
        state = stopping.state()
        model.params[...] = 77
        assert state["best_weights"][0] == 1


class TestCSVLogger:
    def read(self, path):
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def test_holds_the_history_to_the_last_digit(self, tmp_path):
        history = fit(classifier(), tn.CSVLogger(tmp_path / "history.csv"), epochs=3).history
        rows = self.read(tmp_path / "history.csv")
        assert list(rows[0]) == ["epoch", *history]
        assert [row["epoch"] for row in rows] == ["1", "2", "3"]
        for name, values in history.items():
            assert [float(row[name]) for row in rows] == values

    def test_is_whole_after_each_epoch_and_leaves_nothing_else(self, tmp_path):
        path = tmp_path / "history.csv"
        lengths = []

        class Look(tn.Callback):
            def on_epoch_end(inner, run):
                lengths.append(len(self.read(path)))
                assert os.listdir(tmp_path) == ["history.csv"]

        fit(classifier(), tn.CSVLogger(str(path)), Look(), epochs=3)
        assert lengths == [1, 2, 3]

    def test_has_the_columns_of_the_run(self, tmp_path):
        play(WEIGHTS, tn.CSVLogger(tmp_path / "history.csv"), validation_data=None)
        assert (tmp_path / "history.csv").read_text().splitlines()[0] == "epoch,loss,learning_rate,seconds"

    def test_a_second_fit_keeps_the_rows_and_a_new_object_does_not(self, tmp_path):
        path, model = tmp_path / "history.csv", classifier()
        logger = tn.CSVLogger(path)
        losses = fit(model, logger, epochs=2).history["loss"]
        losses += fit(model, logger, epochs=3, validation_data=None).history["loss"]
        rows = self.read(path)
        assert [row["epoch"] for row in rows] == ["1", "2", "1", "2", "3"]
        assert [float(row["loss"]) for row in rows] == losses
        assert [row["val_loss"] == "nan" for row in rows] == [False, False, True, True, True]
        fit(model, tn.CSVLogger(path), epochs=1)
        assert len(self.read(path)) == 1

    @pytest.mark.parametrize("same", [True, False], ids=["the same object", "a new process"])
    def test_a_resumed_fit_keeps_the_rows_of_earlier_ones(self, same, tmp_path):
        path, model = tmp_path / "history.csv", classifier()
        logger = tn.CSVLogger(path)
        fit(model, logger, epochs=2, validation_data=None)
        optimizer = tn.Adam(0.05)
        fit(model, logger, epochs=1, checkpoint=tmp_path / "c", optimizer=optimizer)
        before = self.read(path)
        logger = logger if same else tn.CSVLogger(path)
        fit(classifier(), logger, epochs=3, resume=tmp_path / "c")
        assert self.read(path)[:3] == before
        assert [row["epoch"] for row in self.read(path)] == ["1", "2", "1", "2", "3"]

    def test_a_missing_folder_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="does not exist; create it first"):
            fit(classifier(), tn.CSVLogger(tmp_path / "nowhere" / "history.csv"))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def bar_on(stream, monkeypatch, *callbacks, **settings):
    """Return what the bar writes to this standard error."""
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(tn.ProgressBar, "_SECONDS_BETWEEN", 0)
    with contextlib.suppress(OSError):
        fit(classifier(), *callbacks, **({"verbose": 1, "epochs": 2, "batch_size": 4} | settings))
    return stream.getvalue()


PTY_CHILD = """
import sys, time, numpy as np, tinynet as tn

def augment(x, rng):
    time.sleep(0.02)
    return x

x, y = np.ones((64, 2), np.float32), np.zeros(64, int)
model = tn.Sequential([tn.Dense(3)], input_shape=(2,), seed=0)
model.fit(x, y, optimizer=tn.SGD(), loss=tn.SoftmaxCrossEntropy(), batch_size=4, epochs=2, augment=augment,
          verbose=int(sys.argv[1]))
"""


def fail_to_write(text):
    raise BrokenPipeError(32, "Broken pipe")


class TestProgressBar:
    def test_a_line_per_epoch_where_there_is_no_terminal(self, capfd):
        """As in a notebook without ipywidgets, in many consoles, and if the output goes to a file."""
        fit(classifier(), verbose=1, epochs=2)
        output, lines = capfd.readouterr()
        assert output == ""
        assert [line.split()[0] for line in lines.splitlines()] == ["epoch", "1", "2"]
        fit(classifier(), verbose=0, epochs=2)
        assert capfd.readouterr() == ("", "")

    def test_no_second_table(self, capfd):
        fit(classifier(), tn.EpochTable(), verbose=1, epochs=2)
        output, lines = capfd.readouterr()
        assert (len(output.splitlines()), lines) == (3, "")

    def test_a_bar_of_the_users_own_is_silent_there(self, capfd):
        fit(classifier(), tn.ProgressBar(), verbose=0)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("kind", ["none", "closed", "write only", "write and flush", "broken"])
    def test_any_stream_will_do(self, kind, monkeypatch):
        written = []
        writes = types.SimpleNamespace(write=written.append)
        closed = io.StringIO()
        closed.close()
        streams = {
            "none": None,
            "closed": closed,
            "write only": writes,
            "write and flush": types.SimpleNamespace(write=written.append, flush=lambda: None),
            "broken": types.SimpleNamespace(write=fail_to_write, flush=lambda: None),
        }
        monkeypatch.setattr(sys, "stderr", streams[kind])
        assert fit(classifier(), tn.ProgressBar(), verbose=1, epochs=2).epochs == 2
        assert len(written) == (3 if "write" in kind else 0)

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals of this kind")
    @pytest.mark.parametrize("verbose", [0, 1, 2])
    def test_on_a_real_terminal(self, verbose):
        import pty
        import termios

        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 100))
        command = [sys.executable, "-c", PTY_CHILD, str(verbose)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave, text=True) as child:
            os.close(slave)
            screen = b""
            with contextlib.suppress(OSError):  # Linux reports the closed end as an error
                while part := os.read(master, 4096):
                    screen += part
            output = child.stdout.read()
        os.close(master)
        assert child.returncode == 0, screen.decode()
        if verbose != 1:
            assert screen == b""
            assert len(output.splitlines()) == (3 if verbose == 2 else 0)
            return
        assert output == ""
        shown = screen.decode()
        for part in ("epoch 1/2", "epoch 2/2", "loss 1.", "/16", "%|"):
            assert part in shown
        assert shown.rsplit("\r", 1)[-1].strip() == ""

    def test_shows_the_mean_loss_of_the_epoch_so_far(self, monkeypatch):
        means = []

        class Means(tn.Callback):
            def on_batch_end(self, run):
                means.append(f"loss {run.mean_loss():.4f}")

        def slow(x, rng):
            time.sleep(0.12)  # tqdm draws every 0.1 s
            return x

        shown = bar_on(Terminal(), monkeypatch, Means(), epochs=1, batch_size=7, augment=slow)
        assert "epoch 1/1:   0%" in shown
        assert len(set(means)) == 3
        assert all(mean in shown for mean in means)

    def test_is_gone_when_an_error_ends_the_run(self, monkeypatch):
        bar = tn.ProgressBar()  # kept, as an unreferenced file is closed when it is collected
        shown = bar_on(Terminal(), monkeypatch, bar, Act("batch end", fail, epoch=1), verbose=0)
        assert "epoch 2/2" in shown
        assert shown.rsplit("\r", 1)[-1].strip() == ""

    def test_of_a_resumed_run_begins_where_that_does(self, tmp_path, monkeypatch):
        """So that the remaining time is that of the remaining batches."""
        settings = {"batch_size": 4, "epochs": 2, "checkpoint": tmp_path / "c"}
        with pytest.raises(KeyboardInterrupt, match="interrupted in epoch 1 of 2, after batch 1 of 5"):
            fit(classifier(), Act("batch end", press, epoch=0), **settings)
        shown = bar_on(Terminal(), monkeypatch, Act("never", press), resume=tmp_path / "c", **settings)
        assert "epoch 1/2:  20%" in shown
        assert "epoch 1/2:   0%" not in shown
        assert "epoch 2/2:   0%" in shown

    def test_is_shown_in_a_notebook(self, monkeypatch):
        import tqdm.auto
        import tqdm.notebook

        bars = []

        class Notebook(tqdm.notebook.tqdm_notebook):
            def __new__(cls, **settings):
                bars.append(settings)
                return types.SimpleNamespace(
                    n=0, update=lambda n: None, set_postfix_str=lambda text, refresh: None, close=lambda: None
                )

        monkeypatch.setattr(tqdm.auto, "tqdm", Notebook)
        fit(classifier(), verbose=1, epochs=2, batch_size=4)
        assert [(bar["disable"], bar["total"], bar["desc"]) for bar in bars] == [
            (False, 5, "epoch 1/2"),
            (False, 5, "epoch 2/2"),
        ]


class TestEpochTable:
    def test_a_line_per_epoch_with_the_histories_values(self, capsys):
        history = fit(classifier(), verbose=2, epochs=3).history
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == ["epoch", "loss", "acc", "val", "loss", "val", "acc", "rate", "seconds"]
        assert len(lines) == 4
        assert len({len(line) for line in lines}) == 1
        for epoch, line in enumerate(lines[1:]):
            number, *scores, rate, seconds = line.split()
            assert number == str(epoch + 1)
            assert scores == [
                f"{history[name][epoch]:.4f}" for name in ("loss", "accuracy", "val_loss", "val_accuracy")
            ]
            assert (rate, seconds) == ("5.00e-02", f"{history['seconds'][epoch]:.2f}")

    def test_has_the_columns_of_the_run(self, capsys):
        play(WEIGHTS, verbose=2, validation_data=None)
        assert capsys.readouterr().out.splitlines()[0].split() == ["epoch", "loss", "rate", "seconds"]


class Recorder(tn.Callback):
    """Records every hook with the epoch, the batch and the number of epochs in the history."""

    def __init__(self):
        self.calls = []

    def _note(self, hook, run):
        self.calls.append((hook, run.epoch, run.batch, run.history.epochs))

    def on_train_begin(self, run):
        self._note("train begin", run)

    def on_epoch_begin(self, run):
        self._note("epoch begin", run)

    def on_batch_end(self, run):
        self._note("batch end", run)

    def on_epoch_end(self, run):
        self._note("epoch end", run)

    def on_train_end(self, run):
        self._note("train end", run)


class TestHooks:
    def test_order_and_what_the_run_knows_then(self):
        recorder = Recorder()
        fit(classifier(), recorder, epochs=2, batch_size=7)
        assert recorder.calls == [
            ("train begin", 0, 0, 0),
            ("epoch begin", 0, 0, 0),
            *(("batch end", 0, batch, 0) for batch in range(3)),
            ("epoch end", 0, 2, 1),
            ("epoch begin", 1, 2, 1),
            *(("batch end", 1, batch, 1) for batch in range(3)),
            ("epoch end", 1, 2, 2),
            ("train end", 1, 2, 2),
        ]

    def test_any_callback_may_stop_the_run(self):
        class Enough(tn.Callback):
            def on_epoch_end(self, run):
                run.stop_training = run.history.history["loss"][-1] < 2

        history = play([3.0, 2.0, 1.0, 0.5], Enough())
        assert history.history["loss"] == [9, 4, 1]
        assert not history.interrupted

    def test_one_that_does_nothing_changes_nothing(self):
        plain, watched = classifier(), classifier()
        fit(plain, epochs=2)
        fit(watched, tn.Callback(), Recorder(), epochs=2)
        np.testing.assert_array_equal(watched.params, plain.params)

    def test_one_whose_beginning_fails_ends_and_later_ones_never_begin(self):
        class Refuse(Recorder):
            def on_train_begin(self, run):
                super().on_train_begin(run)
                raise ValueError("not this run")

        first, refusing, last = Recorder(), Refuse(), Recorder()
        with pytest.raises(ValueError, match="not this run"):
            fit(classifier(), first, refusing, last)
        begun_and_ended = [("train begin", 0, 0, 0), ("train end", 0, 0, 0)]
        assert first.calls == refusing.calls == begun_and_ended
        assert last.calls == []


class TestHooksOfOtherLibraries:
    @pytest.mark.parametrize(
        ("name", "advice"),
        [
            ("on_train_batch_end", "did you mean 'on_batch_end'"),
            ("on_train_epoch_start", "did you mean 'on_epoch_begin'"),
            ("on_fit_start", "did you mean 'on_train_begin'"),
            ("on_epoch_start", "did you mean 'on_epoch_begin'"),
            ("on_epochs_end", "did you mean 'on_epoch_end'"),
            ("on_batch_begin", "it calls on_train_begin, on_epoch_begin, on_batch_end"),
            ("on_train_batch_begin", "it calls on_train_begin"),
            ("on_test_end", "it calls"),
            ("on_validation_epoch_end", "it calls"),
        ],
    )
    def test_they_are_never_called_and_refused(self, name, advice):
        for callback in (type("Own", (tn.Callback,), {name: lambda self, run: None})(), tn.Callback()):
            setattr(callback, name, lambda run: None)
            with pytest.raises(ValueError, match=f"has '{name}', which fit never calls; {advice}"):
                check_hooks(callback)

    def test_other_names_are_the_users_own(self):
        class Own(tn.EarlyStopping):
            def on_new_best(self):
                pass

            def once(self):
                pass

            only_at_the_end = True

        check_hooks(Own())
