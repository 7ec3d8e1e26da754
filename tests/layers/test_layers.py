"""What each layer computes: formulas on worked examples, conventions at kinks, settings, and errors."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import tinynet as tn
from tests.support.strategies import layer_cases, seeds
from tinynet.layers.chain import walk


def place(layer, input_shape, dtype="float64"):
    """The layer, built in its own model."""
    return tn.Sequential([layer], input_shape=input_shape, seed=0, dtype=dtype).layers[0]


def test_dense():
    layer = place(tn.Dense(2), (3,))
    layer.W = [[1, 2], [3, 4], [5, 6]]
    layer.b = [10, 20]
    x = np.array([[1.0, 0, 2], [0, 1, 0]])
    np.testing.assert_array_equal(layer.forward(x), [[21, 34], [13, 24]])
    layer.forward(x, training=True)
    layer.needs_input_grad = True
    dx = layer.backward(np.array([[1.0, 0], [1, 1]]))
    np.testing.assert_array_equal(layer.dW, [[1, 0], [1, 1], [2, 0]])
    np.testing.assert_array_equal(layer.db, [2, 1])
    np.testing.assert_array_equal(dx, [[1, 3, 5], [3, 7, 11]])


def test_dense_without_bias():
    layer = place(tn.Dense(2, use_bias=False), (3,))
    assert list(layer.param_specs) == ["W"]
    np.testing.assert_allclose(layer.forward(np.eye(3)), layer.W)


def test_relu_and_its_derivative_at_the_kink():
    layer = tn.ReLU()
    x = np.array([[-1.0, -0.0, 0.0, 2.0]])
    np.testing.assert_array_equal(layer.forward(x, training=True), [[0, 0, 0, 2]])
    np.testing.assert_array_equal(layer.backward(np.full_like(x, 3)), [[0, 0, 0, 3]])


@pytest.mark.parametrize("slope", [0.0, 0.25, 3.0])
def test_leaky_relu_and_its_derivative_at_the_kink(slope):
    layer = tn.LeakyReLU(slope)
    x = np.array([[-4.0, 0.0, 2.0]])
    np.testing.assert_array_equal(layer.forward(x, training=True), [[-4 * slope, 0, 2]])
    np.testing.assert_array_equal(layer.backward(np.ones_like(x)), [[slope, slope, 1]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations_are_finite_far_out(dtype):
    x = np.array([[-1e4, -100, 0, 100, 1e4]], dtype)
    np.testing.assert_allclose(tn.Sigmoid().forward(x), [[0, 0, 0.5, 1, 1]], atol=1e-7)
    np.testing.assert_allclose(tn.Tanh().forward(x), [[-1, -1, 0, 1, 1]], atol=1e-7)
    np.testing.assert_allclose(tn.Softmax().forward(x), [[0, 0, 0, 0, 1]], atol=1e-7)
    np.testing.assert_allclose(tn.LogSoftmax().forward(x), x - 1e4, rtol=1e-6)


@settings(max_examples=50)
@given(seed=seeds, shift=st.floats(-50, 50), classes=st.integers(1, 8))
def test_softmax_is_a_distribution_that_a_shift_does_not_move(seed, shift, classes):
    x = np.random.default_rng(seed).standard_normal((3, classes)) * 5
    y = tn.Softmax().forward(x)
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(tn.Softmax().forward(x + shift), y, rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(np.exp(tn.LogSoftmax().forward(x)), y, rtol=1e-12)
    np.testing.assert_allclose(tn.Sigmoid().forward(x), 1 / (1 + np.exp(-x)), rtol=1e-9)


def test_sigmoid_is_exact_far_below_zero():
    x = np.array([[-14, -16, -18, -20, -80]], np.float32)
    exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    np.testing.assert_allclose(tn.Sigmoid().forward(x), exact, rtol=1e-6)


def test_flatten_and_rescale():
    x = np.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(tn.Flatten().forward(x), x.reshape(2, 6))
    np.testing.assert_array_equal(tn.Rescale(0.5, -1).forward(x), x / 2 - 1)


def test_reshape():
    x = np.arange(24.0).reshape(2, 12)
    layer = place(tn.Reshape((3, 2, 2)), (12,))
    np.testing.assert_array_equal(layer.forward(x, training=True), x.reshape(2, 3, 2, 2))
    np.testing.assert_array_equal(layer.backward(x.reshape(2, 3, 2, 2)), x)
    with pytest.raises(
        ValueError,
        match=r"expected an input with 784 elements, as \(batch, 28, 28, 1\) has; got \(batch, 783\), with 783",
    ):
        place(tn.Reshape((28, 28, 1)), (783,))


class TestBatchNorm:
    def test_training_normalizes_every_feature_over_all_other_axes(self):
        layer = place(tn.BatchNorm(epsilon=1e-9), (4, 3))
        x = np.random.default_rng(0).normal(5, 3, (6, 4, 3))
        y = layer.forward(x, training=True)
        np.testing.assert_allclose(y.mean(axis=(0, 1)), 0, atol=1e-12)
        np.testing.assert_allclose(y.std(axis=(0, 1)), 1, atol=1e-8)

    def test_gamma_and_beta(self):
        layer = place(tn.BatchNorm(), (3,))
        x = np.random.default_rng(0).standard_normal((8, 3))
        plain = layer.forward(x, training=True).copy()
        layer.gamma, layer.beta = [1, 2, 3], [4, 5, 6]
        np.testing.assert_allclose(layer.forward(x, training=True), plain * [1, 2, 3] + [4, 5, 6])

    def test_running_statistics_follow_the_batches(self):
        layer = place(tn.BatchNorm(momentum=0.75), (2,))
        mean, var = np.zeros(2), np.ones(2)
        for seed in range(3):
            x = np.random.default_rng(seed).normal(2, 4, (9, 2))
            layer.forward(x, training=True)
            mean, var = 0.75 * mean + 0.25 * x.mean(axis=0), 0.75 * var + 0.25 * x.var(axis=0)
        np.testing.assert_allclose(layer.running_mean, mean)
        np.testing.assert_allclose(layer.running_var, var)

    def test_a_single_row_does_not_move_the_running_statistics(self):
        layer = place(tn.BatchNorm(), (2,))
        layer.forward(np.array([[5.0, -3.0]]), training=True)
        np.testing.assert_array_equal(layer.running_mean, [0, 0])
        np.testing.assert_array_equal(layer.running_var, [1, 1])

    def test_inference_uses_the_running_statistics(self):
        layer = place(tn.BatchNorm(epsilon=0.1), (2,))
        layer.running_mean, layer.running_var = [1, -1], [4, 9]
        layer.gamma, layer.beta = [2, 3], [5, 7]
        x = np.array([[3.0, 2.0]])
        expected = (x - [1, -1]) / np.sqrt([4.1, 9.1]) * [2, 3] + [5, 7]
        np.testing.assert_allclose(layer.forward(x), expected)

    def test_frozen_it_uses_and_keeps_the_running_statistics(self):
        layer = place(tn.BatchNorm(), (2,))
        layer.trainable = False
        layer.running_mean, layer.running_var = [1, -1], [4, 9]
        x = np.random.default_rng(0).standard_normal((5, 2))
        np.testing.assert_array_equal(layer.forward(x, training=True), layer.forward(x))
        np.testing.assert_array_equal(layer.running_mean, [1, -1])


class TestDropout:
    x = np.ones((400, 50), np.float32)

    def layer(self, rate, **settings):
        return place(tn.Dropout(rate, **settings), (50,), "float32")

    @pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.9])
    def test_drops_its_share_and_scales_the_rest(self, rate):
        y = self.layer(rate).forward(self.x, training=True)
        kept = y != 0
        deviation = (rate * (1 - rate) / self.x.size) ** 0.5
        assert abs((1 - kept.mean()) - rate) <= 5 * deviation
        np.testing.assert_allclose(y[kept], 1 / (1 - rate), rtol=1e-4)
        if rate:
            assert abs(y.mean() - 1) <= 5 * deviation / (1 - rate)

    def test_inference_drops_nothing(self):
        np.testing.assert_array_equal(self.layer(0.5).forward(self.x), self.x)

    def test_the_mask_is_a_function_of_seed_step_and_place(self):
        layer = self.layer(0.5, seed=1)
        first = layer.forward(self.x, training=True).copy()
        np.testing.assert_array_equal(layer.forward(self.x, training=True), first)
        layer.step = 1
        assert (layer.forward(self.x, training=True) != first).mean() > 0.4
        other = self.layer(0.5, seed=2)
        assert (other.forward(self.x, training=True) != first).mean() > 0.4
        two = tn.Sequential([tn.Dropout(0.5), tn.Dropout(0.5)], input_shape=(50,), seed=0)
        masks = [layer.forward(self.x, training=True) for layer in two.layers]
        assert (masks[0] != masks[1]).mean() > 0.4

    @settings(max_examples=30)
    @given(units=st.integers(1, 70), cut=st.integers(1, 8), rate=st.floats(0.1, 0.9))
    def test_parts_of_a_batch_get_the_mask_of_the_whole(self, units, cut, rate):
        layer = place(tn.Dropout(rate, seed=3), (units,))
        x = np.ones((9, units))
        whole = layer.forward(x, training=True).copy()
        top = layer.forward(x[:cut], training=True).copy()
        layer.first_row = cut
        np.testing.assert_array_equal(np.concatenate([top, layer.forward(x[cut:], training=True)]), whole)

    def test_units_of_a_row_and_of_rows_are_independent(self):
        kept = self.layer(0.5).forward(self.x, training=True) != 0
        correlation = np.corrcoef(kept, rowvar=False) - np.eye(50)
        assert np.abs(correlation).max() < 5 / len(self.x) ** 0.5
        rows = np.corrcoef(kept[:60]) - np.eye(60)
        assert np.abs(rows).max() < 5 / 50**0.5

    def test_a_model_counts_the_steps(self):
        model = tn.Sequential([tn.Dropout(0.5), tn.Dense(2)], input_shape=(50,), seed=0)
        masks = []
        for _ in range(3):
            model.loss_and_gradients(self.x, np.zeros((400, 2), np.float32), tn.MeanSquaredError())
            masks.append(model.layers[0]._mask.copy())
        assert (masks[0] != masks[1]).any()
        assert (masks[1] != masks[2]).any()
        again = tn.Sequential([tn.Dropout(0.5), tn.Dense(2)], input_shape=(50,), seed=0)
        again.step = 2
        again.loss_and_gradients(self.x, np.zeros((400, 2), np.float32), tn.MeanSquaredError())
        np.testing.assert_array_equal(again.layers[0]._mask, masks[2])


@pytest.mark.parametrize("name", layer_cases())
@settings(max_examples=10)
@given(data=st.data())
def test_float32_stays_float32(name, data):
    case = data.draw(layer_cases()[name])
    layer = place(case.layer, case.x.shape[1:], "float32")
    x = case.x.astype(np.float32)
    y = layer.forward(x, training=True)
    dy = np.ones_like(y)
    assert y.dtype == np.float32
    assert layer.forward(x).dtype == np.float32
    assert layer.backward(dy).dtype == np.float32
    for _, inner in walk([layer]):
        arrays = [*vars(inner).values(), *inner._buffers.values()]
        kinds = {array.dtype for array in arrays if isinstance(array, np.ndarray) and array.dtype.kind == "f"}
        assert kinds <= {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tn.Dense(0), "Dense units: expected a positive int, got 0"),
        (lambda: tn.Dense(2.5), "Dense units: expected a positive int"),
        (
            lambda: tn.Dense(128, "relu"),
            r"Dense use_bias: expected True or False, got 'relu'; .* add a ReLU\(\) layer",
        ),
        (lambda: tn.Dense(True), "Dense units: expected a positive int"),
        (lambda: tn.Dense("ten"), "Dense units: expected a positive int"),
        (lambda: tn.Dropout(1), r"Dropout rate: expected a number in \[0, 1\)"),
        (lambda: tn.Dropout(-0.1), r"Dropout rate: expected a number in \[0, 1\)"),
        (lambda: tn.Dropout(float("nan")), "Dropout rate"),
        (lambda: tn.Dropout(0.5, seed=-1), "seed: expected a non-negative int"),
        (lambda: tn.LeakyReLU(-1), "LeakyReLU negative_slope"),
        (lambda: tn.Rescale("1/255"), "Rescale scale: expected a number"),
        (lambda: tn.Rescale(float("inf")), "Rescale scale"),
        (lambda: tn.BatchNorm(momentum=1.5), "BatchNorm momentum"),
        (lambda: tn.BatchNorm(epsilon=0), "BatchNorm epsilon"),
        (lambda: tn.Reshape(12), r"Reshape target_shape: expected a tuple, got 12; pass \(12,\)"),
        (lambda: tn.Reshape((-1, 2)), "Reshape target_shape: expected a positive int, got -1"),
        (lambda: tn.Reshape((2.0, 2)), "Reshape target_shape: expected a positive int"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", layer_cases())
@settings(max_examples=5)
@given(data=st.data())
def test_config_makes_the_layer_again(name, data):
    layer = data.draw(layer_cases()[name]).layer
    assert type(layer).from_config(layer.config()).config() == layer.config()
    assert repr(layer).startswith(type(layer).__name__)


class TestParametersAreViews:
    def test_assignment_copies_in(self):
        model = tn.Sequential([tn.Dense(2)], input_shape=(3,), seed=0)
        layer = model.layers[0]
        given = np.arange(6.0).reshape(3, 2)
        layer.W = given
        np.testing.assert_array_equal(model.params[:6], np.arange(6))
        given[0, 0] = 99
        assert model.params[0] == 0

    def test_in_place_operators_work(self):
        model = tn.Sequential([tn.Dense(2)], input_shape=(3,), seed=0)
        model.layers[0].W *= 0
        model.layers[0].b += 1
        np.testing.assert_array_equal(model.params, [0] * 6 + [1] * 2)

    def test_a_wrong_shape_is_refused_and_changes_nothing(self):
        model = tn.Sequential([tn.Dense(2)], input_shape=(3,), seed=0)
        before = model.params.copy()
        with pytest.raises(ValueError, match=r"Dense.W: expected shape \(3, 2\), got \(2, 3\)"):
            model.layers[0].W = np.zeros((2, 3))
        np.testing.assert_array_equal(model.params, before)

    def test_an_unbuilt_layer_says_so(self):
        with pytest.raises(AttributeError, match="'W'; it is not built yet"):
            _ = tn.Dense(2).W


class Scale(tn.Layer):
    """A layer written as the documentation shows."""

    def build(self, input_shape):
        self.add_param("factor", input_shape, "ones", decay=False)
        return input_shape

    def forward(self, x, training=False):
        if training:
            self._x = x
        return x * self.factor

    def backward(self, dy):
        self.dfactor[...] = (dy * self._x).sum(axis=0)
        return dy * self.factor


def test_a_layer_of_ones_own_trains_and_is_checked():
    tn.study.gradcheck(Scale(), np.random.default_rng(0).standard_normal((4, 3))).check()
    model = tn.Sequential([Scale(), tn.Dense(1)], input_shape=(3,), seed=0)
    x = np.random.default_rng(1).standard_normal((64, 3)).astype(np.float32)
    y = (x @ [1, -2, 3])[:, None].astype(np.float32)
    history = model.fit(x, y, optimizer=tn.Adam(0.05), loss=tn.MeanSquaredError(), epochs=150, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0] / 10
    assert not np.allclose(model.layers[0].factor, 1)


class Keeps(tn.Layer):
    """A layer that stores its arguments in its own way, one of them an array."""

    def __init__(self, factor, mean):
        super().__init__()
        self._factor, self.mean = factor, np.asarray(mean)

    def forward(self, x, training=False):
        return (x - self.mean) * self._factor

    def backward(self, dy):
        return dy * self._factor


def test_a_layer_may_keep_its_arguments_as_it_likes_but_then_says_how_to_save_it(tmp_path):
    model = tn.Sequential([Keeps(2.0, [1, 2, 3]), tn.Dense(1)], input_shape=(3,), seed=0)
    data = np.ones((4, 3)), np.ones((4, 1))
    model.fit(*data, optimizer=tn.SGD(), loss=tn.MeanSquaredError(), verbose=0)
    assert "Keeps(mean=array([1, 2, 3]))" in repr(model)
    with pytest.raises(
        ValueError, match=r"Keeps does not keep its argument 'factor' under that name; set self.factor"
    ):
        model.save(tmp_path / "m.safetensors")


def test_a_build_that_returns_nothing_is_named():
    class Forgets(tn.Layer):
        def build(self, input_shape):
            self.add_param("a", input_shape, "ones")

    with pytest.raises(ValueError, match=r"layer 0 \(Forgets\): its build\(input_shape\) must return"):
        tn.Sequential([Forgets()], input_shape=(3,))


def test_a_forward_of_another_shape_than_build_said_is_found():
    class Sum(tn.Layer):
        def forward(self, x, training=False):
            return x.sum(axis=1, keepdims=True)

    model = tn.Sequential([Sum()], input_shape=(4,))
    with pytest.raises(ValueError, match=r"built for outputs \(batch, 4\) but gave \(2, 1\)"):
        model.predict(np.ones((2, 4)))


def test_a_layer_that_forgets_its_base_class_says_so():
    class Forgetful(tn.Layer):
        def __init__(self):
            self.rate = 1

    with pytest.raises(
        AttributeError, match=r"the __init__ of Forgetful must call super\(\).__init__\(\) first"
    ):
        tn.Sequential([Forgetful()], input_shape=(3,))


def test_a_layer_without_forward_or_backward_says_so():
    class Empty(tn.Layer):
        pass

    with pytest.raises(NotImplementedError, match="Empty defines no forward"):
        Empty().forward(np.ones((1, 1)))
    with pytest.raises(NotImplementedError, match="Empty defines no backward"):
        Empty().backward(np.ones((1, 1)))


class TestMisspeltSettings:
    @pytest.mark.parametrize(
        "name", ["trainble", "Trainable", "tranable", "frozen", "requires_grad", "units_"]
    )
    def test_they_are_refused(self, name):
        layer = tn.Sequential([tn.Dense(3)], (2,)).layers[0]
        with pytest.raises(AttributeError, match=f"Dense has no attribute '{name}'; did you mean"):
            setattr(layer, name, False)
        assert not hasattr(layer, name)

    def test_a_layer_of_ones_own_has_attributes_of_its_own(self):
        class Own(tn.Dense):
            def __init__(self, units):
                super().__init__(units)
                self.frozen, self.unit, self.train_steps = False, 1, 0

        own = tn.Sequential([Own(3)], (2,)).layers[0]
        own.kernel_initialisers = "mine"
        assert own.unit == 1
        with pytest.raises(AttributeError, match="Own has no attribute 'trainble'; did you mean 'trainable'"):
            own.trainble = False
