"""compare: tinynet's gradients against those of PyTorch and Keras, where they are installed.

Each library, and each Keras backend, runs in its own process: importing them causes warnings, and Keras's backend can't
be changed afterwards.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinynet as tn
from tinynet.study import Comparison, compare
from tinynet.study.comparison.compare import differences, settled

ROOT = Path(__file__).parents[2]
PEERS = ("torch", "keras-tensorflow", "keras-torch", "keras-jax")
DTYPES = ("float64", "float32")
N = 12


def recipe_case(name):
    recipe = tn.recipes.make(name, seed=0)
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (N, 28, 28), dtype=np.uint8)
    return recipe.model, x, rng.integers(0, 10, N), recipe.loss


def plateaus_case():
    """Pictures with areas of one grey, where rounding decides the maxima."""
    recipe = tn.recipes.make("cnn_best", seed=0)
    rng = np.random.default_rng(5)
    x = np.zeros((48, 28, 28), np.uint8)
    for image in x:
        for _ in range(3):
            top, left, height, width = rng.integers(2, 16, 4)
            image[top : top + height, left : left + width] = rng.integers(60, 256)
    return recipe.model, x, rng.integers(0, 10, len(x)), recipe.loss


def images_case():
    """Every layer for images, with strides, paddings, a frozen layer, and dropout inside a residual block."""
    frozen = tn.BatchNorm()
    layers = [
        *(tn.DepthwiseConv2D(3, 2, "same", depth_multiplier=2), tn.LeakyReLU(0.1)),
        *(tn.AveragePool2D(3, 2, "same"), frozen),
        *(tn.Conv2D(4, (2, 3), (2, 1), bias_initializer="glorot_uniform"), tn.BatchNorm(epsilon=1e-3)),
        tn.Residual(
            *(tn.Conv2D(5, 3, padding="same"), tn.Tanh(), tn.Dropout(0.4, seed=3)),
            tn.Residual(tn.Conv2D(5, 2, padding="same", use_bias=False)),
            projection=tn.Conv2D(5, 1),
        ),
        *(tn.MaxPool2D(3, 2, "same"), tn.GlobalAveragePool2D(), tn.Dense(6), tn.Sigmoid()),
        *(tn.Dense(3, use_bias=False), tn.Softmax()),
    ]
    model = tn.Sequential(layers, input_shape=(19, 18, 2), seed=0)
    frozen.trainable = False
    rng = np.random.default_rng(2)
    frozen.running_mean = rng.standard_normal(4)
    return (
        model,
        rng.standard_normal((N, 19, 18, 2)),
        rng.integers(0, 3, N),
        tn.CrossEntropy(label_smoothing=0.2),
    )


def max_case():
    layers = [
        tn.Conv2D(3, 3, 2, "same"),
        tn.MaxPool2D((2, 3), (1, 2)),
        tn.GlobalMaxPool2D(),
        tn.Reshape((3, 1)),
        tn.Flatten(),
    ]
    model = tn.Sequential(layers, input_shape=(9, 8, 2), seed=0)
    rng = np.random.default_rng(3)
    return model, rng.standard_normal((N, 9, 8, 2)), rng.standard_normal((N, 3)), tn.MeanSquaredError()


def vector_case(head, loss):
    model = tn.Sequential(
        [tn.Rescale(0.5, 0.1), tn.Dense(7), tn.ReLU(), tn.Dense(4), *head], input_shape=(5,), seed=0
    )
    rng = np.random.default_rng(4)
    return model, rng.standard_normal((N, 5)), rng.integers(0, 4, N), loss


CASES = {
    **{name: lambda name=name: recipe_case(name) for name in tn.recipes.RECIPES},
    "images": images_case,
    "maxima": max_case,
    "logits": lambda: vector_case([], tn.SoftmaxCrossEntropy(label_smoothing=0.1)),
    "log-probabilities": lambda: vector_case([tn.LogSoftmax()], tn.NegativeLogLikelihood()),
    "probabilities": lambda: vector_case(
        [tn.Softmax(), tn.Rescale(0.5, 0.2)], tn.CrossEntropy(label_smoothing=0.1)
    ),
}


def in_this_process(against, dtypes=DTYPES):
    """Compare every case and print the results as JSON; the fixture `results` runs this in another process."""
    results = {}
    for name, make in CASES.items():
        for dtype in dtypes:
            model, x, y, loss = make()
            try:
                results[f"{name} {dtype}"] = _described(compare(model.copy(dtype), x, y, loss, against))
            except ValueError as error:
                results[f"{name} {dtype}"] = {"refused": str(error)}
    results["plateaus"] = _described(compare(*plateaus_case(), against))
    model, x, y, loss = vector_case([], tn.SoftmaxCrossEntropy())
    backward = tn.Dense.backward

    def twice(self, dy):
        dx = backward(self, dy)
        self.db *= 2
        return dx

    tn.Dense.backward = twice
    results["wrong"] = _described(compare(model, x, y, loss, against))
    print(json.dumps(results))


def _described(comparison):
    description = comparison._asdict() | {"ok": comparison.ok, "text": str(comparison)}
    return description | {"rows": [row._asdict() for row in comparison.rows]}


@pytest.fixture(scope="module", params=PEERS)
def results(request):
    against, _, backend = request.param.partition("-")
    for needed in filter(None, (against, backend)):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    settings = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"} if backend else {}
    # On JAX both dtypes are float32 and every case is compiled, so one dtype is enough.
    dtypes = DTYPES[:1] if backend == "jax" else DTYPES
    code = f"from tests import test_library_comparison as t; t.in_this_process({against!r}, {dtypes!r})"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, **settings, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stderr
    return request.param, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_other_library(name, dtype, results):
    peer, by_case = results
    if peer == "keras-jax":
        dtype = "float64"
    found = by_case[f"{name} {dtype}"]
    if (peer, name) == ("keras-torch", "images"):
        assert found["refused"].startswith('layer 2 (AveragePool2D): with padding="same", Keras on torch')
        return
    assert found["ok"], found["text"]
    model = CASES[name]()[0]
    trained = [
        path
        for path, _ in model.named_params().items()
        if dict(model.walk())[path.rpartition(".")[0]].trainable
    ]
    assert [row["name"] for row in found["rows"]] == trained
    notes = ["dropout: the same mask in both"] if name in ("mlp_bn", "cnn_small", "images") else []
    if peer in ("keras-torch", "keras-jax") and dtype == "float64":
        notes.append(f"{found['against']} computes in float32, so tinynet does too")
        dtype = "float32"
    assert (found["notes"], found["dtype"]) == (notes, dtype)
    largest = max(
        row["relative_difference"] for row in found["rows"] if row["verdict"].startswith("the same")
    )
    assert largest < {"float64": 1e-8, "float32": 5e-5}[dtype]  # closer than `compare` requires


def test_rounding_that_decides_maxima_is_told_from_a_mistake(results):
    peer, by_case = results
    found = by_case["plateaus"]
    apart = [
        row
        for row in found["rows"]
        if row["relative_difference"] > 1e-4 and not row["verdict"].startswith("0 up to")
    ]
    if peer in ("torch", "keras-tensorflow"):  # they have float64
        assert found["ok"], found["text"]
        assert all("by float32's rounding, the same in float64" in row["verdict"] for row in apart)
    else:
        assert found["ok"] == (not apart)
        assert any("KERAS_BACKEND=tensorflow" in note for note in found["notes"]) == bool(apart)


def test_a_wrong_gradient_is_seen(results):
    found = results[1]["wrong"]
    verdicts = {row["name"]: row["verdict"] for row in found["rows"]}
    assert not found["ok"]
    assert verdicts["1.W"] == verdicts["3.W"] == "the same up to rounding"
    assert verdicts["1.b"] == verdicts["3.b"] == "DIFFERENT by 50% of the largest gradient"


def gradients(seed=0):
    rng = np.random.default_rng(seed)
    return {"0.W": rng.standard_normal((4, 3)), "0.b": rng.standard_normal(3)}


def test_differences_are_absolute_and_relative_to_the_largest_gradient():
    ours, theirs = gradients(), gradients()
    theirs["0.W"][1, 2] += 0.25
    wrong, right = differences(ours, theirs, "float64")
    largest = max(np.abs(ours["0.W"]).max(), np.abs(theirs["0.W"]).max())
    assert (wrong.name, wrong.shape, wrong.max_difference) == ("0.W", (4, 3), 0.25)
    assert wrong.relative_difference == 0.25 / largest
    assert not wrong.ok
    assert wrong.verdict.startswith("DIFFERENT by ")
    assert right.ok
    assert right.max_difference == right.relative_difference == 0


@pytest.mark.parametrize(("dtype", "error", "ok"), [("float32", 1e-5, True), ("float64", 1e-5, False)])
def test_rounding_is_that_of_the_dtype(dtype, error, ok):
    ours, theirs = gradients(), gradients()
    theirs["0.W"] *= 1 + error
    assert [row.ok for row in differences(ours, theirs, dtype)] == [ok, True]


def test_a_gradient_that_is_rounding_alone_counts_as_0():
    """As for a bias before batch-norm: each library has different digits, and neither's mean anything."""
    ours, theirs = gradients(), gradients()
    ours["0.b"] *= 1e-16
    theirs["0.b"] *= -3e-16
    row = differences(ours, theirs, "float64")[1]
    assert row.ok
    assert row.relative_difference > 1
    assert row.verdict == "0 up to rounding in both"


