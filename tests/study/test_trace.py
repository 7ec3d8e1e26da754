"""study.trace: one training step, with every array."""

import copy
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinynet as tn
from tests.support.strategies import layer_cases
from tinynet.engines import cpu
from tinynet.study.tracing.statistics import statistics


def small(seed=0, head=None, dtype="float32"):
    layers = [tn.Rescale(1 / 255), tn.Flatten(), tn.Dense(7), tn.ReLU(), tn.Dense(3), head or tn.Softmax()]
    return tn.Sequential(layers, input_shape=(4, 5), seed=seed, dtype=dtype)


def batch(model, n=8, classes=None, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (n, *model.input_shape), dtype=np.uint8)
    return x, rng.integers(0, classes or model.output_shape[0], n)


def everything(model, optimizer):
    """Everything that a step changes, as bytes."""
    slots = {name: slot.tobytes() for name, slot in optimizer.slots.items()}
    state = {name: array.tobytes() for name, array in model.named_state().items()}
    return (
        *(
            model.params.tobytes(),
            model.grads.tobytes(),
            state,
            model.step,
            model.fitted_on_bytes,
            repr(model.loss),
        ),
        *(slots, optimizer.step_count),
    )


@pytest.mark.parametrize("recipe", tn.recipes.RECIPES)
def test_the_step_is_the_one_that_fit_makes(recipe):
    made, twin = (tn.recipes.make(recipe, seed=3) for _ in range(2))
    x, y = batch(made.model, n=6)
    step = tn.study.trace(made.model, x, y, made.loss, made.optimizer)
    history = twin.model.fit(
        x, y, optimizer=twin.optimizer, loss=twin.loss, batch_size=6, shuffle=False, workers=1, verbose=0
    )
    assert everything(made.model, made.optimizer) == everything(twin.model, twin.optimizer)
    assert step.loss_before == history.history["loss"][0]
    np.testing.assert_array_equal(step.loss.outputs, twin.model.outputs)


@pytest.mark.parametrize("recipe", ["mlp_bn", "cnn_small"])
def test_its_arrays_are_those_of_the_layers(recipe):
    made = tn.recipes.make(recipe, seed=0)
    twin = made.model.copy()
    x, y = batch(made.model, n=5)
    step = tn.study.trace(made.model, x, y, made.loss, made.optimizer)
    arrays = step.arrays()
    with cpu.blas_threads(cpu.blas_threads_for(twin.multiply_adds(), 5)):
        twin.loss_and_gradients(x, y, copy.copy(made.loss))
    for name, gradient in twin.named_grads().items():
        path, _, parameter = name.rpartition(".")
        np.testing.assert_array_equal(arrays[f"{path}.d{parameter}"], gradient)
        np.testing.assert_array_equal(arrays[name], twin.named_params()[name])
        after = made.model.named_params()[name]
        np.testing.assert_array_equal(arrays[f"{name} update"], after - twin.named_params()[name])
    layers = step.layers
    np.testing.assert_array_equal(layers[0].x, x)
    for below, above in itertools.pairwise(layers):
        np.testing.assert_array_equal(below.y, above.x)
        if below.dy is not None:
            np.testing.assert_array_equal(below.dy, above.dx)
    np.testing.assert_array_equal(layers[-1].dy, step.loss.gradient)
    assert step.loss.value == pytest.approx(step.loss.each.mean(), rel=1e-6)


def test_a_residual_layer_shows_what_is_inside():
    model = tn.Sequential(
        [
            tn.Residual(tn.Conv2D(4, 3, padding="same"), tn.ReLU(), projection=tn.Conv2D(4, 1)),
            *(tn.Flatten(), tn.Dense(3)),
        ],
        input_shape=(5, 5, 2),
        seed=0,
        dtype="float64",
    )
    x = np.random.default_rng(0).standard_normal((3, 5, 5, 2))
    step = tn.study.trace(model, x, np.array([0, 1, 2]), tn.SoftmaxCrossEntropy(), tn.SGD(0.1))
    block = step.layers[0]
    assert [layer.path for layer in step.walk()] == ["0", "0.0", "0.1", "0.2", "1", "2"]
    convolution, relu, projection = block.children
    np.testing.assert_array_equal(block.y, projection.y + relu.y)
    np.testing.assert_array_equal(relu.dy, block.dy)
    np.testing.assert_array_equal(projection.dy, block.dy)
    np.testing.assert_array_equal(convolution.dy, relu.dx)
    assert block.dx is None  # no earlier layer trains
    assert set(step.arrays()) >= {"0.0.W", "0.0.dW", "0.2.W update", "2.db"}


