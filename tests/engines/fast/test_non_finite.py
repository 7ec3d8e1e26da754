"""NaN and infinity spread through compiled loops as through NumPy's bodies, and are found where NumPy finds them."""

import copy
import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import tinynet as tn
from tests.support.strategies import layer_cases, seeds
from tinynet.engines.choice import running
from tinynet.layers.chain import walk

pytest.importorskip("numba")

CASES = layer_cases()
BAD = [np.nan, np.inf, -np.inf]


def everything(engine, layer, x, dy):
    """What a step of a layer computes with an engine, by name."""
    layer = copy.deepcopy(layer)
    with running(engine), np.errstate(all="ignore"):
        found = {"y": layer.forward(x, training=True).copy()}
        found["dx"] = layer.backward(dy).copy()
        for path, inner in walk([layer]):
            for name in (*inner.state_names, *("d" + spec for spec in inner.param_specs)):
                found[f"{path}.{name}"] = getattr(inner, name).copy()
        found["inference"] = layer.forward(x)
    return found


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("where", ["input", "gradient"])
@settings(max_examples=60)
@given(data=st.data(), seed=seeds, value=st.sampled_from(BAD), channels_first=st.booleans())
def test_each_layer_is_not_finite_exactly_where_numpys_is(name, where, data, seed, value, channels_first):
    """For one bad number in its input, or in the gradient that it gets."""
    case, rng = data.draw(CASES[name]), np.random.default_rng(seed)
    layer = tn.Sequential([case.layer], case.x.shape[1:], seed=0, dtype="float64").layers[0]
    x, dy = case.x.copy(), rng.standard_normal((len(case.x), *layer.output_shape))
    bad = x if where == "input" else dy
    bad.flat[rng.integers(bad.size)] = value
    if channels_first:  # as convolutions lay images out; batch-norm has other loops for them
        x, dy = (np.ascontiguousarray(array.swapaxes(0, -1)).swapaxes(0, -1) for array in (x, dy))
    numpy, numba = (everything(engine, layer, x, dy) for engine in ("numpy", "numba"))
    for key, expected in numpy.items():
        np.testing.assert_array_equal(np.isfinite(numba[key]), np.isfinite(expected), key)


LOSSES = {
    "logits": (list, tn.SoftmaxCrossEntropy),
    "smoothed logits": (list, lambda: tn.SoftmaxCrossEntropy(0.1)),
    "probabilities": (lambda: [tn.Softmax()], tn.CrossEntropy),
    "log-probabilities": (lambda: [tn.LogSoftmax()], tn.NegativeLogLikelihood),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("value", BAD)
def test_losses_of_bad_scores(name, value, place):
    """Each place of the bad score, and each label; a score of minus infinity is a probability of 0."""
    head, loss = LOSSES[name]
    results = []
    for engine in ("numpy", "numba"):
        found = []
        for label in range(3):
            model = tn.Sequential([tn.Rescale(1), *head()], (3,), seed=0, dtype="float64")
            x, given = np.array([[0.5, 1, 2], [1, 2, 3]]), loss()
            x[0, place] = value
            with running(engine), np.errstate(all="ignore"):
                layers, fused = model._fuse(given)
                for layer in layers:
                    x = layer.forward(x, training=True)
                found += [fused.forward(x, np.array([label, 1]), 2), x, fused.backward()]
        results.append(found)
    for numpy, numba in zip(*results, strict=True):
        np.testing.assert_allclose(numba, numpy, rtol=1e-12)


OPTIMIZERS = {
    "SGD": tn.SGD,
    "momentum": lambda: tn.SGD(momentum=0.9),
    "Nesterov": lambda: tn.SGD(momentum=0.9, nesterov=True),
    "RMSprop": tn.RMSprop,
    "Adam": tn.Adam,
    "AdamW": lambda: tn.AdamW(weight_decay=0.1),
}


def updated(engine, make, grads):
    """The parameters after a step, the optimizer's slots, and the error if there is one."""
    params, optimizer, error = np.ones(4, np.float32), make(), None
    try:
        with running(engine), np.errstate(invalid="ignore"):
            optimizer.step(params, grads.copy(), decay_size=2)
    except tn.NonFiniteError as caught:
        error = str(caught)
    return error, {"params": params, **optimizer.slots}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("value", [*BAD, 3e38, -3e38])
def test_updates_with_a_bad_gradient(name, value):
    """NaN and infinity go into the parameters, where fit finds them; what overflows is refused at once."""
    grads = np.array([1, value, 1, 1], np.float32)
    (error, numpy), (found, numba) = (
        updated(engine, OPTIMIZERS[name], grads) for engine in ("numpy", "numba")
    )
    assert (found is None) == (error is None), (found, error)
    if error is None:
        for key, expected in numpy.items():
            np.testing.assert_array_equal(np.isfinite(numba[key]), np.isfinite(expected), key)


def dense(dtype):
    return tn.Sequential(
        [tn.Dense(6), tn.BatchNorm(), tn.ReLU(), tn.Dropout(0.2), tn.Dense(3), tn.LogSoftmax()],
        (4,),
        0,
        dtype,
    ), tn.NegativeLogLikelihood()


def convolutional(dtype):
    layers = [
        *(tn.Conv2D(3, 3, padding="same"), tn.MaxPool2D(), tn.ReLU()),
        *(tn.Residual(tn.Conv2D(3, 3, padding="same"), tn.BatchNorm()), tn.GlobalMaxPool2D(), tn.Dense(3)),
    ]
    return tn.Sequential(layers, (6, 6, 1), 0, dtype), tn.SoftmaxCrossEntropy()


def activated(dtype):
    """The bad pixel meets ReLU first."""
    return tn.Sequential([tn.ReLU(), tn.Dense(3), tn.Softmax()], (4,), 0, dtype), tn.CrossEntropy(0.1)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", [dense, convolutional, activated])
@pytest.mark.parametrize("value", [np.nan, np.inf])  # ReLU makes minus infinity 0
def test_a_bad_pixel_is_named_by_fit_as_with_numpy(make, value, dtype, workers):
    """From an augmentation, as fit refuses such data; and everything is as before that batch."""
    results = []
    for engine in ("numpy", "numba"):
        (model, loss), rng = make(dtype), np.random.default_rng(0)
        x, y = rng.standard_normal((30, *model.input_shape)).astype(dtype), rng.integers(0, 3, 30)
        batches = itertools.count(1)

        def spoil(batch, generator, batches=batches):
            if next(batches) == 3:
                batch[5].flat[0] = value
            return batch

        given = {"batch_size": 10, "loss": loss, "shuffle": False, "verbose": 0, "workers": workers}
        good, optimizer = model.copy(), tn.Adam(0.01)
        with tn.engines.use(engine):
            good.fit(x[:20], y[:20], optimizer=tn.Adam(0.01), **given)
            with pytest.raises(tn.NonFiniteError, match="epoch 1, batch 3") as error:
                model.fit(x, y, optimizer=optimizer, augment=spoil, **given)
        results.append(str(error.value))
        for key, array in good.named_weights().items():
            np.testing.assert_array_equal(model.named_weights()[key], array, key)
        assert optimizer.step_count == 2
    assert results[0] == results[1]
