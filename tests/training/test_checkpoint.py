"""Checkpoints: a resumed run ends like one that was never stopped, and whatever does not match is rejected."""

import contextlib
import copy
import json
import math
import signal
import warnings
from contextlib import nullcontext

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays_of

import tinynet as tn
from tests.support.runs import CASES, EPOCHS, STEPS, assert_same_end, dense, start, vectors, what_is_left
from tinynet.files import storage
from tinynet.training import checkpoint
from tinynet.training import resume as run_settings


class Stop(tn.Callback):
    """Presses Ctrl-C, or raises, after one batch, counted over all epochs; never if it is None."""

    def __init__(self, batch=None, error=None):
        self.batch, self.error = batch, error

    def on_batch_end(self, run):
        if run.epoch * run.steps_per_epoch + run.batch == self.batch:
            if self.error is not None:
                raise self.error
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def whole():
    """Each case, never stopped."""
    return {case: start(case, Stop()) for case in CASES}


def in_pieces(case, path, stops, **settings):
    """Run a case with Ctrl-C after each of these batches, and resume each time."""
    resume = None
    for batch in (*sorted(stops), None):
        with nullcontext() if batch is None else pytest.raises(KeyboardInterrupt):
            ended = start(case, Stop(batch), checkpoint=path, resume=resume, **settings)
        resume = path
    return ended


