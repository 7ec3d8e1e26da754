"""Model files: saved models load unchanged, and damaged or foreign files are rejected with their name and the cause."""

import json
import os
import pickle
import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given

import tinynet as tn
from tests.support.loopback import child_environment
from tests.support.strategies import seeds
from tinynet.files import architecture, atomic, storage

X = np.random.default_rng(0).standard_normal((20, 2)).astype(np.float32)
Y = np.arange(20) % 3

# Every layer with non-default arguments, and its input shape.
LAYERS = {
    "AveragePool2D": (lambda: tn.AveragePool2D((1, 2), strides=1, padding="same"), (4, 3, 2)),
    "BatchNorm": (lambda: tn.BatchNorm(momentum=0.5, epsilon=0.01), (2, 3)),
    "Conv2D": (
        lambda: tn.Conv2D(3, (1, 2), (2, 1), "same", use_bias=False, kernel_initializer="he_normal"),
        (4, 3, 2),
    ),
    "Dense": (lambda: tn.Dense(4, use_bias=False, kernel_initializer="he_normal"), (3,)),
    "DepthwiseConv2D": (
        lambda: tn.DepthwiseConv2D((1, 2), 2, "same", depth_multiplier=2, bias_initializer="ones"),
        (4, 3, 2),
    ),
    "Dropout": (lambda: tn.Dropout(0.25, seed=7), (3,)),
    "Flatten": (lambda: tn.Flatten(), (2, 3)),
    "GlobalAveragePool2D": (lambda: tn.GlobalAveragePool2D(), (4, 3, 2)),
    "GlobalMaxPool2D": (lambda: tn.GlobalMaxPool2D(), (4, 3, 2)),
    "LeakyReLU": (lambda: tn.LeakyReLU(0.125), (3,)),
    "LogSoftmax": (lambda: tn.LogSoftmax(), (3,)),
    "MaxPool2D": (lambda: tn.MaxPool2D(3, (1, 2), "same"), (4, 3, 2)),
    "ReLU": (lambda: tn.ReLU(), (3,)),
    "Rescale": (lambda: tn.Rescale(1 / 255, offset=-0.5), (3,)),
    "Reshape": (lambda: tn.Reshape((3, 2, 1)), (2, 3)),
    "Residual": (
        lambda: tn.Residual(
            tn.Conv2D(3, 3, padding="same"),
            tn.Residual(tn.BatchNorm(momentum=0.5), tn.Dropout(0.25, seed=7)),
            projection=tn.Conv2D(3, 1, use_bias=False),
        ),
        (4, 3, 2),
    ),
    "Sigmoid": (lambda: tn.Sigmoid(), (3,)),
    "Softmax": (lambda: tn.Softmax(), (3,)),
    "Tanh": (lambda: tn.Tanh(), (3,)),
}


def network(seed=0, dtype="float32"):
    layers = [tn.Dense(5), tn.BatchNorm(), tn.ReLU(), tn.Dropout(0.3), tn.Dense(3), tn.Softmax()]
    return tn.Sequential(layers, input_shape=(2,), seed=seed, dtype=dtype)


def fitted(**settings):
    model = network()
    fit(model, **settings)
    return model


def fit(model, **settings):
    defaults = {
        "optimizer": tn.SGD(0.1),
        "loss": tn.CrossEntropy(),
        "batch_size": 6,
        "epochs": 2,
        "verbose": 0,
    }
    return model.fit(X, Y, **(defaults | settings))


def scramble(model):
    """Give every parameter and every state a different value."""
    rng = np.random.default_rng(1)
    for array in model.named_weights().values():
        array[...] = rng.uniform(0.5, 2, array.shape)


def reload(model, path, **settings):
    model.save(path)
    return tn.load_model(path, **settings)


def assert_same_model(first, second):
    assert repr(first) == repr(second)
    assert first.dtype == second.dtype
    assert list(first.named_weights()) == list(second.named_weights())
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


