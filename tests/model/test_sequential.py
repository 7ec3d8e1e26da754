"""Sequential: building, names, views, copies, summary, and using a model."""

import copy
import pickle
import threading
import warnings

import numpy as np
import pytest

import tinynet as tn
from tinynet.layers.chain import walk
from tinynet.support.errors import NotComputedError


def small(head=(), dtype="float32", seed=0, **settings):
    layers = [tn.Flatten(), tn.Dense(5), tn.BatchNorm(), tn.ReLU(), tn.Dropout(0.3), tn.Dense(3), *head]
    return tn.Sequential(layers, input_shape=(2, 4), seed=seed, dtype=dtype, **settings)


def data(n=20, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 2, 4)).astype(np.float32), rng.integers(0, 3, n)


class TestBuilding:
    @pytest.mark.parametrize(
        ("layers", "input_shape", "message"),
        [
            (
                [tn.Rescale(2), tn.Dense(3)],
                (28, 28),
                r"layer 1 \(Dense\): expected input shape \(batch, features\), got \(batch, 28, 28\); "
                r"put Flatten\(\) before it",
            ),
            ([], (3,), "expected at least one layer"),
            ([tn.Dense(3)], (0,), "input_shape: expected a positive int, got 0"),
            ([tn.Dense(3)], (2.5,), "input_shape: expected a positive int"),
        ],
    )
    def test_a_layer_that_can_not_take_its_input_is_named(self, layers, input_shape, message):
        with pytest.raises(ValueError, match=message):
            tn.Sequential(layers, input_shape=input_shape)

    def test_one_layer_object_has_one_place(self):
        layer = tn.Dense(3)
        with pytest.raises(ValueError, match=r"layer 1 \(Dense\): this layer object is already in use"):
            tn.Sequential([layer, layer], input_shape=(3,))
        other = tn.ReLU()
        tn.Sequential([other], input_shape=(3,))
        with pytest.raises(ValueError, match=r"layer 0 \(ReLU\).*model\.copy"):
            tn.Sequential([other], input_shape=(3,))

    def test_after_an_error_the_layers_are_as_before(self):
        layers = [tn.Dense(4), tn.BatchNorm(), tn.Dense(3)]
        wrong = tn.Sequential([tn.ReLU()], input_shape=(4,)).layers[0]
        with pytest.raises(ValueError, match="layer 3"):
            tn.Sequential([*layers, wrong], input_shape=(2,))
        assert [layer.output_shape for layer in layers] == [None] * 3
        assert tn.Sequential(layers, input_shape=(2,)).output_shape == (3,)

    @pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt()], ids=repr)
    @pytest.mark.parametrize("fails", ["initial values", "build"])
    def test_after_any_error_the_layers_can_be_used_again(self, error, fails):
        def fail(*_):
            raise error

        class Failing(tn.Layer):
            def build(self, input_shape):
                fail()

        last = Failing() if fails == "build" else tn.Dense(4, kernel_initializer=fail)
        layers = [tn.Dense(4), tn.BatchNorm(), tn.Residual(tn.Dense(4))]
        for broken in ([*layers, last], [*layers[:2], tn.Residual(layers[2], last)]):
            with pytest.raises(type(error)):
                tn.Sequential(broken, input_shape=(2,))
            assert [layer.output_shape for _, layer in walk(broken)] == [None] * len(list(walk(broken)))
        assert tn.Sequential(layers, input_shape=(2,)).output_shape == (4,)

    @pytest.mark.parametrize(
        ("input_shape", "message"),
        [
            (784, r"784; pass \(784,\)"),
            (np.int64(784), r"np.int64\(784\); pass \(784,\)"),
            (None, "None"),
            ("28", "'28'"),
            (28.0, "28.0"),
        ],
    )
    def test_an_input_shape_that_is_no_tuple(self, input_shape, message):
        with pytest.raises(ValueError, match=f"input_shape: expected a tuple, got {message}$"):
            tn.Sequential([tn.Dense(3)], input_shape=input_shape)

    @pytest.mark.parametrize("layers", [None, 5, tn.Dense, tn.Dense(3)])
    def test_layers_that_are_no_list(self, layers):
        with pytest.raises(TypeError, match="layers: expected a list of Layer objects, got"):
            tn.Sequential(layers, input_shape=(3,))

    def test_a_class_or_a_function_is_no_layer(self):
        with pytest.raises(TypeError, match=r"layer 0: expected a Layer object such as Dense\(10\)"):
            tn.Sequential([tn.ReLU], input_shape=(3,))

    @pytest.mark.parametrize("dtype", ["float16", "int32", "complex64", None, "single precision", 32])
    def test_dtype(self, dtype):
        with pytest.raises(ValueError, match="dtype: expected 'float32' or 'float64'"):
            small(dtype=dtype)

    def test_a_copy_has_one_of_the_two_dtypes_too(self):
        with pytest.raises(ValueError, match="dtype: expected 'float32' or 'float64'"):
            small().copy("float16")

    @pytest.mark.parametrize("seed", [-1, 1.5, "0", True])
    def test_seed(self, seed):
        with pytest.raises(ValueError, match="seed: expected a non-negative int"):
            small(seed=seed)

    def test_device(self):
        with pytest.raises(ValueError, match="device: expected 'cpu', 'gpu' or 'auto', got 'tpu'"):
            small(device="tpu")

    def test_the_seed_decides_the_initial_values(self):
        np.testing.assert_array_equal(small(seed=1).params, small(seed=1).params)
        assert (small(seed=1).params != small(seed=2).params).any()

    def test_without_a_seed_one_is_drawn_and_recorded(self):
        first, second = small(seed=None), small(seed=None)
        assert first.seed != second.seed
        np.testing.assert_array_equal(small(seed=first.seed).params, first.params)

    def test_both_dtypes_begin_alike(self):
        np.testing.assert_array_equal(small(dtype="float64").params, small().params.astype(np.float64))


