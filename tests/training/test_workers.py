"""Batches split between threads give the numbers of one worker, whatever happens along the way."""

import gc
import os
import pickle
import signal
import threading
import time
import weakref

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import tinynet as tn
from tests.support.runs import by_team
from tests.support.strategies import seeds
from tinynet import recipes
from tinynet.engines import cpu
from tinynet.training import steps as steps_module
from tinynet.training import team as team_module
from tinynet.training.team import Team, workers_for


@pytest.fixture(autouse=True, scope="module")
def one_blas_thread():
    """As in `fit` with workers."""
    with cpu.blas_threads(1):
        yield


def network(dtype="float64", norm=tn.BatchNorm, extra=()):
    layers = [
        *(tn.Conv2D(4, 3, padding="same"), norm(), tn.ReLU(), tn.MaxPool2D()),
        tn.Residual(tn.Conv2D(4, 3, padding="same"), norm(), tn.Dropout(0.2)),
        *extra,
        *(tn.Flatten(), tn.Dense(6), norm(), tn.Tanh(), tn.Dropout(0.3), tn.Dense(3), tn.Softmax()),
    ]
    return tn.Sequential(layers, input_shape=(6, 7, 1), seed=0, dtype=dtype)


def data(n, dtype=np.float64):
    rng = np.random.default_rng(n)
    return rng.standard_normal((n, 6, 7, 1)).astype(dtype), rng.integers(0, 3, n)


def threads():
    """The workers and whatever a fit might leave; not what ends by itself, such as a server of another test."""
    return [thread for thread in threading.enumerate() if not thread.daemon and thread.name != "tinynet_0"]


SIZES = [16, 16, 9, 16, 5, 1, 13, 3, 16, 2, 7]  # some are too small to split, some don't split evenly


def train(workers, dtype, steps=22):
    """(losses, gradients, outputs, weights) of some steps with SGD."""
    model = network(dtype)
    optimizer, losses, gradients, outputs = tn.SGD(0.05, momentum=0.5), [], [], []
    optimizer.prepare(model.params)
    with Team(model, workers) as team:
        for step in range(steps):
            x, y = data(SIZES[step % len(SIZES)], dtype)
            losses.append(by_team(team, x, y, tn.CrossEntropy()))
            gradients.append(model.grads.copy())
            outputs.append(model.outputs.copy())
            optimizer.step(model.params, model.grads, model.decay_size)
    assert model.step == steps
    return losses, gradients, outputs, model.get_weights()


@pytest.fixture(scope="module")
def alone():
    """The same with one worker, the model by itself."""
    return {dtype: train(1, dtype) for dtype in ("float64", "float32")}