@settings(max_examples=8)
@pytest.mark.parametrize("name", layer_cases())
@given(data=st.data())
def test_every_layer_can_be_traced(name, data):
    """Each layer follows another that trains, so that its dx is needed."""
    case = data.draw(layer_cases()[name])
    trainable = case.layer.trainable
    model = tn.Sequential(
        [tn.BatchNorm(), case.layer, tn.Flatten()], input_shape=case.x.shape[1:], seed=0, dtype="float64"
    )
    case.layer.trainable = trainable
    twin = model.copy()
    y = np.zeros((len(case.x), *model.output_shape))
    step = tn.study.trace(model, case.x, y, tn.MeanSquaredError(), tn.SGD(1e-9))
    with cpu.blas_threads(1):
        loss = twin.loss_and_gradients(case.x, y, tn.MeanSquaredError())
    assert step.loss_before == loss
    record = step.layers[1]
    assert record.dx.shape == record.x.shape
    for inner in record.walk():
        for parameter in inner.parameters.values():
            if parameter.gradient is not None:
                twin_layer = dict(twin.walk())[inner.path]
                np.testing.assert_array_equal(parameter.gradient, getattr(twin_layer, f"d{parameter.name}"))
    assert str(step)


class Block(tn.Residual):
    """Computes as Residual does."""