class TestGoingOn:
    @pytest.mark.parametrize("case", CASES)
    @settings(max_examples=12)
    @given(stops=st.sets(st.integers(0, STEPS * EPOCHS - 1), min_size=1, max_size=3))
    def test_interrupted_at_any_batch_it_ends_as_without(self, case, stops, whole, tmp_path_factory):
        path = tmp_path_factory.mktemp("run") / "checkpoint"
        assert_same_end(in_pieces(case, path, stops), whole[case])

    @pytest.mark.parametrize("case", CASES)
    @settings(max_examples=6)
    @given(stop=st.integers(0, STEPS * EPOCHS - 1), every=st.integers(1, 6))
    def test_after_an_error_it_goes_on_from_the_last_file(self, case, stop, every, whole, tmp_path_factory):
        path = tmp_path_factory.mktemp("run") / "checkpoint"
        with pytest.raises(ConnectionError):
            start(case, Stop(stop, ConnectionError()), checkpoint=path, checkpoint_every=every)
        epochs, batches = divmod(stop, STEPS)  # the batch it stopped in is not saved
        done = (epochs, batches // every * every)
        if done == (0, 0):
            assert not path.exists()
            return
        place = checkpoint.read(path).place
        assert (place["epochs"], place["batches"]) == done
        assert_same_end(start(case, Stop(), resume=path), whole[case])

    @pytest.mark.parametrize("error", [None, ConnectionError()], ids=["Ctrl-C", "an error"])
    def test_with_the_same_objects_again(self, error, whole, tmp_path):
        """As in a notebook: the objects are as the stop left them, after an error further along than the file."""
        path, (model, arguments) = tmp_path / "checkpoint", dense()
        x, y, stop = arguments.pop("x"), arguments.pop("y"), Stop(13, error)
        arguments |= {"batch_size": 10, "epochs": EPOCHS, "verbose": 0, "checkpoint": path}
        arguments["callbacks"].append(stop)
        with (
            pytest.raises(ConnectionError)
            if error
            else pytest.raises(
                KeyboardInterrupt,
                match=r"interrupted in epoch 3 of 4, after batch 4 of 5; continue with resume=\S*'$",
            )
        ):
            model.fit(x, y, **arguments)
        stop.batch = None
        history = model.fit(x, y, resume=path, **arguments)
        assert_same_end((model, arguments["optimizer"], history), whole["dense"])

    def test_a_finished_run_can_be_made_longer(self, tmp_path):
        path = tmp_path / "checkpoint"
        start("iterable", epochs=2, checkpoint=path)
        assert_same_end(start("iterable", epochs=5, resume=path), start("iterable", epochs=5))

    @pytest.mark.parametrize("same", [False, True], ids=["new optimizers", "one optimizer"])
    def test_a_rate_that_was_reduced_before_stays_so_over_two_resumes(self, same, tmp_path):
        """The optimizer may have the rate that the first run began with, or be as the second run left it."""

        def reduced(stop=None, **settings):
            callbacks = [tn.ReduceLROnPlateau("loss", 0.5, patience=1, min_delta=10), Stop(stop)]
            with nullcontext() if stop is None else pytest.raises(KeyboardInterrupt):
                return start("iterable", *callbacks, **settings)

        path, whole, optimizer = tmp_path / "checkpoint", reduced(), tn.SGD(0.1, momentum=0.9, nesterov=True)
        reduced(11, checkpoint=path, optimizer=optimizer)
        reduced(17, checkpoint=path, resume=path, **({"optimizer": optimizer} if same else {}))
        assert not same or optimizer.learning_rate == 0.025
        ended = reduced(resume=path)
        assert ended[2].history["learning_rate"] == [0.1, 0.1, 0.05, 0.025]
        assert_same_end(ended, whole)

    def test_what_callbacks_change_in_layers_and_optimizer_is_kept(self, tmp_path):
        class Change(tn.Callback):
            def on_epoch_end(self, run):
                if run.epoch == 1:
                    run.model.layers[0].trainable = False
                    run.model.layers[3].rate = 0.5
                    run.optimizer.beta_1, run.optimizer.clip_norm = 0.5, 1.0

        path = tmp_path / "checkpoint"
        with pytest.raises(KeyboardInterrupt, match="interrupted"):
            start("dense", Change(), Stop(11), checkpoint=path)
        ended = start("dense", Change(), Stop(), resume=path)
        assert not ended[0].layers[0].trainable
        assert ended[1].clip_norm == 1
        assert_same_end(ended, start("dense", Change(), Stop()))

    @pytest.mark.parametrize("stop", [7, 12])
    def test_values_that_are_not_finite_are_kept(self, stop, tmp_path):
        """A validation loss that overflows, and a callback that remembers it."""

        class Remember(tn.Callback):
            seen = -math.inf, math.nan

            def on_epoch_end(self, run):
                self.seen = [*self.seen, run.history.history["val_loss"][-1]]

            def state(self):
                return {"seen": self.seen}

            def set_state(self, state):
                self.seen = state["seen"]

        x, callback = np.ones((4, 4), np.float32), Remember()
        given = {"validation_data": (x, np.full((4, 2), 1e200)), "checkpoint": tmp_path / "c"}
        with pytest.raises(KeyboardInterrupt, match="interrupted"):
            start("regression", Remember(), Stop(stop), **given)
        _, _, history = start("regression", callback, Stop(), resume=tmp_path / "c", **given)
        assert history.history["val_loss"] == [math.inf] * EPOCHS
        assert str(callback.seen[:2]) == "[-inf, nan]"
        assert callback.seen[2:] == history.history["val_loss"]

    def test_the_seconds_of_both_parts_are_added(self, tmp_path):
        with pytest.raises(KeyboardInterrupt, match="interrupted"):
            start("dense", Stop(2), checkpoint=tmp_path / "c")
        saved = checkpoint.read(tmp_path / "c").place["seconds"]
        assert start("dense", Stop(), resume=tmp_path / "c")[2].history["seconds"][0] > saved > 0

    def test_an_iterable_is_taken_up_behind_the_batches_that_are_done(self, tmp_path):
        x, y = vectors(50)
        taken = []

        class Stream:
            def __iter__(self):
                for i in range(5):
                    taken.append(i)
                    yield x[10 * i : 10 * i + 10], y[10 * i : 10 * i + 10]

        def run(*callbacks, **settings):
            model = tn.Sequential([tn.Dense(3)], (4,), seed=0)
            given = {"optimizer": tn.Adam(), "loss": tn.SoftmaxCrossEntropy(), "verbose": 0} | settings
            model.fit(Stream(), steps_per_epoch=5, epochs=2, callbacks=callbacks, **given)
            return model.params

        with pytest.raises(KeyboardInterrupt, match="interrupted"):
            run(Stop(6), checkpoint=tmp_path / "c")
        taken.clear()
        params = run(Stop(), resume=tmp_path / "c")
        assert taken == [0, 1, 2, 3, 4]
        np.testing.assert_array_equal(params, run(Stop()))


class TestARunThatIsDone:
    def test_its_history_comes_back_at_once_and_the_best_weights(self, whole, tmp_path):
        start("two_workers", tn.Callback(), checkpoint=tmp_path / "c")
        callback = tn.Callback()
        callback.on_epoch_begin = lambda run: pytest.fail("an epoch begins")
        ended = start("two_workers", callback, resume=tmp_path / "c")
        assert_same_end(ended, whole["two_workers"])
        assert ended[2].epochs == EPOCHS

    def test_so_does_that_of_one_that_a_callback_stopped(self, tmp_path):
        def stopped(**settings):
            return start("dense", tn.EarlyStopping("loss", patience=1, min_delta=100), epochs=9, **settings)

        first = stopped(checkpoint=tmp_path / "c")
        assert first[2].epochs == 2
        assert_same_end(stopped(resume=tmp_path / "c"), first)

    def test_the_checkpoint_has_the_last_weights_not_the_best(self, tmp_path):
        class Worse(tn.Callback):
            def on_epoch_end(self, run):
                run.history.history["val_loss"][-1] = float(run.epoch)
                seen.append(run.model.get_weights())

        seen = []
        model, arguments = dense()
        arguments["callbacks"] = [Worse(), tn.EarlyStopping("val_loss", patience=None)]
        x, y = arguments.pop("x"), arguments.pop("y")
        model.fit(x, y, epochs=3, verbose=0, checkpoint=tmp_path / "c", **arguments)
        saved = checkpoint.read(tmp_path / "c").weights
        for name, best, last in zip(model.named_weights(), seen[0], seen[-1], strict=True):
            np.testing.assert_array_equal(model.named_weights()[name], best)
            np.testing.assert_array_equal(saved[name], last)

    def test_ctrl_c_is_not_lost_in_it(self, tmp_path):
        class Press(tn.Callback):
            def on_train_begin(self, run):
                if run.resumed:
                    signal.raise_signal(signal.SIGINT)

        start("iterable", Press(), checkpoint=tmp_path / "c")
        with pytest.raises(KeyboardInterrupt, match="interrupted in epoch 4 of 4, after batch 5 of 5"):
            start("iterable", Press(), resume=tmp_path / "c")


class TestWhenItIsWritten:
    @pytest.fixture
    def written(self, monkeypatch):
        places, write = [], checkpoint.Checkpoint.write

        def watched(self, epochs, batches):
            if self.path is not None:
                places.append((epochs, batches))
            write(self, epochs, batches)

        monkeypatch.setattr(checkpoint.Checkpoint, "write", watched)
        return places

    def test_after_each_epoch(self, written, tmp_path):
        start("iterable", checkpoint=tmp_path / "c", epochs=3)
        assert written == [(1, 0), (2, 0), (3, 0)]

    @pytest.mark.parametrize(
        ("every", "places"),
        [
            (1, [(0, 1), (0, 2), (0, 3), (0, 4), (1, 0)]),
            (2, [(0, 2), (0, 4), (1, 0)]),
            (5, [(1, 0)]),
            (9, [(1, 0)]),
        ],
    )
    def test_after_every_so_many_batches(self, every, places, written, tmp_path):
        start("iterable", checkpoint=tmp_path / "c", checkpoint_every=every, epochs=1)
        assert written == places

    def test_at_ctrl_c_once(self, written, tmp_path):
        with pytest.raises(KeyboardInterrupt, match="interrupted"):
            start("iterable", Stop(7), checkpoint=tmp_path / "c", checkpoint_every=3)
        assert written == [(0, 3), (1, 0), (1, 3)]

    def test_never_without_a_path(self, written, tmp_path, monkeypatch):
        monkeypatch.setattr(run_settings, "settings", lambda *_: pytest.fail("described for nothing"))
        start("dense")
        assert written == []

    def test_where_it_went_on_from_stays_as_it_is_if_it_is_not_the_file_to_write(self, tmp_path):
        start("iterable", epochs=1, checkpoint=tmp_path / "first")
        before = (tmp_path / "first").read_bytes()
        start("iterable", epochs=2, resume=tmp_path / "first", checkpoint=tmp_path / "second")
        assert (tmp_path / "first").read_bytes() == before
        assert checkpoint.read(tmp_path / "second").place["epochs"] == 2
        assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]

    def test_parameters_that_are_not_finite_are_never_written(self, tmp_path):
        """The loss of this batch is still finite; the next one would not be."""

        class Spoil(tn.Callback):
            def on_batch_end(self, run):
                if (run.epoch, run.batch) == (1, 1):
                    run.model.layers[0].W[0, 0] = np.nan

        with pytest.raises(tn.NonFiniteError, match=r"epoch 2, batch 2: .* parameter 0\.W"):
            start("iterable", Spoil(), checkpoint=tmp_path / "c", checkpoint_every=1)
        saved = checkpoint.read(tmp_path / "c")
        assert (saved.place["epochs"], saved.place["batches"]) == (1, 1)
        assert all(np.isfinite(array).all() for array in saved.weights.values())

    def test_a_disk_that_is_full_ends_the_run_and_keeps_the_old_file(self, tmp_path, monkeypatch):
        from tinynet.files import atomic

        start("iterable", checkpoint=tmp_path / "c", epochs=1)
        before = (tmp_path / "c").read_bytes()

        def full(path, data):
            with atomic.atomic_write(path) as file:
                file.write(data[:100])
                raise OSError(28, "No space left on device", str(path))

        monkeypatch.setattr(storage, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            start("iterable", checkpoint=tmp_path / "c", resume=tmp_path / "c")
        assert (tmp_path / "c").read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["c"]

    def test_a_state_that_can_not_be_written_is_named_before_training(self, tmp_path):
        class Odd(tn.Callback):
            def state(self):
                return {"seen": {1, 2}}

            def on_batch_end(self, run):
                pytest.fail("a batch was trained")

        with pytest.raises(TypeError, match="the state of callback 0, Odd, seen: expected None, numbers"):
            start("iterable", Odd(), checkpoint=tmp_path / "c")


def snapshot(model, optimizer, callbacks):
    return copy.deepcopy(
        [
            [*model.get_weights(), model.step, model.epoch, model.loss],
            [optimizer.state(), optimizer.learning_rate],
            [callback.state() for callback in callbacks],
        ]
    )


MISMATCHES = {
    "another layer": ({"layers": [tn.Dense(6), tn.BatchNorm(), tn.Tanh()]}, "layers: .*'2 ReLU'.* here"),
    "fewer units": ({"units": 5}, r"layer 0 units: 6 in the checkpoint, 5 here; .*0\.W: float32 \(4, 6\)"),
    "another rate of dropout": ({"rate": 0.25}, "layer 3 rate: 0.3 in the checkpoint, 0.25 here"),
    "a frozen layer": ({"frozen": 4}, "layer 4 trainable: True in the checkpoint, False here"),
    "another seed": ({"seed": 9}, "seed: 3 in the checkpoint, 9 here; create the model with seed=3"),
    "another dtype": ({"dtype": "float64"}, "dtype: 'float32' in the checkpoint, 'float64' here"),
    "another optimizer": (
        {"optimizer": tn.RMSprop(0.05)},
        "optimizer: 'Adam' in the checkpoint, 'RMSprop' here",
    ),
    "another learning rate": (
        {"optimizer": tn.Adam(0.1)},
        "optimizer learning_rate: 0.05 in the checkpoint, 0.1",
    ),
    "a schedule": (
        {"optimizer": tn.Adam(tn.schedules.cosine(0.05, 9)), "callbacks": []},
        "optimizer learning_rate: 0.05 in the checkpoint, '<function cosine.<locals>.schedule>' here",
    ),
    "another moment": (
        {"optimizer": tn.Adam(0.05, beta_2=0.9)},
        "optimizer beta_2: 0.999 in the checkpoint, 0.9",
    ),
    "another loss": (
        {"loss": tn.CrossEntropy()},
        r"loss: 'CrossEntropy\(label_smoothing=0.1\)' in the checkpoint",
    ),
    "fewer callbacks": (
        {"callbacks": []},
        r"callbacks: \['EarlyStopping', 'ReduceLROnPlateau', 'Stop'\] in the",
    ),
    "another batch size": (
        {"batch_size": 9},
        "steps_per_epoch: 5 in the checkpoint, 6 .*batch_size: 10 in the",
    ),
    "fewer steps": (
        {"steps_per_epoch": 2},
        "steps_per_epoch: 5 in .* 2 here; .*3 batches of an epoch are done",
    ),
    "no shuffle": ({"shuffle": False}, "shuffle: True in the checkpoint, False here"),
    "no augmentation": ({"augment": None}, "augment: '<function noise>' in the checkpoint, None here"),
    "fewer examples": ({"n": 46}, r"data: '47 examples \(4,\) float32, SHA-256 \w+' in the .* '46 examples"),
    "other examples": ({"data_seed": 7}, "data: '47 examples .* here"),
    "no validation": (
        {"validation_data": None, "callbacks": [tn.EarlyStopping("loss")]},
        "validation_data: '20 examples .*'nothing' here",
    ),
    "other validation": ({"validation_data": vectors(20, seed=5)}, "validation_data: '20 examples"),
    "fewer epochs": ({"epochs": 1}, "epochs: 2 have begun in the checkpoint, but only 1 are requested here"),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A checkpoint of the case `dense`, stopped after three batches of the second epoch."""
    path = tmp_path_factory.mktemp("run") / "checkpoint"
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt, match="interrupted in epoch 2 of 4, after batch 3 of 5"):
        start("dense", Stop(7), checkpoint=path)
    signal.signal(signal.SIGINT, former)
    return path


class TestRefusals:
    def attempt(self, path, match, error=ValueError, **change):
        """Resume with something changed: this is rejected, and nothing is modified."""
        _, arguments = dense()
        for layer in change.get("layers", ()):
            layer.unbuild()
        front = change.pop("layers", None) or [tn.Dense(change.pop("units", 6)), tn.BatchNorm(), tn.ReLU()]
        model = tn.Sequential(
            [*front, tn.Dropout(change.pop("rate", 0.3)), tn.Dense(3), tn.Softmax()],
            input_shape=(4,),
            seed=change.pop("seed", 3),
            dtype=change.pop("dtype", "float32"),
        )
        if "frozen" in change:
            model.layers[change.pop("frozen")].trainable = False
        arguments["x"], arguments["y"] = vectors(change.pop("n", 47), seed=change.pop("data_seed", 0))
        arguments["callbacks"].append(Stop())
        arguments |= {"batch_size": 10, "epochs": EPOCHS, "verbose": 0, "resume": path} | change
        optimizer, callbacks = copy.copy(arguments.pop("optimizer")), arguments["callbacks"]
        before = snapshot(model, optimizer, callbacks)
        with pytest.raises(error, match=match) as caught:
            model.fit(arguments.pop("x"), arguments.pop("y"), optimizer=optimizer, **arguments)
        after = snapshot(model, optimizer, callbacks)
        np.testing.assert_equal(after, before)
        return str(caught.value)

    @pytest.mark.parametrize("name", MISMATCHES)
    def test_other_settings_are_listed_and_nothing_is_changed(self, name, path):
        change, message = MISMATCHES[name]
        text = self.attempt(path, message, **change)
        assert text.startswith(
            f"{path}: the run in this checkpoint can't be resumed like this, and nothing was changed: "
        )

    def test_all_of_them_at_once(self, path):
        text = self.attempt(path, "nothing was changed", seed=4, rate=0.1, shuffle=False, epochs=1, units=7)
        for name in ("seed: 3", "layer 3 rate: 0.3", "shuffle: True", "epochs: 2 have", "layer 0 units: 6"):
            assert name in text

    def test_another_schedule_is_found_by_its_rates(self, tmp_path):
        with pytest.raises(KeyboardInterrupt, match="interrupted"):
            start("regression", Stop(8), checkpoint=tmp_path / "c")
        schedule = tn.schedules.step_decay(0.1, every=8, factor=0.5)
        with pytest.raises(ValueError, match="learning rate at step 7: 0.05 in the checkpoint, 0.1 here$"):
            start("regression", Stop(), resume=tmp_path / "c", optimizer=tn.SGD(schedule))

    def test_a_callback_that_refuses_its_state(self, path):
        class EarlyStopping(tn.EarlyStopping):
            def set_state(self, state):
                raise KeyError("patience")

        callbacks = [EarlyStopping("val_loss", 3), tn.ReduceLROnPlateau("val_loss", 0.5, 1), Stop()]
        self.attempt(
            path, r"callback 0, EarlyStopping, rejects its state: KeyError\('patience'\)", callbacks=callbacks
        )

    def test_an_optimizer_that_refuses_its_state(self, path):
        class Adam(tn.Adam):
            slot_names = ("m", "v", "v_max")

        self.attempt(
            path, r"Adam rejects its state: ValueError\(\"Adam keeps the slots", optimizer=Adam(0.05)
        )

    def test_a_setting_that_can_not_be_put_back(self, tmp_path):
        class Swap(tn.Callback):
            def on_epoch_end(self, run):
                run.model.layers[0].units = len

        start("iterable", Swap(), epochs=1, checkpoint=tmp_path / "c")
        with pytest.raises(
            ValueError, match="layer 0 units: a callback has set it to '<built-in function len>', which"
        ):
            start("iterable", Swap(), resume=tmp_path / "c")

    def test_an_argument_that_no_attribute_is_behind_can_not_be_put_back_either(self, tmp_path):
        class Shift(tn.Layer):
            amount = 1.0

            def config(self):
                return {"by": self.amount}

            def forward(self, x, training=False):
                return x + self.amount

            def backward(self, dy):
                return dy

        class Grow(tn.Callback):
            def on_epoch_end(self, run):
                run.model.layers[1].amount += 1

        def run(**settings):
            model = tn.Sequential([tn.Dense(3), Shift()], (4,), seed=0)
            given = {"optimizer": tn.Adam(), "loss": tn.SoftmaxCrossEntropy(), "verbose": 0} | settings
            model.fit(*vectors(20), callbacks=[Grow()], **given)

        run(checkpoint=tmp_path / "c")
        with pytest.raises(
            ValueError, match="layer 1 by: a callback has set it to 2.0, which can't be restored"
        ):
            run(resume=tmp_path / "c", epochs=2)

    def test_no_file(self, tmp_path):
        message = "there is no such checkpoint; leave resume out to start a new run: .*missing'"
        self.attempt(tmp_path / "missing", message, FileNotFoundError)

    def test_a_damaged_file(self, path, tmp_path):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        (tmp_path / "c").write_bytes(data)
        self.attempt(tmp_path / "c", "is damaged", tn.ModelFileError)

    def test_a_model_file(self, tmp_path):
        dense()[0].save(tmp_path / "m")
        self.attempt(
            tmp_path / "m", "expected a checkpoint, got a model file, which load_model", tn.ModelFileError
        )

    def test_a_checkpoint_given_to_load_model(self, path):
        with pytest.raises(
            tn.ModelFileError,
            match=r"expected a model file, got a checkpoint, which fit\(\.\.\., resume=path\)",
        ):
            tn.load_model(path)

    def test_a_pickle(self, tmp_path):
        import pickle

        (tmp_path / "p").write_bytes(pickle.dumps({"epoch": 3}))
        self.attempt(tmp_path / "p", "p: ", tn.ModelFileError)

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"checkpoint": 5}, TypeError, "checkpoint: expected the path of a file, got 5"),
            ({"checkpoint": b"c"}, TypeError, "checkpoint: expected the path of a file, got b'c'"),
            ({"resume": True}, TypeError, "resume: expected the path of a file, got True"),
            (
                {"checkpoint_every": 3},
                ValueError,
                "checkpoint_every: pass checkpoint too, the file to write to",
            ),
            (
                {"checkpoint": "c", "checkpoint_every": 0},
                ValueError,
                "checkpoint_every: expected a positive int",
            ),
            (
                {"checkpoint": "c", "checkpoint_every": 1.5},
                ValueError,
                "checkpoint_every: expected a positive int",
            ),
            (
                {"checkpoint": "missing/c"},
                FileNotFoundError,
                "the folder 'missing' does not exist; create it first",
            ),
            ({"checkpoint": "."}, ValueError, "checkpoint: expected the path of a file, but '.' is a folder"),
        ],
    )
    def test_bad_arguments(self, change, error, message, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        self.attempt(None, message, error, **change)

    def test_elsewhere_it_goes_on_with_a_warning(self, path, monkeypatch, whole):
        there = checkpoint.read(path).environment
        monkeypatch.setattr(
            run_settings, "environment", lambda workers, device: there | {"NumPy": "1.0", "workers": workers}
        )
        message = f"resumes, but not bit for bit as it would have: NumPy 1.0 here, {np.__version__} in the checkpoint$"
        with pytest.warns(UserWarning, match=message) as caught:
            ended = start("dense", Stop(), resume=path)
        assert_same_end(ended, whole["dense"])  # as nothing really differs
        assert caught[0].filename.endswith("runs.py")  # where fit was called

    def test_other_numbers_of_workers_and_blas_threads_are_warned_of(self, path):
        with pytest.warns(UserWarning, match="not bit for bit.*: workers 2 here, 1 in the checkpoint"):
            start("dense", Stop(), resume=path, workers=2)

    def test_a_warning_that_is_an_error_changes_nothing(self, path):
        self.attempt(path, "not bit for bit", UserWarning, workers=2)


def rewrite(path, change):
    """Rewrite the checkpoint with something changed and a valid digest."""
    description, arrays = storage.load(path, kind="checkpoint")
    description = json.loads(json.dumps(description))
    change(description, arrays)
    storage.save(path, description, arrays, kind="checkpoint")


CONTRADICTIONS = {
    "no place": lambda d, a: d.pop("place"),
    "a place that is a list": lambda d, a: d.update(place=[1, 2]),
    "half an epoch": lambda d, a: d["place"]["items"].update(epochs=1.5),
    "a negative batch": lambda d, a: d["place"]["items"].update(batches=-1),
    "a step beyond all counters": lambda d, a: d["place"]["items"].update(model_step=2**64),
    "stopped by a number": lambda d, a: d["place"]["items"].update(stopped=1),
    "settings that are a number": lambda d, a: d.update(settings=7),
    "rates that are no pairs": lambda d, a: d.update(rates=[[1, 2, 3]]),
    "a changed setting that is a mapping": lambda d, a: d.update(changed={"layer 0 units": {"a": 1}}),
    "an array that is not there": lambda d, a: a.pop(next(name for name in a if "state of Adam" in name)),
    "a number that is none": lambda d, a: d["callbacks"].__setitem__(0, {"items": {"best": {"float": "x"}}}),
    "a state of a kind unknown": lambda d, a: d["callbacks"].__setitem__(0, {"pickle": "gASV"}),
    "a state that is a number": lambda d, a: d["callbacks"].__setitem__(0, 5),
    "a state too few": lambda d, a: d["callbacks"].pop(),
    "a history of other lengths": lambda d, a: a.update({"history.loss": np.zeros(9)}),
    "a history of two dimensions": lambda d, a: a.update({"history.loss": np.zeros((1, 1))}),
}


STRANGE_VALUES = [
    *(None, True, -1, 1, 10**30, 0.5, "x", "nan", [], [[1, 2]], [None] * 5, {}, {"a": 1}),
    *({"float": "nan"}, {"float": None}, {"array": "x"}, {"array": []}, {"items": {}}, {"items": 5}),
]


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """A checkpoint of the case `dense`, after one epoch."""
    path = tmp_path_factory.mktemp("run") / "checkpoint"
    start("dense", epochs=1, checkpoint=path)
    return path.read_bytes()


class TestFilesThatContradictThemselves:
    @pytest.mark.parametrize("name", CONTRADICTIONS)
    def test_are_refused_as_files(self, name, content, tmp_path):
        (tmp_path / "c").write_bytes(content)
        rewrite(tmp_path / "c", CONTRADICTIONS[name])
        with pytest.raises(tn.ModelFileError, match="c: the checkpoint can't be used: "):
            start("dense", resume=tmp_path / "c")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda d, a: a.pop("model.0.W"), r"0\.W: nothing in the checkpoint, float32 \(4, 6\) here"),
            (
                lambda d, a: a.update({"model.9.W": np.zeros(2)}),
                r"9\.W: float64 \(2,\) in the checkpoint, nothing",
            ),
            (
                lambda d, a: a.pop("history.loss"),
                "history: accuracy, val_loss, .* in the checkpoint, loss, accuracy.* here",
            ),
            (
                lambda d, a: d["place"]["items"].update(batches=5),
                "5 batches of an epoch are done in the checkpoint, but an epoch has 5 here",
            ),
            (
                lambda d, a: d["changed"].update({"optimizer learning_rate": None}),
                "set it to None, which can't be restored",
            ),
            (
                lambda d, a: a.update(
                    {name: np.zeros(3, np.float32) for name in a if name.endswith("slots, m")}
                ),
                "Adam rejects its state: .*was first used with a model of 3 float32",
            ),
        ],
    )
    def test_that_do_not_fit_the_run_are_refused(self, change, message, content, tmp_path):
        (tmp_path / "c").write_bytes(content)
        rewrite(tmp_path / "c", change)
        with pytest.raises(ValueError, match=f"nothing was changed: .*{message}"):
            start("dense", resume=tmp_path / "c")

    @settings(max_examples=60)
    @given(data=st.data(), value=st.sampled_from(STRANGE_VALUES))
    def test_any_value_anywhere_is_refused_as_documented_or_does_no_harm(
        self, data, value, content, tmp_path_factory
    ):
        path = tmp_path_factory.mktemp("changed") / "c"
        path.write_bytes(content)

        def change(description, arrays):
            place = description
            while True:
                key = data.draw(
                    st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place)))
                )
                if (
                    not isinstance(place[key], (dict, list))
                    or not place[key]
                    or data.draw(st.integers(0, 4)) == 0
                ):
                    break
                place = place[key]
            if place is description and key in ("format", "kind"):
                return
            place[key] = value

        rewrite(path, change)
        with contextlib.suppress(ValueError), warnings.catch_warnings():  # ModelFileError is one too
            warnings.filterwarnings("ignore", ".*not bit for bit")
            start("dense", resume=path, epochs=2)

    def test_the_arrays_of_the_model_can_be_read_by_other_programs(self, content):
        from safetensors.numpy import load

        arrays = load(content)
        shapes = {name: array.shape for name, array in arrays.items() if name.startswith("model.")}
        assert shapes["model.0.W"] == (4, 6)
        assert len(shapes) == 8
        assert arrays["history.loss"].shape == (1,)


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
ARRAYS = arrays_of.arrays(
    st.sampled_from([bool, np.uint8, np.int64, np.uint64, np.float32, np.float64, ">f4"]),
    arrays_of.array_shapes(max_dims=3, max_side=3, min_side=0),
)
STATES = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        PLAIN | ARRAYS,
        lambda parts: (
            st.lists(parts, max_size=3)
            | st.dictionaries(st.sampled_from(["array", "float", "a b", ""]), parts)
        ),
        max_leaves=8,
    ),
    max_size=4,
)


class TestStates:
    """What a custom callback may keep."""

    @settings(max_examples=20)
    @given(state=STATES)
    def test_of_any_shape_come_back_as_they_were(self, state, tmp_path_factory):
        class Keep(tn.Callback):
            kept = None

            def state(self):
                return self.kept

            def set_state(self, state):
                self.kept = state

        path = tmp_path_factory.mktemp("state") / "c"
        first, later = Keep(), Keep()
        first.kept = state
        start("iterable", first, epochs=1, checkpoint=path)
        start("iterable", later, epochs=1, resume=path)

        def compare(one, other):
            assert type(one) is type(other)
            if isinstance(one, np.ndarray):
                assert one.dtype.newbyteorder("=") == other.dtype
                np.testing.assert_array_equal(one, other)
                other[...] = 0  # it may be written to
            elif isinstance(one, dict):
                assert one.keys() == other.keys()
                for key in one:
                    compare(one[key], other[key])
            elif isinstance(one, list):
                for part, its in zip(one, other, strict=True):
                    compare(part, its)
            else:
                assert one == other

        compare(state, later.kept)

    @pytest.mark.parametrize(
        "value",
        [1j, {1: 2}, {1, 2}, b"bytes", np.zeros(2, complex), np.array(["text"]), np.zeros(2, object), len],
    )
    def test_of_other_kinds_are_refused(self, value, tmp_path):
        class Odd(tn.Callback):
            def state(self):
                return {"inner": [value]}

        with pytest.raises(TypeError, match="the state of callback 0, Odd, inner: expected None, numbers"):
            start("iterable", Odd(), checkpoint=tmp_path / "c")

    def test_numpys_numbers_become_pythons(self, tmp_path):
        class Numbers(tn.Callback):
            kept = np.float32(0.1), np.int8(-3), np.array(2.5), np.bool_(True)

            def state(self):
                return {"kept": self.kept}

            def set_state(self, state):
                self.kept = state["kept"]

        start("iterable", Numbers(), epochs=1, checkpoint=tmp_path / "c")
        later = Numbers()
        start("iterable", later, epochs=1, resume=tmp_path / "c")
        assert later.kept == [float(np.float32(0.1)), -3, 2.5, True]


class TestSettings:
    """What is compared between runs."""

    def test_functions_are_told_apart_by_name_and_not_by_address(self):
        def one(x, generator):
            return x

        assert run_settings.plain(one).endswith("one>")
        assert "0x" not in run_settings.plain([one, (tn.Callback(),)])[1][0]
        assert run_settings.plain(one) != run_settings.plain(len)

    @given(n=st.integers(2, 5_000), row=st.integers(0, 4_999))
    def test_data_of_other_length_type_or_values_is_other_data(self, n, row):
        x, y = np.arange(2.0 * n).reshape(n, 2), np.arange(n)
        same = run_settings._describe_data(x, y)
        assert run_settings._describe_data(x.copy(), y.copy()) == same
        assert run_settings._describe_data(x.astype(np.float32), y) != same
        assert run_settings._describe_data(x[::-1].copy(), y) != same
        if n < 1_000:  # then every example counts
            x[row % n] += 1
            assert run_settings._describe_data(x, y) != same

    def test_of_large_examples_fewer_are_read(self, monkeypatch):
        monkeypatch.setattr(run_settings, "_BYTES", 128)  # two rows
        x, y = np.zeros((40, 8)), np.arange(40)
        described = run_settings._describe_data(x, y)
        x[1] = 1
        assert run_settings._describe_data(x, y) == described
        x[20] = 1
        assert run_settings._describe_data(x, y) != described

    @given(st.integers(1, 10**6))
    def test_a_schedule_is_asked_only_for_steps_that_it_was_asked_for(self, steps):
        asked = [step for step, _ in run_settings.rates(lambda step: step / 2, steps)]
        assert asked[0] == 0
        assert asked[-1] == steps - 1
        assert asked == sorted(set(asked))
        assert len(asked) < 25

    def test_a_layer_that_no_model_file_can_hold_trains_with_checkpoints(self, tmp_path):
        class Shift(tn.Layer):
            def __init__(self, by):
                super().__init__()
                self.amount = by  # not under the argument's name

            def forward(self, x, training=False):
                return x + self.amount

            def backward(self, dy):
                return dy

        def run(stop=None, **settings):
            model = tn.Sequential(
                [tn.Dense(3, bias_initializer=lambda s, g: g.random(s)), Shift(1)], (4,), seed=0
            )
            x, y = vectors(50)
            given = {"optimizer": tn.Adam(), "loss": tn.SoftmaxCrossEntropy(), "batch_size": 10, "verbose": 0}
            model.fit(x, y, callbacks=[Stop(stop)], **given, **settings)
            return model.params

        with pytest.raises(KeyboardInterrupt, match="interrupted"):
            run(2, checkpoint=tmp_path / "c")
        np.testing.assert_array_equal(run(resume=tmp_path / "c"), run())


def test_what_is_left_sees_a_single_bit():
    """Tests the comparison that the tests above rely on."""
    one, other = start("iterable", epochs=1), start("iterable", epochs=1)
    assert_same_end(one, other)
    other[1].slots["velocity"][3] = np.nextafter(other[1].slots["velocity"][3], np.float32(9))
    with pytest.raises(AssertionError):
        assert_same_end(one, other)
    assert len(what_is_left(*one)[2]) == 5
