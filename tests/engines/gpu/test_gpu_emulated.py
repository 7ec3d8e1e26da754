"""Whole training runs with the real CUDA kernels, run on the CPU from their source."""

import numpy as np
import pytest

import tinynet as tn
from tests.engines.gpu.test_gpu_training import pictures
from tests.support import cuda_emulation
from tests.support.emulated_gpu import emulated_gpu
from tinynet import recipes
from tinynet.engines import devices


@pytest.fixture
def emulated():
    cuda_emulation.skip_without_compiler()
    gpu = emulated_gpu()
    former = devices.use_gpu(gpu)
    yield gpu
    devices.use_gpu(former)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_run_of_every_recipe_is_that_of_the_cpu(emulated, name):
    """Two epochs of two full batches and a smaller one: kernel by kernel, captured, and replayed."""
    results = []
    for device in ("cpu", "gpu"):
        made = recipes.make(name, seed=0, epochs=2, batch_size=4, training_examples=10)
        model = made.model.copy("float64", device=device)
        x, y = pictures(10)
        history = model.fit(x, y, **made.fit_arguments(), verbose=0, workers=1).history
        results.append((history["loss"], history["accuracy"], model.get_weights(), model.predict(x)))
    (loss, accuracy, weights, outputs), (on_gpu, its_accuracy, its_weights, its_outputs) = results
    assert on_gpu == pytest.approx(loss, rel=1e-10)
    assert its_accuracy == accuracy
    np.testing.assert_allclose(its_outputs, outputs, rtol=1e-7, atol=1e-10)
    for mine, other in zip(weights, its_weights, strict=True):
        # Adam takes full steps even along gradients that are only rounding errors, as of a bias before a batch-norm.
        np.testing.assert_allclose(other, mine, rtol=1e-7, atol=1e-7)
    assert emulated.kernels.launched > {"take_rows", "rectify", "rectify_backward", "record"}


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_run_on_part_of_memory_mapped_files_is_that_of_the_cpu(emulated, shuffle, tmp_path):
    """Passes over the data begin in mid-epoch; float16 and big-endian numbers are converted on the way."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((14, 3)).astype(np.float16))
    np.save(tmp_path / "y.npy", rng.standard_normal((14, 2)).astype(">f8"))
    x, y = (np.load(tmp_path / name, mmap_mode="r") for name in ("x.npy", "y.npy"))
    ends = []
    for device in ("cpu", "gpu"):
        model = tn.Sequential([tn.Dense(2)], (3,), seed=1, dtype="float64", device=device)
        given = {"optimizer": tn.SGD(0.1), "loss": tn.MeanSquaredError(), "shuffle": shuffle, "verbose": 0}
        model.fit(x, y, batch_size=4, steps_per_epoch=3, epochs=5, **given)
        ends.append((*model.get_weights(), *model.evaluate(x, y).values()))
    for mine, other in zip(*ends, strict=True):
        np.testing.assert_allclose(other, mine, rtol=1e-9)


@pytest.mark.parametrize("head", [tn.Softmax, tn.LogSoftmax, None])
def test_a_run_on_soft_targets_is_that_of_the_cpu(emulated, head):
    rng = np.random.default_rng(0)
    x, q = rng.standard_normal((11, 4)), rng.dirichlet(np.ones(3), 11)
    batches = [(x[:4], q[:4]), (x[4:8], q[4:8].argmax(1)), (x[8:], q[8:])]
    losses = {tn.Softmax: tn.CrossEntropy(0.1), tn.LogSoftmax: tn.NegativeLogLikelihood()}
    ends = []
    for device in ("cpu", "gpu"):
        layers = [tn.Dense(3), *([head()] if head else [])]
        model = tn.Sequential(layers, (4,), seed=1, dtype="float64", device=device)
        given = {"optimizer": tn.SGD(0.1), "loss": losses.get(head, tn.SoftmaxCrossEntropy()), "verbose": 0}
        history = model.fit(x, q, batch_size=4, epochs=3, **given).history
        model.fit(batches, epochs=2, **given)
        ends.append(
            (*model.get_weights(), *model.evaluate(x, q).values(), history["loss"], history["accuracy"])
        )
    for mine, other in zip(*ends, strict=True):
        np.testing.assert_allclose(other, mine, rtol=1e-9)


def test_and_of_a_network_with_all_other_operations(emulated):
    """Clipping, plain Softmax, regression in float64, average pools, LeakyReLU, RMSprop."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((11, 6, 6, 2)), rng.standard_normal((11, 3))
    results = []
    for device in ("cpu", "gpu"):
        layers = [
            *(tn.DepthwiseConv2D(3, padding="same"), tn.LeakyReLU(0.1), tn.AveragePool2D(3, 2, "same")),
            *(tn.Conv2D(4, 2, strides=2), tn.Sigmoid(), tn.Flatten(), tn.Dense(3), tn.Softmax(), tn.Dense(3)),
        ]
        model = tn.Sequential(layers, (6, 6, 2), seed=1, dtype="float64", device=device)
        optimizer = tn.RMSprop(0.01, clip_norm=0.1, weight_decay=0.1, decoupled=False)
        history = model.fit(
            x, y, optimizer=optimizer, loss=tn.MeanSquaredError(), batch_size=4, epochs=3, verbose=0
        )
        results.append((history.history["loss"], model.get_weights()))
    (loss, weights), (on_gpu, its_weights) = results
    assert on_gpu == pytest.approx(loss, rel=1e-10)
    for mine, other in zip(weights, its_weights, strict=True):
        np.testing.assert_allclose(other, mine, rtol=1e-8, atol=1e-10)
    assert emulated.kernels.launched > {"clip", "softmax", "squared_norm"}


def test_and_where_padding_is_all_that_a_tap_sees(emulated):
    """For an image of one pixel, eight of the nine taps have no pixels to sum."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 1, 1, 2)), rng.integers(0, 3, 6)
    results = []
    for device in ("cpu", "gpu"):
        layers = [
            tn.DepthwiseConv2D(3, padding="same"),
            tn.Conv2D(3, 3, padding="same"),
            tn.Flatten(),
            tn.Dense(3),
        ]
        model = tn.Sequential(layers, (1, 1, 2), seed=1, dtype="float64", device=device)
        model.fit(
            x, y, optimizer=tn.SGD(0.1), loss=tn.SoftmaxCrossEntropy(), batch_size=3, epochs=2, verbose=0
        )
        results.append(model.get_weights())
    for mine, other in zip(*results, strict=True):
        np.testing.assert_allclose(other, mine, rtol=1e-10, atol=1e-12)
