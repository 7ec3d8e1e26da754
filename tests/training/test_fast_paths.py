"""The fast paths train as the plain path does: 100 steps, with dropout and batch-norm, on each path.

The plain path is one worker, one BLAS thread, convolutions by columns, and the optimizer's step in one piece.
"""

from contextlib import ExitStack

import numpy as np
import pytest

import tinynet as tn
from tinynet import optimizer as base
from tinynet.engines import cpu

STEPS = 100
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}  # relative, for every step's loss


def dense_network(dtype):
    # A product of 16 x 81 by 81 x 640 is large enough for BLAS to take two threads.
    hidden = [[tn.Dense(units), tn.BatchNorm(), tn.ReLU(), tn.Dropout(0.2)] for units in (640, 32)]
    layers = [tn.Rescale(1 / 255), tn.Flatten(), *hidden[0], *hidden[1], tn.Dense(10), tn.Softmax()]
    return tn.Sequential(layers, input_shape=(9, 9), seed=0, dtype=dtype)


def convolutional_network(dtype):
    layers = [
        *(tn.Rescale(1 / 255), tn.Reshape((9, 9, 1))),
        *(tn.Conv2D(8, 3, padding="same"), tn.BatchNorm(), tn.MaxPool2D(), tn.ReLU()),
        tn.Residual(tn.Conv2D(8, 3, padding="same", use_bias=False), tn.BatchNorm(), tn.Dropout(0.2)),
        *(tn.Flatten(), tn.Dense(10), tn.Softmax()),
    ]
    return tn.Sequential(layers, input_shape=(9, 9), seed=0, dtype=dtype)


NETWORKS = {"dense": dense_network, "convolutional": convolutional_network}


def losses(network, dtype, workers=1, blas_threads=1):
    """The loss of each step."""
    model = NETWORKS[network](dtype)
    rng = np.random.default_rng(1)
    y = rng.integers(0, 10, STEPS * 16)
    kinds = rng.integers(
        0, 156, (10, 9, 9), dtype=np.uint8
    )  # an image of each class, to which noise is added
    x = kinds[y] + rng.integers(0, 100, (len(y), 9, 9), dtype=np.uint8)

    class Record(tn.Callback):
        def on_batch_end(self, run):
            found.append(run.mean_loss() * (run.batch + 1))

    found = []
    with cpu.blas_threads(blas_threads):
        model.fit(
            x,
            y,
            optimizer=tn.SGD(0.01),
            loss=tn.CrossEntropy(),
            batch_size=16,
            workers=workers,
            callbacks=[Record()],
            verbose=0,
        )
    return np.diff(found, prepend=0)


@pytest.fixture(scope="module")
def plain():
    """The plain path's losses, each computed once."""
    known = {}

    def get(network, dtype):
        if (network, dtype) not in known:
            known[network, dtype] = losses(network, dtype)
        return known[network, dtype]

    return get


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("network", "path"),
    [
        ("dense", {"workers": 2}),
        ("dense", {"workers": 3}),
        ("dense", {"blas_threads": 2}),
        ("convolutional", {"workers": 2}),
        ("convolutional", {"workers": 3}),
        ("convolutional", {"blas_threads": 2}),
    ],
    ids=str,
)
def test_a_hundred_steps_have_the_losses_of_the_plain_path(network, path, dtype, plain):
    found = losses(network, dtype, **path)
    assert len(found) == STEPS
    assert found[-20:].mean() < 0.9 * found[:20].mean()  # it trains
    np.testing.assert_allclose(found, plain(network, dtype), rtol=TOLERANCE[dtype])


def test_an_optimizer_in_halves_gives_the_same_losses(plain, monkeypatch):
    expected, calls = plain("dense", "float64"), []
    monkeypatch.setattr(base, "MANY_ELEMENTS", 1000)
    monkeypatch.setattr(cpu, "threads_allowed", lambda: 2)
    with ExitStack() as stack:
        helper = cpu._helper()
        submit = helper.submit
        stack.callback(setattr, helper, "submit", submit)
        helper.submit = lambda *arguments: calls.append(1) or submit(*arguments)
        found = losses("dense", "float64")
    assert len(calls) == STEPS  # it was halved
    np.testing.assert_array_equal(found, expected)