class Scale(tn.Layer):
    """A custom layer: y = factor W x."""

    def __init__(self, factor, note="", kernel_initializer="ones"):
        super().__init__()
        self.factor, self.note, self.kernel_initializer = factor, note, kernel_initializer

    def build(self, input_shape):
        self.add_param("W", input_shape, self.kernel_initializer)
        return input_shape

    def forward(self, x, training=False):
        return x * (self.factor * self.W)


class TestRoundTrip:
    def test_the_table_has_every_layer(self):
        assert sorted(LAYERS) == sorted(set(tn.layers.__all__) - {"Layer"})

    @pytest.mark.parametrize("name", LAYERS)
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_every_layer(self, name, dtype, tmp_path):
        make, input_shape = LAYERS[name]
        model = tn.Sequential([make()], input_shape=input_shape, seed=3, dtype=dtype)
        scramble(model)
        loaded = reload(model, tmp_path / "model.safetensors")
        assert_same_model(loaded, model)
        assert repr(loaded.layers[0].config()) == repr(model.layers[0].config())
        x = np.random.default_rng(2).standard_normal((4, *input_shape))
        np.testing.assert_array_equal(loaded.predict(x), model.predict(x))

    def test_all_of_them_in_one_model(self, tmp_path):
        kinds = [
            make()
            for name, (make, shape) in LAYERS.items()
            if shape == (3,) and name not in ("Flatten", "Dense")
        ]
        images = [
            make() for name, (make, shape) in LAYERS.items() if len(shape) == 3 and "Global" not in name
        ]
        layers = [tn.Reshape((6, 6, 2)), *images, tn.BatchNorm(), tn.Flatten(), *kinds, tn.Dense(2)]
        model = tn.Sequential(layers, input_shape=(8, 9), seed=3)
        scramble(model)
        assert_same_model(reload(model, tmp_path / "m"), model)

    @pytest.mark.parametrize(
        "loss",
        [tn.CrossEntropy(), tn.CrossEntropy(0.25), tn.SoftmaxCrossEntropy(0.1), tn.NegativeLogLikelihood()],
        ids=repr,
    )
    def test_the_loss_is_kept_so_that_evaluate_works(self, loss, tmp_path):
        head = {tn.CrossEntropy: [tn.Softmax()], tn.NegativeLogLikelihood: [tn.LogSoftmax()]}.get(
            type(loss), []
        )
        model = tn.Sequential([tn.Dense(3), *head], input_shape=(2,), seed=0)
        fit(model, loss=loss)
        loaded = reload(model, tmp_path / "m")
        assert repr(loaded.loss) == repr(loss)
        assert loaded.evaluate(X, Y) == model.evaluate(X, Y)

    def test_a_regression(self, tmp_path):
        model = tn.Sequential([tn.Dense(2)], input_shape=(2,), seed=0)
        model.fit(X, X, optimizer=tn.SGD(), loss=tn.MeanSquaredError(), verbose=0)
        loaded = reload(model, tmp_path / "m")
        assert loaded.evaluate(X, X) == model.evaluate(X, X)
        with pytest.raises(ValueError, match="needs a classifier"):
            loaded.predict_classes(X)

    def test_a_model_that_was_not_fitted_has_no_loss(self, tmp_path):
        loaded = reload(network(), tmp_path / "m")
        assert loaded.loss is None
        with pytest.raises(ValueError, match="not been fitted yet"):
            loaded.evaluate(X, Y)

    def test_training_goes_on_as_if_it_had_not_been_saved(self, tmp_path):
        """Shuffles and dropout masks follow from seed, epoch and step."""
        model = fitted()
        loaded = reload(model, tmp_path / "m")
        assert (loaded.step, loaded.epoch) == (model.step, model.epoch) == (8, 2)
        fit(model)
        fit(loaded)
        assert_same_model(loaded, model)

    def test_frozen_layers_stay_frozen(self, tmp_path):
        model = network()
        model.layers[1].trainable = False
        loaded = reload(model, tmp_path / "m")
        assert [layer.trainable for layer in loaded.layers] == [True, False, True, True, True, True]
        assert loaded.trainable_ranges() == model.trainable_ranges()

    def test_the_magnitude_it_was_fitted_on_is_kept(self, tmp_path):
        model = network()
        assert reload(model, tmp_path / "new").fitted_magnitude is None
        given = {"optimizer": tn.SGD(), "loss": tn.CrossEntropy(), "verbose": 0}
        model.fit(np.array([[1.0, -255.0]] * 4), [0, 1, 2, 0], **given)
        loaded = reload(model, tmp_path / "m")
        assert loaded.fitted_magnitude == 255
        with pytest.warns(UserWarning, match="magnitude up to 255 and now gets 1;"):
            loaded.predict(np.ones((4, 2)))

    def test_that_it_was_fitted_on_bytes_is_kept(self, tmp_path):
        model = network()
        model.fit(
            np.full((4, 2), 200, np.uint8),
            [0, 1, 2, 0],
            optimizer=tn.SGD(),
            loss=tn.CrossEntropy(),
            verbose=0,
        )
        with pytest.warns(UserWarning, match="fitted on integers"):
            reload(model, tmp_path / "m").predict(np.full((4, 2), 0.5))

    @pytest.mark.parametrize("as_text", [True, False])
    def test_any_path(self, as_text, tmp_path):
        path = tmp_path / "a model, modèle, 模型"
        assert_same_model(reload(network(), str(path) if as_text else path), network())
        assert os.listdir(tmp_path) == [path.name]

    def test_the_file_is_an_ordinary_safetensors_file(self, tmp_path):
        model = fitted()
        model.save(tmp_path / "m")
        arrays = safetensors.numpy.load_file(tmp_path / "m")
        assert arrays.keys() == model.named_weights().keys()
        for name, array in model.named_weights().items():
            np.testing.assert_array_equal(arrays[name], array)

    def test_saving_changes_nothing(self, tmp_path):
        model = fitted()
        before = model.params.copy()
        model.save(tmp_path / "m")
        np.testing.assert_array_equal(model.params, before)

    def test_a_loaded_model_is_its_own(self, tmp_path):
        model = network()
        first, second = reload(model, tmp_path / "m"), tn.load_model(tmp_path / "m")
        first.params[...] = 0
        assert_same_model(second, model)
        assert second.layers[0].W.flags.writeable

    @given(
        seeds, st.lists(st.tuples(st.text(max_size=8), st.lists(st.integers(0, 3), max_size=3)), max_size=4)
    )
    def test_description_and_arrays_of_any_kind(self, tmp_path_factory, seed, named_shapes):
        """The storage alone, which knows nothing of layers."""
        rng = np.random.default_rng(seed)
        arrays = {
            f"{index}.{name}": rng.standard_normal(shape) for index, (name, shape) in enumerate(named_shapes)
        }
        description = {"notes": [name for name, _ in named_shapes], "seed": seed, "half": 0.5, "none": None}
        path = tmp_path_factory.mktemp("storage") / "m"
        storage.save(path, description, arrays)
        loaded, loaded_arrays = storage.load(path)
        assert loaded == description | {"format": storage.FORMAT}
        assert loaded_arrays.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(loaded_arrays[name], array)


