"""Gradient checks with compiled loops, in networks whose arrays lie as the loops take them.

With ``TINYNET_ENGINE=numba``, all of `tests.layers` is computed by loops, where they take the arrays.
"""

import numpy as np
import pytest

import tinynet as tn
from tinynet.engines.choice import running
from tinynet.study import gradcheck

LOOPS = pytest.importorskip("tinynet.engines.fast.operations").LOOPS

SCORES = {
    "logits": (list, tn.SoftmaxCrossEntropy),
    "smoothed": (lambda: [tn.Softmax()], lambda: tn.CrossEntropy(0.2)),
    "log-likelihood": (lambda: [tn.LogSoftmax()], tn.NegativeLogLikelihood),
}
IMAGES = {
    "convolutions": lambda: [tn.Conv2D(3, 3, padding="same"), tn.ReLU(), tn.Conv2D(2, 2, 2)],
    "batch-norm": lambda: [tn.Conv2D(3, (3, 2)), tn.BatchNorm(), tn.Tanh(), tn.Conv2D(2, 1)],
    "pool": lambda: [tn.Conv2D(2, 1), tn.MaxPool2D(), tn.Conv2D(2, 1)],
    "pool at an edge": lambda: [tn.Conv2D(2, 2), tn.MaxPool2D(2, padding="same"), tn.Conv2D(2, 1)],
    "pools that overlap": lambda: [tn.Conv2D(2, 1), tn.MaxPool2D(3, 2, "same"), tn.Conv2D(2, 1)],
    "global pool": lambda: [tn.Conv2D(3, 2), tn.GlobalMaxPool2D(), tn.Reshape((1, 1, 3))],
    "residual": lambda: [
        tn.Conv2D(2, 1),
        tn.Residual(tn.Conv2D(2, 3, padding="same"), tn.BatchNorm()),
        tn.Conv2D(2, 1),
    ],
    "depthwise": lambda: [tn.DepthwiseConv2D(3, padding="same"), tn.ReLU(), tn.Conv2D(2, 1)],
}


@pytest.fixture
def taken(monkeypatch):
    """The names of the loops that computed something."""
    names = set()

    def watch(name, loop):
        def watched(*arguments, **options):
            result = loop(*arguments, **options)
            if result is not NotImplemented:
                names.add(name)
            return result

        monkeypatch.setitem(LOOPS, name, watched)

    for name, loop in list(LOOPS.items()):
        watch(name, loop)
    return names


@pytest.mark.parametrize("head", SCORES)
def test_of_vectors(head, taken):
    make, loss = SCORES[head]
    layers = [
        tn.Dense(4),
        tn.ReLU(),
        tn.Dense(4),
        tn.BatchNorm(),
        tn.ReLU(),
        tn.Dropout(0.3),
        tn.Dense(3),
        *make(),
    ]
    model = tn.Sequential(layers, (5,), seed=0)
    x = np.random.default_rng(0).standard_normal((7, 5))
    with running("numba"):
        gradcheck(model, x, np.arange(7) % 3, loss(), rtol=1e-5).check()
    assert taken >= {"rectify", "rectify_backward", "feature_sums", "batchnorm_dx", "drop", "sum_rows"}
    assert ("log_softmax" in taken) == (head == "log-likelihood")
    assert ("cross_entropy_gradient" in taken) == (head == "logits")


@pytest.mark.parametrize("name", IMAGES)
def test_of_images(name, taken):
    model = tn.Sequential([*IMAGES[name](), tn.Flatten(), tn.Dense(3)], (6, 6, 2), seed=0)
    x = np.random.default_rng(1).permutation(np.linspace(-2, 2, 4 * 6 * 6 * 2)).reshape(4, 6, 6, 2)
    with running("numba"):
        gradcheck(model, x, np.arange(4) % 3, tn.SoftmaxCrossEntropy(), rtol=1e-5).check()
    assert taken >= {"take_windows", "add_windows", "sum_rows"} - (
        {"add_windows"} if name == "depthwise" else set()
    )
    if "pool" in name:
        assert taken >= {"max_pool", "max_pool_backward"}
    if name in ("batch-norm", "residual"):
        assert taken >= {"moments", "standardize", "feature_sums", "batchnorm_dx"}
