"""Removed units and channels: the smaller model computes what the larger one would without them."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import tinynet as tn
from tinynet.slimming import unit_scores

ACTIVATIONS = (tn.ReLU, tn.LeakyReLU, tn.Sigmoid, tn.Tanh)


@st.composite
def models(draw):
    """Convolutional or dense networks, with random values everywhere, and images for them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.integers(10, 11))

    def choose(*kinds):
        return draw(st.sampled_from(kinds))()

    def small():
        activation = choose(*ACTIVATIONS)
        return draw(st.permutations([activation, *([tn.BatchNorm()] if draw(st.booleans()) else [])]))

    def conv(same=False, filters=None):
        padding = "same" if same else draw(st.sampled_from(["valid", "same"]))
        filters = filters or draw(st.integers(1, 4))
        return tn.Conv2D(filters, draw(st.integers(1, 3)), padding=padding, use_bias=draw(st.booleans()))

    layers = []
    for _ in range(draw(st.integers(0, 3))):
        layers += [conv(), *small()]
        channels = next(layer.filters for layer in reversed(layers) if isinstance(layer, tn.Conv2D))
        kind = draw(st.sampled_from(["", "", "pool", "depthwise", "residual", "projection"]))
        if kind == "pool":
            pool = draw(st.sampled_from([tn.MaxPool2D, tn.AveragePool2D]))
            layers.append(pool(2, strides=1, padding=draw(st.sampled_from(["valid", "same"]))))
        elif kind == "depthwise":
            layers += [
                tn.DepthwiseConv2D(2, padding="same", depth_multiplier=draw(st.integers(1, 2))),
                *small(),
            ]
        elif kind == "residual":
            layers.append(
                tn.Residual(conv(same=True), *small(), conv(same=True, filters=channels), tn.BatchNorm())
            )
        elif kind == "projection":
            inner = [conv(same=True), *small(), conv(same=True, filters=3)]
            layers.append(tn.Residual(*inner, projection=tn.Conv2D(3, 1)))
    layers.append(choose(tn.Flatten, tn.GlobalAveragePool2D, tn.GlobalMaxPool2D))
    for _ in range(draw(st.integers(0, 2))):
        layers += [*small(), tn.Dense(draw(st.integers(1, 5)), use_bias=draw(st.booleans())), tn.Dropout(0.5)]
    model = tn.Sequential([*layers, tn.Dense(3), tn.Softmax()], (size, size, 1), seed=0, dtype="float64")
    for name, array in model.named_weights().items():
        array[...] = rng.uniform(0.5, 2, array.shape) if "var" in name else rng.normal(0, 0.7, array.shape)
    return model, rng.standard_normal((3, size, size, 1))


def run_without(layers, x, removed, prefix=""):
    """Run forward without some units: they are NaN from where they are made to where the next layer would use them.

    NaN passes through the layers between, to everything that depends on a unit and to nothing else.
    """
    for index, layer in enumerate(layers):
        path = f"{prefix}{index}"
        if isinstance(layer, (tn.Dense, tn.Conv2D)):
            x = np.where(np.isnan(x), 0, x)
        if isinstance(layer, tn.Residual):
            assert not np.isnan(x).any()
            cut = x if layer.projection is None else layer.projection.forward(x)
            x = cut + run_without(layer.layers, x, removed, f"{path}.")
        else:
            x = layer.forward(x)
        if path in removed:
            x = x.copy()
            x[..., removed[path]] = np.nan
    return x


class TestWhatItComputes:
    @settings(suppress_health_check=[HealthCheck.too_slow])
    @given(models(), st.data())
    def test_the_model_without_those_units(self, case, data):
        model, x = case
        scores = unit_scores(model)
        removed = {}
        for path, score in scores.items():
            units = st.lists(st.integers(0, score.size - 1), unique=True, max_size=score.size - 1)
            removed[path] = data.draw(units, label=f"units of layer {path}")
        smaller = tn.prune_units(model, removed)
        np.testing.assert_allclose(
            smaller.forward(x), run_without(model.layers, x, removed), rtol=1e-9, atol=1e-12
        )
        gone = sum(map(len, removed.values()))
        assert (smaller.params.size < model.params.size) == (gone > 0)
        assert smaller.output_shape == model.output_shape

    @settings(max_examples=25)
    @given(models(), st.floats(0, 0.99))
    def test_it_trains_on_saves_and_loads(self, tmp_path_factory, case, share):
        model, x = case
        if not unit_scores(model):
            return
        smaller = tn.prune_units(model, share)
        smaller.fit(x, [0, 1, 2], optimizer=tn.Adam(), loss=tn.CrossEntropy(), verbose=0)
        path = tmp_path_factory.mktemp("model") / "m.safetensors"
        smaller.save(path)
        np.testing.assert_array_equal(tn.load_model(path).predict(x), smaller.predict(x))

    def test_it_is_the_model_with_the_next_weights_at_zero(self):
        model = perceptron()
        smaller = tn.prune_units(model, {"1": [0, 3], "3": [2]})
        model.layers[3].W[[0, 3]] = 0
        model.layers[5].W[2] = 0
        x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
        np.testing.assert_allclose(smaller.predict(x), model.predict(x), rtol=1e-5)
        assert [layer.units for layer in smaller.layers if isinstance(layer, tn.Dense)] == [4, 4, 3]

    def test_the_model_itself_is_unchanged(self):
        model = perceptron()
        before, config = model.params.copy(), repr(model)
        tn.prune_units(model, 0.5)
        np.testing.assert_array_equal(model.params, before)
        assert repr(model) == config
        x = np.zeros((2, 2, 3))
        model.loss_and_gradients(x, np.array([0, 1]), tn.CrossEntropy())

    def test_nothing_removed_is_a_copy(self):
        model = perceptron()
        same = tn.prune_units(model, 0.0)
        np.testing.assert_array_equal(same.params, model.params)
        assert same.params is not model.params