SAVES = """
import sys
import numpy as np
import tinynet as tn

layers = [tn.Dense(3), tn.BatchNorm(), tn.Residual(tn.Dense(3), tn.ReLU())]
model = tn.Sequential(layers, input_shape=(2,), seed=0)
model.save(sys.argv[1])
tn.load_model(sys.argv[1]).save(sys.argv[2])
"""


def test_one_model_is_one_file_in_every_process(tmp_path):
    """safetensors writes two entries of metadata in an order that is drawn anew for each file."""
    contents = set()
    for hash_seed in ("1", "2"):
        paths = [tmp_path / name for name in "ab"]
        environment = child_environment(PYTHONHASHSEED=hash_seed)
        subprocess.run([sys.executable, "-c", SAVES, *paths], env=environment, check=True)
        contents |= {path.read_bytes() for path in paths}
    for number in range(20):
        tn.load_model(tmp_path / "a").save(tmp_path / str(number))
        contents.add((tmp_path / str(number)).read_bytes())
    assert len(contents) == 1


def test_one_checkpoint_is_one_file(tmp_path):
    contents = set()
    for _ in range(20):
        storage.save(tmp_path / "c", {"a": 1, "ü": 2}, {"W": X, "ä": Y}, kind="checkpoint")
        contents.add((tmp_path / "c").read_bytes())
    assert len(contents) == 1
    assert set(safetensors.numpy.load_file(tmp_path / "c")) == {"W", "ä"}


