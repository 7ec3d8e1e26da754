"""Copying weights by name from one model into part of another, and freezing layers of convolutional networks."""

import numpy as np
import pytest

import tinynet as tn


def network(classes=5, seed=0, filters=4, dtype="float32"):
    layers = [
        *(tn.Rescale(1 / 255), tn.Reshape((8, 8, 1))),
        *(tn.Conv2D(filters, 3, padding="same", use_bias=False), tn.MaxPool2D(), tn.BatchNorm(), tn.ReLU()),
        tn.Residual(tn.Conv2D(filters, 3, padding="same"), tn.BatchNorm(), tn.ReLU()),
        *(tn.GlobalMaxPool2D(), tn.Dense(classes), tn.Softmax()),
    ]
    return tn.Sequential(layers, input_shape=(8, 8), seed=seed, dtype=dtype)


FEATURES = [
    *("2.W", "4.gamma", "4.beta", "4.running_mean", "4.running_var"),
    *("6.0.W", "6.0.b", "6.1.gamma", "6.1.beta", "6.1.running_mean", "6.1.running_var"),
]


def data(n=30, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 8, 8), dtype=np.uint8), rng.integers(0, classes, n)


def fit(model, **settings):
    x, y = data()
    settings = {"optimizer": tn.Adam(0.01), "loss": tn.CrossEntropy(), "batch_size": 10} | settings
    return model.fit(x, y, verbose=0, **settings)


@pytest.fixture(scope="module")
def trained():
    model = network(seed=1)
    fit(model)
    return model


