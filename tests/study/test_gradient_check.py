"""Tests of the checker itself: it must pass right gradients and reject every kind of wrong one."""

import numpy as np
import pytest

import tinynet as tn
from tinynet.study import GradientReport, gradcheck
from tinynet.study.gradients.objective import Objective
from tinynet.study.gradients.report import band, check_element

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 4))


class RightDense(tn.Dense):
    """Dense as a user would write it; each planted bug below changes one thing."""

    def backward(self, dy):
        self.dW[...] = self._x.T @ dy
        self.db[...] = dy.sum(axis=0)
        return dy @ self.W.T


class WrongSign(RightDense):
    def backward(self, dy):
        dx = super().backward(dy)
        self.dW *= -1
        return dx


class FactorTwo(RightDense):
    def backward(self, dy):
        return 2 * super().backward(dy)


class Zeros(RightDense):
    def backward(self, dy):
        self.dW.fill(0)
        self.db.fill(0)
        return np.zeros_like(self._x)


class BiasNotSummed(RightDense):
    def backward(self, dy):
        dx = super().backward(dy)
        self.db[...] = dy[0]
        return dx


class OffByBatchSize(RightDense):
    def backward(self, dy):
        dx = super().backward(dy)
        self.dW /= len(dy)
        return dx


class TransposedProduct(RightDense):  # the weights are square, so no shape gives it away
    def backward(self, dy):
        super().backward(dy)
        return dy @ self.W


class TransposedWeightGradient(RightDense):
    def backward(self, dy):
        dx = super().backward(dy)
        self.dW[...] = self.dW.T.copy()
        return dx


class IgnoredUpstream(RightDense):
    def backward(self, dy):
        return super().backward(np.ones_like(dy))


class GradientNotWritten(RightDense):
    def backward(self, dy):
        return dy @ self.W.T


class Accumulates(RightDense):
    def backward(self, dy):
        before = self.dW.copy()
        dx = super().backward(dy)
        self.dW += before + 1
        return dx


class SlightlyOff(RightDense):
    def backward(self, dy):
        dx = super().backward(dy)
        self.dW *= 1 + 1e-4
        return dx


class NothingWithoutInputGradient(RightDense):
    def backward(self, dy):
        return super().backward(dy) if self.needs_input_grad else None


BUGS = [
    SlightlyOff,
    NothingWithoutInputGradient,
    WrongSign,
    FactorTwo,
    Zeros,
    BiasNotSummed,
    OffByBatchSize,
    TransposedProduct,
    TransposedWeightGradient,
    IgnoredUpstream,
    GradientNotWritten,
    Accumulates,
]


def test_a_right_layer_passes():
    assert gradcheck(RightDense(4), X).ok


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_rejected(bug):
    report = gradcheck(bug(4), X)
    assert not report.ok
    with pytest.raises(AssertionError, match="WRONG"):
        report.check()


@pytest.mark.parametrize("kind", [tn.Softmax, tn.LogSoftmax, tn.BatchNorm, tn.ReLU, tn.Sigmoid, tn.Tanh])
def test_a_backward_of_zeros_is_rejected_where_a_cotangent_of_ones_is_blind(kind):
    class Lazy(kind):
        def backward(self, dy):
            super().backward(dy)
            return np.zeros_like(dy)

    assert gradcheck(kind(), X).ok
    assert not gradcheck(Lazy(), X).ok


class SoftmaxWithoutSum(tn.Softmax):
    def backward(self, dy):
        return dy * self._y * (1 - self._y)  # only the Jacobian's diagonal, as often published


class BatchNormWithoutGamma(tn.BatchNorm):  # right as long as gamma is still 1
    def backward(self, dy):
        dx = super().backward(dy)
        return None if dx is None else dx / self.gamma


class BatchNormWithoutVariance(tn.BatchNorm):
    def backward(self, dy):
        super().backward(dy)
        return self.gamma * self._inv_std * (dy - dy.mean(axis=0))


class DropoutWithAnotherMask(tn.Dropout):
    def backward(self, dy):
        return dy * self._mask[::-1]


class DropoutNotScaled(tn.Dropout):
    def backward(self, dy):
        return dy * (self._mask > 0)