class TestCustomLayers:
    def test_are_made_from_the_classes_that_are_given(self, tmp_path):
        model = tn.Sequential([Scale(2.5, note="größer 🎉"), tn.Dense(2)], input_shape=(3,), seed=0)
        scramble(model)
        loaded = reload(model, tmp_path / "m", custom_layers={"Scale": Scale})
        assert_same_model(loaded, model)
        assert loaded.layers[0].note == "größer 🎉"
        np.testing.assert_array_equal(loaded.predict(np.ones((1, 3))), model.predict(np.ones((1, 3))))

    def test_arguments_may_be_of_any_kind_that_json_has(self, tmp_path):
        class Takes(tn.Layer):
            def __init__(self, value):
                super().__init__()
                self.value = value

            def forward(self, x, training=False):
                return x

        for value in ({"a": 1, "b": [2, {"c": None}]}, {}, [1, [2.5, "three"]], None, True, {"layer": 3}):
            model = tn.Sequential([Takes(value)], input_shape=(3,), seed=0)
            assert reload(model, tmp_path / "m", custom_layers={"Takes": Takes}).layers[0].value == value

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (np.float32(2), 2.0),
            (np.int64(3), 3),
            (np.bool_(True), True),
            (np.str_("same"), "same"),
            ((np.float32(0.5), [np.int8(-1)]), [0.5, [-1]]),
            ({"rate": np.float64(0.1)}, {"rate": 0.1}),
        ],
    )
    def test_numpys_scalars_are_saved_as_pythons(self, value, expected, tmp_path):
        model = tn.Sequential([Scale(2.0, note=value)], input_shape=(3,), seed=0)
        found = reload(model, tmp_path / "m", custom_layers={"Scale": Scale}).layers[0].note
        assert (found, type(found)) == (expected, type(expected))

    @pytest.mark.parametrize("custom_layers", [None, {}, {"Other": Scale}])
    def test_unknown_ones_are_named_with_the_mend(self, custom_layers, tmp_path):
        tn.Sequential([Scale(2.5)], input_shape=(3,)).save(tmp_path / "m")
        with pytest.raises(
            tn.ModelFileError, match=r"m: .*layer 'Scale' is not known.*custom_layers=\{\.\.\.\}"
        ):
            tn.load_model(tmp_path / "m", custom_layers=custom_layers)

    def test_one_with_a_name_of_the_librarys_is_not_taken_for_it(self, tmp_path):
        class ReLU(tn.Layer):
            def forward(self, x, training=False):
                return np.maximum(x, 0) ** 2

        tn.Sequential([ReLU(), tn.ReLU()], input_shape=(3,)).save(tmp_path / "m")
        with pytest.raises(tn.ModelFileError, match="layer 'ReLU' is not known"):
            tn.load_model(tmp_path / "m")
        loaded = tn.load_model(tmp_path / "m", custom_layers={"ReLU": ReLU})
        assert [type(layer) for layer in loaded.layers] == [ReLU, tn.ReLU]

    @pytest.mark.parametrize("wrong", [tn.ReLU, tn.Dense, dict, print])
    def test_a_class_that_does_not_fit_is_an_error_of_the_file(self, wrong, tmp_path):
        tn.Sequential([Scale(2.5)], input_shape=(3,)).save(tmp_path / "m")
        with pytest.raises(tn.ModelFileError, match="the model can't be made"):
            tn.load_model(tmp_path / "m", custom_layers={"Scale": wrong})

    def test_a_loss_of_ones_own_is_left_out_and_given_again(self, tmp_path):
        class Doubled(tn.MeanSquaredError):
            def forward(self, outputs, targets, total=None):
                return 2 * super().forward(outputs, targets, total)

        model = tn.Sequential([tn.Dense(2)], input_shape=(2,), seed=0)
        model.fit(X, X, optimizer=tn.SGD(), loss=Doubled(), verbose=0)
        loaded = reload(model, tmp_path / "m")
        assert loaded.loss is None
        assert loaded.evaluate(X, X, loss=Doubled()) == model.evaluate(X, X)


