"""Each layer's backward against the slope of its forward, for the layer alone and inside random networks."""

import copy

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import tinynet as tn
from tests.support.strategies import away_from_zero, layer_cases, seeds
from tinynet.layers.chain import walk
from tinynet.study import gradcheck

CASES = layer_cases()


def test_every_layer_of_the_library_is_checked():
    assert {name.partition(",")[0] for name in CASES} == set(tn.layers.__all__) - {"Layer"}


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=30)
@given(data=st.data(), seed=seeds)
def test_backward_is_the_derivative_of_forward(name, data, seed):
    case = data.draw(CASES[name])
    report = gradcheck(case.layer, case.x, seed=seed).check()
    trained = case.layer.trainable
    expected = {"x", *(f"0.{spec}" for spec in _param_names(case) if trained)}
    assert {tensor.name for tensor in report.tensors} == expected
    assert all(tensor.compared == np.prod(tensor.shape) for tensor in report.tensors)


def _param_names(case):
    model = tn.Sequential([case.layer], input_shape=case.x.shape[1:])
    return [path.partition(".")[2] for path in model.named_params()]


def built(case):
    """The case's layer in its own float64 model."""
    return tn.Sequential([case.layer], input_shape=case.x.shape[1:], seed=0, dtype="float64").layers[0]


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=15)
@given(data=st.data())
def test_buffers_hold_nothing_that_a_later_batch_needs(name, data):
    """With buffers poisoned by NaN between steps and batches that shrink and grow, a layer computes as a new one."""
    case = data.draw(CASES[name])
    layer = built(case)
    state = {name: array.copy() for name, array in arrays(layer, "state_names").items()}
    for rows in (slice(None), slice(0, -(-len(case.x) // 2)), slice(None)):
        x = np.ascontiguousarray(case.x[rows])
        dy = np.random.default_rng(1).standard_normal((len(x), *layer.output_shape))
        x_before, dy_before = x.copy(), dy.copy()
        for _, inner in walk([layer]):
            for buffer in inner._buffers.values():
                buffer.fill(np.nan if buffer.dtype.kind == "f" else 1)
        for array in arrays(layer, "param_specs", "d").values():
            array.fill(np.nan)  # backward overwrites, so NaN must not survive
        for key, array in arrays(layer, "state_names").items():
            array[...] = state[key]
        y, dx = layer.forward(x, training=True), layer.backward(dy)

        for key, array in arrays(other := _clone(layer, case.x.shape[1:]), "state_names").items():
            array[...] = state[key]
        np.testing.assert_array_equal(y, other.forward(x, training=True))
        np.testing.assert_array_equal(dx, other.backward(dy))
        if layer.trainable:
            expected = arrays(other, "param_specs", "d")
            for key, array in arrays(layer, "param_specs", "d").items():
                np.testing.assert_array_equal(array, expected[key])
        np.testing.assert_array_equal(x, x_before)
        np.testing.assert_array_equal(dy, dy_before)


def arrays(layer, names, prefix=""):
    """By path, the arrays that a layer and those inside it list in their ``param_specs`` or ``state_names``."""
    return {
        f"{path}.{name}": getattr(inner, prefix + name)
        for path, inner in walk([layer])
        for name in getattr(inner, names)
    }


def _clone(layer, input_shape):
    """A new layer object with the same arguments and parameters."""
    other = type(layer).from_config(copy.deepcopy(layer.config()))
    for child in other.children:
        child.unbuild()
    other.trainable = layer.trainable
    tn.Sequential([other], input_shape=input_shape, seed=0, dtype="float64")
    if isinstance(layer, tn.Dropout):
        other.key = layer.key
    for key, array in arrays(other, "param_specs").items():
        array[...] = arrays(layer, "param_specs")[key]
    return other


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=10)
@given(data=st.data())
def test_inference_writes_nothing_to_the_layer(name, data):
    case = data.draw(CASES[name])
    layer = built(case)
    layer.forward(case.x, training=True)
    dy = np.random.default_rng(2).standard_normal((len(case.x), *layer.output_shape))
    before = {
        key: value.copy() if isinstance(value, np.ndarray) else value for key, value in vars(layer).items()
    }
    buffers = {key: value.copy() for key, value in layer._buffers.items()}
    layer.forward(case.x[:1] * 0.5)
    after = vars(layer)
    assert after.keys() == before.keys()
    for key, value in before.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(after[key], value)
        elif key != "_buffers":
            assert after[key] == value
    for key, value in buffers.items():
        np.testing.assert_array_equal(layer._buffers[key], value)
    layer.backward(dy)  # inference between a forward and its backward does no harm


NEEDS_NOTHING = {"Rescale", "AveragePool2D", "GlobalAveragePool2D"}  # backward needs nothing from forward


@pytest.mark.parametrize("name", [name for name in CASES if name not in NEEDS_NOTHING])
@settings(max_examples=5)
@given(data=st.data())
def test_backward_without_forward_says_what_is_missing(name, data):
    case = data.draw(CASES[name])
    layer = built(case)
    dy = np.zeros((len(case.x), *layer.output_shape))
    with pytest.raises(RuntimeError, match=r"forward\(x, training=True\)"):
        layer.backward(dy)
    layer.forward(case.x)  # inference keeps nothing either
    with pytest.raises(RuntimeError, match=r"forward\(x, training=True\)"):
        layer.backward(dy)


HIDDEN = {
    "sigmoid": tn.Sigmoid,
    "tanh": tn.Tanh,
    "batchnorm": tn.BatchNorm,
    "dropout": lambda: tn.Dropout(0.3),
    "softmax": tn.Softmax,
    "rescale": lambda: tn.Rescale(1.5, -0.2),
}
HEADS = {
    "cross-entropy": (lambda: [tn.Softmax()], tn.CrossEntropy),
    "smoothed": (lambda: [tn.Softmax()], lambda: tn.CrossEntropy(label_smoothing=0.2)),
    "logits": (list, lambda: tn.SoftmaxCrossEntropy(label_smoothing=0.1)),
    "log-likelihood": (lambda: [tn.LogSoftmax()], tn.NegativeLogLikelihood),
    "squares": (list, tn.MeanSquaredError),
}


@settings(max_examples=40)
@given(
    hidden=st.lists(st.sampled_from(sorted(HIDDEN)), min_size=0, max_size=3),
    widths=st.lists(st.integers(2, 5), min_size=3, max_size=3),
    head=st.sampled_from(sorted(HEADS)),
    batch=st.integers(4, 6),
    seed=seeds,
)
def test_gradients_of_random_networks(hidden, widths, head, batch, seed):
    rng = np.random.default_rng(seed)
    layers = [tn.Flatten()]
    for kind, width in zip(hidden, widths, strict=False):
        layers += [tn.Dense(width), HIDDEN[kind]()]
    make_head, make_loss = HEADS[head]
    model = tn.Sequential([*layers, tn.Dense(3), *make_head()], input_shape=(2, 3), seed=seed)
    x = away_from_zero(rng, (batch, 2, 3))
    y = rng.standard_normal((batch, 3)) if head == "squares" else rng.integers(0, 3, batch)
    # Batch-norm of a few rows can be so strongly curved that the central difference is the less exact of the two.
    rtol = 1e-4 if "batchnorm" in hidden else 1e-6
    report = gradcheck(model, x, y, make_loss(), rtol=rtol, atol=1e-7).check()
    assert len(report.tensors) == len(model.named_params()) + 1


@settings(max_examples=40)
@given(
    seed=seeds,
    batch=st.integers(1, 6),
    classes=st.integers(2, 6),
    smoothing=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_softmax_trained_with_cross_entropy_has_the_gradients_of_the_two_apart(
    seed, batch, classes, smoothing
):
    rng = np.random.default_rng(seed)
    model = tn.Sequential(
        [tn.Dense(4), tn.Tanh(), tn.Dense(classes), tn.Softmax()],
        input_shape=(3,),
        seed=seed,
        dtype="float64",
    )
    x, y = rng.standard_normal((batch, 3)), rng.integers(0, classes, batch)
    loss = tn.CrossEntropy(label_smoothing=smoothing)
    fused_loss = model.loss_and_gradients(x, y, loss)
    fused = model.grads.copy()
    apart_loss = loss.forward(model.forward(x, training=True), y)
    model.grads.fill(np.nan)
    model.backward(loss.backward())
    assert abs(apart_loss - fused_loss) <= 1e-10
    np.testing.assert_allclose(model.grads, fused, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fused_training_is_finite_for_extreme_logits(dtype):
    model = tn.Sequential([tn.Dense(3), tn.Softmax()], input_shape=(2,), seed=0, dtype=dtype)
    model.layers[0].W = [[1e4, -1e4, 0], [-1e4, 1e4, 0]]
    x = np.eye(2, dtype=dtype)
    loss = model.loss_and_gradients(x, np.array([1, 1]), tn.CrossEntropy())
    assert loss == pytest.approx(1e4)
    assert np.isfinite(model.grads).all()
    assert model.evaluate(x, np.array([1, 1]), loss=tn.CrossEntropy())["loss"] == pytest.approx(1e4)