class Twice(tn.Layer):
    """A user's own layer that contains a layer."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.children = (inner,)

    def build(self, input_shape):
        return self.inner.setup(input_shape, self.dtype)

    def forward(self, x, training=False):
        return 2 * self.inner.forward(x, training)

    def backward(self, dy):
        return self.inner.backward(2 * dy)


@pytest.mark.parametrize("make", [Block, Twice])
def test_what_is_inside_layers_of_the_users_own_is_not_lost(make):
    model = tn.Sequential(
        [tn.Dense(4), make(tn.Dense(4)), tn.Dense(2)], input_shape=(3,), seed=0, dtype="float64"
    )
    x = np.random.default_rng(0).standard_normal((6, 3))
    step = tn.study.trace(model, x, np.zeros((6, 2)), tn.MeanSquaredError(), tn.SGD(1e-6))
    assert step.change == pytest.approx(step.predicted_change, rel=1e-3)
    np.testing.assert_array_equal(step.arrays()["1.0.W"].shape, (4, 4))
    assert "1.0.W" in str(step)


def test_a_dry_run_changes_nothing():
    model, optimizer = small(), tn.Adam()
    x, y = batch(model)
    model.fit(x, y, optimizer=optimizer, loss=tn.CrossEntropy(), verbose=0)
    before = everything(model, optimizer)
    first = tn.study.trace(model, x, y, tn.CrossEntropy(), optimizer, dry_run=True)
    assert everything(model, optimizer) == before
    second = tn.study.trace(model, x, y, tn.CrossEntropy(), optimizer)
    assert everything(model, optimizer) != before
    for name, array in first.arrays().items():
        np.testing.assert_array_equal(array, second.arrays()[name])
    assert (first.loss_after, first.predicted_change) == (second.loss_after, second.predicted_change)


def test_two_steps_have_two_dropout_masks_and_a_step_one():
    model = tn.Sequential([tn.Dense(50), tn.Dropout(0.5), tn.Dense(2)], input_shape=(3,), seed=0)
    x, y = np.ones((4, 3)), np.zeros(4, int)
    loss, optimizer = tn.SoftmaxCrossEntropy(), tn.SGD(1e-12)
    first, second = (tn.study.trace(model, x, y, loss, optimizer) for _ in range(2))
    assert (first.layers[1].cache["mask"] != second.layers[1].cache["mask"]).any()
    # Nothing moved, so the loss stays the same; with other masks it would change.
    assert first.loss_after == pytest.approx(first.loss_before, rel=1e-6)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_the_predicted_change_is_what_happens_in_a_tiny_step(seed):
    model = tn.Sequential([tn.Dense(6), tn.Tanh(), tn.Dense(4)], input_shape=(5,), seed=seed, dtype="float64")
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((9, 5)), rng.integers(0, 4, 9)
    step = tn.study.trace(model, x, y, tn.SoftmaxCrossEntropy(), tn.SGD(1e-5))
    assert step.predicted_change < 0
    assert step.change == pytest.approx(step.predicted_change, rel=1e-3)
    norm = np.linalg.norm(model.grads)
    assert step.predicted_change == pytest.approx(-1e-5 * norm**2, rel=1e-6)


def test_a_long_step_shows_the_curvature():
    model = small(dtype="float64")
    x, y = batch(model)
    step = tn.study.trace(model, x, y, tn.CrossEntropy(), tn.SGD(100.0))
    assert step.change > step.predicted_change + 1
    assert step.loss_after == pytest.approx(model.evaluate(x, y, loss=tn.CrossEntropy())["loss"], rel=1e-9)


def test_running_statistics_move_once():
    model = tn.Sequential([tn.BatchNorm(momentum=0.5)], input_shape=(2,), seed=0, dtype="float64")
    x = np.array([[1.0, 2.0], [3.0, 6.0]])
    tn.study.trace(model, x, np.zeros((2, 2)), tn.MeanSquaredError(), tn.SGD(0.1))
    np.testing.assert_allclose(model.layers[0].running_mean, [1.0, 2.0])


def test_a_fused_softmax_belongs_to_the_loss():
    model = small()
    x, y = batch(model)
    step = tn.study.trace(model, x, y, tn.CrossEntropy(), tn.SGD())
    assert step.loss.fused
    assert step.loss.name == "Softmax and CrossEntropy"
    assert [layer.kind for layer in step.layers] == ["Rescale", "Flatten", "Dense", "ReLU", "Dense"]
    np.testing.assert_allclose(step.loss.probabilities.sum(1), 1, rtol=1e-6)
    apart = tn.study.trace(small(head=tn.LogSoftmax()), x, y, tn.NegativeLogLikelihood(), tn.SGD())
    assert not apart.loss.fused
    assert apart.layers[-1].kind == "LogSoftmax"
    np.testing.assert_allclose(apart.loss.probabilities, step.loss.probabilities, rtol=1e-5)


def test_frozen_layers_have_no_gradient_and_stay():
    model = small()
    model.layers[2].trainable = False
    x, y = batch(model)
    step = tn.study.trace(model, x, y, tn.CrossEntropy(), tn.Adam())
    frozen = step.layers[2]
    assert frozen.dy is None
    assert frozen.parameters["W"].gradient is None
    assert not frozen.parameters["W"].update.any()
    assert step.layers[4].parameters["W"].update.any()
    assert "2.dW" not in step.arrays()


def test_a_loss_that_is_not_finite_updates_nothing():
    model, optimizer = small(), tn.SGD(0.1)
    model.layers[4].W[...] = np.inf
    x, y = batch(model)
    before = model.params.copy()
    step = tn.study.trace(model, x, y, tn.CrossEntropy(), optimizer)
    assert not step.updated
    assert not math.isfinite(step.loss_before)
    np.testing.assert_array_equal(model.params, before)
    assert (optimizer.step_count, model.step) == (0, 0)
    assert "no update" in str(step)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": "model"}, TypeError, "expected a Sequential"),
        ({"x": np.zeros((8, 3))}, ValueError, "expected shape"),
        ({"y": np.zeros(7, int)}, ValueError, "7"),
        ({"y": np.full(8, 3)}, ValueError, "from 0 to 2"),
        ({"loss": "CrossEntropy"}, TypeError, "such as CrossEntropy"),
        ({"loss": tn.SoftmaxCrossEntropy()}, ValueError, "takes logits"),
        ({"optimizer": "adam"}, TypeError, "such as Adam"),
    ],
)
def test_bad_input_changes_nothing(change, error, words):
    model, optimizer = small(), tn.Adam()
    x, y = batch(model)
    before = everything(model, optimizer)
    arguments = {"model": model, "x": x, "y": y, "loss": tn.CrossEntropy(), "optimizer": optimizer} | change
    with pytest.raises(error, match=words):
        tn.study.trace(*arguments.values())
    assert everything(model, optimizer) == before


# -- statistics ----------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.booleans())
def test_statistics_are_those_of_numpy(seed, size, with_bad):
    rng = np.random.default_rng(seed)
    array = rng.standard_normal(size).astype(np.float32)
    array[rng.random(size) < 0.3] = 0
    finite = array
    if with_bad and size > 2:
        array[:2] = np.nan, np.inf
        finite = array[2:]
    found = statistics(array)
    assert found.mean == pytest.approx(finite.mean(dtype=np.float64), abs=1e-12)
    assert found.std == pytest.approx(finite.std(dtype=np.float64), abs=1e-12)
    assert (found.min, found.max) == (finite.min(), finite.max())
    assert found.zeros == np.count_nonzero(array == 0) / size
    assert found.non_finite == size - len(finite)
    assert sum(found.counts) == len(finite)
    assert len(found.sparkline) == 10


@pytest.mark.parametrize(
    "values",
    [
        *([0.0], [5.0, 5.0], [1.0, np.nextafter(1.0, 2)], [-1.7e308, 1.7e308], [1e-30, 1.0]),
        *([5e-324, 1e-323], [1.3e-312], [0.0, 1e-310]),
    ],
)
def test_histograms_of_odd_ranges(values):
    found = statistics(np.array(values))
    assert sum(found.counts) == len(values)
    assert found.edges[0] <= min(values)
    assert found.edges[1] >= max(values)


def test_statistics_of_what_is_all_nan():
    found = statistics(np.full(3, np.nan))
    assert (found.size, found.non_finite) == (3, 3)
    assert "all 3 elements" in str(found)


def test_dead_and_saturated_units():
    model = tn.Sequential(
        [tn.Dense(4), tn.ReLU(), tn.Dense(2), tn.Sigmoid(), tn.Tanh()], input_shape=(3,), seed=0
    )
    model.layers[0].b[...] = -1e3, -1e3, -1e3, 1e3
    model.layers[2].W[...] = 0
    model.layers[2].b[...] = 0, 50
    step = tn.study.trace(model, np.ones((5, 3)), np.zeros((5, 2)), tn.MeanSquaredError(), tn.SGD())
    assert step.layers[1].dead_units == 3
    assert step.layers[3].saturated == 0.5
    assert step.layers[4].saturated == 0.0
    assert step.layers[0].dead_units is None
    assert step.layers[0].saturated is None


def test_update_ratios():
    model = small(dtype="float64")
    x, y = batch(model)
    step = tn.study.trace(model, x, y, tn.CrossEntropy(), tn.SGD(0.01))
    parameter = step.layers[2].parameters["W"]
    expected = 0.01 * np.linalg.norm(parameter.gradient) / np.linalg.norm(parameter.value)
    assert parameter.ratio == pytest.approx(expected)
    assert step.layers[2].parameters["b"].ratio is None  # the bias is 0


# -- frames ----------------------------------------------------------------------------------------------


def test_frames_go_forward_and_come_back():
    model = small()
    x, y = batch(model)
    events = list(tn.study.step_through(model, x, y, tn.CrossEntropy(), tn.SGD(0.1)))
    assert [(event.phase, event.path) for event in events] == [
        *(("forward", str(index)) for index in range(5)),
        ("loss", ""),
        *(("backward", str(index)) for index in (4, 3, 2)),
        ("update", ""),
    ]
    assert model.step == 1
    text = str(events[8])
    assert "dW = x^T dy" in text
    assert "dW (20 x 7) = x^T (20 x 8) . dy (8 x 7)" in text
    assert "no dx: no earlier layer needs a gradient" in text
    assert "gradient . update predicted" in str(events[-1])


def test_a_frame_shows_the_arrays_of_its_layer():
    model = small()
    x, y = batch(model)
    events = list(tn.study.step_through(model, x, y, tn.CrossEntropy(), tn.SGD(0.1), dry_run=True))
    assert set(events[2].arrays) == {"x", "W", "b", "y"}
    assert set(events[6].arrays) == {"dy", "dW", "db", "dx"}
    assert model.step == 0
    for event in events:
        for name, array in event.arrays.items():
            assert f"{name} {array.shape}" in str(event)


def test_a_layer_made_of_layers_does_its_sum_last():
    model = tn.Sequential([tn.Dense(4), tn.Residual(tn.Dense(4), tn.Tanh())], input_shape=(4,), seed=0)
    step = tn.study.trace(model, np.ones((2, 4)), np.zeros((2, 4)), tn.MeanSquaredError(), tn.SGD())
    paths = [(event.phase[0], event.path) for event in step.events()]
    assert paths == [
        *(("f", "0"), ("f", "1.0"), ("f", "1.1"), ("f", "1"), ("l", "")),
        *(("b", "1"), ("b", "1.1"), ("b", "1.0"), ("b", "0"), ("u", "")),
    ]