def small_file(path):
    """A model whose file is small enough to damage each of its bytes."""
    tn.Sequential([tn.Dense(2), tn.Softmax()], input_shape=(1,), seed=0).save(path)
    return path.read_bytes()


def is_refused(path, data, expected):
    """Return whether the file is rejected; if not, it must hold exactly what was saved."""
    path.write_bytes(data)
    try:
        loaded = tn.load_model(path)
    except tn.ModelFileError:
        return True
    assert_same_model(loaded, expected)
    assert architecture.describe(loaded) == architecture.describe(expected)
    return False


class TestDamage:
    @given(st.data())
    def test_pieces_lost_doubled_or_overwritten(self, tmp_path_factory, data):
        folder = tmp_path_factory.mktemp("damage")
        good = small_file(folder / "good")
        start = data.draw(st.integers(0, len(good)), "start")
        stop = data.draw(st.integers(start, min(len(good), start + 80)), "stop")
        piece = data.draw(st.one_of(st.binary(max_size=40), st.just(good[start:stop] * 2)), "piece")
        damaged = good[:start] + piece + good[stop:]
        is_refused(folder / "damaged", damaged, tn.load_model(folder / "good"))

    def test_something_appended(self, tmp_path):
        data = small_file(tmp_path / "m")
        (tmp_path / "m").write_bytes(data + b"\0")
        with pytest.raises(tn.ModelFileError, match="is damaged or not a tinynet model"):
            tn.load_model(tmp_path / "m")

    @pytest.mark.parametrize(
        ("old", "new"),
        [(b'"0.W"', b'"0.X"'), (b"[1,2]", b"[2,1]"), (b'"F32"', b'"I32"'), (b"0.125", b"0.25 ")],
    )
    def test_the_digest_covers_names_shapes_types_and_description(self, old, new, tmp_path):
        storage.save(tmp_path / "m", {"rate": 0.125}, {"0.W": np.ones((1, 2), np.float32)})
        data = (tmp_path / "m").read_bytes()
        assert data.count(old) == 1
        (tmp_path / "m").write_bytes(data.replace(old, new))
        with pytest.raises(tn.ModelFileError, match="contents don't match its SHA-256; get another copy"):
            storage.load(tmp_path / "m")

    def test_arrays_exchanged_within_the_file(self, tmp_path):
        """The same bytes under swapped names: only the digest can tell."""
        model = tn.Sequential([tn.Dense(2), tn.Dense(2)], input_shape=(2,), seed=0)
        model.save(tmp_path / "m")
        data = (tmp_path / "m").read_bytes()
        swapped = data.replace(b'"0.W"', b'"#"').replace(b'"1.W"', b'"0.W"').replace(b'"#"', b'"1.W"')
        assert len(swapped) == len(data)
        (tmp_path / "m").write_bytes(swapped)
        with pytest.raises(tn.ModelFileError, match="contents don't match its SHA-256; get another copy"):
            tn.load_model(tmp_path / "m")


class Dangerous:
    """Creates a file when unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def framed(header, rest=b""):
    """Return a file that begins like a safetensors file."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + rest


