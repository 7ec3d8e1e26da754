"""Layers, losses and optimizers on a GPU compute what they compute on the CPU."""

import copy
import pickle

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import tinynet as tn
from tests.support.strategies import layer_cases, seeds
from tinynet.engines.devices import device_of, to_host
from tinynet.engines.gpu import device as gpu_device
from tinynet.study import gradcheck

CASES = layer_cases()
# All examples of a test are meant to share one device.
NO_CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
on_one_device = settings(max_examples=20, suppress_health_check=NO_CHECKS)


def rounding(dtype):
    return {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-11, "atol": 1e-11}


def same(on_gpu, on_cpu, dtype, scale=1.0):
    assert isinstance(on_cpu, np.ndarray)
    assert device_of(on_gpu).name == "gpu"
    tolerance = rounding(dtype)
    np.testing.assert_allclose(
        to_host(on_gpu), on_cpu, rtol=tolerance["rtol"], atol=tolerance["atol"] * max(scale, 1.0)
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
@on_one_device
@given(data=st.data(), seed=seeds)
def test_a_layer_computes_what_it_computes_on_the_cpu(gpu, name, dtype, data, seed):
    case = data.draw(CASES[name])
    x = case.x.astype(dtype)
    cpu = tn.Sequential([case.layer], x.shape[1:], seed=seed, dtype=dtype)
    other = cpu.copy(device="gpu")
    same(other.forward(gpu.asarray(x)), cpu.forward(x), dtype)  # not training
    for rows in (slice(None), slice(0, -(-len(x) // 2)), slice(None)):  # buffers that shrink and grow
        for model in (cpu, other):
            model._begin_step()
        y = cpu.forward(x[rows], training=True)
        dy = np.random.default_rng(seed).standard_normal(y.shape).astype(dtype)
        same(other.forward(gpu.asarray(x[rows]), training=True), y, dtype)
        for model, gradient in ((cpu, dy), (other, gpu.asarray(dy))):
            model.grads.fill(np.nan)
            for layer in model.layers:
                layer.needs_input_grad = True
                layer.dx = layer.backward(gradient)
        same(other.layers[0].dx, cpu.layers[0].dx, dtype, np.abs(cpu.layers[0].dx).max())
        for path, array in cpu.named_grads().items():
            layer = dict(cpu.walk())[path.rpartition(".")[0]]
            if layer.trainable:
                same(other.named_grads()[path], array, dtype, np.abs(array).max())
        for path, array in cpu.named_state().items():
            same(other.named_state()[path], array, dtype, np.abs(array).max())


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=8, suppress_health_check=NO_CHECKS)
@given(data=st.data(), seed=seeds)
def test_every_gradient_check_passes(gpu, name, data, seed):
    case = data.draw(CASES[name])
    model = tn.Sequential([case.layer], case.x.shape[1:], seed=seed, dtype="float64", device="gpu")
    report = gradcheck(model, case.x, seed=seed, max_elements=12).check()
    assert all(tensor.compared for tensor in report.tensors)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("head", "loss"),
    [
        (tn.Softmax, tn.CrossEntropy()),
        (tn.Softmax, tn.CrossEntropy(0.1)),
        (None, tn.SoftmaxCrossEntropy()),
        (None, tn.SoftmaxCrossEntropy(0.2)),
        (tn.LogSoftmax, tn.NegativeLogLikelihood()),
        (None, tn.MeanSquaredError()),
    ],
    ids=repr,
)
@pytest.mark.parametrize("fused", [True, False])
def test_a_loss_and_its_gradient(gpu, head, loss, fused, dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 5)).astype(dtype)
    y = rng.integers(0, 4, 6) if loss.is_classification else rng.standard_normal((6, 4)).astype(dtype)
    layers = [tn.Dense(4), *([] if head is None else [head()])]
    cpu = tn.Sequential(layers, (5,), seed=0, dtype=dtype)
    other = cpu.copy(device="gpu")
    if fused:
        value = cpu.loss_and_gradients(x, y, copy.copy(loss))
        assert other.loss_and_gradients(gpu.asarray(x), y, copy.copy(loss)) == pytest.approx(value, rel=1e-5)
        same(other.grads, cpu.grads, dtype)
    else:
        ours, theirs = copy.copy(loss), copy.copy(loss)
        value = ours.forward(cpu.forward(x), y)
        on_gpu = theirs.forward(other.forward(gpu.asarray(x)), y)
        assert on_gpu.shape == ()  # it stays there until it is read
        assert float(on_gpu) == pytest.approx(value, rel=1e-5)
        same(theirs.backward(), ours.backward(), dtype)


@pytest.mark.parametrize("wrong", [-1, 4, 1 << 40])
def test_labels_are_checked_wherever_they_are(gpu, wrong):
    """CuPy would silently wrap such an index around."""
    outputs = np.zeros((2, 4), np.float32)
    for labels in (np.array([0, wrong]), gpu.asarray(np.array([0, wrong]))):
        with pytest.raises(ValueError, match="labels: expected class numbers from 0 to 3"):
            tn.SoftmaxCrossEntropy().forward(gpu.asarray(outputs), labels)
    model = tn.Sequential([tn.Dense(4)], (3,), device="gpu")
    with pytest.raises(ValueError, match="labels: expected class numbers from 0 to 3"):
        model.fit(
            np.zeros((2, 3), np.float32),
            np.array([0, wrong]),
            optimizer=tn.SGD(),
            loss=tn.SoftmaxCrossEntropy(),
            verbose=0,
        )


@pytest.mark.parametrize(
    "make",
    [
        tn.SGD,
        lambda: tn.SGD(0.1, momentum=0.9),
        lambda: tn.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
        lambda: tn.SGD(0.1, weight_decay=0.1, decoupled=False),
        lambda: tn.SGD(0.1, clip_norm=0.5),
        lambda: tn.SGD(0.1, clip_norm=1e6),
        tn.RMSprop,
        tn.Adam,
        lambda: tn.AdamW(0.01, weight_decay=0.1, clip_norm=1.0),
    ],
    ids=[
        "SGD",
        "momentum",
        "Nesterov",
        "penalty",
        "clipped",
        "clipped seldom",
        "RMSprop",
        "Adam",
        "AdamW",
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_optimizer_takes_the_same_steps(gpu, make, dtype):
    rng = np.random.default_rng(0)
    params = rng.standard_normal(1000).astype(dtype)
    on_gpu = gpu.asarray(params.copy())
    ours, theirs = make(), make()
    for _ in range(5):
        grads = rng.standard_normal(1000).astype(dtype)
        ours.step(params, grads, 600, [(0, 300), (400, 1000)])
        theirs.step(on_gpu, gpu.asarray(grads), 600, [(0, 300), (400, 1000)])
    same(on_gpu, params, dtype)
    for name, slot in ours.slots.items():
        same(theirs.slots[name], slot, dtype)
        assert isinstance(theirs.state()["slots"][name], np.ndarray)


class TestAModel:
    def make(self, device="gpu", **settings):
        layers = [tn.Dense(6), tn.BatchNorm(), tn.ReLU(), tn.Dropout(0.3), tn.Dense(3), tn.Softmax()]
        return tn.Sequential(layers, (4,), seed=3, device=device, **settings)

    def test_both_devices_begin_alike(self, gpu):
        cpu, other = self.make("cpu"), self.make("gpu")
        assert cpu.device.name == "cpu"
        assert other.device is gpu
        for ours, theirs in zip(cpu.get_weights(), other.get_weights(), strict=True):
            assert isinstance(theirs, np.ndarray)
            np.testing.assert_array_equal(ours, theirs)

    def test_auto_is_the_gpu_where_there_is_one(self, gpu):
        assert self.make("auto").device is gpu

    def test_to_and_back_keeps_every_number_and_every_view(self, gpu):
        model = self.make("cpu")
        before = model.get_weights()
        assert model.to("gpu") is model
        layer = model.layers[0]
        assert all(device_of(array) is gpu for array in (layer.W, layer.db, model.layers[1].running_mean))
        layer.W = np.full((4, 6), 2.0)  # assignment copies, into the vector
        assert float(to_host(model.params).max()) == 2.0
        model.set_weights(before)
        model.to("cpu")
        for array, saved in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(array, saved)
        model.params[:] = 5
        assert (model.layers[0].W == 5).all()

    def test_predict_gives_numpy(self, gpu):
        x = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)
        cpu, other = self.make("cpu"), self.make("gpu")
        for images in (x, gpu.asarray(x)):
            found = other.predict(images, batch_size=3)
            assert isinstance(found, np.ndarray)
            np.testing.assert_allclose(found, cpu.predict(x), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(other.predict_classes(x), cpu.predict_classes(x))
        labels = np.arange(7) % 3
        scores = other.evaluate(x, labels, loss=tn.CrossEntropy(), batch_size=2)
        assert scores == pytest.approx(cpu.evaluate(x, labels, loss=tn.CrossEntropy()), rel=1e-5)
        assert all(type(value) is float for value in scores.values())

    def test_arrays_of_the_wrong_device_are_refused_with_the_way_over(self, gpu):
        x = np.zeros((2, 4), np.float32)
        labels = np.zeros(2, int)
        cpu, other = self.make("cpu"), self.make("gpu")
        with pytest.raises(
            TypeError, match=r"x: .*'gpu', got one on 'cpu'; give cupy.asarray\(x\), or .*to\('cpu'\)"
        ):
            other.forward(x)
        with pytest.raises(
            TypeError, match=r"x: .*'cpu', got one on 'gpu'; give x.get\(\), or .*to\('gpu'\)"
        ):
            cpu.forward(gpu.asarray(x))
        for use in (
            lambda: cpu.predict(gpu.asarray(x)),
            lambda: cpu.evaluate(gpu.asarray(x), labels, loss=tn.CrossEntropy()),
            lambda: cpu.fit(gpu.asarray(x), labels, optimizer=tn.SGD(), loss=tn.CrossEntropy(), verbose=0),
            lambda: other.loss_and_gradients(x, labels, tn.CrossEntropy()),
        ):
            with pytest.raises(TypeError, match="x: expected an array on the model's device"):
                use()

    def test_saved_on_one_device_and_loaded_on_the_other(self, gpu, tmp_path):
        model = self.make()
        model.save(tmp_path / "m.safetensors")
        for device in ("cpu", "gpu", "auto"):
            loaded = tn.load_model(tmp_path / "m.safetensors", device=device)
            assert loaded.device.name == ("cpu" if device == "cpu" else "gpu")
            for ours, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
                np.testing.assert_array_equal(ours, theirs)

    def test_copies_are_models_of_their_own(self, gpu):
        model = self.make()
        for other in (model.copy(), copy.deepcopy(model)):
            assert other.device is gpu
            other.params[...] = 1
            assert (other.get_weights()[0] == 1).all()
        assert not (model.get_weights()[0] == 1).any()
        assert model.copy("float64").params.dtype == np.float64

    def test_a_pickle_comes_back_on_the_same_device(self, gpu):
        if getattr(gpu.cupy, "__name__", "") != "cupy":
            pytest.skip("the stand-in's arrays have no pickles")
        model = pickle.loads(pickle.dumps(self.make()))
        assert model.device is gpu
        model.params[...] = 1
        assert (model.get_weights()[0] == 1).all()

    def test_weights_pass_between_devices(self, gpu):
        cpu, other = self.make("cpu"), self.make("gpu")
        cpu.params[...] = 3
        tn.transfer_weights(cpu, other)
        assert (to_host(other.layers[0].W) == 3).all()
        other.params[...] = 4
        tn.transfer_weights(other, cpu)
        assert (cpu.layers[0].W == 4).all()

    def test_units_can_be_pruned(self, gpu):
        cpu, other = self.make("cpu"), self.make("gpu")
        ours, theirs = tn.prune_units(cpu, {"0": 2}), tn.prune_units(other, {"0": 2})
        assert theirs.device is gpu
        for one, two in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_array_equal(one, two)

    def test_a_step_is_traced_on_a_copy(self, gpu):
        x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
        y, model = np.arange(5) % 3, self.make()
        before = model.get_weights()
        step = tn.study.trace(model, x, y, tn.CrossEntropy(), tn.Adam(), dry_run=True)
        expected = tn.study.trace(self.make("cpu"), x, y, tn.CrossEntropy(), tn.Adam())
        assert step.loss.value == expected.loss.value
        for now, then in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(now, then)
        with pytest.raises(
            ValueError, match="the model is on the GPU; pass dry_run=True, or call model.to\\('cpu'\\)"
        ):
            tn.study.trace(model, x, y, tn.CrossEntropy(), tn.Adam())


def test_a_large_array_comes_to_the_gpu_in_pieces(gpu, monkeypatch):
    copied, asarray = [], gpu.cupy.asarray
    monkeypatch.setattr(
        gpu.cupy, "asarray", lambda a, **options: (copied.append(a.nbytes), asarray(a, **options))[1]
    )
    monkeypatch.setattr(gpu_device, "_PIECE", 1000)
    rng = np.random.default_rng(0)
    for shape in ((125,), (126,), (1000, 3), (7, 200), (333, 2, 2)):
        array = rng.standard_normal(shape)
        np.testing.assert_array_equal(gpu.asarray(array[::-1]).get(), array[::-1])
    assert max(copied) == 1600  # a row of 200 numbers
    assert copied[:3] == [1000, 1000, 8]


def test_both_devices_drop_the_same_units(gpu):
    x = np.ones((9, 5, 7), np.float32)
    for rate in (0.1, 0.5, 0.9):
        cpu = tn.Sequential([tn.Dropout(rate)], (5, 7), seed=11)
        other = cpu.copy(device="gpu")
        for _ in range(3):
            cpu._begin_step(first_row=4)
            other._begin_step(first_row=4)
            mine = cpu.forward(x, training=True)
            np.testing.assert_array_equal(to_host(other.forward(gpu.asarray(x), training=True)), mine)
            assert 0 < (mine == 0).mean() < 1


def test_arrays_of_both_devices_in_one_layer_get_an_error_with_the_mend(gpu):
    on_gpu = tn.Sequential([tn.Dense(3)], (4,), device="gpu").layers[0]
    on_cpu = tn.Sequential([tn.Dense(3)], (4,)).layers[0]
    x = np.ones((2, 4), np.float32)
    for layer, given_x in ((on_gpu, x), (on_cpu, gpu.asarray(x))):
        with pytest.raises(
            TypeError, match=r"matmul: expected arrays of one device, .*cupy.asarray\(a\).*a.get\(\)"
        ):
            layer.forward(given_x)
