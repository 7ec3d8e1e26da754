"""Bad input gives a clear error and changes nothing."""

import numpy as np
import pytest

import tinynet as tn

X = np.random.default_rng(0).standard_normal((6, 2, 3)).astype(np.float32)
Y = np.array([0, 1, 2, 0, 1, 2])
MASKED = np.ma.masked_equal(Y, 1)
VALID = {"optimizer": None, "loss": tn.CrossEntropy(), "verbose": 0}


def with_value(value, dtype=np.float32):
    x = X.astype(dtype)
    x[3, 1, 2] = value
    return x


def objects(items):
    """An array of objects, as a DataFrame's column has."""
    array = np.empty(len(items), object)
    array[:] = items
    return array


BAD_PAIRS = {
    "label too large": (X, Y + 1, r"y: labels: expected class numbers from 0 to 2.*got 3 at index 2"),
    "label negative": (X, Y - 1, "got -1 at index 0"),
    "labels float": (X, Y.astype(float), r"expected integers from 0 to 2, got dtype float64.*astype\(int\)"),
    "labels boolean": (X, Y > 0, "expected integers.*got dtype bool"),
    "labels one-hot": (X, np.eye(3, dtype=int)[Y], r"one-hot of shape \(6, 3\); give labels.argmax\(1\)"),
    "labels two-dimensional": (
        X,
        np.stack([Y, Y, Y, Y], 1),
        r"expected shape \(n,\) or \(n, 1\), got \(6, 4\)",
    ),
    "labels strings": (X, Y.astype(str), r"np.unique\(labels, return_inverse=True\)"),
    "labels several": (X, np.ones((6, 3)), "y: targets: .* a sum of 1; row 0 has a sum of 3"),
    "a single label": (X[:1], 2, r"expected shape \(n,\)"),
    "NaN": (with_value(np.nan), Y, r"x: expected finite float32 numbers, got nan at index \(3, 1, 2\)"),
    "infinity": (with_value(-np.inf), Y, r"got -inf at index \(3, 1, 2\)"),
    "too large for float32": (with_value(1e300, np.float64), Y, r"got inf at index \(3, 1, 2\)"),
    "x too flat": (
        X.reshape(6, 6),
        Y,
        r"x: expected shape \(batch, 2, 3\), got \(6, 6\); x.reshape\(-1, 2, 3\) would",
    ),
    "x one example": (X[0], Y[:1], r"got \(2, 3\); for a single example pass x\[None\]"),
    "x another size": (X[:, :, :2], Y, r"expected shape \(batch, 2, 3\), got \(6, 2, 2\)"),
    "x a number": (np.float32(3), Y, r"expected shape \(batch, 2, 3\), got \(\)"),
    "x empty": (X[:0], Y[:0], r"x: expected at least one example, got an empty array of shape \(0, 2, 3\)"),
    "ragged": ([[1, 2], [3]], Y[:2], "x: expected an array of numbers, got parts that don't form one"),
    "counts": (X, Y[:5], "expected one target per example; x has 6, y has 5"),
    "x objects": (X.astype(object), Y, r"real numbers, got dtype object; give x.astype\('float32'\)"),
    "x mixed objects": (np.array([[1, "a"]] * 6, object), Y, "x: expected real numbers, got dtype object$"),
    "x arrays": (objects(list(X)), Y, r"got dtype object; give np.stack\(x\)"),
    "x arrays of several shapes": (objects([*X[:5], X[0, :1]]), Y, "got dtype object$"),
    "x complex": (X.astype(complex), Y, "x: expected real numbers, got dtype complex128"),
    "x strings": (X.astype(str), Y, "x: expected real numbers, got dtype <U"),
    "masked x": (np.ma.masked_less(X, 0), Y, r"x: expected an array without a mask.*x.filled"),
    "masked y": (X, MASKED, "y: expected an array without a mask"),
    "a list with a masked array": (
        X,
        list(np.ma.masked_equal(Y[:, None], 1)),
        "y: expected an array without",
    ),
    "x dates": (np.zeros((6, 2, 3), "datetime64[s]"), Y, "x: expected real numbers, got dtype datetime64"),
}


def make():
    return tn.Sequential(
        [tn.Flatten(), tn.BatchNorm(), tn.Dense(3), tn.Softmax()], input_shape=(2, 3), seed=0
    )


