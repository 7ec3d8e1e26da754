"""fit: what it trains, what it records, and what it leaves unchanged."""

import itertools
import math
import signal
import threading

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import tinynet as tn


def classes_data(n=60, seed=0):
    """Two-dimensional points of three classes that a small network learns quickly."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = rng.normal(0, 0.4, (n, 2)) + np.array([[0, 2], [2, -1], [-2, -1]])[y]
    return x.astype(np.float32), y


def small(seed=0, dropout=0.0, dtype="float32"):
    layers = [tn.Dense(8), tn.BatchNorm(), tn.ReLU(), tn.Dropout(dropout), tn.Dense(3), tn.Softmax()]
    return tn.Sequential(layers, input_shape=(2,), seed=seed, dtype=dtype)


def fit(model, x, y=None, **settings):
    return model.fit(
        x, y, **({"optimizer": tn.Adam(0.01), "loss": tn.CrossEntropy(), "verbose": 0} | settings)
    )


class TestLearning:
    def test_it_learns(self):
        x, y = classes_data()
        model = small()
        history = fit(model, x, y, epochs=30).history
        assert history["loss"][-1] < 0.2 < history["loss"][0]
        assert model.evaluate(*classes_data(seed=1))["accuracy"] > 0.95

    def test_one_seed_gives_the_same_bits_twice(self):
        x, y = classes_data()
        models = [small(seed=3, dropout=0.4) for _ in range(2)]
        histories = [fit(model, x, y, epochs=3, batch_size=7).history for model in models]
        np.testing.assert_array_equal(models[0].params, models[1].params)
        assert histories[0]["loss"] == histories[1]["loss"]
        other = small(seed=4, dropout=0.4)
        fit(other, x, y, epochs=3, batch_size=7)
        assert (other.params != models[0].params).any()

    def test_the_step_is_the_gradient_times_the_learning_rate(self):
        x, y = classes_data(16)
        model, twin = small(dtype="float64"), small(dtype="float64")
        twin.loss_and_gradients(x, y, tn.CrossEntropy())
        fit(model, x, y, optimizer=tn.SGD(0.5), batch_size=16, shuffle=False)
        np.testing.assert_allclose(model.params, twin.params - 0.5 * twin.grads, rtol=1e-12)

    @pytest.mark.parametrize("labels", [np.uint8, np.int64, np.int16])
    def test_labels_of_any_integer_type_and_shape(self, labels):
        x, y = classes_data()
        expected = small()
        fit(expected, x, y)
        for given_labels in (y.astype(labels), y.astype(labels)[:, None], y.tolist()):
            model = small()
            fit(model, x, given_labels)
            np.testing.assert_array_equal(model.params, expected.params)

    @pytest.mark.parametrize(
        "change",
        [
            lambda a: _read_only(a),
            lambda a: np.repeat(a, 2, axis=0)[::2],
            lambda a: np.asfortranarray(a),
            lambda a: a.astype(a.dtype.newbyteorder(">")),
            lambda a: a[::-1].copy()[::-1],
            lambda a: a.tolist(),
        ],
        ids=["read-only", "strided", "Fortran", "big-endian", "reversed", "list"],
    )
    def test_arrays_of_any_layout_train_to_the_same_result(self, change):
        x, y = classes_data()
        expected, model = small(), small()
        fit(expected, x, y, validation_data=(x, y))
        x_before = x.copy()
        fit(model, change(x), change(y), validation_data=(change(x), change(y)))
        np.testing.assert_array_equal(model.params, expected.params)
        np.testing.assert_array_equal(x, x_before)

    def test_bytes_and_the_floats_of_the_same_values_train_alike(self):
        rng = np.random.default_rng(0)
        x, y = rng.integers(0, 256, (40, 3, 3), dtype=np.uint8), rng.integers(0, 2, 40)

        def make():
            return tn.Sequential([tn.Rescale(1 / 255), tn.Flatten(), tn.Dense(2)], input_shape=(3, 3), seed=0)

        results = []
        for values in (x, x.astype(np.float32), x.astype(np.float64), x.astype(np.int64)):
            model = make()
            fit(model, values, y, loss=tn.SoftmaxCrossEntropy())
            results.append(model.params)
        for params in results[1:]:
            np.testing.assert_array_equal(params, results[0])


def _read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


class Recorder(tn.Callback):
    """Records which examples came in which batch, by their first feature."""

    def __init__(self):
        self.epochs = []

    def on_epoch_begin(self, run):
        self.epochs.append([])

    def __call__(self, x, rng):
        self.epochs[-1].append(x[:, 0].copy())
        return x


def seen_order(model, n, epochs=2, **settings):
    x = np.zeros((n, 2), np.float32)
    x[:, 0] = np.arange(n)
    recorder = Recorder()
    fit(model, x, np.zeros(n, int), augment=recorder, callbacks=[recorder], epochs=epochs, **settings)
    return recorder.epochs


class TestBatches:
    @settings(max_examples=25)
    @given(n=st.integers(1, 40), batch_size=st.integers(1, 45))
    def test_each_epoch_sees_each_example_once(self, n, batch_size):
        for epoch in seen_order(small(), n, batch_size=batch_size):
            assert sorted(np.concatenate(epoch)) == list(range(n))
            assert [len(batch) for batch in epoch[:-1]] == [batch_size] * (len(epoch) - 1)

    def test_epochs_and_fits_have_orders_of_their_own(self):
        model = small()
        first, second = seen_order(model, 30, batch_size=30)
        (third,) = seen_order(model, 30, epochs=1, batch_size=30)
        orders = {tuple(epoch[0]) for epoch in (first, second, third)}
        assert len(orders) == 3
        again, _ = seen_order(small(), 30, batch_size=30)
        np.testing.assert_array_equal(again[0], first[0])

    def test_without_shuffle_the_order_is_the_arrays(self):
        for epoch in seen_order(small(), 10, batch_size=4, shuffle=False):
            np.testing.assert_array_equal(np.concatenate(epoch), np.arange(10))

    def test_steps_per_epoch(self):
        (epoch,) = seen_order(small(), 10, epochs=1, batch_size=3, steps_per_epoch=2)
        assert [len(batch) for batch in epoch] == [3, 3]

    @given(
        n=st.integers(1, 40), batch_size=st.integers(1, 12), epochs=st.integers(1, 7), shuffle=st.booleans(),
        data=st.data(),
    )  # fmt: skip
    def test_epochs_of_some_steps_use_all_data_in_turn(self, n, batch_size, epochs, shuffle, data):
        """Put together, the epochs are those of all steps: one pass over the data after another."""
        in_a_pass = -(-n // batch_size)
        steps = data.draw(st.integers(1, in_a_pass))
        given = {"batch_size": batch_size, "shuffle": shuffle}
        found = seen_order(small(), n, epochs=epochs, steps_per_epoch=steps, **given)
        assert [len(epoch) for epoch in found] == [steps] * epochs
        batches = [batch for epoch in found for batch in epoch]
        for start in range(0, len(batches), in_a_pass):  # each pass has every example once
            seen = np.concatenate(batches[start : start + in_a_pass])
            assert len(set(seen)) == len(seen)
            if start + in_a_pass <= len(batches):
                assert sorted(seen) == list(range(n))
        first = np.concatenate(seen_order(small(), n, epochs=1, **given)[0])
        np.testing.assert_array_equal(np.concatenate(batches)[:n], first[: sum(map(len, batches))])

    def test_each_pass_over_the_data_has_an_order_of_its_own(self):
        epochs = seen_order(small(), 40, epochs=4, batch_size=10, steps_per_epoch=2)
        passes = [np.concatenate([*epochs[i], *epochs[i + 1]]) for i in (0, 2)]
        assert not np.array_equal(*passes)

    def test_a_second_fit_begins_a_new_pass(self):
        model = small()
        for _ in range(2):
            ((batch,),) = seen_order(model, 9, 1, batch_size=3, steps_per_epoch=1, shuffle=False)
            np.testing.assert_array_equal(batch, [0, 1, 2])

    @pytest.mark.parametrize("shuffle", [False, True])
    def test_the_rows_of_a_smaller_last_batch_are_shuffled_too(self, shuffle):
        """In an epoch of one batch, each row changes places, and so does the rest of an epoch of several."""
        for batch_size in (8, 20, 32):
            (epoch,) = seen_order(small(), 27, 1, batch_size=batch_size, shuffle=shuffle)
            last = range(27 - len(epoch[-1]), 27)
            assert np.array_equal(epoch[-1], last) is not shuffle
            assert (set(epoch[-1]) == set(last)) is (not shuffle or batch_size > 27)

    def test_augmentation_is_applied_and_seeded(self):
        x, y = classes_data()
        noise = []

        def augment(batch, rng):
            noise.append(rng.standard_normal())
            return batch + np.float32(noise[-1])

        model, plain = small(), small()
        fit(model, x, y, augment=augment, epochs=2, batch_size=20)
        fit(plain, x, y, epochs=2, batch_size=20)
        assert len(set(noise)) == 6
        assert (model.params != plain.params).any()
        first, noise = noise, []
        fit(small(), x, y, augment=augment, epochs=2, batch_size=20)
        assert noise == first

    def test_a_list_of_batches_trains_as_the_arrays_unshuffled(self):
        x, y = classes_data(20)
        arrays, batches = small(), small()
        fit(arrays, x, y, batch_size=8, shuffle=False, epochs=2)
        fit(batches, [(x[i : i + 8], y[i : i + 8]) for i in (0, 8, 16)], epochs=2)
        np.testing.assert_array_equal(arrays.params, batches.params)

    def test_an_object_with_iter_and_no_length(self):
        x, y = classes_data(20)

        class Stream:
            def __iter__(self):
                return iter([(x[:8], y[:8]), (x[8:], y[8:])])

        with pytest.raises(ValueError, match="pass steps_per_epoch"):
            fit(small(), Stream())
        history = fit(small(), Stream(), steps_per_epoch=2, epochs=3, validation_data=[(x, y)])
        assert len(history.history["val_loss"]) == 3

    @pytest.mark.parametrize("has_length", [False, True])
    def test_of_an_iterable_each_batch_is_used_too(self, has_length):
        taken = []

        class Stream:
            def __iter__(self):
                for i in range(10):
                    taken.append(i)
                    yield np.full((4, 2), i / 10), np.zeros(4, int)

        if has_length:
            Stream.__len__ = lambda self: 10
        fit(small(), Stream(), steps_per_epoch=3, epochs=7)
        assert taken == [*range(10), *range(10), 0]

    @pytest.mark.parametrize("has_end", [False, True])
    def test_the_length_of_an_iterable_says_where_validation_ends(self, has_end):
        x, y = classes_data(12)

        class Stream:
            def __iter__(self):
                for _ in range(4) if has_end else itertools.count():
                    yield x[:4], y[:4]
                    yield x[4:], y[4:]

        class Sized(Stream):
            def __len__(self):
                return 2

        model, other = small(), small()
        history = fit(model, x, y, validation_data=Sized(), epochs=2)
        steps = fit(other, x, y, validation_data=Stream(), validation_steps=2, epochs=2)
        assert history.history["val_loss"] == steps.history["val_loss"]
        scores = model.evaluate(x, y)
        for found in (model.evaluate(Sized()), model.evaluate(Stream(), steps=2)):
            assert found == pytest.approx(scores, rel=1e-6)
            assert history.history["val_loss"][-1] == pytest.approx(found["loss"])

    def test_steps_of_evaluation_are_for_iterables(self):
        x, y = classes_data(12)
        for validation_data in (None, (x, y)):
            with pytest.raises(ValueError, match="validation_steps: only an iterable of batches"):
                fit(small(), x, y, validation_data=validation_data, validation_steps=2)
        with pytest.raises(ValueError, match="steps: only an iterable of batches"):
            small().evaluate(x, y, loss=tn.CrossEntropy(), steps=1)
        with pytest.raises(ValueError, match="batch 2: expected 3 batches, but the iterable gave 1"):
            small().evaluate([(x, y)], loss=tn.CrossEntropy(), steps=3)
        with pytest.raises(ValueError, match="validation_data: batch 2: expected 3 batches"):
            fit(small(), x, y, validation_data=[(x, y)], validation_steps=3)

    def test_a_generator_goes_on_from_epoch_to_epoch(self):
        x, y = classes_data(20)
        batches = [(x[i : i + 5], y[i : i + 5]) for i in range(0, 20, 5)]
        model, twin = small(), small()
        fit(model, itertools.cycle(batches), steps_per_epoch=3, epochs=2)
        fit(twin, batches, steps_per_epoch=3, epochs=2)
        np.testing.assert_array_equal(model.params, twin.params)
        fit(small(), iter(batches), steps_per_epoch=2, epochs=2)
        with pytest.raises(ValueError, match="batch 2: expected 3 batches, but the iterable gave 1"):
            fit(small(), iter(batches), steps_per_epoch=3, epochs=2)

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (lambda x, y: (x, y + 5), "batch 2: labels"),
            (lambda x, y: (x * np.nan, y), "batch 2: x: expected finite"),
            (lambda x, y: (x[:, :1], y), r"batch 2: x: expected shape \(batch, 2\)"),
            (lambda x, y: (x, y[:-1]), "batch 2: expected one target per example"),
            (lambda x, y: x, r"batch 2: expected a pair \(x, y\)"),
        ],
    )
    def test_a_bad_batch_is_named(self, bad, message):
        x, y = classes_data(20)
        with pytest.raises(ValueError, match=message):
            fit(small(), [(x, y), bad(x, y)])

    def test_too_few_batches_are_named(self):
        x, y = classes_data(20)
        with pytest.raises(ValueError, match="batch 2: expected 3 batches"):
            fit(small(), [(x, y)], steps_per_epoch=3)

    def test_augmentation_leaves_the_callers_arrays_alone(self):
        x, y = classes_data(20)
        before = x.copy()

        def in_place(batch, rng):
            batch *= 2
            return batch

        fit(small(), x, y, augment=in_place, shuffle=False)
        fit(small(), [(x, y)], augment=in_place)
        np.testing.assert_array_equal(x, before)

    @pytest.mark.parametrize(
        "result", [lambda batch: None, lambda batch: batch[:-1], lambda batch: batch.tolist()]
    )
    def test_augmentation_that_returns_no_such_batch_is_named(self, result):
        x, y = classes_data(20)
        with pytest.raises(ValueError, match="augment: expected it to return a batch of shape"):
            fit(small(), x, y, augment=lambda batch, rng: result(batch))

    def test_a_batch_size_beyond_all_examples_costs_no_memory(self):
        x, y = classes_data(20)
        fit(small(), x, y, batch_size=10**13)

    def test_callbacks_may_come_from_an_iterator(self):
        x, y = classes_data(20)
        callback = tn.EarlyStopping("loss")
        fit(small(), x, y, callbacks=iter([callback]))
        assert callback.best_epoch == 0

    def test_stop_training_is_heard_at_the_end_of_a_batch(self):
        x, y = classes_data(20)
        optimizer = tn.Adam()

        class Stop(tn.Callback):
            def on_batch_end(self, run):
                run.stop_training = run.batch == 1

        history = fit(small(), x, y, batch_size=5, epochs=3, optimizer=optimizer, callbacks=[Stop()])
        assert (optimizer.step_count, history.epochs, history.interrupted) == (2, 1, False)

    def test_a_refused_fit_does_not_bind_the_optimizer(self):
        x, y = classes_data(20)
        optimizer = tn.Adam()
        with pytest.raises(ValueError, match="does not measure"):
            fit(small(), x, y, optimizer=optimizer, callbacks=[tn.EarlyStopping("val_loss")])
        fit(tn.Sequential([tn.Dense(3), tn.Softmax()], input_shape=(2,)), x, y, optimizer=optimizer)


class TestHeads:
    """The last layer and the loss."""

    @pytest.mark.parametrize(
        ("head", "loss", "hint"),
        [
            ([], tn.CrossEntropy(), r"end the model with Softmax\(\), or use SoftmaxCrossEntropy"),
            ([tn.LogSoftmax()], tn.CrossEntropy(), "takes probabilities, but the last layer is LogSoftmax"),
            ([tn.Softmax()], tn.SoftmaxCrossEntropy(), r"leave the Softmax\(\) out"),
            (
                [tn.Softmax()],
                tn.NegativeLogLikelihood(),
                "takes log-probabilities, but the last layer is Softmax",
            ),
            ([], tn.NegativeLogLikelihood(), "takes log-probabilities, but the last layer is Dense"),
        ],
    )
    def test_pairs_that_do_not_belong_together_are_refused(self, head, loss, hint):
        x, y = classes_data(20)
        model = tn.Sequential([tn.Dense(3), *head], input_shape=(2,), seed=0)
        before = model.params.copy()
        with pytest.raises(ValueError, match=hint):
            fit(model, x, y, loss=loss)
        np.testing.assert_array_equal(model.params, before)
        for layer in head:
            layer.unbuild()  # the next run of this test builds it again

    def test_subclasses_compute_what_they_say(self):
        class Weighted(tn.CrossEntropy):
            def forward(self, outputs, targets, total=None):
                return 10 * super().forward(outputs, targets, total)

            def backward(self):
                return 10 * super().backward()

        x, y = classes_data(20)
        plain, weighted = small(), small()
        loss = plain.loss_and_gradients(x, y, tn.CrossEntropy())
        assert weighted.loss_and_gradients(x, y, Weighted()) == pytest.approx(10 * loss, rel=1e-5)
        np.testing.assert_allclose(weighted.grads, 10 * plain.grads, rtol=1e-3, atol=1e-5)


class TestHistory:
    def test_columns_follow_from_the_run(self):
        x, y = classes_data()
        plain = fit(small(), x, y, epochs=2)
        assert list(plain.history) == ["loss", "accuracy", "learning_rate", "seconds"]
        both = fit(small(), x, y, epochs=2, validation_data=(x, y))
        assert list(both.history) == [
            "loss",
            "accuracy",
            "val_loss",
            "val_accuracy",
            "learning_rate",
            "seconds",
        ]
        assert {len(values) for values in both.history.values()} == {2}
        assert not both.interrupted

    def test_means_count_each_example_once(self):
        x, y = classes_data(10)
        model = small()
        history = fit(model, x, y, optimizer=tn.SGD(0.0), batch_size=4, shuffle=False).history
        twin = small()
        parts = [twin.loss_and_gradients(x[i : i + 4], y[i : i + 4], tn.CrossEntropy()) for i in (0, 4, 8)]
        assert history["loss"][0] == pytest.approx((4 * parts[0] + 4 * parts[1] + 2 * parts[2]) / 10)

    def test_validation_figures_are_those_of_evaluate(self):
        x, y = classes_data()
        validation = classes_data(30, seed=1)
        model = small()
        history = fit(model, x, y, epochs=3, validation_data=validation).history
        scores = model.evaluate(*validation)
        assert history["val_loss"][-1] == scores["loss"]
        assert history["val_accuracy"][-1] == scores["accuracy"]

    @pytest.mark.parametrize(
        ("n", "share", "front"),
        # The last ones are whole numbers of rows, and a little less in binary.
        [(50, 0.2, 40), (10, 0.25, 7), (9, 0.3, 6), (10, 0.9, 1), (100, 0.9, 10), (10, np.float32(0.7), 3)],
    )
    def test_validation_split_takes_the_end(self, n, share, front):
        x, y = classes_data(n)
        split, explicit = small(), small()
        first = fit(split, x, y, validation_split=share).history
        second = fit(explicit, x[:front], y[:front], validation_data=(x[front:], y[front:])).history
        np.testing.assert_array_equal(split.params, explicit.params)
        assert first["val_loss"] == second["val_loss"]

    def test_the_learning_rate_is_that_of_the_last_step(self):
        x, y = classes_data(20)
        schedule = tn.schedules.step_decay(0.1, every=3, factor=0.5)
        history = fit(small(), x, y, optimizer=tn.SGD(schedule), batch_size=10, epochs=3).history
        assert history["learning_rate"] == [0.1, 0.05, 0.05]  # steps 1, 3 and 5

    def test_regression_has_no_accuracy(self):
        x = np.random.default_rng(0).standard_normal((20, 2)).astype(np.float32)
        model = tn.Sequential([tn.Dense(1)], input_shape=(2,), seed=0)
        history = fit(model, x, x[:, 0], loss=tn.MeanSquaredError(), validation_data=(x, x[:, :1])).history
        assert list(history) == ["loss", "val_loss", "learning_rate", "seconds"]

    def test_a_second_fit_with_the_optimizer_goes_on(self):
        x, y = classes_data(20)
        optimizer = tn.Adam(0.01)
        model, twin = small(), small()
        fit(model, x, y, optimizer=optimizer)
        fit(model, x, y, optimizer=optimizer)
        fit(twin, x, y, epochs=2)
        np.testing.assert_array_equal(model.params, twin.params)
        assert optimizer.step_count == 2

    def test_weight_decay_is_for_weights_only(self):
        class NoGradient(tn.MeanSquaredError):
            def backward(self):
                return 0 * super().backward()

        x, _ = classes_data(20)
        model = tn.Sequential(
            [tn.Dense(4, bias_initializer="ones"), tn.BatchNorm()], input_shape=(2,), seed=0
        )
        before = {name: array.copy() for name, array in model.named_params().items()}
        optimizer = tn.AdamW(0.1, weight_decay=0.5)
        fit(model, x, np.zeros((20, 4)), optimizer=optimizer, loss=NoGradient(), batch_size=20)
        after = model.named_params()
        np.testing.assert_allclose(after["0.W"], 0.95 * before["0.W"], rtol=1e-6)
        for name in ("0.b", "1.gamma", "1.beta"):
            np.testing.assert_array_equal(after[name], before[name])

    def test_an_optimizer_of_another_model_is_refused(self):
        x, y = classes_data(20)
        optimizer = tn.Adam()
        fit(small(), x, y, optimizer=optimizer)
        other = tn.Sequential([tn.Dense(3), tn.Softmax()], input_shape=(2,), seed=0)
        before = other.params.copy()
        with pytest.raises(ValueError, match="has done 1 steps with another model"):
            fit(other, x, y, optimizer=optimizer)
        np.testing.assert_array_equal(other.params, before)


class TestCtrlC:
    class Press(tn.Callback):
        """Presses Ctrl-C after a batch."""

        def __init__(self, epoch, batch):
            self.at = (epoch, batch)

        def on_batch_end(self, run):
            if (run.epoch, run.batch) == self.at:
                signal.raise_signal(signal.SIGINT)

    @pytest.mark.parametrize(
        ("at", "epochs", "steps"),
        [((0, 1), 0, 2), ((1, 0), 1, 4), ((1, 2), 2, 6)],
        ids=["first", "second", "last batch"],
    )
    def test_it_is_held_to_the_end_of_the_batch(self, at, epochs, steps):
        x, y = classes_data(30)
        former = signal.getsignal(signal.SIGINT)
        model, optimizer = small(), tn.Adam()
        with pytest.raises(
            KeyboardInterrupt, match=f"interrupted in epoch {at[0] + 1} of 5, after batch {at[1] + 1} of 3"
        ):
            fit(model, x, y, optimizer=optimizer, batch_size=10, epochs=5, callbacks=[self.Press(*at)])
        assert model.history.interrupted
        assert model.history.epochs == epochs
        assert optimizer.step_count == steps
        assert signal.getsignal(signal.SIGINT) is former

    def test_what_was_trained_is_kept(self):
        x, y = classes_data(30)
        model, twin = small(), small()
        with pytest.raises(KeyboardInterrupt, match="interrupted"):
            fit(model, x, y, batch_size=10, epochs=5, callbacks=[self.Press(0, 2)])
        fit(twin, x, y, batch_size=10, epochs=1)
        np.testing.assert_array_equal(model.params, twin.params)


class TestCallbacksEnd:
    class Note(tn.Callback):
        def __init__(self, name, notes, fail=False):
            self.name, self.notes, self.fail = name, notes, fail

        def on_train_end(self, run):
            self.notes.append(self.name)
            if self.fail:
                raise KeyError(self.name)

    def test_in_order_and_each_whatever_the_others_raise(self):
        x, y = classes_data(30)
        notes = []
        callbacks = [
            self.Note("first", notes),
            self.Note("second", notes, fail=True),
            self.Note("third", notes),
        ]
        with pytest.raises(KeyError, match="second"):
            fit(small(), x, y, callbacks=callbacks)
        assert notes == ["first", "second", "third"]

    def test_one_behind_early_stopping_sees_the_best_weights(self):
        x, y = classes_data(30)
        seen = []

        class Look(tn.Callback):
            def on_train_end(self, run):
                seen.append(run.model.params.copy())

        model = small()
        callbacks = [tn.EarlyStopping("loss", patience=None), Look()]
        fit(model, x, y, optimizer=tn.SGD(1.5), epochs=6, batch_size=5, callbacks=callbacks)
        np.testing.assert_array_equal(seen[0], model.params)

    @pytest.mark.parametrize("make", [tn.CSVLogger, tn.ModelCheckpoint])
    def test_a_missing_folder_is_found_before_training(self, make, tmp_path):
        x, y = classes_data(30)
        model = small()
        before = model.params.copy()
        with pytest.raises(FileNotFoundError, match="does not exist; create it first"):
            fit(model, x, y, callbacks=[make(tmp_path / "missing" / "file")])
        np.testing.assert_array_equal(model.params, before)


class TestNonFiniteLoss:
    def test_it_stops_before_the_update_and_names_the_place(self):
        x, y = classes_data(30)
        x[25] = 3e38
        model = tn.Sequential([tn.Dense(4), tn.Dense(4), tn.Dense(3)], input_shape=(2,), seed=0)
        before = model.params.copy()
        with pytest.raises(
            tn.NonFiniteError, match=r"epoch 1, batch 3: the loss is .*output of layer [01] \(Dense\)"
        ):
            fit(
                model,
                x,
                y,
                optimizer=tn.SGD(0.0),
                loss=tn.SoftmaxCrossEntropy(),
                batch_size=10,
                shuffle=False,
            )
        np.testing.assert_array_equal(model.params, before)

    def test_running_statistics_stay_good(self):
        x, y = classes_data(30)
        x[25] = 3e38
        model = small()
        with pytest.raises(tn.NonFiniteError):
            fit(model, x, y, batch_size=10, shuffle=False)
        assert all(np.isfinite(array).all() for array in model.get_weights())

    def test_a_diverging_run_is_named_and_its_parameters_stay_finite(self):
        x, y = classes_data(60)
        model = tn.Sequential([tn.Dense(8), tn.Dense(3)], input_shape=(2,), seed=0)
        targets = np.eye(3, dtype=np.float32)[y]
        with pytest.raises(tn.NonFiniteError, match="smaller learning rate"):
            fit(model, x, targets, optimizer=tn.SGD(50.0), loss=tn.MeanSquaredError(), epochs=50)

    @pytest.mark.parametrize("optimizer", [tn.SGD(1e37), tn.Adam()], ids=["SGD", "Adam"])
    def test_an_update_that_overflows_is_found_at_its_batch(self, optimizer):
        x, y = classes_data(20)
        scale = 1e3 if isinstance(optimizer, tn.SGD) else 3e20
        model = tn.Sequential([tn.Dense(3)], input_shape=(2,), seed=0)
        message = (
            r"epoch 1, batch 1: the update of \w+ overflowed \(.*\).*; the gradient of 0\.W is as large as \d"
        )
        with pytest.raises(tn.NonFiniteError, match=message):
            fit(model, scale * x, y, optimizer=optimizer, loss=tn.SoftmaxCrossEntropy(), batch_size=10)
        if not all(np.isfinite(slot).all() for slot in optimizer.slots.values()):
            with pytest.raises(tn.NonFiniteError, match="has overflowed"):  # by name, and never again
                optimizer.begin(model)

    def test_statistics_that_become_infinite_under_a_finite_loss_are_found(self):
        x, y = classes_data(30)
        model = tn.Sequential([tn.BatchNorm(), tn.Dense(3)], input_shape=(2,), seed=0)
        twin = model.copy()
        fit(twin, x[:20], y[:20], batch_size=10, shuffle=False, loss=tn.SoftmaxCrossEntropy())
        x[20:] *= 1e20  # the square overflows, and y is 0
        with pytest.raises(
            tn.NonFiniteError, match=r"epoch 1, batch 3: 0\.running_var became NaN or infinite\. No"
        ):
            fit(model, x, y, batch_size=10, shuffle=False, loss=tn.SoftmaxCrossEntropy())
        for found, expected in zip(model.get_weights(), twin.get_weights(), strict=True):
            np.testing.assert_array_equal(found, expected)  # as before that batch

    def test_a_step_of_ones_own_loop_is_held_to_the_same(self):
        x, y = classes_data(10)
        model = tn.Sequential([tn.BatchNorm(), tn.Dense(3), tn.Softmax()], input_shape=(2,), seed=0)
        model.train_step(x, y, tn.CrossEntropy(), tn.Adam())
        before = model.get_weights()
        with pytest.raises(tn.NonFiniteError, match=r"^0\.running_var became NaN or infinite\. No update"):
            model.train_step(x * 1e20, y, tn.CrossEntropy(), tn.Adam())
        for found, expected in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(found, expected)
        model = tn.Sequential([tn.Dense(3), tn.Softmax()], input_shape=(2,), seed=0)
        with pytest.raises(
            tn.NonFiniteError, match=r"^the update of Adam overflowed .* of 0\.W is as large as"
        ):
            model.train_step(x * 3e20, y, tn.CrossEntropy(), tn.Adam())
        with pytest.raises(ValueError, match="CrossEntropy takes"):
            tn.Sequential([tn.Dense(3)], (2,)).train_step(x, y, tn.CrossEntropy(), tn.Adam())
        with pytest.raises(ValueError, match="without a mask"):
            model.train_step(np.ma.array(x), y, tn.CrossEntropy(), tn.Adam())
        with pytest.raises(TypeError, match=r"optimizer: expected an object such as Adam\(\)"):
            model.train_step(x, y, tn.CrossEntropy(), "adam")

    def test_a_layer_that_cannot_be_copied_hides_nothing(self):
        class Locked(tn.Layer):
            def __init__(self):
                super().__init__()
                self.lock = threading.Lock()

            def forward(self, x, training=False):
                return x

            def backward(self, dy):
                return dy

        x, y = classes_data(30)
        x[20:] = 3e38
        layers = [Locked(), tn.Rescale(10), tn.BatchNorm(), tn.Dense(3), tn.Softmax()]
        model = tn.Sequential(layers, input_shape=(2,), seed=0)
        message = "batch 3: the loss is nan; the first bad array is not known, as the layers can't be copied"
        with pytest.raises(tn.NonFiniteError, match=message):
            fit(model, x, y, batch_size=10, shuffle=False, workers=1)
        assert all(np.isfinite(array).all() for array in model.get_weights())

    def test_a_users_errstate_finds_no_underflow(self):
        x, y = classes_data(30)
        layers = [tn.Dense(4), tn.Sigmoid(), tn.Dense(3), tn.Softmax()]
        model = tn.Sequential(layers, input_shape=(2,), seed=0)
        with np.errstate(all="raise"):
            fit(model, 1e3 * x, y, optimizer=tn.SGD(1e-9))
            model.layers[2].W *= 1e3
            model.predict(1e3 * x)
            model.evaluate(1e3 * x, y)
            model.predict_proba(1e3 * x)

    @pytest.mark.parametrize(
        ("bad_batch", "found_in", "what"),
        [
            (
                1,
                2,
                r"the loss is nan; the first bad array is parameter 0\.[Wb]\. No update was made for this batch",
            ),
            (5, 5, r"the update made a parameter NaN or infinite; the first bad array is parameter 0\.[Wb]"),
        ],
        ids=["in the middle", "the last batch"],
    )
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_a_gradient_that_is_not_finite_under_a_finite_loss_is_found_within_the_epoch(
        self, bad_batch, found_in, what, value
    ):
        """By its effect on the parameters; the next epoch does not begin, and no callback sees an epoch end."""

        class Spoil(tn.Layer):
            batches = 0

            def forward(self, x, training=False):
                self.batches += training
                return x

            def backward(self, dy):
                return dy * (value if self.batches == bad_batch else 1)

        class Heard(tn.Callback):
            losses, epochs = [], 0

            def on_batch_end(self, run):
                self.losses = [*self.losses, run.mean_loss()]

            def on_epoch_end(self, run):
                self.epochs += 1

        x, y = classes_data(50)
        model = tn.Sequential([tn.Dense(8), Spoil(), tn.ReLU(), tn.Dense(3)], input_shape=(2,), seed=0)
        heard = Heard()
        settings = {"optimizer": tn.SGD(0.1), "loss": tn.SoftmaxCrossEntropy(), "batch_size": 10}
        with pytest.raises(tn.NonFiniteError, match=f"epoch 1, batch {found_in}: {what}"):
            fit(model, x, y, callbacks=[heard], epochs=3, **settings)
        assert np.isfinite(heard.losses[:bad_batch]).all()
        assert heard.epochs == 0

    def test_a_bad_parameter_is_named(self):
        x, y = classes_data(60)
        model = small()
        model.layers[4].W[0, 0] = np.nan
        with pytest.raises(tn.NonFiniteError, match=r"parameter 4\.W"):
            fit(model, x, y)


def test_two_models_train_in_two_threads_as_they_do_alone():
    import threading

    x, y = classes_data(200)
    alone = [small(seed=seed, dropout=0.2) for seed in range(2)]
    for model in alone:
        fit(model, x, y, epochs=10)
    together = [small(seed=seed, dropout=0.2) for seed in range(2)]
    threads = [threading.Thread(target=fit, args=(model, x, y), kwargs={"epochs": 10}) for model in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for first, second in zip(alone, together, strict=True):
        np.testing.assert_array_equal(first.params, second.params)


def test_the_loss_object_stays_the_callers():
    x, y = classes_data(20)
    for make in (
        tn.CrossEntropy,
        tn.SoftmaxCrossEntropy,
    ):  # trained as another loss on the logits, and as itself
        loss = make(label_smoothing=0.1)
        model = small()
        if make is tn.SoftmaxCrossEntropy:
            model = tn.Sequential([tn.Dense(3)], input_shape=(2,), seed=0)
        fit(model, x, y, loss=loss)
        assert "_labels" not in vars(loss)
        assert model.loss is not loss
        assert model.loss.label_smoothing == 0.1
        assert math.isfinite(model.evaluate(x, y)["loss"])
