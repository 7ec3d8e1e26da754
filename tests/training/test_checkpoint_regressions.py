"""Regression tests: one for each defect found in checkpoints, and in resuming and copying."""

import copy
import os
import signal
import sys
import threading

import numpy as np
import pytest

import tinynet as tn
from tests.fuzz import targets
from tinynet.training import checkpoint

X = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 2, 40)


def model(*layers):
    return tn.Sequential([*(layers or (tn.Dense(6), tn.ReLU())), tn.Dense(2)], input_shape=(3,), seed=0)


def fit(made, epochs=2, callbacks=(), optimizer=None, **options):
    return made.fit(
        X,
        Y,
        optimizer=optimizer or tn.SGD(0.1),
        loss=tn.SoftmaxCrossEntropy(),
        batch_size=4,
        epochs=epochs,
        callbacks=list(callbacks),
        validation_data=(X, Y),
        verbose=0,
        **options,
    )


@pytest.mark.parametrize(
    ("written", "given", "named"),
    [
        ([tn.EarlyStopping("loss")], [tn.EarlyStopping("val_accuracy")], "callback 0 monitor"),
        (
            [tn.EarlyStopping("loss", 9), tn.EarlyStopping("val_loss", 9)],
            [tn.EarlyStopping("val_loss", 9), tn.EarlyStopping("loss", 9)],
            "callback 1 monitor",
        ),
        ([tn.ReduceLROnPlateau(patience=3)], [tn.ReduceLROnPlateau(patience=4)], "callback 0 patience: 3"),
        ([tn.MagnitudePruning(0.5)], [tn.MagnitudePruning(0.9, "layer")], "callback 0 sparsity: 0.5"),
    ],
)
def test_callbacks_are_those_that_began(written, given, named, tmp_path):
    fit(model(), 1, written, checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match=named):
        fit(model(), 2, given, resume=tmp_path / "c")


def test_a_callback_may_write_to_another_file(tmp_path):
    fit(model(), 1, [tn.CSVLogger(tmp_path / "a.csv")], checkpoint=tmp_path / "c")
    assert fit(model(), 2, [tn.CSVLogger(tmp_path / "b.csv")], resume=tmp_path / "c").epochs == 2


def test_a_schedule_is_compared_to_the_end_of_the_run(tmp_path):
    def falling_after(steps):
        return tn.SGD(lambda step: 0.1 if step < steps else 0.01)

    fit(
        model(),
        2,
        optimizer=falling_after(16),
        checkpoint=tmp_path / "c",
        checkpoint_every=3,
        steps_per_epoch=4,
    )
    with pytest.raises(ValueError, match="learning rate at step"):
        fit(model(), 4, optimizer=falling_after(5), resume=tmp_path / "c", steps_per_epoch=4)


def test_a_schedule_may_be_a_table_that_is_shorter_than_the_run(tmp_path):
    table = [0.1] * 12
    stop = tn.EarlyStopping("loss", patience=None)
    fit(model(), 1, [stop], tn.SGD(lambda step: table[step]), checkpoint=tmp_path / "c", checkpoint_every=2)


class Rate(tn.Callback):
    """Sets the rate in the middle of an epoch."""

    def on_batch_end(self, run):
        if (run.epoch, run.batch) == (1, 2):
            run.optimizer.learning_rate = 0.03


class Killed(tn.Callback):
    def on_batch_end(self, run):
        if (run.epoch, run.batch) == (1, 5):
            raise RuntimeError("killed")


def test_two_callbacks_that_change_the_rate(tmp_path):
    def callbacks():
        return [tn.ReduceLROnPlateau("loss", 0.5, patience=1, min_delta=9.0), Rate()]

    whole = model()
    history = fit(whole, 3, callbacks())
    path = tmp_path / "c"
    with pytest.raises(RuntimeError, match="killed"):
        fit(model(), 3, [*callbacks(), Killed()], checkpoint=path, checkpoint_every=1)
    again = model()
    resumed = fit(again, 3, [*callbacks(), type("Killed", (tn.Callback,), {})()], resume=path)
    np.testing.assert_array_equal(again.params, whole.params)
    assert resumed.history["learning_rate"] == history.history["learning_rate"]