def test_what_differs_in_float32_alone_is_rounding():
    ours, theirs = gradients(), gradients()
    theirs["0.W"] *= 1.25
    theirs["0.b"] *= 2
    rows, exact = (
        differences(ours, theirs, "float32"),
        differences(ours, ours | {"0.b": theirs["0.b"]}, "float64"),
    )
    weights, bias = settled(rows, exact)
    assert (weights.ok, weights.verdict) == (True, "20% apart by float32's rounding, the same in float64")
    assert weights.relative_difference == rows[0].relative_difference
    assert bias == rows[1]
    assert not bias.ok


def test_nan_and_other_shapes_are_different():
    ours = gradients()
    theirs = {"0.W": np.full((4, 3), np.nan), "0.b": np.zeros((3, 1))}
    assert [row.ok for row in differences(ours, theirs, "float64")] == [False, False]


def table(loss=2.25, other_loss=2.25, **changes):
    theirs = gradients() | changes
    rows = differences(gradients(), theirs, "float64")
    return Comparison(
        "PyTorch 0.0", "float64", 32, loss, other_loss, rows, ["dropout: the same mask in both"]
    )


def test_the_table():
    lines = str(table()).splitlines()
    assert lines[:3] == [
        "tinynet compared with PyTorch 0.0: the same weights, 32 examples, float64",
        "loss: tinynet 2.25, PyTorch 2.25, the same up to rounding",
        "dropout: the same mask in both",
    ]
    assert lines[3].split() == ["gradient", "shape", "largest", "difference", "relative", "verdict"]
    assert lines[4] == f"{'0.W':<10}{'(4, 3)':<18}{'0.00e+00':>18}{'0.0e+00':>11}  the same up to rounding"
    assert len(lines) == 6