def snapshot(model):
    return [
        *model.get_weights(),
        model.grads.copy(),
        model.step,
        model.epoch,
        model.loss,
        model.fitted_on_bytes,
    ]


def assert_unchanged(model, before):
    for now, then in zip(snapshot(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("name", BAD_PAIRS)
def test_fit_and_evaluate_refuse_bad_pairs_and_change_nothing(name):
    x, y, message = BAD_PAIRS[name]
    model = make()
    before = snapshot(model)
    optimizer = tn.Adam()
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, **(VALID | {"optimizer": optimizer}))
    with pytest.raises(ValueError, match="[xy] of validation_data"):
        model.fit(X, Y, **(VALID | {"optimizer": optimizer}), validation_data=(x, y))
    with pytest.raises(ValueError, match=message):
        model.evaluate(x, y, loss=tn.CrossEntropy())
    assert_unchanged(model, before)
    assert optimizer.step_count == 0


@pytest.mark.parametrize(
    ("shape", "input_shape", "hint"),
    [
        ((28, 28, 1), (28, 28), "; for a single example pass x.reshape(1, 28, 28)"),
        ((784,), (28, 28), "; for a single example pass x.reshape(1, 28, 28)"),
        ((28, 28), (784,), "; for a single example pass x.reshape(1, 784)"),
        ((28, 28), (28, 28, 1), "; for a single example pass x.reshape(1, 28, 28, 1)"),
        ((28, 28), (28, 28), "; for a single example pass x[None]"),
        ((1, 784), (28, 28), "; x.reshape(-1, 28, 28) would fit"),
        ((3, 8, 8), (8, 8, 3), ""),  # its axes would have to be moved
        ((28, 27), (28, 28), ""),
    ],
)
def test_a_single_image_gets_a_hint(shape, input_shape, hint):
    model = tn.Sequential([tn.Flatten(), tn.Dense(2)], input_shape)
    with pytest.raises(ValueError, match=r"x: expected shape \(batch, .*") as caught:
        model.predict(np.zeros(shape))
    assert str(caught.value).endswith(f"got {shape}{hint}")


@pytest.mark.parametrize(
    ("pair", "message"), [((np.ma.array(X), Y), "x: .* without a mask"), ((X, MASKED), "targets: .* without a mask")]
)  # fmt: skip
def test_a_batch_with_a_mask_is_refused(pair, message):
    with pytest.raises(ValueError, match=f"batch 1: {message}"):
        make().fit([pair], **(VALID | {"optimizer": tn.Adam()}))
    with pytest.raises(ValueError, match=f"batch 1: {message}"):
        make().evaluate([pair], loss=tn.CrossEntropy())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_targets_that_the_models_dtype_can_not_hold_are_refused_everywhere(dtype):
    x, y = np.ones((3, 1)), np.array([[1.0], [1e39], [-2e40]])
    model = tn.Sequential([tn.Dense(1)], (1,), seed=0, dtype=dtype)
    loss = tn.MeanSquaredError()
    uses = [
        lambda: model.evaluate(x, y, loss=loss),
        lambda: model.evaluate([(x, y)], loss=loss),
        lambda: model.fit(x, y, optimizer=tn.SGD(1e-9), loss=loss, verbose=0),
        lambda: model.fit(x, y - y, validation_data=(x, y), optimizer=tn.SGD(), loss=loss, verbose=0),
        lambda: loss.forward(model.forward(x), y),
    ]
    for use in uses:
        if dtype == "float64":
            use()
        else:
            with pytest.raises(
                ValueError, match="targets: expected numbers that float32 can hold, .* 2e\\+40"
            ):
                use()


def mapped(path, array):
    """The array in a memory-mapped file."""
    np.save(path, array)
    return np.load(path, mmap_mode="r")


@pytest.mark.parametrize("dtype", ["float64", "float16", ">f4", ">f8", ">i2", "uint8"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_memory_mapped_file_is_used_as_the_array_in_it(dtype, order, shuffle, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 50, (37, 2, 3)).astype(dtype), rng.standard_normal((37, 2))
    files = mapped(tmp_path / "x.npy", np.asarray(x, order=order)), mapped(tmp_path / "y.npy", y)
    seen = []

    def look(batch, generator):
        seen.append((batch.dtype, batch.flags.c_contiguous))
        return batch

    ends = []
    for arrays in ((x, y), files):
        model = tn.Sequential([tn.Flatten(), tn.Dense(2)], (2, 3), seed=0)
        given = {"optimizer": tn.SGD(1e-5), "loss": tn.MeanSquaredError(), "verbose": 0, "shuffle": shuffle}
        history = model.fit(*arrays, batch_size=8, augment=look, validation_data=arrays, epochs=2, **given)
        ends.append(
            (history.history["val_loss"], model.evaluate(*arrays), model.predict(arrays[0]), model.params)
        )
    for mine, other in zip(*ends, strict=True):
        np.testing.assert_equal(other, mine)
    assert len(set(seen)) == 1


@pytest.mark.parametrize(
    "name", [name for name in BAD_PAIRS if name.startswith(("x", "masked x")) or name in ("NaN", "infinity")]
)
def test_predict_refuses_bad_inputs(name):
    x, _, message = BAD_PAIRS[name]
    for method in (make().predict, make().predict_proba, make().predict_classes):
        with pytest.raises(ValueError, match=message):
            method(x)


TWICE = tn.EpochTable()


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size: expected a positive int"),
        ({"batch_size": 2.0}, ValueError, "batch_size: expected a positive int"),
        ({"epochs": 0}, ValueError, "epochs: expected a positive int"),
        ({"epochs": "3"}, ValueError, "epochs: expected a positive int"),
        ({"steps_per_epoch": 2}, ValueError, "steps_per_epoch=2: the arrays have 1 batches of 32"),
        ({"steps_per_epoch": 0}, ValueError, "steps_per_epoch: expected a positive int"),
        ({"optimizer": "adam"}, TypeError, r"optimizer: expected an object such as Adam\(\), got 'adam'"),
        ({"optimizer": tn.Adam}, TypeError, "optimizer: expected an object"),
        ({"loss": "mse"}, TypeError, r"loss: expected an object such as CrossEntropy\(\)"),
        ({"callbacks": None}, TypeError, "callbacks: expected a list of Callback objects"),
        ({"callbacks": tn.CSVLogger("h.csv")}, TypeError, "callbacks: expected a list of Callback objects"),
        ({"validation_data": [X, Y]}, ValueError, r"validation_data: expected a tuple \(x, y\)"),
        ({"validation_data": (X, Y, Y)}, ValueError, r"validation_data: expected a tuple \(x, y\)"),
        ({"validation_data": [(X, Y), (X, Y + 9)]}, ValueError, "validation_data: batch 2: labels"),
        ({"callbacks": [print]}, TypeError, "callbacks: expected Callback objects"),
        ({"callbacks": [TWICE, tn.Callback(), TWICE]}, ValueError, "this EpochTable object is listed twice"),
        (
            {"callbacks": [type("Own", (tn.Callback,), {"on_train_batch_end": print})()]},
            ValueError,
            "never calls",
        ),
        ({"verbose": 7}, ValueError, "verbose: expected 0"),
        ({"shuffle": "batch"}, ValueError, "shuffle: expected True or False, got 'batch'"),
        ({"augment": "flip"}, TypeError, "augment: expected a function"),
        ({"validation_split": 1.0}, ValueError, r"validation_split: expected a number in \[0, 1\)"),
        ({"validation_split": 0.99}, ValueError, "leaves nothing on one side"),
        ({"validation_split": 0.5, "validation_data": (X, Y)}, ValueError, "not both"),
        ({"validation_data": ((X, Y) for _ in range(2))}, ValueError, "used up after one epoch"),
        (
            {"callbacks": [tn.EarlyStopping("val_loss")]},
            ValueError,
            "does not measure.*pass validation_data to fit",
        ),
        ({"validation_data": 5}, TypeError, "expected an array, or an iterable"),
    ],
)
def test_fit_refuses_bad_settings_and_changes_nothing(change, kind, message):
    model = make()
    before = snapshot(model)
    with pytest.raises(kind, match=message):
        model.fit(X, Y, **(VALID | {"optimizer": tn.Adam()} | change))
    assert_unchanged(model, before)


def test_an_iterable_has_no_validation_split():
    with pytest.raises(ValueError, match="validation_split needs arrays"):
        make().fit([(X, Y)], **(VALID | {"optimizer": tn.Adam()}), validation_split=0.2)


def test_what_is_neither_array_nor_batches():
    with pytest.raises(TypeError, match=r"expected an array, or an iterable of \(x, y\) batches, got int"):
        make().fit(5, **(VALID | {"optimizer": tn.Adam()}))


def test_an_array_without_targets():
    with pytest.raises(ValueError, match="y: expected targets for the array x"):
        make().fit(X, **(VALID | {"optimizer": tn.Adam()}))


def test_an_empty_list_of_batches():
    with pytest.raises(ValueError, match="at least one batch"):
        make().fit([], **(VALID | {"optimizer": tn.Adam()}))


@pytest.mark.parametrize("batch_size", [0, -1, 1.5])
def test_batch_size_of_predict_and_evaluate(batch_size):
    with pytest.raises(ValueError, match="batch_size: expected a positive int"):
        make().predict(X, batch_size=batch_size)
    with pytest.raises(ValueError, match="batch_size: expected a positive int"):
        make().evaluate(X, Y, batch_size=batch_size, loss=tn.CrossEntropy())


def test_loss_and_gradients_checks_the_shape_of_a_batch():
    with pytest.raises(ValueError, match=r"x: expected shape \(batch, 2, 3\), got \(6, 6\)"):
        make().loss_and_gradients(X.reshape(6, 6), Y, tn.CrossEntropy())


@pytest.mark.parametrize("loss", ["mse", tn.CrossEntropy, 1])
def test_a_loss_of_evaluate_that_is_none(loss):
    with pytest.raises(TypeError, match=r"loss: expected an object such as CrossEntropy\(\), got"):
        make().evaluate(X, Y, loss=loss)


@pytest.mark.parametrize(
    ("input_shape", "shape", "hint"),
    [
        ((8, 8, 3), (5, 3, 8, 8), r"if the channels come first, give x.transpose\(0, 2, 3, 1\)"),
        ((8, 8, 1), (5, 1, 8, 8), r"transpose\(0, 2, 3, 1\)"),
        ((6, 4, 3), (5, 3, 6, 4), r"transpose\(0, 2, 3, 1\)"),
        ((8, 8, 1), (5, 8, 8), r"x.reshape\(-1, 8, 8, 1\) would fit"),
        ((8, 8, 1), (5, 64), r"x.reshape\(-1, 8, 8, 1\) would fit"),
        ((8, 8), (5, 64), r"x.reshape\(-1, 8, 8\) would fit"),
        ((192,), (5, 8, 8, 3), r"x.reshape\(-1, 192\) would fit"),
        ((8, 8, 3), (5, 192), None),  # are they flattened with the channels first or last?
        ((8, 8, 3), (5, 8, 3, 8), None),
        ((6, 4), (5, 4, 6), None),
        ((8, 8), (5, 16, 4), None),
    ],
)
def test_a_shape_is_suggested_only_where_it_keeps_the_numbers_in_place(input_shape, shape, hint):
    model = tn.Sequential([tn.Flatten(), tn.Dense(2)], input_shape)
    with pytest.raises(ValueError, match=hint or r"got \([\d, ]+\)$"):
        model.predict(np.zeros(shape))


@pytest.mark.parametrize("make", [tn.Softmax, tn.LogSoftmax, None], ids=["softmax", "log-softmax", "logits"])
@pytest.mark.parametrize("workers", [1, 2])
def test_soft_targets_train_as_a_mixture_of_labels(make, workers):
    """Of each example in both classes, in proportion, as mixup draws them; the accuracy is that of the likelier one."""
    loss = {tn.Softmax: tn.CrossEntropy(0.1), tn.LogSoftmax: tn.NegativeLogLikelihood()}.get(
        make, tn.SoftmaxCrossEntropy(0.1)
    )
    q = np.where(np.eye(3)[Y] == 1, 0.75, 0.125)
    labels = (np.repeat(Y, 8) + np.tile([0, 0, 0, 0, 0, 0, 1, 2], 6)) % 3
    ends = []
    for x, y in ((X, q), (np.repeat(X, 8, axis=0), labels)):
        layers = [tn.Flatten(), tn.Dense(3), *([make()] if make else [])]
        model = tn.Sequential(layers, (2, 3), seed=0, dtype="float64")
        given = {"loss": loss, "optimizer": tn.SGD(0.5), "verbose": 0, "workers": workers}
        history = model.fit(x, y, batch_size=len(x), epochs=3, validation_data=(x, y), **given)
        ends.append((model.params, history.history["loss"], history.history["val_loss"]))
        if y is q:
            right = (model.predict_classes(X) == Y).mean()
            assert model.evaluate(X, q)["accuracy"] == history.history["val_accuracy"][-1] == right
    for mine, other in zip(*ends, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-9)