class TestNamesAndViews:
    def test_paths(self):
        model = small()
        names = ["1.W", "1.b", "2.gamma", "2.beta", "5.W", "5.b"]
        assert list(model.named_params()) == list(model.named_grads()) == names
        assert list(model.named_state()) == ["2.running_mean", "2.running_var"]

    def test_every_parameter_is_a_view_into_one_vector(self):
        model = small()
        named = model.named_params()
        assert sum(array.size for array in named.values()) == model.params.size
        for name, array in named.items():
            assert array.base is model.params
            model.params[...] = 0
            array[...] = 1
            assert model.params.sum() == array.size, name
        assert all(array.base is model.grads for array in model.named_grads().values())

    def test_decaying_parameters_are_one_slice_at_the_front(self):
        model = small()
        model.params[...] = 0
        model.params[: model.decay_size] = 1
        ones = {name for name, array in model.named_params().items() if array.all()}
        zeros = {name for name, array in model.named_params().items() if not array.any()}
        assert (ones, zeros) == ({"1.W", "5.W"}, {"1.b", "2.gamma", "2.beta", "5.b"})

    def test_training_changes_what_the_layers_see(self):
        model = small()
        before = model.layers[1].W.copy()
        x, y = data()
        model.fit(x, y, optimizer=tn.SGD(0.1), loss=tn.SoftmaxCrossEntropy(), verbose=0)
        assert (before != model.layers[1].W).any()
        assert model.layers[1].W.base is model.params

    def test_weights_go_out_and_in(self):
        model, other = small(seed=1), small(seed=2)
        model.layers[2].running_mean = np.arange(5)
        weights = model.get_weights()
        assert [array.shape for array in weights] == [(8, 5), (5,), (5,), (5,), (5,), (5,), (5, 3), (3,)]
        other.set_weights(weights)
        np.testing.assert_array_equal(other.params, model.params)
        np.testing.assert_array_equal(other.layers[2].running_mean, np.arange(5))
        weights[0][...] = 7
        assert not (model.params == 7).any()

    def test_wrong_weights_change_nothing(self):
        model = small()
        before = model.get_weights()
        wrong = [*before[:-1], np.zeros(4)]
        wrong[0] = wrong[0] + 1
        with pytest.raises(ValueError, match=r"5\.b: expected shape \(3,\), got \(4,\)"):
            model.set_weights(wrong)
        with pytest.raises(ValueError, match=r"expected 8 arrays \(1\.W, .*\), got 1"):
            model.set_weights(wrong[:1])
        with pytest.raises(
            ValueError, match="weights: expected a list of arrays, as returned by get_weights; got None"
        ):
            model.set_weights(None)
        with pytest.raises(ValueError, match=r"weights\[7\]: expected an array of numbers, got parts"):
            model.set_weights([*before[:-1], [[1, 2], [3]]])
        for array, old in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(array, old)


