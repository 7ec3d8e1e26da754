"""What surrounds the steps of a run on a GPU: the user's own callbacks, optimizers and layers, and other threads."""

import math

import numpy as np
import pytest

import tinynet as tn
from tests.support import runs
from tests.training.test_concurrent_fits import at_once
from tinynet.engines.devices import to_host

DEVICES = ("cpu", "gpu")


def network(device, *extra, seed=1):
    layers = [tn.Dense(6), tn.BatchNorm(), tn.ReLU(), *extra, tn.Dropout(0.3), tn.Dense(3), tn.Softmax()]
    return tn.Sequential(layers, (4,), seed=seed, dtype="float64", device=device)


def fit(model, *callbacks, optimizer=None, examples=60, **settings):
    settings = {"loss": tn.CrossEntropy(), "batch_size": 10, "epochs": 3, "verbose": 0} | settings
    x, y = runs.vectors(examples)
    return model.fit(x, y, optimizer=optimizer or tn.Adam(0.05), callbacks=callbacks, **settings)


def assert_same(results):
    for mine, other in zip(*results, strict=True):
        np.testing.assert_allclose(other, mine, rtol=1e-7, atol=1e-10)


class At(tn.Callback):
    """Does something at the end of each epoch."""

    def __init__(self, work):
        self.work = work

    def on_epoch_end(self, run):
        self.work(run)


class AtBatch(At):
    on_epoch_end = tn.Callback.on_epoch_end

    def on_batch_end(self, run):
        if run.batch == 3:
            self.work(run)


def larger_batch(run):
    """Compute gradients for more examples than a batch has, so that every buffer grows."""
    x, y = runs.vectors(40)
    run.model.loss_and_gradients(run.model.device.asarray(x), y, tn.CrossEntropy())


def forget(run):
    """As when memory runs out during a prediction."""
    run.model.forget()


def other_slots(run):
    run.optimizer.set_state(run.optimizer.state())


def other_smoothing(run):
    run.loss.label_smoothing = 0.3


def other_scale(run):
    run.model.layers[3].scale *= 0.5


def other_optimizer(run):
    run.optimizer = CountingAdam(0.01) if run.epoch else tn.SGD(0.1, momentum=0.9)


def other_loss(run):
    run.loss = tn.CrossEntropy(0.2)


class Scaled(tn.Layer):
    """A layer with a setting that is not an argument."""

    capturable = True

    def __init__(self):
        super().__init__()
        self.scale = 2.0

    def forward(self, x, training=False):
        return x * self.scale

    def backward(self, dy):
        return dy * self.scale


@pytest.mark.parametrize("kind", [At, AtBatch])
@pytest.mark.parametrize(
    "work", [larger_batch, forget, other_slots, other_smoothing, other_scale, other_optimizer, other_loss]
)
def test_a_callback_may_do_what_it_may_on_the_cpu(gpu, kind, work):
    """A graph refers to memory by its address, and holds numbers as they were: neither may be reused or stale."""
    results = []
    for device in DEVICES:
        model = network(device, Scaled())
        fit(model, kind(work))
        results.append(model.get_weights())
    assert_same(results)


@pytest.mark.parametrize(("device", "other"), [DEVICES, DEVICES[::-1]])
def test_a_model_is_not_moved_while_it_trains(gpu, device, other):
    model = network(device)
    with pytest.raises(RuntimeError, match=rf"training this model on '{device}'.*copy\(device='{other}'\)"):
        fit(model, At(lambda run: run.model.to(other)))
    fit(model, At(lambda run: run.model.to(device)))  # where it is
    assert model.to(other).device.name == other


class CountingAdam(tn.Optimizer):
    """Adam as anyone would write it: the formula uses the step count."""

    slot_names = ("m", "v")

    def update(self, params, grads, learning_rate, scratch, m, v):
        m += 0.1 * (grads - m)
        v += 0.001 * (grads * grads - v)
        unbiased = m / (1 - 0.9**self.step_count), v / (1 - 0.999**self.step_count)
        params -= learning_rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-7)


class Halved(tn.SGD):
    """An optimizer whose step wraps the library's."""

    capturable = True  # and yet called in each step

    def step(self, params, grads, decay_size=None, ranges=None):
        super().step(params, grads / 2, decay_size, ranges)


class Plain(tn.Optimizer):
    """An optimizer with a step of its own."""

    def step(self, params, grads, decay_size=None, ranges=None):
        params -= self.current_learning_rate() * grads
        self.step_count += 1


@pytest.mark.parametrize("kind", [CountingAdam, Halved, Plain])
def test_an_optimizer_of_the_users_own_takes_the_same_steps(gpu, kind):
    results = []
    for device in DEVICES:
        model = network(device)
        history = fit(model, optimizer=kind(lambda step: 0.1 / (1 + step)))
        np.testing.assert_allclose(history.history["learning_rate"], [0.1 / 6, 0.1 / 12, 0.1 / 18])
        results.append(model.get_weights())
    assert_same(results)


def test_two_models_train_side_by_side(gpu):
    """Each thread has its own stream: what one captures, the other must not launch."""

    def train(device, seed):
        model = network(device, seed=seed)
        for _ in range(5):
            fit(model)
        return model.get_weights()

    together = at_once(*(lambda seed=seed: train("gpu", seed) for seed in range(3)))
    for seed, weights in enumerate(together):
        assert_same([train("cpu", seed), weights])