class TestTeam:
    @pytest.mark.parametrize("workers", [2, 3, 4])
    @pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
    def test_steps_are_those_of_one_worker(self, workers, dtype, tolerance, alone):
        """Losses, gradients and outputs, and at the end parameters and running statistics."""
        losses, gradients, outputs, weights = train(workers, dtype)
        expected = alone[dtype]
        np.testing.assert_allclose(losses, expected[0], rtol=tolerance)
        for arrays, others in zip((gradients, outputs, weights), expected[1:], strict=True):
            for array, other in zip(arrays, others, strict=True):
                assert array.dtype == other.dtype
                np.testing.assert_allclose(array, other, rtol=0, atol=tolerance * max(1, abs(other).max()))

    @settings(max_examples=25)
    @given(workers=st.integers(2, 5), sizes=st.lists(st.integers(1, 23), min_size=1, max_size=5), seed=seeds)
    def test_any_batch_with_any_number_of_workers(self, workers, sizes, seed):
        models = network(), network()
        rng = np.random.default_rng(seed)
        with Team(models[1], workers) as team:
            for size in sizes:
                x, y = rng.standard_normal((size, 6, 7, 1)), rng.integers(0, 3, size)
                first = models[0].loss_and_gradients(x, y, tn.CrossEntropy())
                assert by_team(team, x, y, tn.CrossEntropy()) == pytest.approx(first, rel=1e-9)
                np.testing.assert_allclose(models[1].grads, models[0].grads, rtol=0, atol=1e-9)
                np.testing.assert_allclose(models[1].outputs, models[0].outputs, rtol=0, atol=1e-9)
                for name, array in models[0].named_state().items():
                    np.testing.assert_allclose(models[1].named_state()[name], array, rtol=0, atol=1e-9)

    @pytest.mark.parametrize(
        ("loss", "head"),
        [
            (tn.SoftmaxCrossEntropy(0.1), []),
            (tn.CrossEntropy(0.2), [tn.Softmax]),
            (tn.NegativeLogLikelihood(), [tn.LogSoftmax]),
            (tn.MeanSquaredError(), []),
        ],
    )
    def test_every_loss_is_divided_by_the_whole_batch(self, loss, head):
        results = []
        for workers in (1, 3):
            layers = [tn.Dense(3), *(kind() for kind in head)]
            model = tn.Sequential(layers, input_shape=(4,), seed=0, dtype="float64")
            rng = np.random.default_rng(0)
            x, y = rng.standard_normal((11, 4)), rng.integers(0, 3, 11)
            y = rng.standard_normal((11, 3)) if isinstance(loss, tn.MeanSquaredError) else y
            with Team(model, workers) as team:
                results.append((by_team(team, x, y, loss), model.grads))
        assert results[0][0] == pytest.approx(results[1][0], rel=1e-12)
        np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-10, atol=1e-13)

    def test_each_part_has_a_loss_of_its_own_and_all_run_at_once(self):
        """No worker begins its backward pass before all have their loss."""
        meeting = threading.Barrier(3)

        class Meets(tn.SoftmaxCrossEntropy):
            def forward(self, outputs, targets, total=None):
                value = super().forward(outputs, targets, total)
                if total is not None:
                    meeting.wait(300)
                return value

        models = [tn.Sequential([tn.Dense(3)], input_shape=(4,), seed=0, dtype="float64") for _ in range(2)]
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((10, 4)), rng.integers(0, 3, 10)
        with Team(models[0], 3) as team:
            assert by_team(team, x, y, Meets()) == pytest.approx(
                models[1].loss_and_gradients(x, y, tn.SoftmaxCrossEntropy()), rel=1e-12
            )
        np.testing.assert_allclose(models[0].grads, models[1].grads, rtol=0, atol=1e-13)

    def test_two_runs_give_the_same_bits(self):
        for first, second in zip(train(3, "float32", 8)[1:], train(3, "float32", 8)[1:], strict=True):
            for one, other in zip(first, second, strict=True):
                np.testing.assert_array_equal(one, other)

    def test_the_workers_have_the_callers_errstate(self):
        seen = {}

        class Look(tn.Layer):
            def forward(self, x, training=False):
                seen[threading.get_ident()] = np.geterr()
                return x

            def backward(self, dy):
                return dy

        model = network(extra=[Look()])
        with Team(model, 3) as team, np.errstate(divide="raise", under="warn", over="print"):
            by_team(team, *data(9), tn.CrossEntropy())
        assert len(seen) == 3
        assert {tuple(state.values()) for state in seen.values()} == {("raise", "print", "warn", "warn")}

    def test_replicas_share_values_and_state_and_nothing_else(self):
        model = network()
        (x, y), replica = data(8), model._replica()
        for mine, its in (
            (model.named_params(), replica.named_params()),
            (model.named_state(), replica.named_state()),
        ):
            assert all(np.shares_memory(mine[name], its[name]) for name in mine)
        model.layers[0].W *= 0
        model.layers[1].running_mean = [3] * 4
        assert not replica.layers[0].W.any()
        assert (replica.layers[1].running_mean == 3).all()
        model.loss_and_gradients(x, y, tn.CrossEntropy())
        assert model.grads.any()
        assert not replica.grads.any()
        assert all(array.base is replica.grads for array in replica.named_grads().values())
        for (_, layer), (_, twin) in zip(model.walk(), replica.walk(), strict=True):
            assert layer is not twin
            assert twin._buffers == {}


def within(seconds, body):
    """Run a function in a thread; fail if it hangs."""
    result = []

    def run():
        try:
            result.append((body(), None))
        except BaseException as error:
            result.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not result:
        for barrier in gc.get_objects():
            if isinstance(barrier, threading.Barrier):
                barrier.abort()  # otherwise the workers would keep the process from ending
        pytest.fail("it hangs")
    value, error = result[0]
    if error is not None:
        raise error
    return value


def fit(model, x, y, **settings):
    defaults = {
        "optimizer": tn.SGD(0.05),
        "loss": tn.CrossEntropy(),
        "batch_size": 8,
        "verbose": 0,
        "workers": 2,
    }
    return model.fit(x, y, **(defaults | settings))