class TestForeignFiles:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\x89HDF\r\n\x1a\n" + b"\0" * 100,
            b"# a text\n" * 100,
            b"\xff" * 16,
            (1 << 20).to_bytes(8, "little") + b"{}",
            ((1 << 20) + 1).to_bytes(8, "little") + b" " * (1 << 20) + b"{}",
            (0).to_bytes(8, "little"),
            framed(b"{}"),
            framed(b"[]"),
            framed(b"null"),
            framed(b"\xff\xfe"),
            framed(b"[" * 100_000),
            framed({"__metadata__": None}),
            framed({"__metadata__": {}}),
            framed({"__metadata__": {"format": "pt"}}),
            framed({"__metadata__": {"tinynet": "{}", "sha256": ""}}),
            framed({"__metadata__": {"tinynet": "[]", "sha256": ""}}),
            framed({"__metadata__": {"tinynet": "no JSON", "sha256": ""}}),
            framed({"__metadata__": {"tinynet": 5, "sha256": 5}}),
            framed({"__metadata__": {"tinynet": '{"format": 1}', "sha256": "0" * 64}}),
        ],
    )
    def test_are_refused_by_name(self, content, tmp_path):
        (tmp_path / "foreign").write_bytes(content)
        with pytest.raises(tn.ModelFileError, match="foreign: is (not a tinynet model|damaged)"):
            tn.load_model(tmp_path / "foreign")

    @pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
    def test_safetensors_of_another_library(self, metadata, tmp_path):
        safetensors.numpy.save_file(
            {"0.W": np.ones((1, 2), np.float32)}, tmp_path / "other", metadata=metadata
        )
        with pytest.raises(tn.ModelFileError, match="other: is damaged or not a tinynet model"):
            tn.load_model(tmp_path / "other")

    def test_numpys_own_files(self, tmp_path):
        np.savez(tmp_path / "weights.npz", W=np.ones(3))
        with pytest.raises(tn.ModelFileError, match="is not a tinynet model"):
            tn.load_model(tmp_path / "weights.npz")

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_a_pickle_is_refused_and_not_run(self, protocol, tmp_path):
        victim = tmp_path / "victim"
        (tmp_path / "model.pkl").write_bytes(pickle.dumps(Dangerous(victim), protocol))
        with pytest.raises(tn.ModelFileError, match="is not a tinynet model"):
            tn.load_model(tmp_path / "model.pkl")
        assert not victim.exists()

    def test_no_file_at_all(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            tn.load_model(tmp_path / "nowhere")

    def test_the_error_is_a_value_error_too(self):
        assert issubclass(tn.ModelFileError, ValueError)


def without(key):
    def change(description, arrays):
        del description[key]

    return change


def with_value(key, value):
    def change(description, arrays):
        description[key] = value

    return change


def with_array(name, value):
    def change(description, arrays):
        arrays[name] = value

    return change


class TestFilesThatContradictThemselves:
    """Their digest is correct: someone made them like this."""

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda description, arrays: arrays.pop("0.W"), "don't fit the layers: 0.W is missing"),
            (lambda description, arrays: arrays.clear(), "0.W is missing; 0.b is missing"),
            (with_array("1.W", np.ones(2)), "1.W belongs to no layer"),
            (
                with_array("0.W", np.ones((2, 1), np.float32)),
                r"0.W: expected float32 \(1, 2\), got float32 \(2, 1\)",
            ),
            (with_array("0.W", np.ones((1, 2))), r"0.W: expected float32 \(1, 2\), got float64 \(1, 2\)"),
            (with_array("0.b", np.ones(2, np.int32)), r"0.b: expected float32 \(2,\), got int32"),
            (with_value("layers", []), "expected at least one layer"),
            (with_value("layers", [{"type": "Dense", "config": {}, "custom": False}]), "units"),
            (with_value("layers", [{"type": "Dense"}]), "can't be made"),
            (
                with_value("layers", [{"type": "os.system", "config": {"command": "x"}, "custom": False}]),
                "not known",
            ),
            (
                with_value("layers", [{"type": "Layer", "config": {}, "custom": False}]),
                "'Layer' is not known",
            ),
            (with_value("layers", 5), "can't be made"),
            (with_value("loss", {"type": "Huber", "config": {}}), "loss 'Huber' is not known"),
            (with_value("loss", {"type": "CrossEntropy", "config": {"sharp": 1}}), "sharp"),
            (with_value("trainable", [True]), "can't be made"),
            (with_value("input_shape", [-1]), "input_shape"),
            (with_value("seed", -1), "seed"),
            (with_value("dtype", "int8"), "dtype: expected"),
            (with_value("format", 2), "expected format 1, got 2; update tinynet"),
            *((without(key), key) for key in architecture.describe(network())),
        ],
    )
    def test_are_refused_with_the_contradiction(self, change, message, tmp_path, monkeypatch):
        model = tn.Sequential([tn.Dense(2), tn.Softmax()], input_shape=(1,), seed=0)
        description = architecture.describe(model)
        arrays = {name: array.copy() for name, array in model.named_weights().items()}
        change(description, arrays)
        storage.save(tmp_path / "m", description, arrays)
        with pytest.raises(tn.ModelFileError, match=f"m: .*{message}"):
            tn.load_model(tmp_path / "m")

    def test_nothing_is_copied_when_one_array_does_not_fit(self):
        targets = {"a": np.zeros(2), "b": np.zeros(3)}
        with pytest.raises(ValueError, match="b: expected"):
            architecture.assign(targets, {"a": np.ones(2), "b": np.ones(4)})
        np.testing.assert_array_equal(targets["a"], 0)


