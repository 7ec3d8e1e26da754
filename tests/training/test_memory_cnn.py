"""What a training step of a convolutional network allocates, alone and split, and how much memory training holds."""

import gc
import tracemalloc

import numpy as np
import pytest

import tinynet as tn
from tests.support.runs import by_team
from tests.training.test_memory import WATCHED, Watched
from tinynet.engines import cpu
from tinynet.training.team import Team

MB = 1 << 20


def plain():
    """The classic network for 28 x 28 images."""
    return tn.Sequential(
        [
            *(tn.Conv2D(32, 3), tn.ReLU(), tn.MaxPool2D()),
            *(tn.Conv2D(64, 3), tn.ReLU(), tn.MaxPool2D()),
            *(tn.Flatten(), tn.Dense(128), tn.ReLU(), tn.Dense(10), tn.Softmax()),
        ],
        input_shape=(28, 28, 1),
        seed=0,
    )


def with_blocks():
    """Batch-norm, residual blocks with and without a projection, and every other layer for images."""
    return tn.Sequential(
        [
            *(tn.Rescale(1 / 255), tn.Reshape((28, 28, 1))),
            *(tn.Conv2D(16, 3, padding="same", use_bias=False), tn.MaxPool2D(3, 2, "same"), tn.BatchNorm()),
            tn.ReLU(),
            tn.Residual(tn.Conv2D(16, 3, padding="same"), tn.BatchNorm(), tn.ReLU()),
            tn.Residual(tn.Conv2D(32, 3, 2, "same"), tn.BatchNorm(), projection=tn.Conv2D(32, 1, 2)),
            *(tn.DepthwiseConv2D(3, padding="same"), tn.LeakyReLU(0.1), tn.AveragePool2D(), tn.Dropout(0.2)),
            *(tn.Conv2D(32, 2), tn.GlobalMaxPool2D(), tn.Dense(10), tn.Softmax()),
        ],
        input_shape=(28, 28),
        seed=0,
    )


MODELS = {"plain": plain, "with blocks": with_blocks}


def batch_for(model, size=64):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (size, *model.input_shape), dtype=np.uint8), rng.integers(0, 10, size)


@pytest.fixture(autouse=True)
def one_blas_thread():
    """As in `fit` with workers."""
    with cpu.blas_threads(1):
        yield


@pytest.fixture
def traced():
    gc.collect()
    tracemalloc.start()
    yield tracemalloc.get_traced_memory
    tracemalloc.stop()


def steps(team, optimizer, batches, count):
    for step in range(count):
        x, y = batches[step % len(batches)]
        by_team(team, x, y, tn.CrossEntropy())
        model = team.model
        optimizer.step(model.params, model.grads, model.decay_size, model.trainable_ranges())


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_step_allocates_little_beyond_its_buffers(make, workers, traced):
    model, optimizer = make(), tn.SGD(0.001)
    batches, peaks = [batch_for(model)], []
    optimizer.prepare(model.params)
    with Team(model, workers) as team:
        steps(team, optimizer, batches, 3)
        for _ in range(3):
            gc.collect(0)
            tracemalloc.reset_peak()
            start = traced()[0]
            steps(team, optimizer, batches, 1)
            peaks.append(traced()[1] - start)
    assert max(peaks) < MB


STACKS = {
    "straight to Flatten": [tn.Conv2D(32, 3, padding="same"), tn.ReLU(), tn.Flatten()],
    "a global pool": [tn.Conv2D(32, 3), tn.GlobalMaxPool2D()],
    "depthwise": [tn.DepthwiseConv2D(3, depth_multiplier=16), tn.Flatten()],
    "a block": [tn.Conv2D(16, 3), tn.Residual(tn.Conv2D(16, 3, padding="same")), tn.Flatten()],
}


@pytest.mark.parametrize("name", STACKS)
def test_other_stacks_reuse_their_buffers_too(name, traced):
    layers = [type(layer).from_config(layer.config()) for layer in STACKS[name]]
    model = tn.Sequential([*layers, tn.Dense(10), tn.Softmax()], input_shape=(28, 28, 1), seed=0)
    x, y = batch_for(model)
    for _ in range(3):
        model.loss_and_gradients(x, y, tn.CrossEntropy())
    gc.collect()
    tracemalloc.reset_peak()
    start = tracemalloc.get_traced_memory()[0]
    model.loss_and_gradients(x, y, tn.CrossEntropy())
    assert tracemalloc.get_traced_memory()[1] - start < MB


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_memory_does_not_grow_with_the_steps(make, workers, traced):
    model, optimizer = make(), tn.SGD(0.001)
    batches = [batch_for(model, size) for size in (40, 40, 9)]  # a last batch that is smaller
    optimizer.prepare(model.params)
    with Team(model, workers) as team:
        steps(team, optimizer, batches, 3)
        start = traced()[0]
        steps(team, optimizer, batches, 6)
        grown = traced()[0] - start
    assert grown < 32 * 1024


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_training_at_batch_64_holds_less_than_200_mb_beyond_the_data(make, workers, traced):
    model = make()
    x, y = batch_for(model, 3 * 64 + 5)
    tracemalloc.reset_peak()
    start = traced()[0]
    model.fit(
        x,
        y,
        optimizer=tn.Adam(),
        loss=tn.CrossEntropy(),
        batch_size=64,
        validation_data=(x, y),
        workers=workers,
        verbose=0,
    )
    assert traced()[1] - start < 200 * MB


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_float32_model_makes_no_float64_array_of_size(make, workers, monkeypatch):
    for function in WATCHED:
        monkeypatch.setattr(np, function, Watched(getattr(np, function)))
    model = make()
    x, y = batch_for(model, 40)
    members, original = [model], model._replica
    monkeypatch.setattr(model, "_replica", lambda: members.append(original()) or members[-1], raising=False)
    model.fit(
        x,
        y,
        optimizer=tn.AdamW(),
        loss=tn.CrossEntropy(),
        validation_data=(x, y),
        verbose=0,
        workers=workers,
    )
    arrays = [model.params, model.grads, model.outputs, model.predict(x)]
    for member in members:
        for _, layer in member.walk():
            arrays += [value for value in vars(layer).values() if isinstance(value, np.ndarray)]
            arrays += layer._buffers.values()
    floats = [array for array in arrays if array.dtype.kind == "f"]
    assert len(members) == workers
    assert len(floats) > 20
    assert {array.dtype for array in floats} == {np.dtype(np.float32)}


def test_inference_keeps_nothing(traced):
    """A batch of `predict`'s size needs memory for two layers at a time, and releases it."""
    model = plain()
    x, _ = batch_for(model, 256)
    model.predict(x)
    start = traced()[0]
    tracemalloc.reset_peak()
    outputs = model.predict(x)
    held, peak = traced()
    assert held - start < outputs.nbytes + 16 * 1024
    assert peak - start < 80 * MB
    assert all(layer._buffers == {} for _, layer in model.walk())