class Collector(tn.Callback):
    """Adds a restored state to its own, in place."""

    def __init__(self, refuses=False):
        self.seen, self.refuses = [], refuses

    def on_epoch_end(self, run):
        self.seen.append(run.epoch)

    def state(self):
        return {"seen": list(self.seen)}

    def set_state(self, state):
        if self.refuses:
            raise ValueError("no")
        self.seen += state["seen"]


def test_a_state_is_put_in_once_and_only_if_all_fit(tmp_path):
    path = tmp_path / "c"
    fit(model(), 2, [Collector(), Collector()], checkpoint=path)
    good = [Collector(), Collector()]
    fit(model(), 3, good, resume=path)
    assert good[0].seen == [0, 1, 2]
    refused = [Collector(), Collector(refuses=True)]
    with pytest.raises(ValueError, match="nothing was changed"):
        fit(model(), 3, refused, resume=path)
    assert refused[0].seen == []


def test_labels_are_compared_one_and_all(tmp_path):
    x, y = np.zeros((5_000, 3), np.float32), np.zeros(5_000, int)
    other = y.copy()
    other[3] = 1
    arguments = {"loss": tn.SoftmaxCrossEntropy(), "batch_size": 1_000, "verbose": 0}
    model().fit(x, y, optimizer=tn.SGD(), epochs=1, checkpoint=tmp_path / "c", **arguments)
    with pytest.raises(ValueError, match="data: "):
        model().fit(x, other, optimizer=tn.SGD(), epochs=2, resume=tmp_path / "c", **arguments)


def test_pruning_that_is_refused_leaves_another_model_alone():
    pruning = tn.MagnitudePruning(0.5, ramp_steps=10)
    fit(model(), 1, [pruning])
    other = tn.Sequential([tn.Dense(4), tn.Dense(2)], input_shape=(3,), seed=0)
    before = other.params.copy()
    with pytest.raises(ValueError, match="ramp_steps: expected at most"):
        fit(other, 1, [pruning], steps_per_epoch=5)
    np.testing.assert_array_equal(other.params, before)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    failed = []

    def load():
        try:
            tn.load_model(tmp_path / "pipe")
        except tn.ModelFileError as error:
            failed.append(str(error))

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(300)
    assert failed
    assert "not a regular file" in failed[0]


def test_a_copied_optimizer_has_slots_of_its_own():
    optimizer = tn.SGD(0.1, momentum=0.9)
    params, grads = np.ones(3), np.ones(3)
    optimizer.step(params, grads)
    twin = copy.copy(optimizer)
    before = optimizer.slots["velocity"].copy()
    twin.step(np.ones(3), grads)
    np.testing.assert_array_equal(optimizer.slots["velocity"], before)
    assert (optimizer.step_count, twin.step_count) == (1, 2)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to whole console groups")
def test_ctrl_c_in_a_run_within_a_callback_ends_both():
    outer, inner = model(), model()

    class Nested(tn.Callback):
        def on_epoch_end(self, run):
            fit(inner, 5, [Press()])

    class Press(tn.Callback):
        def on_batch_end(self, run):
            if run.batch == 3:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="interrupted in epoch 1 of 5"):
        fit(outer, 4, [Nested()])
    assert inner.history.interrupted
    assert outer.history.epochs == 1


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"layer 2 rate": "0.5"}, "rate"),
        ({"layer 2 rate": [0.5]}, "rate"),
        ({"layer 0 units": 10**13}, "units"),
        ({"layer 0 trainable": 0.5}, "trainable"),
        ({"layer 0 W": 0.5}, "W"),
        ({"optimizer beta_1": None}, "beta_1"),
        ({"optimizer learning_rate": -1.0}, "learning_rate"),
    ],
)
def test_changed_settings_that_can_not_be_put_back(changed, word, tmp_path):
    from tinynet.files import storage

    path = tmp_path / "c"
    targets._train(epochs=1, checkpoint=str(path))
    description, arrays = storage.load(path, kind="checkpoint")
    description = {key: value for key, value in description.items() if key not in ("format", "kind")}
    storage.save(path, description | {"changed": changed}, arrays, kind="checkpoint")
    with pytest.raises(ValueError, match=word):
        targets._train(resume=str(path))