def perceptron(seed=0):
    layers = [
        *(tn.Flatten(), tn.Dense(6), tn.ReLU(), tn.Dense(5), tn.Tanh()),
        *(tn.Dense(3), tn.Softmax()),
    ]
    return tn.Sequential(layers, input_shape=(2, 3), seed=seed)


def convolutional():
    layers = [
        *(tn.Conv2D(4, 3, padding="same"), tn.MaxPool2D(), tn.BatchNorm(), tn.ReLU()),
        tn.Residual(tn.Conv2D(6, 3, padding="same"), tn.ReLU(), tn.Conv2D(4, 3, padding="same")),
        *(tn.Conv2D(8, 3), tn.Flatten(), tn.BatchNorm(), tn.Dense(5), tn.ReLU(), tn.Dense(3)),
    ]
    return tn.Sequential(layers, input_shape=(8, 8, 1), seed=0)


class TestWhichUnits:
    def test_layers_may_be_named_by_number(self):
        model = tn.Sequential([tn.Dense(6), tn.ReLU(), tn.Dense(2)], input_shape=(3,), seed=0)
        by_number, by_path = tn.prune_units(model, {0: 0.5}), tn.prune_units(model, {"0": 0.5})
        np.testing.assert_array_equal(by_number.params, by_path.params)
        with pytest.raises(ValueError, match="layer 2: expected a Dense or Conv2D whose units reach another"):
            tn.prune_units(model, {2: 0.5})

    def test_of_which_layers(self):
        assert list(unit_scores(perceptron())) == ["1", "3"]  # never the output
        # Not 0, which feeds the residual block, nor 4.2, which ends it.
        assert list(unit_scores(convolutional())) == ["5", "8", "4.0"]

    def test_the_smallest_norms_go(self):
        model = perceptron()
        model.layers[1].W[...] = [[3, -1, 2, 6, 4, -5]] * 6
        np.testing.assert_allclose(unit_scores(model)["1"], [18, 6, 12, 36, 24, 30])
        smaller = tn.prune_units(model, {"1": 3})
        np.testing.assert_array_equal(smaller.layers[1].W[0], [6, 4, -5])
        np.testing.assert_array_equal(smaller.layers[3].W, model.layers[3].W[3:])
        assert tn.prune_units(model, {"1": 0.67}).layers[1].units == 2  # 4.02 is rounded down

    def test_a_filters_norm_is_over_all_its_weights(self):
        model = convolutional()
        expected = [abs(model.layers[5].W[..., unit]).sum() for unit in range(8)]
        np.testing.assert_allclose(unit_scores(model, "l1")["5"], expected, rtol=1e-6)

    def test_batch_norms_gamma_counts_more_than_the_weights_before_it(self):
        model = convolutional()
        gamma = model.layers[7].gamma.reshape(2, 2, 8)  # after Flatten: a gamma for each place of a channel
        gamma[...] = np.array([8, -1, 7, -6, 2, 3, 5, 4])
        np.testing.assert_array_equal(unit_scores(model)["5"], [8, 1, 7, 6, 2, 3, 5, 4])
        smaller = tn.prune_units(model, {"5": 4})
        np.testing.assert_array_equal(smaller.layers[7].gamma, [8, 7, -6, 5] * 4)
        assert smaller.layers[8].W.shape == (16, 5)
        assert (unit_scores(model, "l1")["5"] != unit_scores(model)["5"]).all()

    def test_gamma_behind_a_depthwise_convolution_is_not_the_units_own(self):
        layers = [tn.Conv2D(3, 1), tn.DepthwiseConv2D(2), tn.BatchNorm(), tn.Flatten(), tn.Dense(2)]
        model = tn.Sequential(layers, input_shape=(3, 3, 1), seed=0)
        np.testing.assert_array_equal(unit_scores(model)["0"], unit_scores(model, "l1")["0"])
        with pytest.raises(ValueError, match="no BatchNorm follows layer 0"):
            tn.prune_units(model, 0.5, "gamma")

    def test_a_share_for_all_layers(self):
        smaller = tn.prune_units(convolutional(), 0.5)
        shapes = {name: array.shape for name, array in smaller.named_params().items() if name.endswith("W")}
        assert shapes == {
            "0.W": (3, 3, 1, 4),
            "4.0.W": (3, 3, 4, 3),
            "4.2.W": (3, 3, 3, 4),
            "5.W": (3, 3, 4, 4),
            "8.W": (16, 3),
            "10.W": (3, 3),
        }

    def test_one_unit_always_stays(self):
        smaller = tn.prune_units(perceptron(), 0.999)
        assert [layer.units for layer in smaller.layers if isinstance(layer, tn.Dense)] == [1, 1, 3]


