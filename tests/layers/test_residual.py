"""Residual: the sum, and a layer made of layers in everything that a model does with layers."""

import copy
import pickle

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import tinynet as tn
from tests.support.strategies import seeds
from tinynet.study import gradcheck


def built(layer, input_shape, dtype="float64", seed=0):
    tn.Sequential([layer], input_shape=input_shape, seed=seed, dtype=dtype)
    return layer


class Scale(tn.Layer):
    """A user's layer: y = factor W x."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def build(self, input_shape):
        self.add_param("W", input_shape, "ones")
        return input_shape

    def forward(self, x, training=False):
        if training:
            self._x = x
        return x * (self.factor * self.W)

    def backward(self, dy):
        if self.trainable:
            self.dW[...] = self.factor * (dy * self._x).sum(axis=0)
        return dy * (self.factor * self.W)


def network(dtype="float32"):
    """Blocks with and without a projection, one inside another."""
    layers = [
        tn.Conv2D(4, 3, padding="same"),
        tn.Residual(tn.Conv2D(4, 3, padding="same"), tn.BatchNorm(), tn.ReLU()),
        tn.Residual(
            tn.BatchNorm(),
            tn.Residual(tn.Conv2D(4, 1), tn.Tanh()),
            tn.Conv2D(6, 3, 2, "same"),
            projection=tn.Conv2D(6, 1, 2),
        ),
        *(tn.Dropout(0.2), tn.Flatten(), tn.Dense(3), tn.Softmax()),
    ]
    return tn.Sequential(layers, input_shape=(6, 5, 2), seed=0, dtype=dtype)


def data(n=20, dtype=np.float32):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 6, 5, 2)).astype(dtype), rng.integers(0, 3, n)


FIT = {"loss": tn.CrossEntropy(), "batch_size": 6, "verbose": 0}


class TestTheFunction:
    @settings(max_examples=30)
    @given(seed=seeds, batch=st.integers(1, 4), features=st.integers(1, 5))
    def test_the_input_is_added_to_what_the_layers_give(self, seed, batch, features):
        rng = np.random.default_rng(seed)
        dense = tn.Dense(features, bias_initializer="glorot_uniform")
        layer = built(tn.Residual(dense, tn.Tanh()), (features,), seed=seed % 100)
        x, dy = rng.standard_normal((2, batch, features))
        z = np.tanh(x @ dense.W + dense.b)
        dz = dy * (1 - z**2)
        for training in (True, False):
            np.testing.assert_allclose(layer.forward(x, training), x + z, rtol=0, atol=1e-13)
        np.testing.assert_allclose(layer.backward(dy), dy + dz @ dense.W.T, rtol=0, atol=1e-12)
        np.testing.assert_allclose(dense.dW, x.T @ dz, rtol=0, atol=1e-12)

    def test_exactly(self):
        layer = built(tn.Residual(tn.Rescale(2), tn.Rescale(1, 10)), (2,))
        x = np.array([[1.0, -3]])
        np.testing.assert_array_equal(layer.forward(x, training=True), [[13, 1]])
        np.testing.assert_array_equal(layer.backward(np.array([[1.0, 5]])), [[3, 15]])

    def test_a_projection_takes_the_inputs_place(self):
        layer = built(tn.Residual(tn.Dense(1), projection=tn.Dense(1)), (2,))
        block, projection = layer.children
        block.W, projection.W, projection.b = [[1], [2]], [[10], [100]], [1000]
        x = np.array([[1.0, 3]])
        np.testing.assert_array_equal(layer.forward(x, training=True), [[7 + 310 + 1000]])
        np.testing.assert_array_equal(layer.backward(np.array([[2.0]])), [[22, 204]])
        np.testing.assert_array_equal(block.dW, [[2], [6]])
        np.testing.assert_array_equal(projection.dW, [[2], [6]])
        np.testing.assert_array_equal(projection.db, [2])

    def test_a_convolution_of_zeros_is_the_identity(self):
        layer = built(tn.Residual(tn.Conv2D(3, 3, padding="same", kernel_initializer="zeros")), (5, 4, 3))
        x = np.random.default_rng(0).standard_normal((2, 5, 4, 3))
        np.testing.assert_array_equal(layer.forward(x), x)

    @pytest.mark.parametrize("first", ["block", "projection", "only the projection"])
    def test_gradients_where_a_residual_is_the_first_layer_that_trains(self, first):
        """It then computes no dx, yet every parameter in it gets its gradient."""
        projection = tn.Conv2D(2, 1, 2) if "projection" in first else None
        layers = [tn.Conv2D(2, 3, 1 if projection is None else 2, "same"), tn.Tanh()]
        if first == "only the projection":
            layers = [tn.AveragePool2D(), tn.Tanh()]
        block = tn.Residual(*layers, projection=projection)
        model = tn.Sequential(
            [tn.Rescale(0.5), block, tn.Flatten(), tn.Dense(3), tn.Softmax()], (4, 4, 2), seed=1
        )
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((5, 4, 4, 2)), rng.integers(0, 3, 5)
        report = gradcheck(model, x, y, tn.CrossEntropy()).check()
        assert {tensor.name for tensor in report.tensors} == {"x", *model.named_params()}
        model.grads.fill(np.nan)
        model.loss_and_gradients(x.astype(np.float32), y, tn.CrossEntropy())
        assert np.isfinite(model.grads).all()
        assert block.needs_input_grad is False
        assert "dx" not in block._buffers

    def test_gradients_of_blocks_in_blocks(self):
        x, y = data(6, np.float64)
        gradcheck(network(), x, y, tn.CrossEntropy(), rtol=1e-4, atol=1e-7).check()


class TestInAModel:
    def test_names_are_paths(self):
        names = list(network().named_weights())
        assert names[2:8] == [
            *("1.0.W", "1.0.b"),
            *("1.1.gamma", "1.1.beta", "1.1.running_mean", "1.1.running_var"),
        ]
        assert [name for name in names if name.startswith("2.")] == [
            *("2.0.gamma", "2.0.beta", "2.0.running_mean", "2.0.running_var"),
            *("2.1.0.W", "2.1.0.b"),
            *("2.2.W", "2.2.b"),
            *("2.3.W", "2.3.b"),  # the projection comes last
        ]
        assert [path for path, _ in network().walk()][1:6] == ["1", "1.0", "1.1", "1.2", "2"]

    def test_summary_has_a_row_for_each_layer_inside_and_counts_it_once(self, capsys):
        model = network()
        rows = {row.name: row for row in model.describe()}
        assert (rows["1"].kind, rows["1"].params, rows["1"].multiply_adds) == ("Residual", 0, 0)
        assert rows["1.0"].params == 9 * 4 * 4 + 4
        assert rows["2.3"].multiply_adds == 4 * 6 * 3 * 3
        weights = sum(array.size for array in model.named_weights().values())
        assert sum(row.params for row in rows.values()) == weights
        assert model.multiply_adds() == sum(row.multiply_adds for row in rows.values())
        model.summary()
        text = capsys.readouterr().out
        assert f"Total params: {weights:,}" in text
        assert "2.1.0 (Conv2D)" in text

    def test_it_trains(self):
        model, (x, y) = network(), data(60)
        history = model.fit(x, y, optimizer=tn.Adam(0.01), epochs=30, **FIT)
        assert history.history["loss"][-1] < 0.3 * history.history["loss"][0]

    @pytest.mark.parametrize(
        "make", [tn.Sequential.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
    )
    def test_a_copy_is_whole_and_its_own(self, make):
        model, (x, y) = network(), data()
        model.fit(x, y, optimizer=tn.SGD(0.05), **FIT)
        clone = make(model)
        assert all(array.base is clone.params for array in clone.named_params().values())
        block = clone.layers[2]
        assert block.children == (*block.layers, block.projection)
        np.testing.assert_array_equal(clone.predict(x), model.predict(x))
        before = model.get_weights()
        clone.fit(x, y, optimizer=tn.SGD(0.05), **FIT)
        for array, old in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(array, old)
        model.fit(x, y, optimizer=tn.SGD(0.05), **FIT)
        np.testing.assert_array_equal(clone.params, model.params)

    def test_a_copy_in_another_dtype(self):
        model, (x, _) = network(), data()
        clone = model.copy("float64")
        assert {array.dtype for array in clone.get_weights()} == {np.dtype(np.float64)}
        np.testing.assert_allclose(clone.predict(x), model.predict(x), rtol=1e-4, atol=1e-6)

    def test_weights_go_out_and_in(self):
        model, other = network(), network()
        rng = np.random.default_rng(1)
        for array in model.named_weights().values():
            array[...] = rng.uniform(0.5, 2, array.shape)
        other.set_weights(model.get_weights())
        np.testing.assert_array_equal(other.predict(data()[0]), model.predict(data()[0]))

    def test_saved_and_loaded(self, tmp_path):
        model, (x, y) = network(), data()
        model.layers[2].layers[0].trainable = False
        model.fit(x, y, optimizer=tn.SGD(0.05), **FIT)
        model.save(tmp_path / "m")
        loaded = tn.load_model(tmp_path / "m")
        assert repr(loaded) == repr(model)
        assert list(loaded.named_weights()) == list(model.named_weights())
        np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
        assert [layer.trainable for _, layer in loaded.walk()] == [
            layer.trainable for _, layer in model.walk()
        ]
        for trained in (model, loaded):
            trained.fit(x, y, optimizer=tn.SGD(0.05), **FIT)
        np.testing.assert_array_equal(loaded.params, model.params)

    def test_a_layer_of_ones_own_inside_is_saved_too(self, tmp_path):
        inner = tn.Residual(Scale(0.5), projection=Scale(0.25))
        model = tn.Sequential([tn.Residual(inner, tn.Tanh()), tn.Dense(2)], input_shape=(3,), seed=0)
        model.layers[0].layers[0].projection.W = [1, 2, 3]
        model.save(tmp_path / "m")
        with pytest.raises(tn.ModelFileError, match="layer 'Scale' is not known"):
            tn.load_model(tmp_path / "m")
        loaded = tn.load_model(tmp_path / "m", custom_layers={"Scale": Scale})
        projection = loaded.layers[0].layers[0].projection
        assert (type(projection), projection.factor) == (Scale, 0.25)
        np.testing.assert_array_equal(loaded.predict(np.ones((2, 3))), model.predict(np.ones((2, 3))))

    def test_repr_names_what_is_inside(self):
        layer = tn.Residual(tn.Conv2D(4, 3, padding="same"), projection=tn.Dense(4))
        assert "Conv2D(filters=4, kernel_size=3, padding='same')" in repr(layer)
        assert "projection=Dense(units=4)" in repr(layer)
        assert repr(tn.Residual(tn.ReLU(), tn.Tanh())) == "Residual(ReLU(), Tanh())"


class TestFrozen:
    def test_its_layers_freeze_with_it_and_thaw_with_it(self):
        model = network()
        block = model.layers[2]
        for trainable in (False, True):
            block.trainable = trainable
            assert {layer.trainable for path, layer in model.walk() if path.startswith("2")} == {trainable}
            assert model.layers[1].layers[0].trainable

    def test_frozen_it_keeps_values_and_statistics_and_writes_no_gradients(self):
        model, (x, y) = network(), data()
        model.layers[1].trainable = model.layers[2].trainable = False
        inside = [name for name in model.named_weights() if name[0] in "12"]
        before = {name: model.named_weights()[name].copy() for name in inside}
        model.grads.fill(5)
        model.fit(x, y, optimizer=tn.AdamW(0.05), epochs=2, **FIT)
        for name in inside:
            np.testing.assert_array_equal(model.named_weights()[name], before[name])
        for name, gradient in model.named_grads().items():
            assert (gradient == 5).all() == (name[0] in "12"), name
        assert {"2.0", "2.1.0"}.isdisjoint(name.rpartition(".")[0] for name in _trained(model, x, y))

    def test_below_the_first_layer_that_trains_it_does_nothing(self):
        model, (x, y) = network(), data()
        for layer in model.layers[:3]:
            layer.trainable = False
        model.layers[1].backward = model.layers[2].backward = None  # would fail if called
        model.fit(x, y, optimizer=tn.SGD(0.1), **FIT)

    def test_one_layer_inside_that_trains_is_reached(self):
        model, (x, y) = network(), data()
        model.layers[0].trainable = model.layers[1].trainable = model.layers[2].trainable = False
        inner = model.layers[2].layers[1].layers[0]
        inner.trainable = True
        model.grads.fill(0)
        model.loss_and_gradients(x, y, tn.CrossEntropy())
        assert inner.dW.any()
        assert not model.layers[2].layers[2].dW.any()
        assert _trained(model, x, y) == {"2.1.0.W", "2.1.0.b", "5.W", "5.b"}
        report = gradcheck(model.copy("float64"), x[:6].astype(float), y[:6], tn.CrossEntropy(), rtol=1e-4)
        assert {"2.1.0.W", "5.W"} <= {tensor.name for tensor in report.check().tensors}


def _trained(model, x, y):
    """The names of the parameters that a step changes."""
    before = {name: array.copy() for name, array in model.named_params().items()}
    model.fit(x, y, optimizer=tn.SGD(0.1), steps_per_epoch=1, **FIT)
    return {name for name, array in model.named_params().items() if (array != before[name]).any()}


class TestErrors:
    def test_shapes_that_can_not_be_added(self):
        with pytest.raises(
            ValueError,
            match=r"layer 1 \(Residual\): its layers give \(batch, 4, 4, 3\) and the shortcut \(batch, 6, 6, 3\), "
            r"which can't be added; give padding='same' to the convolutions, or projection=Conv2D",
        ):
            tn.Sequential([tn.ReLU(), tn.Residual(tn.Conv2D(3, 3))], input_shape=(6, 6, 3))
        with pytest.raises(ValueError, match=r"layers give \(batch, 4\) and the shortcut \(batch, 5\)"):
            tn.Sequential([tn.Residual(tn.Dense(4), projection=tn.Dense(5))], input_shape=(4,))
        with pytest.raises(ValueError, match=r"layers give \(batch, 1\) and the shortcut \(batch, 4\)"):
            tn.Sequential([tn.Residual(tn.Dense(1))], input_shape=(4,))  # NumPy would broadcast these

    def test_the_layer_inside_is_named(self):
        block = tn.Residual(tn.Flatten(), tn.Residual(tn.ReLU(), tn.Conv2D(2, 3)))
        with pytest.raises(
            ValueError,
            match=r"layer 0 \(Residual\): layer 1 \(Residual\): layer 1 \(Conv2D\): expected input shape",
        ):
            tn.Sequential([block], input_shape=(4, 4, 1))
        with pytest.raises(
            ValueError, match=r"layer 0 \(Residual\): projection \(Dense\): expected input shape"
        ):
            tn.Sequential([tn.Residual(tn.ReLU(), projection=tn.Dense(3))], input_shape=(4, 4))

    @pytest.mark.parametrize("inner", ["shapes", "layer", "projection", "above"])
    def test_after_a_failure_every_layer_can_be_used_again(self, inner):
        conv, norm, cut = tn.Conv2D(3, 3, padding="same"), tn.BatchNorm(), tn.Conv2D(3, 1)
        block, above = tn.Residual(conv, tn.Residual(norm), projection=cut), tn.Dense(2)
        if inner == "shapes":
            wrong = [tn.Residual(conv, tn.Residual(norm), projection=tn.Conv2D(4, 1))]
        elif inner == "layer":
            wrong = [tn.Residual(conv, tn.Residual(norm, above), projection=cut)]
        elif inner == "projection":
            wrong = [tn.Residual(conv, tn.Residual(norm), projection=tn.Conv2D(3, 9))]
        else:
            wrong = [block, above]
        with pytest.raises(ValueError, match="layer"):
            tn.Sequential(wrong, input_shape=(4, 4, 2))
        model = tn.Sequential([block, tn.Flatten(), above], input_shape=(4, 4, 2), seed=0)
        assert model.predict(np.ones((1, 4, 4, 2))).shape == (1, 2)
        assert list(model.named_params())[:2] == ["0.0.W", "0.0.b"]

    @pytest.mark.parametrize(
        "make",
        [
            lambda layer: [tn.Residual(layer, layer)],
            lambda layer: [tn.Residual(layer, projection=layer)],
            lambda layer: [layer, tn.Residual(layer)],
            lambda layer: [tn.Residual(layer), layer],
            lambda layer: [tn.Residual(tn.Residual(layer), layer)],
        ],
    )
    def test_one_object_in_two_places_is_refused(self, make):
        layer = tn.Dense(3)
        with pytest.raises(ValueError, match="this layer object is already in use"):
            tn.Sequential(make(layer), input_shape=(3,))
        tn.Sequential([layer], input_shape=(3,))  # it was released

    def test_a_layer_of_another_model_is_refused_and_left_alone(self):
        model = tn.Sequential([tn.Dense(3)], input_shape=(3,), seed=0)
        before = model.predict(np.eye(3))
        with pytest.raises(ValueError, match=r"layer 0 \(Dense\): this layer object is already in use"):
            tn.Sequential([tn.Residual(model.layers[0])], input_shape=(3,))
        np.testing.assert_array_equal(model.predict(np.eye(3)), before)

    def test_what_is_no_layer(self):
        with pytest.raises(ValueError, match="Residual: expected at least one layer"):
            tn.Residual()
        with pytest.raises(ValueError, match="Residual: expected at least one layer"):
            tn.Residual(projection=tn.Dense(3))
        for make in (
            lambda: tn.Residual(tn.ReLU),
            lambda: tn.Residual([tn.ReLU()]),
            lambda: tn.Residual(tn.ReLU(), projection=tn.Dense),
            lambda: tn.Residual(tn.ReLU(), projection=3),
        ):
            with pytest.raises(TypeError, match=r"Residual: expected Layer objects such as Conv2D\(64, 3\)"):
                make()


def test_the_gradient_check_of_a_built_block_is_of_its_own_weights():
    """It finds weights for which the gradient is wrong; with newly drawn weights it would not."""

    class Wrong(tn.Dense):
        def backward(self, dy):
            super().backward(dy)
            return dy @ self.W.T * (2 if self.b[0] > 4 else 1)

    block = tn.Residual(Wrong(3), tn.Tanh())
    tn.Sequential([block], input_shape=(3,), seed=0)
    x = np.random.default_rng(0).standard_normal((4, 3))
    assert tn.study.gradcheck(block, x).ok
    block.layers[0].W[...] = 0.1
    block.layers[0].b[...] = (5, 0.1, 0.1)
    assert not tn.study.gradcheck(block, x).ok
