"""Magnitude pruning: which weights become 0 and stay 0."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import tinynet as tn
from tinynet import pruning
from tinynet.training.run import Run


def network(seed=0, dtype="float32"):
    layers = [
        *(tn.Reshape((6, 6, 1)), tn.Conv2D(4, 3), tn.BatchNorm(), tn.ReLU()),
        tn.Residual(tn.DepthwiseConv2D(3, padding="same")),
        *(tn.Flatten(), tn.Dense(10), tn.ReLU(), tn.Dense(3), tn.Softmax()),
    ]
    return tn.Sequential(layers, input_shape=(6, 6), seed=seed, dtype=dtype)


WEIGHTS = ["1.W", "4.0.W", "6.W", "8.W"]  # 36, 36, 640, 30


def data(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 6, 6)), rng.integers(0, 3, n)


def fit(model, callbacks, optimizer=None, **settings):
    x, y = data()
    settings = {"batch_size": 10, "epochs": 3} | settings
    return model.fit(
        *(x, y),
        optimizer=optimizer or tn.Adam(0.01),
        loss=tn.CrossEntropy(),
        callbacks=callbacks,
        verbose=0,
        **settings,
    )


def zeros(model):
    return {name: array == 0 for name, array in pruning.prunable_weights(model).items()}


class AfterEachStep(tn.Callback):
    """Records the share of zeros after each step and each epoch."""

    def __init__(self):
        self.steps, self.epochs = [], []

    def on_batch_end(self, run):
        self.steps.append(pruning.sparsity_of(run.model))

    def on_epoch_end(self, run):
        self.epochs.append(pruning.sparsity_of(run.model))


class TestMasks:
    @given(sparsity=st.floats(0, 0.999), scope=st.sampled_from(pruning.SCOPES), seed=st.integers(0, 99))
    def test_the_smallest_go_and_as_many_as_asked_for(self, sparsity, scope, seed):
        model = network(seed)
        masks = tn.pruning.magnitude_masks(model, sparsity, scope)
        weights = pruning.prunable_weights(model)
        assert list(masks) == list(weights) == WEIGHTS
        assert all(masks[name].shape == weights[name].shape for name in WEIGHTS)
        groups = [WEIGHTS] if scope == "global" else [[name] for name in WEIGHTS]
        for group in groups:
            kept = np.concatenate([masks[name].ravel() for name in group])
            sizes = np.concatenate([abs(weights[name]).ravel() for name in group])
            assert (~kept).sum() == round(sparsity * kept.size)
            if kept.any() and not kept.all():
                assert sizes[~kept].max() <= sizes[kept].min()

    def test_only_weights_of_layers_that_train(self):
        model = network()
        model.params[...] = np.arange(1, model.params.size + 1)
        model.layers[1].trainable = False
        before = {name: array.copy() for name, array in model.named_params().items()}
        assert list(tn.prune_weights(model, 0.9)) == WEIGHTS[1:]
        for name, array in model.named_params().items():
            if name not in WEIGHTS[1:]:
                np.testing.assert_array_equal(array, before[name])
        assert pruning.sparsity_of(model) == pytest.approx(0.9, abs=1e-3)

    def test_what_is_pruned_comes_first_the_next_time(self):
        model = network()
        first = tn.prune_weights(model, 0.5)
        second = tn.prune_weights(model, 0.8)
        assert all((first[name] | ~second[name]).all() for name in WEIGHTS)

    def test_the_model_without_them_is_another_function(self):
        model = network()
        x, _ = data()
        before = model.predict(x)
        tn.prune_weights(model, 0)
        np.testing.assert_array_equal(model.predict(x), before)
        tn.prune_weights(model, 0.5)
        assert abs(model.predict(x) - before).max() > 1e-3

    @pytest.mark.parametrize("sparsity", [-0.1, 1, 1.0, float("nan"), "half", True])
    def test_bad_sparsity(self, sparsity):
        for use in (lambda: tn.prune_weights(network(), sparsity), lambda: tn.MagnitudePruning(sparsity)):
            with pytest.raises(ValueError, match="sparsity: expected a number"):
                use()

    def test_bad_scope(self):
        for use in (
            lambda: tn.prune_weights(network(), 0.5, "model"),
            lambda: tn.MagnitudePruning(0.5, scope="model"),
        ):
            with pytest.raises(ValueError, match="scope: expected 'global' or 'layer', got 'model'"):
                use()

    def test_a_model_without_weights(self):
        with pytest.raises(ValueError, match="no weights to prune"):
            tn.prune_weights(tn.Sequential([tn.BatchNorm()], input_shape=(3,)), 0.5)


OPTIMIZERS = {
    "SGD": lambda: tn.SGD(0.1),
    "momentum": lambda: tn.SGD(0.1, momentum=0.9),
    "Nesterov": lambda: tn.SGD(0.1, momentum=0.9, nesterov=True, clip_norm=1),
    "RMSprop": lambda: tn.RMSprop(0.01),
    "Adam": lambda: tn.Adam(0.01),
    "Adam, L2": lambda: tn.Adam(0.01, weight_decay=0.1, decoupled=False),
    "AdamW": lambda: tn.AdamW(0.01, weight_decay=0.5),
}


class TestKeptThroughTraining:
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_after_every_step_what_is_pruned_is_zero(self, optimizer):
        model = network()
        fit(model, [], OPTIMIZERS[optimizer]())
        callback, watch = tn.MagnitudePruning(0.7), AfterEachStep()
        made = OPTIMIZERS[optimizer]()
        fit(model, [callback, watch], made)
        expected = round(0.7 * 742) / 742
        assert watch.steps == [pytest.approx(expected)] * 12
        assert all((model.named_params()[name][~callback.masks[name]] == 0).all() for name in WEIGHTS)
        model.params[...] += 1
        fit(model, [callback], made, epochs=1)  # and with an optimizer that has already been used

    @pytest.mark.parametrize("workers", [1, 2])
    def test_with_workers(self, workers):
        model, watch = network(), AfterEachStep()
        fit(model, [tn.MagnitudePruning(0.5), watch], workers=workers)
        assert watch.steps == [0.5] * 12

    @pytest.mark.parametrize("scope", pruning.SCOPES)
    def test_the_rest_trains(self, scope):
        model = network()
        before = model.params.copy()
        fit(model, [tn.MagnitudePruning(0.5, scope)])
        moved = before != model.params
        pruned = {name: ~array for name, array in zeros(model).items()}
        assert moved.mean() > 0.9
        if scope == "layer":
            assert [int((~array).sum()) for array in pruned.values()] == [18, 18, 320, 15]

    def test_another_order_of_callbacks(self, tmp_path):
        model = network()
        watch = AfterEachStep()
        callbacks = [
            tn.ModelCheckpoint(tmp_path / "{epoch}.safetensors"),
            *(tn.EarlyStopping("loss", patience=None), watch, tn.MagnitudePruning(0.6)),
        ]
        fit(model, callbacks)
        expected = pytest.approx(round(0.6 * 742) / 742)
        assert watch.epochs == [expected] * 3
        for epoch in (1, 2, 3):
            assert pruning.sparsity_of(tn.load_model(tmp_path / f"{epoch}.safetensors")) == expected

    @pytest.mark.parametrize("first", [True, False])
    def test_the_best_weights_have_the_zeros(self, first):
        model = network()
        stopping, callback = tn.EarlyStopping("loss", patience=1), tn.MagnitudePruning(0.6)

        class Spoil(tn.Callback):
            def on_epoch_end(self, run):
                run.optimizer.learning_rate = 3.0  # so that the first epoch is the best

        fit(model, [callback, stopping, Spoil()] if first else [stopping, callback, Spoil()], epochs=5)
        assert stopping.best_epoch == 0
        assert pruning.sparsity_of(model) == pytest.approx(round(0.6 * 742) / 742)
        assert all((model.named_params()[name][~callback.masks[name]] == 0).all() for name in WEIGHTS)

    def test_best_weights_from_before_the_end_of_a_ramp_are_pruned_by_its_last_masks(self):
        model = network()
        stopping = tn.EarlyStopping("loss", patience=None)

        class Spoil(tn.Callback):
            def on_epoch_end(self, run):
                run.optimizer.learning_rate = 3.0

        fit(model, [stopping, tn.MagnitudePruning(0.6, ramp_steps=12, every=1), Spoil()])
        assert stopping.best_epoch == 0
        assert pruning.sparsity_of(model) == pytest.approx(round(0.6 * 742) / 742)

    def test_zeros_of_a_saved_model_are_kept(self, tmp_path):
        model = network()
        fit(model, [tn.MagnitudePruning(0.8)])
        before = zeros(model)
        model.save(tmp_path / "m.safetensors")
        again = tn.load_model(tmp_path / "m.safetensors")
        fit(again, [tn.MagnitudePruning(0)])
        fit(again, [tn.MagnitudePruning(0.5)])  # fewer than there are
        for name, array in zeros(again).items():
            np.testing.assert_array_equal(array, before[name])

    def test_without_it_they_move(self):
        model = network()
        tn.prune_weights(model, 0.8)
        fit(model, [])
        assert pruning.sparsity_of(model) < 0.1

    def test_it_holds_when_an_error_ends_the_training(self):
        model = network()

        class Fail(tn.Callback):
            def on_batch_end(self, run):
                run.model.params[...] = 1
                raise RuntimeError("enough")

        with pytest.raises(RuntimeError, match="enough"):
            fit(model, [Fail(), tn.MagnitudePruning(0.5)])
        assert pruning.sparsity_of(model) == 0.5

    def test_a_layer_frozen_meanwhile_is_left_alone(self):
        model = network()

        class Freeze(tn.Callback):
            def on_epoch_end(self, run):
                run.model.layers[6].trainable = False
                run.model.layers[6].W = np.ones((64, 10))

        fit(model, [tn.MagnitudePruning(0.5), Freeze()])
        assert model.layers[6].W.all()

    def test_a_layer_that_is_all_zero_is_refused(self):
        model = network()
        model.layers[8].W = np.zeros((10, 3))
        with pytest.raises(ValueError, match=r"MagnitudePruning: 8\.W is all 0.*freeze that layer"):
            fit(model, [tn.MagnitudePruning(0.5)])
        model.layers[8].trainable = False
        fit(model, [tn.MagnitudePruning(0.5)])


class TestRamp:
    def test_it_follows_the_formula(self):
        model, watch = network(), AfterEachStep()
        fit(model, [tn.MagnitudePruning(0.9, ramp_steps=10, every=3), watch])
        steps = np.arange(1, 13)
        last = np.where(steps >= 10, 10, steps // 3 * 3)  # when it was last pruned
        expected = 0.9 - 0.9 * (1 - last / 10) ** 3
        np.testing.assert_allclose(watch.steps, expected, atol=1e-3)

    def test_it_begins_with_the_zeros_that_there_are(self):
        model, watch = network(), AfterEachStep()
        tn.prune_weights(model, 0.5)
        before = zeros(model)
        fit(model, [tn.MagnitudePruning(0.9, ramp_steps=12, every=1), watch])
        np.testing.assert_allclose(watch.steps, 0.9 - 0.4 * (1 - np.arange(1, 13) / 12) ** 3, atol=1e-3)
        assert all((zeros(model)[name] | ~before[name]).all() for name in WEIGHTS)

    def test_what_was_pruned_stays_pruned(self):
        model, masks = network(), []
        callback = tn.MagnitudePruning(0.9, ramp_steps=12, every=1)

        class Watch(tn.Callback):
            def on_batch_end(self, run):
                masks.append(dict(callback.masks))

        fit(model, [callback, Watch()])
        for earlier, later in itertools.pairwise(masks):
            assert all((earlier[name] | ~later[name]).all() for name in WEIGHTS)

    def test_a_ramp_longer_than_the_run_is_refused(self):
        with pytest.raises(ValueError, match="at most the run's 12 steps, got 13"):
            fit(network(), [tn.MagnitudePruning(0.9, ramp_steps=13)])

    @pytest.mark.parametrize("settings", [{"ramp_steps": -1}, {"ramp_steps": 2.5}, {"every": 0}])
    def test_bad_settings(self, settings):
        with pytest.raises(ValueError, match="MagnitudePruning (ramp_steps|every): expected a positive int"):
            tn.MagnitudePruning(0.5, **settings)

    def test_it_goes_on_from_its_state(self):
        model = network()
        callback = tn.MagnitudePruning(0.9, ramp_steps=20, every=1)
        fit(model, [callback], epochs=5, steps_per_epoch=4)
        other = tn.MagnitudePruning(0.9, ramp_steps=20, every=1)
        other.set_state(callback.state())
        assert other.step == 20
        other.on_train_begin(Run(model, tn.SGD(), tn.CrossEntropy(), 9, 4, False, epoch=5, resumed=True))
        assert (other.step, other.initial, other.current_sparsity()) == (20, 0.0, 0.9)
        for name in WEIGHTS:
            np.testing.assert_array_equal(other.masks[name], callback.masks[name])

    def test_the_state_is_numbers_lists_and_arrays(self):
        callback = tn.MagnitudePruning(0.9)
        assert callback.state() == {"step": 0, "initial": 0.0, "names": [], "masks": []}
        fit(network(), [callback])
        assert callback.state()["names"] == WEIGHTS
        assert all(array.dtype == bool for array in callback.state()["masks"])