class Own(tn.Layer):
    def forward(self, x, training=False):
        return x[..., ::-1]


class TestWhatIsKept:
    def test_everything_beside_the_layers(self):
        layers = [tn.Dense(6), tn.Dropout(0.5), tn.ReLU(), tn.Dense(3), tn.Softmax()]
        model = tn.Sequential(layers, input_shape=(4,), seed=7, dtype="float64")
        x, y = np.arange(20).reshape(5, 4).astype(np.uint8), np.array([0, 1, 2, 0, 1])
        model.fit(x, y, optimizer=tn.SGD(), loss=tn.CrossEntropy(), epochs=2, verbose=0)
        model.layers[3].trainable = False
        smaller = tn.prune_units(model, 0.5)
        assert (smaller.seed, smaller.dtype, smaller.epoch, smaller.step) == (7, np.float64, 2, 2)
        assert smaller.fitted_on_bytes
        assert [layer.trainable for layer in smaller.layers] == [True, True, True, False, True]
        assert set(smaller.evaluate(x, y)) == {"loss", "accuracy"}
        assert smaller.loss is not model.loss

    def test_layers_of_your_own_elsewhere_do_no_harm(self):
        layers = [Own(), tn.Dense(6), tn.ReLU(), tn.Dense(4), Own()]
        model = tn.Sequential(layers, input_shape=(4,), seed=0)
        smaller = tn.prune_units(model, {"1": 3})
        assert isinstance(smaller.layers[0], Own)
        assert smaller.layers[1].units == 3


class TestRefused:
    def test_a_layer_of_your_own_behind_the_units(self):
        model = tn.Sequential([tn.Dense(6), Own(), tn.Dense(4)], input_shape=(4,), seed=0)
        for use in (lambda: tn.prune_units(model, 0.5), lambda: unit_scores(model)):
            with pytest.raises(
                ValueError, match="it is not known what Own does with the units of layer 0; pass"
            ):
                use()

    @pytest.mark.parametrize(
        ("remove", "message"),
        [
            ({"5": 1}, "layer 5: expected a Dense or Conv2D whose units reach another one"),
            ({"2": 1, "8": 1, "1": 2}, "layer 2, 8: expected a Dense or Conv2D"),
            ({"1": 6}, "layer 1: expected to remove 0 to 5 of 6 units, got 6"),
            ({"1": -1}, "expected to remove 0 to 5"),
            ({"1": 1.0}, r"layer 1: the share to remove: expected a number in \[0, 1\)"),
            ({"1": True}, "the share to remove: expected a number"),
            ({"1": [6]}, "layer 1: expected indices of units from 0 to 5"),
            ({"1": [-1]}, "expected indices of units"),
            ({"1": [0.5]}, "expected indices of units"),
            ({"1": "all"}, "expected indices of units"),
            ({"1": range(6)}, "layer 1: expected to leave at least one of its 6 units"),
            (1.0, r"remove: expected a number in \[0, 1\)"),
            (3, "remove: expected a number"),
        ],
    )
    def test_what_can_not_be_removed(self, remove, message):
        with pytest.raises(ValueError, match=message):
            tn.prune_units(perceptron(), remove)

    def test_a_model_with_nothing_to_take_out(self):
        model = tn.Sequential([tn.Dense(3), tn.Softmax()], input_shape=(4,), seed=0)
        with pytest.raises(ValueError, match="has no layer whose units can be removed"):
            tn.prune_units(model, 0.5)

    def test_an_unknown_criterion(self):
        with pytest.raises(ValueError, match="criterion: expected one of auto, l1, gamma, got 'l2'"):
            tn.prune_units(perceptron(), 0.5, "l2")

    @pytest.mark.parametrize("layer", [tn.Softmax, tn.LogSoftmax, lambda: tn.Reshape((2, 3))])
    def test_layers_that_mix_units_or_name_their_number_end_the_path(self, layer):
        model = tn.Sequential([tn.Dense(6), layer(), tn.Flatten(), tn.Dense(3)], input_shape=(4,), seed=0)
        assert unit_scores(model) == {}
