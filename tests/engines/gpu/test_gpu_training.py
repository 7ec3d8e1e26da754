"""Training on a GPU: as on the CPU, from a captured graph, with nothing read back between checks of the loss."""

import copy
import threading
import warnings

import numpy as np
import pytest

import tinynet as tn
from tests.support import runs
from tinynet import recipes
from tinynet.datasets import augment
from tinynet.engines.devices import device_of
from tinynet.support.errors import DeviceMemoryError
from tinynet.training.gpu_steps import LOOK_EVERY


def pictures(n, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 10, n)
    kinds = np.random.default_rng(99).integers(0, 156, (10, 28, 28))
    return (kinds[y] + rng.integers(0, 100, (n, 28, 28))).astype(np.uint8), y


def trained(name, device, dtype="float32", n=300, batch_size=None, **settings):
    made = recipes.make(name, seed=0, epochs=2, batch_size=batch_size, training_examples=n)
    model = made.model.copy(dtype, device=device)
    x, y = pictures(n)
    history = model.fit(x, y, **made.fit_arguments() | settings, verbose=0, workers=1)
    return model, history


def assert_same_weights(train, rtol, atol):
    """Check that training on the GPU ends with the CPU's weights. Args: train: device -> trained model."""
    ours, theirs = (train(device).get_weights() for device in ("cpu", "gpu"))
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(other, mine, rtol=rtol, atol=atol)


class TestARun:
    @pytest.mark.parametrize("name", recipes.RECIPES)
    def test_of_every_recipe_is_that_of_the_cpu(self, gpu, name):
        """In float64, where rounding errors have no time to grow; a warning would mean that no graph was captured."""
        (ours, history), (theirs, on_gpu) = (
            trained(name, device, "float64", n=80, batch_size=32) for device in ("cpu", "gpu")
        )
        for column in ("loss", "accuracy", "learning_rate"):
            assert on_gpu.history[column] == pytest.approx(history.history[column], rel=1e-9)
        for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_allclose(other, mine, rtol=1e-6, atol=1e-8)

    @pytest.mark.parametrize("name", ["mlp_adam", "mlp_bn", "cnn"])
    def test_in_float32_the_losses_agree_too(self, gpu, name):
        losses = [trained(name, device)[1].history["loss"] for device in ("cpu", "gpu")]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)

    @pytest.mark.parametrize("case", ["iterable", "pruned", "regression", "two_workers"])
    def test_with_everything_that_a_run_can_have(self, gpu, case):
        """Iterables, masks that grow, schedules, clipping, validation, early stopping; no augmentation by NumPy."""
        results = []
        for device in ("cpu", "gpu"):
            model, arguments = runs.CASES[case]()
            model = model.copy("float64", device=device)
            given = {"batch_size": 10, "epochs": 4, "verbose": 0} | arguments | {"workers": None}
            if given.get("augment") is runs.noise:
                del given["augment"]
            history = model.fit(given.pop("x"), given.pop("y", None), **given)
            results.append((model.get_weights(), history.history))
        (ours, history), (theirs, on_gpu) = results
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(other, mine, rtol=1e-6, atol=1e-9)
        for column in set(history) - {"seconds"}:
            assert on_gpu[column] == pytest.approx(history[column], rel=1e-7), column

    def test_its_optimizer_goes_on_on_the_other_device(self, gpu):
        x, y = pictures(64)
        results = []
        for devices in (("cpu", "cpu"), ("gpu", "cpu"), ("cpu", "gpu")):
            made = recipes.make("mlp_adam", seed=0, training_examples=64)
            model = made.model.copy("float64")
            for device in devices:
                model.to(device).fit(x, y, **made.fit_arguments() | {"epochs": 1}, verbose=0)
            results.append(model.get_weights())
        for other in results[1:]:
            for mine, array in zip(results[0], other, strict=True):
                np.testing.assert_allclose(array, mine, rtol=1e-7, atol=1e-10)

    @pytest.mark.parametrize("stop", [3, 7])
    def test_it_goes_on_from_a_checkpoint_bit_for_bit(self, gpu, stop, tmp_path):
        class Stop(tn.Callback):
            at = None

            def on_batch_end(self, run):
                if run.epoch * run.steps_per_epoch + run.batch + 1 == self.at:
                    raise KeyboardInterrupt

        def start(at=None, **settings):
            made = recipes.make("mlp_bn", seed=0, epochs=2, training_examples=300)
            x, y = pictures(300)
            model = made.model.to("gpu")
            given = made.fit_arguments() | {"verbose": 0, "checkpoint_every": 1} | settings
            given["callbacks"] = [callback := Stop()]
            callback.at = at
            history = model.fit(x, y, **given)
            return model, made.optimizer, history

        whole = start(checkpoint=tmp_path / "a")
        with pytest.raises(KeyboardInterrupt):
            start(stop, checkpoint=tmp_path / "b")
        runs.assert_same_end(start(resume=tmp_path / "b", checkpoint=tmp_path / "b"), whole)

    def test_workers_are_refused(self, gpu):
        recipe = recipes.make("mlp_adam", seed=0)
        model, (x, y) = recipe.model.to("gpu"), pictures(10)
        message = "workers: a GPU takes whole batches; expected None or 1, got 2"
        with pytest.raises(ValueError, match=message):
            model.fit(x, y, **recipe.fit_arguments(), workers=2)