@pytest.mark.parametrize(
    "layer",
    [
        SoftmaxWithoutSum(),
        BatchNormWithoutGamma(),
        BatchNormWithoutVariance(),
        DropoutWithAnotherMask(0.5),
        DropoutNotScaled(0.5),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_well_known_wrong_formulas_are_rejected(layer):
    assert not gradcheck(layer, X).ok


def test_a_loss_of_twice_the_gradient_is_rejected():
    class Twice(tn.SoftmaxCrossEntropy):
        def backward(self):
            return 2 * super().backward()

    model, y = tn.Sequential([tn.Dense(3)], input_shape=(4,), seed=0), [0, 1, 2, 0, 1]
    assert gradcheck(model, X, y, tn.SoftmaxCrossEntropy()).ok
    assert not gradcheck(model, X, y, Twice()).ok


def test_the_report_names_each_tensor_and_the_worst_element():
    report = gradcheck(BiasNotSummed(4), X)
    by_name = {tensor.name: tensor for tensor in report.tensors}
    assert {name: tensor.ok for name, tensor in by_name.items()} == {"0.W": True, "0.b": False, "x": True}
    worst = by_name["0.b"]
    assert worst.worst_numeric != pytest.approx(worst.worst_analytic, rel=1e-3)
    text = str(report)
    assert "0.b" in text
    assert "WRONG at" in text


def test_a_report_that_compared_nothing_is_no_success():
    assert not GradientReport([], 1e-6, 1e-6, 1e-8).ok
    with pytest.raises(AssertionError):
        GradientReport([], 1e-6, 1e-6, 1e-8).check()


def test_a_sample_of_a_large_tensor_is_drawn_by_seed():
    layer = tn.Dense(40)
    first, again, other = (gradcheck(layer, X, max_elements=7, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert {tensor.compared for tensor in first.tensors} == {7}


def test_nan_gradients_are_wrong():
    class NotANumber(tn.Tanh):
        def backward(self, dy):
            return np.full_like(dy, np.nan)

    assert not gradcheck(NotANumber(), X).ok


def test_the_model_is_left_as_it_was():
    model = tn.Sequential([tn.Dense(3), tn.BatchNorm(), tn.Dropout(0.5)], input_shape=(4,), seed=0)
    before = model.get_weights()
    x = X.copy()
    gradcheck(model, x)
    for array, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, old)
    np.testing.assert_array_equal(x, X)
    assert model.dtype == np.float32
    assert not model.grads.any()


def test_an_unbuilt_layer_stays_unbuilt():
    layer = tn.Dense(3)
    gradcheck(layer, X)
    assert layer.output_shape is None


def test_a_built_layer_is_checked_at_its_own_weights():
    class Recorder(tn.Dense):
        seen: list = []

        def forward(self, x, training=False):
            self.seen.append(self.W.mean())
            return super().forward(x, training)

    layer = Recorder(2)
    tn.Sequential([layer], input_shape=(4,), seed=0)
    layer.W.fill(3)
    gradcheck(layer, X).check()
    assert Recorder.seen[0] == 3


def test_the_cotangent_is_not_what_the_caller_draws_x_from():
    """If x and the cotangent were equal, x^T dy would be symmetric, and a transposed gradient would pass."""
    x = np.random.default_rng(7).standard_normal((5, 4))
    assert not gradcheck(TransposedWeightGradient(4), x, seed=7).ok


def test_a_backward_that_writes_into_dy_is_found():
    class Careless(tn.ReLU):
        def backward(self, dy):
            dy *= self._y > 0
            return dy

    with pytest.raises(ValueError, match="read-only"):
        gradcheck(Careless(), X)


@pytest.mark.parametrize(
    ("arguments", "settings", "kind", "message"),
    [
        ((tn.Dense, X), {}, TypeError, "expected a Sequential or a Layer object"),
        ((tn.Dense(2), X), {"epsilon": 0}, ValueError, "epsilon: expected a number above 0"),
        (
            (tn.Sequential([tn.Flatten(), tn.Dense(2)], input_shape=(2, 2)), X),
            {},
            ValueError,
            r"x: expected shape \(batch, 2, 2\), got \(5, 4\)",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, settings, kind, message):
    with pytest.raises(kind, match=message):
        gradcheck(*arguments, **settings)


def test_a_layer_that_returns_no_dx_is_named():
    class NoDx(tn.Tanh):
        def backward(self, dy):
            return None

    with pytest.raises(ValueError, match=r"layer 0 \(NoDx\): its backward returned None"):
        gradcheck(NoDx(), X)


def test_targets_without_a_loss_are_refused():
    with pytest.raises(ValueError, match="both y and loss"):
        gradcheck(tn.Dense(2), X, y=[0] * 5)


# Kinks: an element whose central difference crosses one at every step size can't be compared. It must not fail the
# check, and it must not hide a mistake.

CLEAR = np.array([[-1.0, -0.5, 0.5, 1.0]])


def elements(report, name="x"):
    (tensor,) = (tensor for tensor in report.tensors if tensor.name == name)
    return {element.index: element for element in tensor.elements}


@pytest.mark.parametrize("kind", [tn.ReLU, tn.LeakyReLU])
def test_what_crosses_a_kink_is_reported_apart(kind):
    x = np.append(CLEAR, [[1e-9, -1e-9, 0.0]], axis=1)
    report = gradcheck(kind(), x)
    (tensor,) = report.tensors
    assert (tensor.compared, tensor.crossed, tensor.ok, tensor.band) == (4, 3, True, "fine")
    bands = {index: element.band for index, element in elements(report).items()}
    assert bands == {(0, i): "fine" if i < 4 else "crossed a kink" for i in range(7)}
    assert [element.crossed for element in tensor.elements] == [False] * 4 + [True] * 3
    assert tensor.max_error < 1e-8  # of those that were compared
    assert "Crossed a kink" in str(report)
    assert "3 elements" in report.in_words()


@pytest.mark.parametrize("distance", [3e-7, 3e-8, -3e-7, -3e-8])
def test_a_kink_at_some_distance_is_avoided_by_a_smaller_step(distance):
    report = gradcheck(tn.ReLU(), np.append(CLEAR, [[distance]], axis=1)).check()
    assert report.tensors[0].crossed == 0
    element = elements(report)[0, 4]
    assert element.band == "fine"
    assert element.numeric == pytest.approx(element.analytic, abs=1e-6)


@pytest.mark.parametrize("kind", [tn.MaxPool2D, tn.GlobalMaxPool2D])
def test_pixels_of_a_max_pool_that_are_nearly_equal_cross_a_kink(kind):
    x = np.random.default_rng(0).permutation(np.linspace(-1, 1, 32)).reshape(2, 4, 4, 1)
    x[0, 0, :2] = [[5.0], [5.0 + 1e-9]]
    report = gradcheck(kind(), x).check()
    assert report.tensors[0].crossed == 2
    assert {index for index, element in elements(report).items() if element.crossed} == {
        (0, 0, 0, 0),
        (0, 0, 1, 0),
    }


def test_a_tensor_that_only_crossed_was_not_checked():
    report = gradcheck(tn.ReLU(), np.zeros((2, 3)))
    assert not report.ok
    assert report.tensors[0].band == report.verdict == "not compared"
    assert "NOT COMPARED: all crossed a kink" in str(report)
    assert "neither for it nor against it" in report.in_words().replace("\n", " ")
    with pytest.raises(AssertionError, match=r"^gradients were NOT COMPARED:\n") as error:
        report.check()
    assert "wrong" not in str(error.value).lower()


def test_no_elements_are_not_compared_and_another_shape_is_wrong():
    report = gradcheck(tn.Tanh(), np.zeros((0, 3)))
    assert (report.verdict, report.tensors[0].verdict) == (
        "not compared",
        "NOT COMPARED: there is nothing to compare",
    )

    class Transposed(tn.Tanh):
        def backward(self, dy):
            return super().backward(dy).T

    report = gradcheck(Transposed(), CLEAR)
    assert (report.verdict, report.tensors[0].verdict) == ("wrong", "WRONG: backward gives another shape")
    with pytest.raises(AssertionError, match="^gradients are WRONG or suspicious"):
        report.check()


def test_the_worst_tensor_is_the_verdict():
    def tensors(layer, x):
        return gradcheck(layer, x).tensors

    kink, fine, slightly, wrong = (
        *tensors(tn.ReLU(), np.zeros((2, 3))),
        *tensors(tn.Tanh(), X),
        *tensors(SlightlyOff(3), X)[:1],
        *tensors(NegatedReLU(), CLEAR),
    )
    found = [fine, kink, slightly, wrong]
    for count, verdict in enumerate(["not compared", "fine", "not compared", "suspicious", "wrong"]):
        report = GradientReport(found[:count], 1e-6, 1e-6, 1e-8)
        assert (report.verdict, report.ok) == (verdict, verdict == "fine")


def test_black_pixels_are_off_the_kink():
    """A convolution over a black background with its initial bias of 0 lies on ReLU's kink everywhere."""
    layers = [tn.Conv2D(4, 3), tn.ReLU(), tn.Flatten(), tn.Dense(3), tn.Softmax()]
    model = tn.Sequential(layers, input_shape=(6, 6, 1), seed=0)
    x = np.zeros((2, 6, 6, 1))
    x[:, 4:, 4:] = 0.5
    report = gradcheck(model, x, [0, 1], tn.CrossEntropy()).check()
    assert sum(tensor.crossed for tensor in report.tensors) == 0
    assert not model.layers[0].b.any()


def test_biases_that_are_set_are_left_where_they_are():
    model = tn.Sequential([tn.Dense(3), tn.BatchNorm()], input_shape=(4,), seed=0)
    model.layers[0].b = [0, 2, 3]
    tensors = Objective(model, X, None, None, 0, np.random.default_rng(0)).tensors
    assert 0 < abs(tensors["0.b"][0]) < 0.1
    np.testing.assert_array_equal(tensors["0.b"][1:], [2, 3])
    assert ((tensors["1.gamma"] != 1) & (abs(tensors["1.gamma"] - 1) < 0.1)).all()


class NegatedReLU(tn.ReLU):
    def backward(self, dy):
        return -super().backward(dy)


class LeakingReLU(tn.ReLU):
    def backward(self, dy):
        return dy * (self._y >= 0)  # lets everything through


class TwiceLeakyReLU(tn.LeakyReLU):
    def backward(self, dy):
        return 2 * super().backward(dy)


class LastWinnerPool(tn.MaxPool2D):
    def backward(self, dy):
        return super().backward(dy)[:, ::-1]


@pytest.mark.parametrize(
    "bug",
    [NegatedReLU(), LeakingReLU(), TwiceLeakyReLU(), LastWinnerPool()],
    ids=lambda bug: type(bug).__name__,
)
def test_a_wrong_backward_is_found_although_nearly_all_elements_cross(bug):
    shape = (4, 6, 6, 2)
    x = np.random.default_rng(1).choice([-1e-10, 0.0, 1e-10], shape)
    x[0, :2, :2] = np.array([[-1.0, 2.0], [3.0, -4.0]])[..., None]  # one window, away from any kink
    report = gradcheck(bug, x)
    assert report.tensors[0].crossed > 100
    assert report.tensors[0].band == "wrong"
    assert not report.ok
    right = next(kind for kind in (tn.ReLU, tn.LeakyReLU, tn.MaxPool2D) if isinstance(bug, kind))()
    assert gradcheck(right, x).ok


class WrongConv(tn.Conv2D):
    def backward(self, dy):
        dx = super().backward(dy)
        self.dW *= -1
        return dx


@pytest.mark.parametrize("kind", [tn.Conv2D, WrongConv])
def test_ties_that_are_a_matter_of_rounding_hide_nothing(kind):
    """On a plain background, a convolution's pixels differ only by rounding, and rounding picks a pool's winners."""
    x = np.ones((2, 8, 8, 1))
    x[:, 2, 3] = 0.3
    model = tn.Sequential(
        [kind(3, 3, bias_initializer="glorot_uniform"), tn.MaxPool2D(), tn.ReLU(), tn.Flatten(), tn.Dense(2)],
        input_shape=(8, 8, 1),
        seed=0,
    )
    model.layers[0].b = [0.3, 0.4, -0.2]
    report = gradcheck(model, x)
    W = next(tensor for tensor in report.tensors if tensor.name == "0.W")
    assert (W.crossed, W.ok) == (0, kind is tn.Conv2D)


def test_each_element_is_in_the_report():
    report = gradcheck(BiasNotSummed(4), X)
    for tensor in report.tensors:
        assert len(tensor.elements) == tensor.compared == np.prod(tensor.shape)
        assert [element.index for element in tensor.elements] == list(np.ndindex(tensor.shape))
    found = elements(report, "0.b")
    for element in found.values():
        assert element.error == abs(element.numeric - element.analytic)
        assert element.band == "wrong"
    worst = found[report.tensors[1].worst_index]
    assert worst.error == report.tensors[1].max_error == max(element.error for element in found.values())


def test_a_sample_is_in_the_report_and_of_very_many_elements_the_worst(monkeypatch):
    sampled = gradcheck(tn.Dense(40), X, max_elements=7)
    assert {len(tensor.elements) for tensor in sampled.tensors} == {7}

    monkeypatch.setattr("tinynet.study.gradients.check.MOST_ELEMENTS", 6)

    class OneElementWrong(RightDense):
        def backward(self, dy):
            dx = super().backward(dy)
            self.dW[2, 1] += 1
            return dx

    report = gradcheck(OneElementWrong(5), X)
    tensor = report.tensors[0]
    assert (tensor.compared, len(tensor.elements)) == (20, 6)
    assert elements(report, "0.W")[2, 1].band == "wrong"
    assert tensor.worst_index == (2, 1)
    kinks = gradcheck(tn.ReLU(), np.append(CLEAR, np.zeros((1, 20)), axis=1)).tensors[0]
    assert (kinks.compared, kinks.crossed, len(kinks.elements), kinks.ok) == (4, 20, 6, True)


@pytest.mark.parametrize(
    ("numeric", "analytic", "expected"),
    [
        (1.0, 1.0, "fine"),
        (1.0, 1.0 + 0.9e-6, "fine"),
        (-1e6, -1e6 - 0.9, "fine"),
        (1.0, 1.0 + 3e-6, "suspicious"),
        (1.0, 1.0009, "suspicious"),
        (1.0, 1.002, "wrong"),
        (1.0, -1.0, "wrong"),
        (1.0, 2.0, "wrong"),
        (1.0, 0.0, "wrong"),
        (0.0, 0.0, "fine"),
        (5e-9, -4e-17, "fine"),  # a bias before batch-norm: no gradient, only rounding
        (5e-8, 0.0, "suspicious"),
        (2e-7, 0.0, "wrong"),
        (np.nan, 1.0, "wrong"),
        (1.0, np.nan, "wrong"),
        (np.inf, np.inf, "wrong"),
        (1.0, -np.inf, "wrong"),
    ],
)
def test_bands(numeric, analytic, expected):
    for sign in (1, -1):
        assert band(sign * numeric, sign * analytic, rtol=1e-6, floor=1e-8) == expected
        assert band(sign * analytic, sign * numeric, rtol=1e-6, floor=1e-8) == expected


def test_an_element_that_agrees_has_crossed_no_kink_that_matters():
    agrees, differs = (check_element((0,), 1.0, other, 1e-6, 1e-8, crossed=True) for other in (1.0, 1.5))
    assert (agrees.crossed, agrees.band) == (False, "fine")
    assert (differs.crossed, differs.band) == (True, "crossed a kink")


def test_a_bias_before_batch_norm_has_a_gradient_of_zero_which_is_fine():
    model = tn.Sequential(
        [tn.Dense(6), tn.BatchNorm(), tn.Tanh(), tn.Dropout(0.4), tn.Dense(3), tn.Softmax()], (4,), seed=0
    )
    report = gradcheck(model, X, [0, 1, 2, 0, 1], tn.CrossEntropy(), rtol=1e-4).check()
    bias = next(tensor for tensor in report.tensors if tensor.name == "0.b")
    assert abs(bias.worst_analytic) < 1e-12
    assert bias.band == "fine"


def test_pixels_of_0_to_255_are_checked_as_closely_as_other_inputs():
    """If the step were 1e-6 and the floor 1e-8 at every scale, gradients of this size would be only rounding."""

    class SlightlyOffRescale(tn.Rescale):
        def backward(self, dy):
            return (1 + 1e-5) * super().backward(dy)

    x = np.random.default_rng(2).integers(0, 256, (8, 30))
    y = np.arange(8) % 3
    for kind in (tn.Rescale, SlightlyOffRescale):
        model = tn.Sequential([kind(1 / 255), tn.Dense(3), tn.Softmax()], input_shape=(30,), seed=0)
        report = gradcheck(model, x, y, tn.CrossEntropy())
        assert {tensor.name: tensor.band for tensor in report.tensors} == {
            "1.W": "fine",
            "1.b": "fine",
            "x": "fine" if kind is tn.Rescale else "suspicious",
        }


def test_the_report_says_in_words_where_to_begin():
    layers = [tn.Dense(4), tn.Tanh(), BiasNotSummed(4), tn.Tanh(), tn.Dense(2)]
    text = gradcheck(tn.Sequential(layers, input_shape=(4,), seed=0), X).in_words()
    assert text.startswith("Wrong: 2.b. ")
    layers = [tn.Dense(4), tn.Tanh(), IgnoredUpstream(4), tn.Dense(2)]
    text = gradcheck(tn.Sequential(layers, input_shape=(4,), seed=0), X).in_words()
    assert text.startswith("Wrong: 0.W, 0.b, 2.W, 2.b, x. ")
    assert "Start with 2.b" in text
    assert gradcheck(SlightlyOff(3), X).in_words().startswith("Suspicious: 0.W.")
    assert gradcheck(RightDense(3), X).in_words().startswith("Fine: for 35 elements of 3 tensors")
    assert GradientReport([], 1e-6, 1e-6, 1e-8).in_words() == "Nothing was compared."