class TestTransfer:
    def test_the_features_of_one_model_in_another(self, trained):
        target = network(classes=3)
        head = target.layers[8].W.copy()
        assert tn.transfer_weights(trained, target, names=range(7)) == FEATURES
        for name in FEATURES:
            np.testing.assert_array_equal(target.named_weights()[name], trained.named_weights()[name])
        np.testing.assert_array_equal(target.layers[8].W, head)
        assert target.layers[2].W.base is target.params  # still the view that trains
        x, _ = data()
        both = [
            model.run(model.layers[:8], x, False) for model in (_without_head(trained), _without_head(target))
        ]
        np.testing.assert_array_equal(*both)

    def test_what_is_copied_is_the_targets_own(self, trained):
        target = network()
        tn.transfer_weights(trained, target)
        before = trained.params.copy()
        fit(target)
        np.testing.assert_array_equal(trained.params, before)

    @pytest.mark.parametrize("kind", ["model", "file", "path as text", "arrays", "another dtype"])
    def test_sources(self, trained, tmp_path, kind):
        path = tmp_path / "model.safetensors"
        trained.save(path)
        source = {
            "model": trained,
            "file": path,
            "path as text": str(path),
            "arrays": trained.named_weights(),
            "another dtype": trained.copy("float64"),
        }[kind]
        target = network()
        assert len(tn.transfer_weights(source, target)) == 13
        np.testing.assert_array_equal(target.params, trained.params)

    def test_a_file_with_a_layer_of_your_own_is_read(self, tmp_path):
        class Square(tn.Layer):
            def forward(self, x, training=False):
                return x * x

        own = tn.Sequential([tn.Dense(3), Square(), tn.Dense(2)], input_shape=(4,), seed=0)
        own.save(tmp_path / "own.safetensors")
        target = tn.Sequential([tn.Dense(3)], input_shape=(4,), seed=1)
        assert tn.transfer_weights(tmp_path / "own.safetensors", target) == ["0.W", "0.b"]
        np.testing.assert_array_equal(
            target.params, np.concatenate([own.layers[0].W.ravel(), own.layers[0].b])
        )

    @pytest.mark.parametrize(
        ("names", "copied"),
        [
            (["2"], ["2.W"]),
            ([2, "2.W"], ["2.W"]),
            (["6.1"], FEATURES[-4:]),
            (["6.0.b", "4.gamma"], ["6.0.b", "4.gamma"]),
            ({"8": "8"}, ["8.W", "8.b"]),
            (["0", "1", "3", "8.b"], ["8.b"]),  # layers without weights are allowed
        ],
    )
    def test_names(self, trained, names, copied):
        target = network()
        before = {name: array.copy() for name, array in target.named_weights().items()}
        assert tn.transfer_weights(trained, target, names) == copied
        for name, array in target.named_weights().items():
            expected = trained.named_weights() if name in copied else before
            np.testing.assert_array_equal(array, expected[name])

    def test_a_mapping_brings_layers_to_another_place(self, trained):
        target = tn.Sequential([tn.Dense(5), tn.ReLU(), tn.Dense(5)], input_shape=(4,), seed=0)
        assert tn.transfer_weights(trained, target, {8: 0}) == ["0.W", "0.b"]
        np.testing.assert_array_equal(target.layers[0].W, trained.layers[8].W)
        assert tn.transfer_weights(trained, target, {"8.b": "2.b"}) == ["2.b"]
        np.testing.assert_array_equal(target.layers[2].b, trained.layers[8].b)

    def test_every_mismatch_is_named_and_nothing_is_copied(self, trained):
        target = network(classes=3, filters=6)
        before = target.get_weights()
        with pytest.raises(ValueError, match="nothing was copied") as caught:
            tn.transfer_weights(trained, target)
        text = str(caught.value)
        assert "2.W: expected shape (3, 3, 1, 6), got (3, 3, 1, 4) float32" in text
        assert all(f"{name}: expected shape" in text for name in [*FEATURES, "8.W", "8.b"])
        assert "pass names=" in text
        for array, old in zip(target.get_weights(), before, strict=True):
            np.testing.assert_array_equal(array, old)

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["9.W"], "9.W: the target has no such layer or weight"),
            (["2", "12"], "12: the target has no such layer or weight"),
            (["6.0.W", "5.W"], "5.W: the target has no such layer or weight"),
            ({"8": "2"}, "8.b is missing from the source|2.b is missing from the target"),
            ({"8": "3"}, "3.W is missing from the target; 3.b is missing from the target"),
            ({"5": "8"}, "5.W is missing from the source; 5.b is missing from the source"),
            ({"4.gamma": "4.gamma", "4.beta": "4.gamma"}, "4.gamma would be written twice"),
            ({"8": "2"}, "8.W -> 2.W: expected shape"),
        ],
    )
    def test_wrong_names(self, trained, names, message):
        target = network()
        before = target.params.copy()
        with pytest.raises(ValueError, match=message):
            tn.transfer_weights(trained, target, names)
        np.testing.assert_array_equal(target.params, before)

    @pytest.mark.parametrize("names", [[0, 1, 3], [], {}])
    def test_nothing_to_copy_is_an_error(self, trained, names):
        with pytest.raises(ValueError, match="there is nothing to copy: the source has 2.W, 4.gamma"):
            tn.transfer_weights(trained, network(), names)

    def test_models_without_a_name_in_common(self, trained):
        other = tn.Sequential([tn.Dense(2)], input_shape=(3,), seed=0)
        with pytest.raises(ValueError, match="nothing to copy: .*, the target 0.W, 0.b"):
            tn.transfer_weights(trained, other)

    def test_arrays_that_are_no_numbers(self):
        target = tn.Sequential([tn.Dense(2)], input_shape=(1,), seed=0)
        with pytest.raises(ValueError, match=r"0.W: expected shape \(1, 2\), got \(1, 2\) <U1"):
            tn.transfer_weights({"0.W": [["a", "b"]]}, target)

    def test_wrong_types(self, trained):
        with pytest.raises(TypeError, match="source: expected a model"):
            tn.transfer_weights([1], trained)
        for names in ("2.W", 2):
            with pytest.raises(TypeError, match="names: expected several, such as"):
                tn.transfer_weights(trained, network(), names)

    def test_a_file_that_is_no_model(self, tmp_path):
        (tmp_path / "a").write_bytes(b"nothing of the kind")
        with pytest.raises(tn.ModelFileError):
            tn.transfer_weights(tmp_path / "a", network())


def _without_head(model):
    clone = model.copy()
    clone.output_shape = clone.layers[7].output_shape
    return clone