class TestAugmentation:
    STEPS = augment.Compose(
        augment.RandomFlip(), augment.RandomShift(2, fill=3), augment.RandomErasing((2, 5))
    )

    @pytest.mark.parametrize("shape", [(9, 12, 8), (5, 6, 7, 3)])
    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    def test_the_same_pictures_come_out(self, gpu, shape, dtype):
        x = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
        for seed in range(3):
            expected = self.STEPS(x, np.random.default_rng(seed))
            found = self.STEPS(gpu.asarray(x), np.random.default_rng(seed))
            assert device_of(found) is gpu
            np.testing.assert_array_equal(found.get(), expected)

    @pytest.mark.parametrize("changed", [runs.noise, lambda x, generator: x.get()])
    def test_numpys_arrays_in_an_augmentation_are_refused_with_the_mend(self, gpu, changed):
        model = tn.Sequential([tn.Dense(3)], (4,), device="gpu")
        x, y = runs.vectors(20)
        with pytest.raises(
            TypeError, match="augment: the model and therefore the batch are on the GPU; .*cupy.asarray"
        ):
            model.fit(x, y, optimizer=tn.SGD(), loss=tn.SoftmaxCrossEntropy(), augment=changed, verbose=0)


class TestSteps:
    def test_nothing_is_read_back_between_looks_at_the_loss(self, stand_in):
        counts = {}
        for n in (320, 640):
            before = stand_in.synchronizations
            trained("mlp_bn", "gpu", n=n)
            counts[n] = stand_in.synchronizations - before
        assert counts[640] == counts[320] < 60  # ten and twenty batches, two epochs

    def test_a_graph_is_captured_once_and_replayed(self, gpu, monkeypatch):
        captured, replayed = [], []
        capture = type(gpu).capture

        def count(self, work):
            captured.append(1)
            replay = capture(self, work)
            return lambda: (replayed.append(1), replay())

        monkeypatch.setattr(type(gpu), "capture", count)
        trained("mlp_adam", "gpu", n=300)  # nine full batches and a part, twice
        assert (len(captured), len(replayed)) == (1, 2 * 9 - 1)

    def test_what_a_callback_changes_is_captured_anew(self, gpu):
        """A dropout rate, a frozen layer, decay, the learning rate: at an epoch's end and within an epoch."""

        class Change(tn.Callback):
            def on_epoch_end(self, run):
                run.model.layers[3].rate = 0.5
                run.model.layers[1].momentum = 0.5
                run.optimizer.learning_rate = 0.03

        class ChangeWithin(tn.Callback):
            def on_batch_end(self, run):
                if run.batch == 3:
                    run.model.layers[0].trainable = run.epoch % 2 == 1
                    run.optimizer.beta_1 = 0.8

        def train(device):
            model, arguments = runs.dense()
            model = model.copy("float64", device=device)
            model.fit(
                arguments["x"],
                arguments["y"],
                optimizer=tn.Adam(0.05, weight_decay=0.1),
                loss=arguments["loss"],
                batch_size=5,
                epochs=4,
                verbose=0,
                callbacks=[Change(), ChangeWithin()],
            )
            return model

        assert_same_weights(train, rtol=1e-7, atol=1e-10)

    def test_callbacks_read_the_loss_when_they_ask(self, gpu):
        class Read(tn.Callback):
            def __init__(self):
                self.found = []

            def on_batch_end(self, run):
                self.found.append((run.batch_loss, run.mean_loss(), run.mean_accuracy()))

        ours, theirs = Read(), Read()
        trained("mlp_adam", "cpu", "float64", callbacks=[ours])
        trained("mlp_adam", "gpu", "float64", callbacks=[theirs])
        np.testing.assert_allclose(theirs.found, ours.found, rtol=1e-7)

    @pytest.mark.parametrize("reads_back", [True, False])
    def test_a_capturable_layer_that_reads_back_trains_without_a_graph_and_says_so(self, gpu, reads_back):
        class Clipped(tn.Layer):
            capturable = True
            _scale = None

            def forward(self, x, training=False):
                largest = np.max(np.abs(x))
                scale = min(1.0, 1 / float(largest)) if reads_back else 1 / np.maximum(1, largest)
                if training:
                    self._scale = scale
                return x * scale

            def backward(self, dy):
                return dy * self._scale

        def train(device):
            x, y = runs.vectors(40)
            model = tn.Sequential([tn.Dense(5), Clipped(), tn.Dense(3)], (4,), seed=1, device=device)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model.fit(x, y, optimizer=tn.SGD(0.1), loss=tn.SoftmaxCrossEntropy(), epochs=2, verbose=0)
            said = [str(warning.message) for warning in caught if "CUDA graph" in str(warning.message)]
            assert len(said) == (device == "gpu" and reads_back)
            return model

        assert_same_weights(train, rtol=1e-4, atol=1e-6)

    def test_code_of_the_users_own_runs_in_every_step(self, gpu):
        """A graph would repeat whatever the first step of a layer, a loss or an optimizer drew."""

        class Noise(tn.Layer):
            def __init__(self):
                super().__init__()
                self.generator = np.random.default_rng(0)

            def forward(self, x, training=False):
                return x + self.generator.standard_normal() if training else x

            def backward(self, dy):
                return dy

        class Counted(tn.SoftmaxCrossEntropy):
            calls = 0

            def backward(self):
                Counted.calls += 1
                return super().backward() * (0.0 if Counted.calls == 5 else 1.0)

        class Slower(tn.SGD):
            def update(self, params, grads, learning_rate, scratch, **slots):
                super().update(params, grads * (1.0 / self.step_count), learning_rate, scratch, **slots)

        for layer, loss, optimizer in (
            ([Noise()], tn.SoftmaxCrossEntropy(), tn.SGD(0.1)),
            ([], Counted(), tn.SGD(0.1)),
            ([], tn.SoftmaxCrossEntropy(), Slower(0.1)),
        ):

            def train(device, layer=layer, loss=loss, optimizer=optimizer):
                x, y = runs.vectors(80)
                Counted.calls = 0
                layers = copy.deepcopy([tn.Dense(5), *layer, tn.Dense(3)])
                model = tn.Sequential(layers, (4,), seed=1, dtype="float64", device=device)
                given = {"optimizer": copy.copy(optimizer), "loss": loss, "batch_size": 8, "epochs": 2}
                model.fit(x, y, **given, verbose=0)
                return model

            assert_same_weights(train, rtol=1e-7, atol=1e-9)

    def test_a_layer_of_the_users_own_needs_nothing_but_numpy(self, gpu):
        class Softplus(tn.Layer):
            capturable = True
            _x = None

            def forward(self, x, training=False):
                if training:
                    self._x = x
                return np.logaddexp(0, x)

            def backward(self, dy):
                return dy / (1 + np.exp(-self._x))

        def train(device):
            x, y = runs.vectors(40)
            model = tn.Sequential([tn.Dense(5), Softplus(), tn.Dense(3)], (4,), seed=1, device=device)
            model.fit(x, y, optimizer=tn.Adam(), loss=tn.SoftmaxCrossEntropy(), epochs=2, verbose=0)
            return model

        assert_same_weights(train, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize(
        ("name", "dtype"),
        [("mlp_sgd", "float32"), ("mlp_adam", "float32"), ("mlp_bn", "float64"), ("cnn", "float64")],
    )
    def test_a_hundred_steps_have_the_losses_of_the_cpu(self, gpu, name, dtype):
        """In float64 where batch-norm or max-pooling amplify rounding, and any two programs diverge in float32."""

        class Read(tn.Callback):
            def __init__(self):
                self.losses = []

            def on_batch_end(self, run):
                self.losses.append(run.batch_loss)

        found = []
        for device in ("cpu", "gpu"):
            made = recipes.make(name, seed=0, epochs=1, batch_size=8, training_examples=800)
            x, y = pictures(800)
            made.model.copy(dtype, device=device).fit(
                x, y, **made.fit_arguments(), verbose=0, workers=1, callbacks=[read := Read()]
            )
            found.append(read.losses)
        assert len(found[0]) == 100
        np.testing.assert_allclose(found[1], found[0], rtol=1e-4)

    def test_targets_of_an_iterable_come_in_any_floats(self, gpu):
        class Batches:
            def __len__(self):
                return 3

            def __iter__(self):
                rng = np.random.default_rng(0)
                return ((rng.standard_normal((5, 4)), rng.standard_normal((5, 2))) for _ in range(3))

        def train(device):
            model = tn.Sequential([tn.Dense(2)], (4,), seed=1, device=device)
            model.fit(Batches(), optimizer=tn.SGD(0.1), loss=tn.MeanSquaredError(), epochs=2, verbose=0)
            return model

        assert_same_weights(train, rtol=1e-5, atol=1e-7)

    def test_a_smaller_batch_may_take_larger_buffers(self, gpu, monkeypatch):
        """Columns for one row of windows of 8 images, but two rows of 7: the graph keeps using its own buffers."""
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((23, 6, 6, 2)), rng.integers(0, 3, 23)
        monkeypatch.setattr(type(gpu), "block_elements", 15 * (3 * 3 * 2 + 4) * 4)

        def train(device):
            layers = [tn.Conv2D(4, 3), tn.Flatten(), tn.Dense(3)]
            model = tn.Sequential(layers, (6, 6, 2), seed=1, dtype="float64", device=device)
            given = {"optimizer": tn.SGD(0.1), "loss": tn.SoftmaxCrossEntropy(), "shuffle": False}
            model.fit(x, y, batch_size=8, epochs=4, verbose=0, **given)
            return model

        assert_same_weights(train, rtol=1e-9, atol=1e-12)

    def test_two_models_train_in_two_threads(self, gpu):
        """One whole run happens during the other's capture, which must not take in its kernels."""

        class Meanwhile(tn.Layer):
            capturable = True
            calls = 0

            def forward(self, x, training=False):
                self.calls += 1
                if training and self.calls == 2:
                    thread = threading.Thread(target=lambda: others.append(run([])))
                    thread.start()
                    thread.join()
                return x * 1

            def backward(self, dy):
                return dy

        def run(layer):
            x, y = runs.vectors(40)
            model = tn.Sequential([tn.Dense(5), *layer, tn.Dense(3)], (4,), seed=1, device="gpu")
            given = {"optimizer": tn.SGD(0.1), "loss": tn.SoftmaxCrossEntropy(), "batch_size": 10}
            model.fit(x, y, epochs=3, verbose=0, **given)
            return model.get_weights()

        others = []
        ours = run([Meanwhile()])
        for mine, other in zip(ours, others[0], strict=True):
            np.testing.assert_allclose(other, mine, rtol=1e-5, atol=1e-7)


class TestWhatGoesWrong:
    def test_memory_that_ends_anywhere_is_told_with_a_mend(self, stand_in):
        """Memory runs out after the data, the slots, a copy of the parameters, some kernels of a step, or a graph."""
        seen = set()
        x, y = runs.vectors(64)
        for limit in range(2048, 80_000, 3000):
            model = tn.Sequential(
                [tn.Dense(40), tn.Tanh(), tn.Dense(40), tn.Dense(3)], (4,), seed=1, device="gpu"
            )
            given = {"optimizer": tn.Adam(), "loss": tn.SoftmaxCrossEntropy(), "batch_size": 16, "verbose": 0}
            with stand_in.limit_memory(stand_in.cuda.live_bytes + limit), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a step that can't be captured is computed kernel by kernel
                try:
                    model.fit(x, y, epochs=2, **given)
                    seen.add("trained")
                except DeviceMemoryError as error:
                    seen.add(str(error).rpartition("; ")[2])
            assert np.isfinite(model.predict(x)).all()
        assert seen == {
            "the data set takes 0 MB: give an iterable of batches instead",
            "the optimizer's vectors are too large for this GPU",
            "try batch_size=8",
            "trained",
        }

    def test_a_capture_that_is_short_of_memory_gives_up_nothing_that_it_needs(self, stand_in):
        gpu = device_of(x := stand_in.ones(100))

        def work():
            np.add(x + 1, x, out=x)  # the pool has the sum's memory back
            stand_in.empty(500)

        with gpu.running(), stand_in.limit_memory(stand_in.cuda.live_bytes + 4500):
            with pytest.raises(stand_in.cuda.memory.OutOfMemoryError):
                gpu.capture(work)
            replay = gpu.capture(lambda: np.add(x + 1, x, out=x))
        replay()
        assert x.get().tolist() == [3] * 100

    @pytest.mark.parametrize("spoilt", [0, LOOK_EVERY - 1, LOOK_EVERY, LOOK_EVERY + 30])
    def test_a_loss_that_is_not_finite_is_named_by_its_interval(self, gpu, spoilt):
        """A step throws the weights far off and the next loss overflows; the model is as before the interval."""
        x, y = runs.vectors(1500)
        model = tn.Sequential(
            [tn.Dense(5), tn.BatchNorm(), tn.ReLU(), tn.Dense(3)], (4,), seed=1, device="gpu"
        )
        optimizer = tn.SGD(rate := lambda step: 1e38 if step == spoilt else 0.01, momentum=0.9)
        first = (spoilt + 1) // LOOK_EVERY * LOOK_EVERY

        def fit(model, optimizer, **settings):
            settings = {"batch_size": 10, "verbose": 0, "shuffle": False} | settings
            model.fit(x, y, optimizer=optimizer, loss=tn.SoftmaxCrossEntropy(), **settings)

        with pytest.raises(
            tn.NonFiniteError, match=rf"epoch 1, among batches {first + 1} to \d+: .*became NaN"
        ) as error:
            fit(model, optimizer)
        assert f"The model is as it was before batch {first + 1}." in str(error.value)
        expected = tn.Sequential(
            [tn.Dense(5), tn.BatchNorm(), tn.ReLU(), tn.Dense(3)], (4,), seed=1, device="gpu"
        )
        if first:
            fit(expected, tn.SGD(rate, momentum=0.9), steps_per_epoch=first)
        for mine, other in zip(expected.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_allclose(other, mine, rtol=1e-6)
        assert optimizer.step_count == model.step == first
        if spoilt + 1 != first:
            fit(model, tn.SGD(0.01))  # it can still be trained

    def test_too_large_a_batch_leaves_a_model_that_works(self, stand_in):
        x, y = pictures(400)
        made = recipes.make("cnn", seed=0)
        model = made.model.to("gpu")
        before = model.get_weights()
        with stand_in.limit_memory(stand_in.get_default_memory_pool().used_bytes() + 20_000_000):
            with pytest.raises(DeviceMemoryError, match="^out of GPU memory .*; try batch_size=200$"):
                model.fit(x, y, **made.fit_arguments() | {"batch_size": 400, "epochs": 1}, verbose=0)
            for now, then in zip(model.get_weights(), before, strict=True):
                np.testing.assert_array_equal(now, then)
            assert model.step == made.optimizer.step_count == 0
            model.fit(x, y, **made.fit_arguments() | {"batch_size": 8, "epochs": 1}, verbose=0)
            with pytest.raises(DeviceMemoryError, match="try batch_size=200"):
                model.predict(x, batch_size=400)
            assert model.predict(x, batch_size=4).shape == (400, 10)

    def test_too_large_a_data_set_says_what_it_takes(self, stand_in):
        x, y = pictures(400)
        made = recipes.make("mlp_adam", seed=0)
        model = made.model.to("gpu")
        with (
            stand_in.limit_memory(stand_in.get_default_memory_pool().used_bytes() + 200_000),
            pytest.raises(DeviceMemoryError, match="the data set takes 0 MB: give an iterable of batches"),
        ):
            model.fit(x, y, **made.fit_arguments(), verbose=0)

    def test_a_model_that_does_not_fit_stays_where_it_was(self, stand_in):
        model = recipes.make("mlp_sgd", seed=0).model
        before = model.get_weights()
        with (
            stand_in.limit_memory(1000),
            pytest.raises(DeviceMemoryError, match="out of GPU memory"),
        ):
            model.to("gpu")
        assert model.device.name == "cpu"
        for now, then in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(now, then)