class TestCopies:
    @pytest.mark.parametrize(
        "make",
        [tn.Sequential.copy, copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    )
    def test_a_copy_is_whole_and_its_own(self, make):
        model = small()
        x, y = data()
        fit = {"optimizer": tn.SGD(0.1), "loss": tn.SoftmaxCrossEntropy(), "verbose": 0}
        model.fit(x, y, **fit)
        clone = make(model)
        np.testing.assert_array_equal(clone.predict(x), model.predict(x))
        assert all(array.base is clone.params for array in clone.named_params().values())
        assert all(array.base is clone.grads for array in clone.named_grads().values())
        before = model.get_weights()
        clone.fit(x, y, **fit | {"optimizer": copy.copy(fit["optimizer"])})
        for array, old in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(array, old)
        model.fit(x, y, **fit)  # both continued from one point with the same seed, step and epoch
        np.testing.assert_array_equal(clone.params, model.params)
        assert clone.evaluate(x, y) == model.evaluate(x, y)

    def test_to_another_dtype(self):
        model = small()
        clone = model.copy("float64")
        assert clone.params.dtype == clone.layers[2].running_mean.dtype == np.float64
        x, _ = data()
        assert clone.predict(x).dtype == np.float64
        np.testing.assert_allclose(clone.predict(x), model.predict(x), rtol=1e-4, atol=1e-5)

    def test_a_copied_layer_keeps_its_values_but_no_buffers(self):
        model = small()
        model.forward(data()[0], training=True)
        layer = copy.deepcopy(model.layers[1])
        np.testing.assert_array_equal(layer.W, model.layers[1].W)
        assert layer._buffers == {}
        assert "_x" not in vars(layer)


class TestFrozenLayers:
    def test_they_keep_their_values_and_get_no_gradient_work(self):
        model = small()
        x, y = data()
        dense, norm = model.layers[1:3]
        dense.trainable = norm.trainable = False
        dense.dW.fill(5)
        before, statistics = dense.W.copy(), norm.running_mean.copy()
        dense.backward = None  # would fail if called: nothing below the last Dense needs a gradient
        model.fit(x, y, optimizer=tn.AdamW(0.1), loss=tn.SoftmaxCrossEntropy(), epochs=2, verbose=0)
        np.testing.assert_array_equal(dense.W, before)
        np.testing.assert_array_equal(norm.running_mean, statistics)
        assert (dense.dW == 5).all()
        assert model.trainable_ranges() == [(40, 55), (70, 73)]

    def test_thawed_they_train_again(self):
        model = small()
        x, y = data()
        fit = {"optimizer": tn.SGD(0.1), "loss": tn.SoftmaxCrossEntropy(), "verbose": 0}
        model.layers[1].trainable = False
        model.fit(x, y, **fit)
        before = model.layers[1].W.copy()
        model.layers[1].trainable = True
        model.fit(x, y, **fit)
        assert (before != model.layers[1].W).any()

    def test_the_first_layer_that_trains_makes_no_input_gradient(self):
        model = small()
        x, y = data()
        model.loss_and_gradients(x, y, tn.SoftmaxCrossEntropy())
        assert "dx" not in model.layers[1]._buffers
        assert "dx" in model.layers[5]._buffers

    def test_a_frozen_layer_between_others_writes_no_gradient(self):
        model = tn.Sequential([tn.Dense(4), tn.Dense(4), tn.Dense(3)], input_shape=(2,), seed=0)
        middle = model.layers[1]
        middle.trainable = False
        middle.dW.fill(5)
        model.forward(np.ones((3, 2)), training=True)
        model.backward(np.ones((3, 3), np.float32))
        assert (middle.dW == 5).all()
        assert model.layers[0].dW.any()

    def test_a_loop_of_ones_own_does_not_move_what_is_frozen(self):
        model, (x, y) = small(), data()
        model.layers[1].trainable = False
        before = model.layers[1].W.copy()
        model.layers[1].dW.fill(5)
        optimizer = tn.Adam()
        for _ in range(3):
            model.loss_and_gradients(x, y, tn.SoftmaxCrossEntropy())
            optimizer.step(model.params, model.grads)
        np.testing.assert_array_equal(model.layers[1].W, before)

    def test_freezing_from_a_callback_holds_at_once(self):
        model, (x, y) = small(), data()
        seen = []

        class Freeze(tn.Callback):
            def on_batch_end(self, run):
                run.model.layers[1].trainable = False
                seen.append(run.model.layers[1].W.copy())

        model.fit(
            x,
            y,
            optimizer=tn.SGD(0.1),
            loss=tn.SoftmaxCrossEntropy(),
            batch_size=5,
            verbose=0,
            callbacks=[Freeze()],
        )
        assert len(seen) == 4
        np.testing.assert_array_equal(seen[0], seen[-1])


class TestSummary:
    def test_the_classic_network(self, capsys):
        model = tn.Sequential([tn.Flatten(), tn.Dense(128), tn.ReLU(), tn.Dense(10)], input_shape=(28, 28))
        model.summary()
        text = capsys.readouterr().out
        assert "Total params: 101,770" in text
        assert "Trainable params: 101,770" in text
        assert "Non-trainable params: 0" in text
        assert "Multiply-adds: 101,632 per example" in text  # 784 * 128 + 128 * 10
        assert "100,480" in text
        assert "(None, 128)" in text

    def test_state_and_frozen_layers_do_not_train(self, capsys):
        model = small()
        model.layers[1].trainable = False
        model.summary()
        text = capsys.readouterr().out
        # Dense 8*5+5, batch-norm 4*5 of which half are statistics, Dense 5*3+3
        assert "Total params: 83" in text
        assert "Trainable params: 28" in text
        assert "Non-trainable params: 55" in text

    def test_rows(self):
        rows = small().describe()
        assert [(row.name, row.kind, row.detail) for row in rows][1] == ("1", "Dense", "units=5")
        assert [row.output_shape for row in rows] == [(8,), (5,), (5,), (5,), (5,), (3,)]
        assert [row.multiply_adds for row in rows] == [0, 40, 0, 0, 0, 15]


HEADS = {"softmax": [tn.Softmax], "log-softmax": [tn.LogSoftmax], "logits": []}


class TestPredicting:
    @pytest.mark.parametrize("head", HEADS)
    def test_probabilities_and_classes_whichever_head(self, head):
        model = small([kind() for kind in HEADS[head]])
        reference = small([tn.Softmax()])
        x, _ = data()
        np.testing.assert_allclose(model.predict_proba(x), reference.predict(x), rtol=1e-5)
        np.testing.assert_allclose(model.predict_proba(x).sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_array_equal(model.predict_classes(x), reference.predict(x).argmax(axis=1))

    @pytest.mark.parametrize(
        "batch_size", [1, 7, 19, 20, 1000]
    )  # of 20 examples: 19 leaves a last batch of one
    def test_the_batch_size_changes_nothing(self, batch_size):
        model = small()
        x, y = data()
        np.testing.assert_allclose(
            model.predict(x, batch_size=batch_size), model.predict(x), rtol=1e-5, atol=1e-6
        )
        scores = model.evaluate(x, y, batch_size=batch_size, loss=tn.SoftmaxCrossEntropy())
        assert scores == pytest.approx(model.evaluate(x, y, loss=tn.SoftmaxCrossEntropy()))

    def test_evaluate_is_the_mean_over_all_examples(self):
        model = small([tn.Softmax()])
        x, y = data()
        p = model.predict(x)
        scores = model.evaluate(x, y, batch_size=8, loss=tn.CrossEntropy())
        assert scores["loss"] == pytest.approx(-np.log(p[np.arange(20), y]).mean(), rel=1e-5)
        assert scores["accuracy"] == (p.argmax(axis=1) == y).mean()

    def test_run_goes_through_the_first_layers(self):
        model, x = small([tn.Softmax()]), data()[0]
        through = x
        for count, layer in enumerate(model.layers, 1):
            through = layer.forward(through)
            np.testing.assert_array_equal(model.run(model.layers[:count], x, False), through)

    def test_evaluate_takes_batches(self):
        model = small()
        x, y = data()
        batches = [(x[:12], y[:12]), (x[12:], y[12:])]
        loss = tn.SoftmaxCrossEntropy()
        assert model.evaluate(batches, loss=loss) == pytest.approx(model.evaluate(x, y, loss=loss))

    def test_evaluate_takes_a_generator_of_any_length(self):
        model, (x, y), loss = small(), data(), tn.SoftmaxCrossEntropy()
        batches = ((x[i : i + 6], y[i : i + 6]) for i in range(0, 20, 6))
        assert model.evaluate(batches, loss=loss) == pytest.approx(model.evaluate(x, y, loss=loss))
        with pytest.raises(ValueError, match="the iterable gave 0"):
            model.evaluate(iter([]), loss=loss)

    def test_evaluate_without_a_loss_asks_for_one(self):
        with pytest.raises(ValueError, match=r"loss=CrossEntropy\(\)"):
            small().evaluate(*data())

    def test_a_regression_has_no_classes(self):
        model = tn.Sequential([tn.Dense(2)], input_shape=(3,), seed=0)
        x, y = np.ones((4, 3)), np.ones((4, 2))
        model.fit(x, y, optimizer=tn.SGD(), loss=tn.MeanSquaredError(), verbose=0)
        assert set(model.evaluate(x, y)) == {"loss"}
        for method in (model.predict_proba, model.predict_classes):
            with pytest.raises(ValueError, match="needs a classifier"):
                method(x)

    def test_many_threads_predict_while_one_trains_another_model(self):
        model, x = small(), data(200)[0]
        expected = model.predict(x)
        wrong = []

        def work():
            for _ in range(30):
                if not np.array_equal(model.predict(x), expected):
                    wrong.append(threading.get_ident())

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        other = small(seed=1)
        other.fit(*data(), optimizer=tn.Adam(), loss=tn.SoftmaxCrossEntropy(), epochs=20, verbose=0)
        for thread in threads:
            thread.join()
        assert not wrong

    def test_prediction_between_forward_and_backward_does_no_harm(self):
        model, (x, y) = small(), data()
        model.loss_and_gradients(x, y, tn.SoftmaxCrossEntropy())
        expected = model.grads.copy()
        model.step = 0
        loss = tn.SoftmaxCrossEntropy()
        loss.forward(model.forward(x, training=True), y)
        model.predict(x[:3] * 2)
        model.evaluate(x, y, loss=loss)
        loss.forward(model.forward(x, training=True), y)
        model.predict(x[:7])
        model.backward(loss.backward())
        np.testing.assert_allclose(model.grads, expected, rtol=1e-5, atol=1e-7)

    def test_what_predict_returns_is_the_callers(self):
        model = tn.Sequential([tn.Flatten()], input_shape=(2, 2))
        x = np.ones((3, 2, 2), np.float32)
        model.predict(x)[...] = 5
        assert (x == 1).all()


class TestPixelsInTheWrongRange:
    def model(self):
        rng = np.random.default_rng(0)
        model = tn.Sequential([tn.Rescale(1 / 255), tn.Flatten(), tn.Dense(2)], input_shape=(3, 3), seed=0)
        x = rng.integers(0, 256, (8, 3, 3), dtype=np.uint8)
        model.fit(x, [0, 1] * 4, optimizer=tn.SGD(), loss=tn.SoftmaxCrossEntropy(), verbose=0)
        return model, x

    def test_floats_from_0_to_1_draw_a_warning(self):
        model, x = self.model()
        for use in (model.predict, model.predict_classes, lambda x: model.evaluate(x, [0, 1] * 4)):
            with pytest.warns(UserWarning, match="floats from 0 to 1"):
                use(x / 255)

    def test_bytes_and_floats_up_to_255_do_not(self):
        model, x = self.model()
        model.predict(x)
        np.testing.assert_array_equal(model.predict(x.astype(np.float64)), model.predict(x))


class TestAverageFlips:
    def model(self):
        return tn.Sequential([tn.Flatten(), tn.Dense(3), tn.Softmax()], input_shape=(4, 5), seed=0)

    def test_it_is_the_mean_of_an_image_and_its_mirror_image(self):
        model, x = self.model(), np.random.default_rng(0).standard_normal((7, 4, 5)).astype(np.float32)
        mean = (model.predict(x) + model.predict(x[:, :, ::-1])) / 2
        np.testing.assert_allclose(model.predict_proba(x, average_flips=True), mean, rtol=1e-6)
        np.testing.assert_allclose(
            model.predict_proba(x[:, :, ::-1], batch_size=2, average_flips=True), mean, rtol=1e-6
        )
        assert np.abs(model.predict_proba(x) - mean).max() > 0.01

    def test_vectors_have_no_mirror_image(self):
        model = tn.Sequential([tn.Dense(3), tn.Softmax()], input_shape=(4,), seed=0)
        with pytest.raises(ValueError, match="average_flips needs images"):
            model.predict_proba(np.zeros((2, 4)), average_flips=True)


class TestTrainStep:
    @pytest.mark.parametrize("frozen", [(), (1,)])
    def test_it_is_the_step_of_fit(self, frozen):
        x, y = data()
        loop, model = small(), small()
        optimizers = [tn.AdamW(0.01, clip_norm=0.5) for _ in range(2)]
        for either in (loop, model):
            for index in frozen:
                either.layers[index].trainable = False
        losses = [
            loop.train_step(
                x[start : start + 4], y[start : start + 4], tn.SoftmaxCrossEntropy(), optimizers[0]
            )
            for _ in range(3)
            for start in range(0, len(x), 4)
        ]
        seen = []

        class Losses(tn.Callback):
            def on_batch_end(self, run):
                seen.append(run.batch_loss)

        model.fit(
            *(x, y),
            optimizer=optimizers[1],
            loss=tn.SoftmaxCrossEntropy(),
            batch_size=4,
            epochs=3,
            shuffle=False,
            workers=1,
            verbose=0,
            callbacks=[Losses()],
        )
        assert losses == seen
        for ours, theirs in zip(loop.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_a_loss_that_is_not_finite_updates_nothing(self):
        x, y = data()
        model = small()
        model.layers[1].W *= 1e38
        before = model.params.copy()
        message = r"^the loss is .*; the first bad array is .*\. No update was made"
        with pytest.raises(tn.NonFiniteError, match=message):
            model.train_step(100 * x, y, tn.SoftmaxCrossEntropy(), tn.Adam())
        np.testing.assert_array_equal(model.params, before)


def test_backward_needs_the_forward_before_it_to_be_one_of_training():
    model, (x, _) = small(), data()
    dy = np.ones((len(x), *model.output_shape), np.float32)
    model.forward(x, training=True)
    model.predict(x)  # uses no forward of the caller's
    model.backward(dy)
    model.forward(x)
    with pytest.raises(NotComputedError, match=r"backward needs what forward\(x, training=True\) keeps"):
        model.backward(dy)
    model.forward(x, training=True)
    model.backward(dy)


class TestScaleOfInputs:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
    @pytest.mark.parametrize(
        ("fitted", "used", "warns"),
        [(255, 1, True), (1, 255, True), (-200, 3, True), (3, -200, True), (255, 6, False), (1, 49, False),
         (1, 50, True), (200, 0, False), (0, 200, False)],
    )  # fmt: skip
    def test_inputs_of_another_scale_are_noticed(self, fitted, used, warns, dtype):
        x, y = np.zeros((600, 2, 4), dtype), np.zeros(600, int)
        model, given = small(), {"loss": tn.SoftmaxCrossEntropy(), "verbose": 0}
        x[7, 1, 2] = fitted
        model.fit(x, y, optimizer=tn.SGD(1e-9), **given)
        x[:, 1, 2] = used
        for use in (lambda: model.predict(x), lambda: model.evaluate(x, y)):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                use()
            assert [str(item.message) for item in caught if "magnitude" in str(item.message)] == (
                [f"the model was fitted on inputs of a magnitude up to {abs(fitted)} and now gets {abs(used)}; "
                 "scale them as those were"] if warns else []
            )  # fmt: skip
            assert all(item.filename == __file__ for item in caught)

    def test_nothing_is_said_where_it_is_unknown(self):
        x, y = data()
        model = small()
        model.predict(1000 * x)
        model.fit([(x, y)], optimizer=tn.SGD(1e-9), loss=tn.SoftmaxCrossEntropy(), verbose=0)
        model.predict(1000 * x)


class TestMistakes:
    """What can only be a mistake is refused where it is made."""

    def test_trainable_of_the_model_is_that_of_all_layers(self):
        model = small()
        before = model.params.copy()
        model.trainable = False
        assert not any(layer.trainable for _, layer in model.walk())
        x, y = data()
        model.fit(x, y, optimizer=tn.SGD(1.0), loss=tn.SoftmaxCrossEntropy(), verbose=0)
        np.testing.assert_array_equal(model.params, before)
        model.layers[1].trainable = True
        assert model.trainable
        with pytest.raises(ValueError, match="trainable: expected True or False"):
            model.trainable = "no"

    @pytest.mark.parametrize(
        "suffix", [".h5", ".hdf5", ".keras", ".pt", ".pth", ".onnx", ".npz", ".pkl", ".H5"]
    )
    def test_the_suffix_of_another_format_is_refused(self, suffix, tmp_path):
        path, good = tmp_path / f"m{suffix}", str(tmp_path / "m.safetensors")
        x, y = data()
        given = {"optimizer": tn.SGD(), "loss": tn.SoftmaxCrossEntropy(), "verbose": 0}
        for use in (
            lambda: small().save(path),
            lambda: tn.ModelCheckpoint(path),
            lambda: small().fit(x, y, checkpoint=path, **given),
        ):
            with pytest.raises(ValueError, match=f"{suffix} is the suffix of another format") as error:
                use()
            assert good in str(error.value)
        assert not list(tmp_path.iterdir())
        small().save(good)
        small().save(tmp_path / "m.v1")