@pytest.mark.parametrize("iterable", [True, False])
def test_regression_takes_numpys_float64(gpu, iterable):
    """Their gradients would have another dtype than the model's."""
    x, _ = runs.vectors(40)
    y, results = x[:, :2].astype(np.float64), []
    for device in DEVICES:
        model = tn.Sequential([tn.Dense(5), tn.Tanh(), tn.Dense(2)], (4,), seed=1, device=device)
        given = ([(x, y)], None) if iterable else (x, y)
        history = model.fit(
            *given,
            optimizer=tn.SGD(0.1),
            loss=tn.MeanSquaredError(),
            epochs=3,
            verbose=0,
            validation_data=[(x, y)],
        )
        results.append(
            [history.history["val_loss"][-1], model.evaluate(*given)["loss"], model.predict(x).sum()]
        )
    np.testing.assert_allclose(results[1], results[0], rtol=1e-4)


def test_training_can_be_watched(gpu, tmp_path):
    ratios = []
    for device in DEVICES:
        x, y = runs.vectors(20)
        model = network(device)
        given_x = model.device.asarray(x)
        monitor = tn.study.TrainingMonitor(tmp_path / f"{device}.html", given_x, y, every=3)
        fit(model, monitor)
        ratios.append(monitor.record.series("ratios"))
    np.testing.assert_allclose(ratios[1], ratios[0], rtol=1e-5)
    assert np.isfinite(ratios).all()


def test_a_layer_of_a_gpu_model_can_be_checked(gpu):
    layer = network("gpu").layers[0]
    x = np.random.default_rng(0).standard_normal((3, 4))
    report = tn.study.gradcheck(layer, x).check()
    assert all(tensor.compared for tensor in report.tensors)


def test_nan_on_the_gpu_is_named_by_its_place(gpu):
    x, y = runs.vectors(20)
    x[3, 2] = math.nan
    with pytest.raises(ValueError, match=r"x: expected finite float32 numbers, got nan at index \(3, 2\)"):
        tn.Sequential([tn.Dense(3)], (4,), device="gpu").evaluate(
            gpu.asarray(x.astype(np.float32)), y, loss=tn.SoftmaxCrossEntropy()
        )


def test_validation_data_and_masks_are_moved_once(stand_in, monkeypatch):
    moved = []
    asarray = stand_in.asarray

    def count(array, *arguments, **options):
        if isinstance(array, np.ndarray):
            moved.append(array.shape)
        return asarray(array, *arguments, **options)

    monkeypatch.setattr(stand_in, "asarray", count, raising=False)
    model, (x, y) = network("gpu"), runs.vectors(50)
    fit(model, tn.MagnitudePruning(0.5), validation_data=(x, y), epochs=4)
    assert moved.count((50, 4)) == 1
    assert moved.count((4, 6)) < 5  # a mask, at the beginning and the end


def test_without_room_for_it_validation_data_is_moved_in_parts(stand_in):
    model, (x, y) = network("gpu"), runs.vectors(20_000)
    with stand_in.limit_memory(stand_in.get_default_memory_pool().used_bytes() + x.nbytes):
        history = fit(model, validation_data=(x, y), epochs=1)
    expected = fit(network("cpu"), validation_data=(x, y), epochs=1)
    assert history.history["val_loss"] == pytest.approx(expected.history["val_loss"], rel=1e-7)


class TestMemory:
    @pytest.mark.filterwarnings("ignore:the step can't be captured")  # without memory for the graph
    def test_wherever_it_is_used_up_the_error_is_tinynets_and_all_goes_on(self, stand_in):
        """Room for a little more each time: for the data, the slots, the snapshot, buffers, the graph."""
        model, found = network("gpu"), []
        pool = stand_in.get_default_memory_pool()
        weights = model.get_weights()
        for blocks in range(0, 160, 3):
            optimizer = tn.Adam(0.05)
            with stand_in.limit_memory(pool.used_bytes() + 512 * blocks):
                try:
                    fit(model, optimizer=optimizer)
                    found.append("went well")
                except tn.DeviceMemoryError:
                    found.append("memory")
                    for now, then in zip(model.get_weights(), weights, strict=True):
                        np.testing.assert_array_equal(now, then)
            fit(model, optimizer=optimizer, epochs=1)  # with the same optimizer
            model.set_weights(weights)
        assert {"memory", "went well"} == set(found)

    def test_for_a_copy_or_a_model_of_a_file(self, stand_in, tmp_path):
        model = network("gpu")
        model.save(tmp_path / "m.safetensors")
        with stand_in.limit_memory(stand_in.get_default_memory_pool().used_bytes() + 600):
            with pytest.raises(tn.DeviceMemoryError, match="no copy was made"):
                model.copy()
            with pytest.raises(tn.DeviceMemoryError, match="out of GPU memory"):
                tn.load_model(tmp_path / "m.safetensors", device="gpu")
        with pytest.raises(ValueError, match="device: expected 'cpu', 'gpu' or 'auto', got 'tpu'"):
            tn.load_model(tmp_path / "m.safetensors", device="tpu")
        assert np.isfinite(to_host(model.copy().params)).all()