def watch(model):
    """Count the calls of each layer's backward, by path."""
    calls = {}
    for path, layer in model.walk():
        calls[path] = 0

        def backward(dy, path=path, original=layer.backward):
            calls[path] += 1
            return original(dy)

        object.__setattr__(layer, "backward", backward)
    return calls


class TestFrozenConvolutions:
    def freeze(self, model, indices):
        for index in indices:
            model.layers[index].trainable = False

    def test_below_the_first_layer_that_trains_backward_is_never_called(self):
        model = network()
        self.freeze(model, range(7))
        calls = watch(model)
        model.loss_and_gradients(*data(), tn.CrossEntropy())
        assert {path for path, count in calls.items() if count} == {"8"}  # Softmax is part of the loss
        assert all(
            (array == 0).all() for name, array in model.named_grads().items() if not name.startswith("8.")
        )
        assert model.trainable_ranges() == [(180, 200), (220, 225)]

    @pytest.mark.parametrize("frozen", [[2, 4], [2], [2, 3, 4, 5]])
    def test_the_first_that_trains_makes_no_input_gradient(self, frozen):
        model = network()
        self.freeze(model, frozen)
        calls = watch(model)
        model.loss_and_gradients(*data(), tn.CrossEntropy())
        first = 6 if 4 in frozen else 4
        assert {int(path.split(".")[0]) for path, count in calls.items() if count} == set(range(first, 9))
        assert not model.layers[first].needs_input_grad

    def test_frozen_in_the_middle_it_passes_the_gradient_on_and_writes_none(self):
        whole, part = network(dtype="float64"), network(dtype="float64")
        self.freeze(part, [6])
        part.layers[6].layers[1].running_var = np.full(4, 0.5)
        whole.layers[6].layers[1].trainable = False  # otherwise its statistics would be the batch's
        whole.layers[6].layers[1].running_var = np.full(4, 0.5)
        part.grads.fill(5)
        for model in (whole, part):
            x, y = data()
            layers, loss = model._fuse(tn.CrossEntropy())
            model._begin_step()
            model._forward_backward(layers, x, y, loss)
        expected, found = whole.named_grads(), part.named_grads()
        for name in found:
            if name.startswith("6."):
                assert (found[name] == 5).all()
            else:
                np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, atol=1e-15)
        assert found["2.W"].any()

    def test_a_frozen_convolution_has_nothing_to_do_for_its_own_weights(self):
        model = network()
        conv = model.layers[6].layers[0]
        conv.trainable = False
        model.loss_and_gradients(*data(), tn.CrossEntropy())
        assert conv.needs_input_grad
        assert {"dx padded", "dW part"} & set(conv._buffers) == {"dx padded"}

    def test_freezing_a_residual_freezes_what_is_inside(self):
        model = network()
        model.layers[6].trainable = False
        assert [layer.trainable for path, layer in model.walk() if path.startswith("6")] == [False] * 4
        before = [array.copy() for name, array in model.named_weights().items() if name.startswith("6.")]
        fit(model, epochs=2)
        after = [array for name, array in model.named_weights().items() if name.startswith("6.")]
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(old, new)  # running statistics too
        model.layers[6].trainable = True
        fit(model)
        assert all((old != new).any() for old, new in zip(before, after, strict=True))

    def test_frozen_batch_norm_trains_as_it_predicts(self, trained):
        model = trained.copy()
        self.freeze(model, range(7))
        x, _ = data()
        np.testing.assert_allclose(model.forward(x, training=True), model.predict(x), rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_new_head_on_frozen_features(self, trained, workers):
        model = network(classes=3, seed=4)
        copied = tn.transfer_weights(trained, model, names=range(7))
        self.freeze(model, range(7))
        x, y = data(classes=3)
        head = model.layers[8].W.copy()
        model.fit(
            *(x, y),
            optimizer=tn.AdamW(0.05, weight_decay=0.1),
            loss=tn.CrossEntropy(),
            batch_size=8,
            epochs=3,
            verbose=0,
            workers=workers,
        )
        for name in copied:
            np.testing.assert_array_equal(model.named_weights()[name], trained.named_weights()[name])
        assert (head != model.layers[8].W).all()