def failing(error):
    def fail(*_):
        raise error

    return fail


class TestFailedSaves:
    @pytest.mark.parametrize("existing", [True, False])
    @pytest.mark.parametrize("step", ["fsync", "replace"])
    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
    def test_the_old_file_stays_whole_and_nothing_else_is_left(
        self, existing, step, error, tmp_path, monkeypatch
    ):
        old = network(seed=1)
        if existing:
            old.save(tmp_path / "m")
        monkeypatch.setattr(atomic.os, step, failing(error))
        with pytest.raises(type(error)):
            network(seed=2).save(tmp_path / "m")
        monkeypatch.undo()
        assert os.listdir(tmp_path) == (["m"] if existing else [])
        if existing:
            assert_same_model(tn.load_model(tmp_path / "m"), old)

    @pytest.mark.parametrize(
        ("layer", "message"),
        [
            (
                lambda: tn.Dense(2, kernel_initializer=lambda shape, rng: np.ones(shape)),
                "an initializer by its name",
            ),
            (lambda: Scale(float("nan")), "can't be written as JSON"),
            (
                lambda: Scale(1, note="x" * (1 << 20)),
                "description is over 1,048,576 bytes, more than load accepts",
            ),
        ],
    )
    def test_a_layer_that_can_not_be_written_is_an_error_and_the_old_file_stays(
        self, layer, message, tmp_path
    ):
        old = network()
        old.save(tmp_path / "m")
        with pytest.raises(tn.ModelFileError, match=f"m: .*{message}"):
            tn.Sequential([layer()], input_shape=(3,), seed=0).save(tmp_path / "m")
        assert_same_model(tn.load_model(tmp_path / "m"), old)

    @pytest.mark.parametrize("path", [b"m", 3, None], ids=repr)
    def test_what_is_no_path_is_refused(self, path):
        for use in (network().save, tn.load_model):
            with pytest.raises(
                TypeError, match=f"path: expected the path of a file, got {path!r}; use a str or"
            ):
                use(path)

    def test_a_missing_folder_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere' does not exist; create it first"):
            network().save(tmp_path / "nowhere" / "m")

    def test_saving_over_a_model_replaces_it(self, tmp_path):
        network(seed=1).save(tmp_path / "m")
        assert_same_model(reload(network(seed=2), tmp_path / "m"), network(seed=2))
        assert os.listdir(tmp_path) == ["m"]