def test_changed_settings_are_put_back_though_no_layer_could_be_made_with_one_of_them(tmp_path):
    """Both of a layer's arguments that only fit each other, and an optional one of an optimizer."""

    class Clip(tn.Layer):
        made = 0

        def __init__(self, low, high, note=None):
            super().__init__()
            if low >= high:
                raise ValueError("low >= high")
            self.low, self.high, self.note = low, high, note
            Clip.made += 1

        def forward(self, x, training=False):
            return np.clip(x, self.low, self.high)

        def backward(self, dy):
            return dy

    class Change(tn.Callback):
        def on_epoch_end(self, run):
            clip = run.model.layers[1]
            if run.epoch == 0:
                clip.low, clip.high, clip.note = 2.0, 3.0, "moved"
                run.optimizer.clip_norm = None

    def run(epochs, **options):
        made = model(tn.Dense(6), Clip(0.0, 1.0))
        fit(made, epochs, [Change()], tn.SGD(0.1, clip_norm=1.0), **options)
        return made

    whole = run(2)
    run(1, checkpoint=tmp_path / "c")
    before = Clip.made
    again = run(2, resume=tmp_path / "c")
    assert Clip.made == before + 1
    assert (again.layers[1].low, again.layers[1].high, again.layers[1].note) == (2.0, 3.0, "moved")
    np.testing.assert_array_equal(again.params, whole.params)


@pytest.mark.parametrize(("name", "value"), [("step_count", -1), ("step_count", 3.0), ("best", 10**400)])
def test_states_are_judged(name, value, tmp_path):
    from tinynet.files import storage

    path = tmp_path / "c"
    targets._train(epochs=1, checkpoint=str(path))
    description, arrays = storage.load(path, kind="checkpoint")
    description = {key: item for key, item in description.items() if key not in ("format", "kind")}
    state = description["optimizer"] if name == "step_count" else description["callbacks"][0]
    state["items"][name] = value
    storage.save(path, description, arrays, kind="checkpoint")
    with pytest.raises(ValueError, match="step_count|rejects its state"):
        targets._train(resume=str(path))


def test_what_the_fuzzer_begins_with_goes_on(tmp_path):
    path = tmp_path / "c"
    targets._train(epochs=1, checkpoint=str(path))
    assert checkpoint.read(path).place["epochs"] == 1
    targets._train(resume=str(path), checkpoint=str(path))
    assert checkpoint.read(path).place["epochs"] == 2


def without_the_setting(path, name):
    """The checkpoint as a version wrote it that did not have this argument yet."""
    from tinynet.files import storage

    description, arrays = storage.load(path, kind="checkpoint")
    description = {key: item for key, item in description.items() if key not in ("format", "kind")}
    del description["settings"][name]
    storage.save(path, description, arrays, kind="checkpoint")


def test_an_argument_that_the_checkpoints_version_did_not_have_counts_as_its_default(tmp_path):
    def run(path, clip_norm=None, negative_slope=0.3, **settings):
        rng = np.random.default_rng(0)
        layers = [tn.Dense(4), tn.LeakyReLU(negative_slope), tn.Dense(3), tn.Softmax()]
        tn.Sequential(layers, (2,), seed=0).fit(
            rng.standard_normal((20, 2)),
            rng.integers(0, 3, 20),
            optimizer=tn.Adam(clip_norm=clip_norm),
            loss=tn.CrossEntropy(),
            callbacks=[tn.EarlyStopping("loss", patience=3)],
            verbose=0,
            checkpoint=path,
            **settings,
        )

    path = tmp_path / "c"
    for name in ("optimizer clip_norm", "layer 1 negative_slope", "optimizer epsilon"):
        run(path, epochs=1)
        without_the_setting(path, name)
        run(path, epochs=2, resume=path)
    for name, other in (("clip_norm", 1.0), ("negative_slope", 0.1)):
        run(path, epochs=1)
        without_the_setting(path, f"{'optimizer' if name == 'clip_norm' else 'layer 1'} {name}")
        with pytest.raises(ValueError, match=f"{name}: .* in the checkpoint, {other} here"):
            run(path, epochs=2, resume=path, **{name: other})


def test_a_schedules_last_digits_may_differ():
    """A cosine of another system's mathematical library."""
    assert checkpoint._is_close(0.1, 0.1 * (1 + 1e-15))
    assert not checkpoint._is_close(0.1, 0.1001)
    assert not checkpoint._is_close("ZeroDivisionError()", 0.1)