class TestFit:
    def test_the_history_is_that_of_one_worker(self):
        histories = []
        for workers in (1, 2, 3):
            model, (x, y) = network("float32"), data(45, np.float32)
            history = fit(model, x, y, epochs=4, workers=workers, validation_data=data(20, np.float32))
            histories.append((history.history, model.predict(x)))
        for history, outputs in histories[1:]:
            for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
                np.testing.assert_allclose(history[name], histories[0][0][name], rtol=1e-5, err_msg=name)
            np.testing.assert_allclose(outputs, histories[0][1], rtol=1e-4, atol=1e-5)

    def test_two_runs_give_the_same_bits(self):
        models = network("float32"), network("float32")
        for model in models:
            fit(model, *data(30, np.float32), epochs=3, workers=3, optimizer=tn.Adam(0.01))
        np.testing.assert_array_equal(models[0].params, models[1].params)
        for one, other in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_iterables_regression_and_bytes(self):
        results = []
        for workers in (1, 2):
            model = tn.Sequential([tn.Rescale(1 / 255), tn.Flatten(), tn.Dense(2)], (3, 3), seed=0)
            rng = np.random.default_rng(0)
            batches = [
                (rng.integers(0, 256, (n, 3, 3), dtype=np.uint8), rng.standard_normal((n, 2))) for n in (9, 4)
            ]
            history = fit(model, batches, None, epochs=3, loss=tn.MeanSquaredError(), workers=workers)
            results.append(history.history["loss"])
        np.testing.assert_allclose(*results, rtol=1e-5)

    def test_a_model_can_be_copied_pickled_and_saved_meanwhile(self, tmp_path):
        copies = {1: [], 2: []}

        class Copy(tn.Callback):
            def on_batch_end(self, run):
                model = run.model
                model.save(tmp_path / "m")
                made = [model.copy(), pickle.loads(pickle.dumps(model)), tn.load_model(tmp_path / "m")]
                for clone in made:
                    assert np.array_equal(clone.params, model.params)
                    assert not any("shard" in vars(layer) for _, layer in clone.walk())
                clone = made[run.batch % 3]
                clone.loss_and_gradients(*data(6), tn.CrossEntropy())  # by itself, not in the team
                copies[workers].append(clone.get_weights())

        for workers in copies:
            model = network()
            fit(model, *data(20), callbacks=[Copy()], workers=workers, epochs=2)
            copies[workers].append(model.copy().get_weights())
        assert len(copies[2]) == 7
        for one, two in zip(copies[1], copies[2], strict=True):
            for array, other in zip(one, two, strict=True):
                np.testing.assert_allclose(array, other, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("path", ["1", "4", "6", "4.1"])
    def test_freezing_and_thawing_from_a_callback_holds_at_once_for_all(self, path):
        """A frozen batch-norm uses its running statistics; if only some workers did, the others would wait."""

        class Toggle(tn.Callback):
            def on_batch_end(self, run):
                if run.batch in (1, 3):
                    dict(run.model.walk())[path].trainable = run.batch == 3

        def weights(workers):
            model = network()
            fit(model, *data(48), callbacks=[Toggle()], workers=workers, epochs=2)
            return model.get_weights()

        for one, other in zip(weights(1), within(300, lambda: weights(2)), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_model_is_freed_as_soon_as_it_is_dropped(self, workers):
        """Without waiting for Python's cycle collector, which does not know how large arrays are."""
        model = network()
        fit(model, *data(20), workers=workers)
        gone = weakref.ref(model)
        gc.disable()
        try:
            del model
            assert gone() is None
        finally:
            gc.enable()

    def test_a_copy_made_in_the_middle_of_a_step_has_its_batches_for_itself(self):
        model = network()
        with Team(model, 2) as team:
            for layer in team.batchnorms[0]:
                layer.shard = team.shards[0]
            copies = [model.copy(), pickle.loads(pickle.dumps(model))]
            for layer in team.batchnorms[0]:
                del layer.shard
        for clone in copies:
            expected = model.copy().loss_and_gradients(*data(6), tn.CrossEntropy())
            assert clone.loss_and_gradients(*data(6), tn.CrossEntropy()) == expected

    def test_a_setting_changed_from_a_callback_holds_for_all(self):
        class Change(tn.Callback):
            def on_batch_end(self, run):
                if run.batch == 1:
                    for _, layer in run.model.walk():
                        if isinstance(layer, tn.Dropout):
                            layer.rate = 0.0
                        if isinstance(layer, tn.BatchNorm):
                            layer.epsilon = 0.1

        def losses(workers):
            model = network()
            return fit(model, *data(48), callbacks=[Change()], workers=workers, epochs=2).history["loss"]

        np.testing.assert_allclose(losses(1), within(300, lambda: losses(2)), rtol=1e-9)

    def test_a_loss_that_is_not_finite_is_found_and_named(self):
        model, (x, y) = network("float32"), data(40, np.float32)
        states = []

        class Spoil(tn.Callback):
            def on_batch_end(self, run):
                if run.batch == 2:
                    run.model.layers[0].W[0, 0, 0, 0] = np.inf
                    states.append(run.model.params.copy())

        with pytest.raises(
            tn.NonFiniteError, match=r"epoch 1, batch 4: the loss is nan; .* is parameter 0\.W"
        ):
            within(300, lambda: fit(model, x, y, callbacks=[Spoil()]))
        np.testing.assert_array_equal(model.params, states[0])
        assert all(np.isfinite(array).all() for array in model.named_state().values())

    @pytest.mark.parametrize("row", [0, 7])
    def test_one_bad_input_in_either_part_is_found(self, row):
        model, (x, y) = network("float32"), data(24, np.float32)
        batches = [(x[i : i + 8].copy(), y[i : i + 8]) for i in range(0, 24, 8)]
        batches[1][0][row, 3, 3, 0] = 3e38  # finite, but not after a convolution
        model.layers[0].W *= 100
        with pytest.raises(tn.NonFiniteError, match=r"epoch 1, batch 2: .* the output of layer 0 \(Conv2D\)"):
            within(300, lambda: fit(model, batches, None))

    @pytest.mark.parametrize("workers", [0, -1, 1.5, "2", True, [2]])
    def test_bad_numbers_of_workers(self, workers):
        model = network()
        before = model.params.copy()
        with pytest.raises(ValueError, match="workers: expected a positive int"):
            fit(model, *data(8), workers=workers)
        np.testing.assert_array_equal(model.params, before)

    def test_no_thread_is_left_behind(self):
        before = threads()
        fit(network(), *data(16), workers=4)
        assert threads() == before


class Switch:
    """One switch for a layer and all its copies."""

    on = False

    def __deepcopy__(self, memo):
        return self


class Fails(tn.Layer):
    """A layer that raises when switched on, in the workers or in the model itself."""

    def __init__(self, method, part):
        super().__init__()
        self.method, self.part, self.switch = method, part, Switch()

    def come_by(self, method):
        part = "replica" if threading.current_thread().name.startswith("tinynet worker") else "model"
        if self.switch.on and (method, part) == (self.method, self.part):
            self.act()

    def act(self):
        raise ArithmeticError(f"{self.method} of the {self.part}")

    def forward(self, x, training=False):
        if training:
            self.come_by("forward")
        return x

    def backward(self, dy):
        self.come_by("backward")
        return dy


class SwitchOn(tn.Callback):
    """Turns the switch on after the first batch."""

    def __init__(self, layer):
        self.layer = layer

    def on_batch_end(self, run):
        self.layer.switch.on = run.batch == 0


class TestErrors:
    @pytest.mark.parametrize("workers", [2, 3])
    @pytest.mark.parametrize("part", ["replica", "model"])
    @pytest.mark.parametrize("method", ["forward", "backward"])
    def test_an_error_in_one_part_comes_out_and_the_next_fit_works(self, method, part, workers):
        layer = Fails(method, part)
        model, before = network(extra=[layer]), threads()
        with pytest.raises(ArithmeticError, match=f"{method} of the {part}"):
            within(300, lambda: fit(model, *data(40), workers=workers, callbacks=[SwitchOn(layer)]))
        assert threads() == before
        assert not any("shard" in vars(layer) for _, layer in model.walk())
        layer.switch.on = False
        other = model.copy()
        within(300, lambda: fit(model, *data(20), workers=workers))
        fit(other, *data(20), workers=1)
        for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_allclose(one, two, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("part", ["replica", "model"])
    @pytest.mark.parametrize("method", ["forward", "backward"])
    def test_a_team_goes_on_after_an_error(self, method, part):
        """Wherever each worker was when it happened, they are back in step."""
        layer = Fails(method, part)
        model, other = network(extra=[layer]), network(extra=[Fails(method, part)])
        (x, y), loss = data(9), tn.CrossEntropy()

        def steps():
            with Team(model, 3) as team:
                for step in range(5):
                    layer.switch.on = step == 1
                    expected = other.loss_and_gradients(x, y, loss)
                    if layer.switch.on:
                        with pytest.raises(ArithmeticError):
                            by_team(team, x, y, loss)
                        other.set_weights(model.get_weights())  # the running statistics of half a step
                        continue
                    assert by_team(team, x, y, loss) == pytest.approx(expected, rel=1e-9)
                    np.testing.assert_allclose(model.grads, other.grads, rtol=0, atol=1e-9)

        within(300, steps)

    def test_a_thread_that_can_not_be_started_is_an_error_and_no_hang(self, monkeypatch):
        """By then, the first worker is waiting for the others."""
        start = threading.Thread.start

        def refuse(thread):
            if thread.name.startswith("tinynet worker") and thread.name.endswith("_1"):
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            within(300, lambda: fit(network(), *data(20), workers=3))

    def test_errors_of_the_users_data_are_the_same(self):
        model, (x, y) = network(), data(20)
        with pytest.raises(ValueError, match="label"):
            within(300, lambda: fit(model, [(x[:8], y[:8]), (x[8:16], y[8:16] + 7)], None))


class TestInterrupts:
    def test_ctrl_c_is_held_to_the_end_of_the_batch(self):
        class Press(tn.Callback):
            batches = 0

            def on_batch_end(self, run):
                self.batches += 1
                if self.batches == 2:
                    signal.raise_signal(signal.SIGINT)

        press = Press()
        with pytest.raises(KeyboardInterrupt, match="interrupted in epoch 1 of 3, after batch 2 of 5"):
            fit(network(), *data(40), callbacks=[press], epochs=3)
        assert press.batches == 2

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to send to a thread")
    @pytest.mark.parametrize("part", ["replica", "model"])
    def test_a_second_one_ends_the_step_in_any_part(self, part):
        class Press(Fails):
            def act(self):
                self.switch.on = False
                interrupt = signal.getsignal(signal.SIGINT).__self__
                main = threading.main_thread().ident
                signal.pthread_kill(main, signal.SIGINT)
                while not interrupt.pending:  # two that arrive at once count as one
                    time.sleep(0.001)
                signal.pthread_kill(main, signal.SIGINT)

        layer = Press("forward", part)
        model, before = network(extra=[layer]), threads()
        with pytest.raises(KeyboardInterrupt):
            fit(model, *data(40), callbacks=[SwitchOn(layer)])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert threads() == before
        layer.switch.on = False
        assert fit(model, *data(16)).epochs == 1


class TestHowMany:
    @pytest.fixture(autouse=True)
    def four_cores(self, monkeypatch):
        monkeypatch.setattr(cpu, "threads_allowed", lambda: 4)

    def cnn(self, *extra):
        layers = [tn.Conv2D(32, 3), tn.ReLU(), *extra, tn.Conv2D(32, 3), tn.GlobalMaxPool2D(), tn.Dense(10)]
        return tn.Sequential(layers, input_shape=(28, 28, 1), seed=0)

    @pytest.mark.parametrize(
        ("batch_size", "workers"), [(256, 4), (64, 4), (63, 3), (47, 2), (31, 1), (1, 1)]
    )
    def test_a_convolutional_network_has_parts_of_16_images_at_least(self, batch_size, workers):
        assert workers_for(self.cnn(), batch_size) == workers

    def test_one_core_is_one_worker(self, monkeypatch):
        monkeypatch.setattr(cpu, "threads_allowed", lambda: 1)
        assert workers_for(self.cnn(), 256) == 1

    def test_a_small_step_is_not_divided(self):
        small = tn.Sequential([tn.Conv2D(2, 3), tn.Flatten(), tn.Dense(3)], input_shape=(8, 8, 1), seed=0)
        assert workers_for(small, 64) == 1

    @pytest.mark.parametrize("batch_size", [32, 1024])
    def test_dense_networks_have_one(self, batch_size):
        for name in ("mlp_sgd", "mlp_adam", "mlp_bn"):
            assert workers_for(recipes.make(name, seed=0).model, batch_size) == 1
        large = tn.Sequential([tn.Dense(2048), tn.Dense(2048)], input_shape=(2048,), seed=0)
        assert workers_for(large, batch_size) == 1

    def test_layers_of_the_users_own_are_not_divided_unless_asked_for(self):
        """They may compute something over the batch."""
        assert workers_for(self.cnn(tn.Residual(tn.ReLU())), 64) == 4
        assert workers_for(self.cnn(Fails("none", "none")), 64) == 1
        assert workers_for(self.cnn(tn.Residual(Fails("none", "none"))), 64) == 1

    def test_fit_asks_and_does(self, monkeypatch):
        teams, make = [], Team

        def watched(model, workers):
            teams.append(workers)
            return make(model, workers)

        monkeypatch.setattr(steps_module, "Team", watched)
        monkeypatch.setattr(team_module, "_MANY_MULTIPLY_ADDS", 40_000_000)
        x, y = np.zeros((34, 28, 28, 1), np.float32), np.zeros(34, int)
        settings = {"loss": tn.SoftmaxCrossEntropy(), "batch_size": 34}
        fit(self.cnn(), x, y, workers=None, **settings)
        fit(self.cnn(), x, y, workers=1, **settings)
        fit(network("float32"), *data(8, np.float32), workers=None)
        assert teams == [2, 1, 1]