def test_a_comparison_is_only_as_good_as_its_losses_and_all_gradients():
    assert table().ok
    wrong = table(**{"0.b": np.zeros(3)})
    assert not wrong.ok
    assert "DIFFERENT by 100%" in str(wrong)
    assert not table(other_loss=2.26).ok
    assert "NOT the same" in str(table(other_loss=2.26))
    assert not table(other_loss=float("nan")).ok
    assert not table()._replace(rows=[]).ok


@pytest.mark.parametrize(
    ("against", "words"), [("torch", "pip install torch"), ("keras", "pip install keras")]
)
def test_a_library_that_is_missing_is_named_with_how_to_install_it(against, words, monkeypatch):
    monkeypatch.setitem(sys.modules, against, None)  # importing it fails
    model, x, y, loss = CASES["logits"]()
    with pytest.raises(ModuleNotFoundError, match=words):
        compare(model, x, y, loss, against)


def test_an_unknown_library_is_refused():
    with pytest.raises(ValueError, match='expected "torch" or "keras", got \'jax\''):
        compare(*CASES["logits"](), against="jax")


def test_a_model_in_which_nothing_trains_is_refused():
    model, x, y, loss = CASES["logits"]()
    for layer in model.layers:
        layer.trainable = False
    with pytest.raises(ValueError, match="expected a trainable layer with parameters, found none"):
        compare(model, x, y, loss)


class Softplus(tn.Layer):
    def forward(self, x, training=False):
        self._x = x
        return np.logaddexp(0, x)

    def backward(self, dy):
        return dy / (1 + np.exp(-self._x))


class MyLoss(tn.SoftmaxCrossEntropy):
    pass


@pytest.mark.parametrize("against", ["torch", "keras"])
def test_what_has_no_counterpart_is_named(against):
    model = tn.Sequential([tn.Residual(tn.Dense(5), Softplus()), tn.Dense(4)], input_shape=(5,), seed=0)
    _, x, y, loss = CASES["logits"]()
    with pytest.raises(ValueError, match=r"layer 0\.1 \(Softplus\): compare has no \w+ counterpart"):
        compare(model, x, y, loss, against)
    with pytest.raises(ValueError, match=r"loss: compare has no \w+ counterpart for MyLoss"):
        compare(CASES["logits"]()[0], x, y, MyLoss(), against)


def test_bad_input_is_refused_before_the_other_library_is_looked_for():
    model, x, y, loss = CASES["logits"]()
    with pytest.raises(ValueError, match="x: expected shape"):
        compare(model, x[:, 1:], y, loss)
    with pytest.raises(ValueError, match="labels: expected class numbers from 0 to 3"):
        compare(model, x, y + 4, loss)


def test_the_model_stays_as_it_is(monkeypatch):
    model, x, y, loss = CASES["mlp_bn"]()
    before, step = model.get_weights(), model.step
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModuleNotFoundError):  # by then, tinynet's own step is done
        compare(model, x, y, loss)
    assert model.step == step
    assert not model.grads.any()
    for array, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_soft_targets_are_refused():
    model = tn.Sequential([tn.Dense(3), tn.Softmax()], (4,), seed=0)
    with pytest.raises(ValueError, match=r"y: the comparison takes class labels .* give y.argmax\(1\)"):
        compare(model, np.ones((2, 4)), np.full((2, 3), 1 / 3), tn.CrossEntropy())
