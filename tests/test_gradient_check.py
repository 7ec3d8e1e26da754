"""The checker itself is tested: it must pass what is right and reject each kind of wrong."""

import numpy as np
import pytest

import tinynet as tn
from tinynet.study import GradientReport, gradcheck

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 4))


class RightDense(tn.Dense):
    """Dense, as a user would write it; the planted bugs below change one thing each."""

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


class TransposedProduct(RightDense):  # square, so that no shape gives it away
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
        return dy * self._y * (1 - self._y)  # the diagonal of the Jacobian alone, as often published


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
    """With x and the cotangent the same numbers, x^T dy would be symmetric and a transposed gradient would pass."""
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
