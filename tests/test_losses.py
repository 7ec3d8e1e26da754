"""Losses against plain formulas in float64, their gradients against differences, and the checks of targets."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import tinynet as tn
from tests.support.strategies import seeds, sizes
from tinynet.losses import BY_NAME

smoothings = st.sampled_from([0.0, 0.1, 0.5, 0.9])


def reference_log_softmax(logits):
    """x - log sum exp x, row by row, with exact sums."""
    rows = []
    for row in np.asarray(logits, np.float64):
        top = max(row)
        log_sum = top + math.log(math.fsum(math.exp(value - top) for value in row))
        rows.append([value - log_sum for value in row])
    return np.array(rows)


def reference_cross_entropy(log_p, labels, smoothing=0.0):
    """The mean over examples of -sum_k q_k log p_k."""
    classes = len(log_p[0])
    terms = []
    for row, label in zip(log_p, labels, strict=True):
        q = [smoothing / classes + (1 - smoothing) * (k == label) for k in range(classes)]
        terms.append(-math.fsum(share * value for share, value in zip(q, row, strict=True)))
    return math.fsum(terms) / len(terms)


def numeric_gradient(loss, outputs, targets, epsilon=1e-6):
    gradient = np.empty_like(outputs)
    for index in np.ndindex(outputs.shape):
        values = []
        for sign in (1, -1):
            moved = outputs.copy()
            moved[index] += sign * epsilon
            values.append(loss.forward(moved, targets))
        gradient[index] = (values[0] - values[1]) / (2 * epsilon)
    return gradient


@st.composite
def batches(draw):
    """Logits (n, classes) of some scale, and labels (n,)."""
    rng = np.random.default_rng(draw(seeds))
    n, classes = draw(sizes), draw(sizes)
    logits = rng.standard_normal((n, classes)) * draw(st.sampled_from([0.1, 1.0, 5.0]))
    return logits, rng.integers(0, classes, n)


LOSSES = {
    "SoftmaxCrossEntropy": (tn.SoftmaxCrossEntropy(), lambda logits: logits),
    "SoftmaxCrossEntropy, smoothed": (tn.SoftmaxCrossEntropy(0.2), lambda logits: logits),
    "CrossEntropy": (tn.CrossEntropy(), lambda logits: np.exp(reference_log_softmax(logits))),
    "CrossEntropy, smoothed": (tn.CrossEntropy(0.2), lambda logits: np.exp(reference_log_softmax(logits))),
    "NegativeLogLikelihood": (tn.NegativeLogLikelihood(), reference_log_softmax),
    "MeanSquaredError": (tn.MeanSquaredError(), lambda logits: logits),
}


def case(name, batch):
    """The loss with outputs and targets for it."""
    logits, labels = batch
    loss, outputs_of = LOSSES[name]
    targets = labels if loss.is_classification else np.sin(3 * logits[::-1])
    return loss, outputs_of(logits), targets


class TestFormulas:
    @given(batches(), smoothings)
    def test_softmax_cross_entropy(self, batch, smoothing):
        logits, labels = batch
        value = tn.SoftmaxCrossEntropy(smoothing).forward(logits, labels)
        expected = reference_cross_entropy(reference_log_softmax(logits), labels, smoothing)
        assert value == pytest.approx(expected, rel=1e-12, abs=1e-14)

    @given(batches(), smoothings)
    def test_cross_entropy(self, batch, smoothing):
        logits, labels = batch
        log_p = reference_log_softmax(logits)
        value = tn.CrossEntropy(smoothing).forward(np.exp(log_p), labels)
        assert value == pytest.approx(reference_cross_entropy(log_p, labels, smoothing), rel=1e-12, abs=1e-14)

    @given(batches())
    def test_negative_log_likelihood(self, batch):
        logits, labels = batch
        log_p = reference_log_softmax(logits)
        value = tn.NegativeLogLikelihood().forward(log_p, labels)
        assert value == pytest.approx(reference_cross_entropy(log_p, labels), rel=1e-12, abs=1e-14)

    @given(seeds, st.lists(sizes, min_size=2, max_size=4))
    def test_mean_squared_error(self, seed, shape):
        rng = np.random.default_rng(seed)
        outputs, targets = rng.standard_normal(shape), rng.standard_normal(shape)
        squares = [(y - t) ** 2 for y, t in zip(outputs.flat, targets.flat, strict=True)]
        value = tn.MeanSquaredError().forward(outputs, targets)
        assert value == pytest.approx(math.fsum(squares) / len(squares), rel=1e-12)

    def test_values_worked_by_hand(self):
        logits, probabilities = np.log([[1.0, 3.0]]), np.array([[0.25, 0.75]])
        assert tn.SoftmaxCrossEntropy().forward(logits, [0]) == pytest.approx(math.log(4))
        assert tn.CrossEntropy().forward(probabilities, [1]) == pytest.approx(math.log(4 / 3))
        smoothed = tn.CrossEntropy(label_smoothing=0.5).forward(probabilities, [1])
        assert smoothed == pytest.approx(0.25 * math.log(4) + 0.75 * math.log(4 / 3))
        assert tn.MeanSquaredError().forward(np.array([[1.0, 5.0]]), np.array([[2.0, 3.0]])) == 2.5

    @pytest.mark.parametrize("classes", [1, 2, 10])
    @pytest.mark.parametrize("smoothing", [0.0, 0.3])
    def test_equal_logits_cost_the_logarithm_of_the_classes(self, classes, smoothing):
        value = tn.SoftmaxCrossEntropy(smoothing).forward(np.full((3, classes), 7.0), np.zeros(3, int))
        assert value == pytest.approx(math.log(classes), abs=1e-15)

    @given(batches(), st.floats(-100, 100), smoothings)
    def test_a_constant_added_to_the_logits_changes_nothing(self, batch, constant, smoothing):
        logits, labels = batch
        loss, shifted = tn.SoftmaxCrossEntropy(smoothing), tn.SoftmaxCrossEntropy(smoothing)
        assert shifted.forward(logits + constant, labels) == pytest.approx(
            loss.forward(logits, labels), abs=1e-12
        )
        np.testing.assert_allclose(shifted.backward(), loss.backward(), atol=1e-13)

    @given(batches(), smoothings)
    def test_no_smoothed_loss_is_below_the_entropy_of_its_targets(self, batch, smoothing):
        logits, labels = batch
        classes = logits.shape[1]
        q = np.full(classes, smoothing / classes)
        q[0] += 1 - smoothing
        entropy = -sum(share * math.log(share) for share in q if share)
        assert tn.SoftmaxCrossEntropy(smoothing).forward(logits, labels) >= entropy - 1e-12


@pytest.mark.parametrize("loss", [tn.CrossEntropy(), tn.NegativeLogLikelihood()])
def test_a_perfect_batch_has_a_loss_of_plain_zero(loss):
    outputs = np.eye(2) if isinstance(loss, tn.CrossEntropy) else np.log(np.eye(2) + 1e-300)
    assert str(loss.forward(outputs, [0, 1])) == "0.0"


class TestGradients:
    @pytest.mark.parametrize("name", LOSSES)
    @given(batch=batches())
    def test_gradient_is_the_slope(self, name, batch):
        loss, outputs, targets = case(name, batch)
        slopes = numeric_gradient(loss, outputs, targets)
        loss.forward(outputs, targets)
        # The difference has a relative error of (epsilon / p)^2 / 3: compare where that is small.
        trusted = np.abs(outputs) > 1e-3 if name.startswith("CrossEntropy") else np.full(outputs.shape, True)
        np.testing.assert_allclose(loss.backward()[trusted], slopes[trusted], rtol=1e-5, atol=1e-7)

    @given(batches(), smoothings)
    def test_softmax_cross_entropy_is_probabilities_minus_targets(self, batch, smoothing):
        logits, labels = batch
        n, classes = logits.shape
        loss = tn.SoftmaxCrossEntropy(smoothing)
        loss.forward(logits, labels)
        q = (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes
        expected = (np.exp(reference_log_softmax(logits)) - q) / n
        np.testing.assert_allclose(loss.backward(), expected, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(loss.backward().sum(axis=1), 0, atol=1e-14)

    @given(batches(), smoothings)
    def test_the_fused_pair_has_the_gradient_of_its_two_halves(self, batch, smoothing):
        """Softmax and then CrossEntropy, each with its own backward, against SoftmaxCrossEntropy."""
        logits, labels = batch
        softmax, halves = tn.Softmax(), tn.CrossEntropy(smoothing)
        whole = halves.on_logits()
        assert halves.forward(softmax.forward(logits, training=True), labels) == pytest.approx(
            whole.forward(logits, labels), rel=1e-10, abs=1e-14
        )
        np.testing.assert_allclose(softmax.backward(halves.backward()), whole.backward(), rtol=0, atol=1e-10)

    @pytest.mark.parametrize("name", LOSSES)
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_gradient_is_a_new_array_of_the_outputs_shape_and_dtype(self, name, dtype):
        batch = np.random.default_rng(0).standard_normal((5, 3)), np.array([0, 1, 2, 1, 0])
        loss, outputs, targets = case(name, batch)
        outputs = outputs.astype(dtype)
        outputs_before, targets_before = outputs.copy(), targets.copy()
        value = loss.forward(outputs, targets)
        first, second = loss.backward(), loss.backward()
        assert type(value) is float
        assert (first.shape, first.dtype) == (outputs.shape, outputs.dtype)
        np.testing.assert_array_equal(first, second)
        assert not np.shares_memory(first, second)
        assert not np.shares_memory(first, outputs)
        np.testing.assert_array_equal(outputs, outputs_before)
        np.testing.assert_array_equal(targets, targets_before)

    @pytest.mark.parametrize("kind", BY_NAME.values())
    def test_backward_before_forward(self, kind):
        with pytest.raises(RuntimeError, match=r"needs what its forward\(outputs, targets\) keeps"):
            kind().backward()


class TestParts:
    @pytest.mark.parametrize("name", LOSSES)
    @given(batch=batches(), cut=st.integers(0, 7))
    def test_the_parts_of_a_batch_sum_to_the_whole(self, name, batch, cut):
        loss, outputs, targets = case(name, batch)
        n = len(outputs)
        whole, whole_gradient = loss.forward(outputs, targets), loss.backward()
        values, gradients = [], []
        for part in (slice(0, cut), slice(cut, n)):
            if len(outputs[part]):
                values.append(loss.forward(outputs[part], targets[part], total=n))
                gradients.append(loss.backward())
        assert sum(values) == pytest.approx(whole, rel=1e-12, abs=1e-14)
        np.testing.assert_allclose(np.concatenate(gradients), whole_gradient, rtol=1e-12, atol=1e-14)


class TestExtremes:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_logits_of_ten_thousand_are_finite_and_exact(self, dtype, smoothing):
        logits = np.array([[1e4, -1e4], [1e4, -1e4], [-1e4, -1e4]], dtype)
        loss = tn.SoftmaxCrossEntropy(smoothing)
        value, gradient = loss.forward(logits, [0, 1, 0]), loss.backward()
        far, near = 2e4 * smoothing / 2, 2e4 * (1 - smoothing / 2)
        assert value == pytest.approx((far + near + math.log(2)) / 3, rel=1e-6)
        right, wrong = smoothing / 2, 1 - smoothing / 2
        expected = (
            np.array([[right, -right], [wrong, -wrong], [(smoothing - 1) / 2, (1 - smoothing) / 2]]) / 3
        )
        np.testing.assert_allclose(gradient, expected, rtol=1e-6)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_a_model_with_a_softmax_head_trains_on_logits_of_ten_thousand(self, dtype):
        model = tn.Sequential([tn.Dense(2), tn.Softmax()], input_shape=(1,), seed=0, dtype=dtype)
        model.layers[0].W = [[1e4, -1e4]]
        value = model.loss_and_gradients(np.ones((2, 1), dtype), np.array([0, 1]), tn.CrossEntropy())
        assert value == pytest.approx(1e4)
        np.testing.assert_allclose(model.layers[0].db, [0.5, -0.5])

    def test_cross_entropy_of_probability_zero(self):
        loss = tn.CrossEntropy()
        assert loss.forward(np.array([[0.0, 1.0]]), [0]) == math.inf
        np.testing.assert_array_equal(loss.backward(), [[-math.inf, 0]])

    def test_probability_zero_of_another_class_does_no_harm(self):
        loss = tn.CrossEntropy()
        assert loss.forward(np.array([[0.0, 1.0], [0.5, 0.5]]), [1, 0]) == pytest.approx(math.log(2) / 2)
        np.testing.assert_array_equal(loss.backward(), [[0, -0.5], [-1, 0]])

    def test_float32_costs_no_more_than_its_precision(self):
        rng = np.random.default_rng(0)
        logits, labels = rng.standard_normal((4096, 10)) * 4, rng.integers(0, 10, 4096)
        exact = tn.SoftmaxCrossEntropy().forward(logits, labels)
        assert tn.SoftmaxCrossEntropy().forward(logits.astype(np.float32), labels) == pytest.approx(
            exact, rel=1e-6
        )


LABELS = np.array([2, 0, 1, 2])
OUTPUTS = np.random.default_rng(0).standard_normal((4, 3))


class TestClassLabels:
    @pytest.mark.parametrize(
        "labels",
        [
            LABELS.tolist(),
            LABELS[:, None],
            LABELS.astype(np.uint8),
            LABELS.astype(np.int8)[:, None],
            LABELS.astype(np.uint64),
            LABELS.astype(">i4"),
            np.repeat(LABELS, 2)[::2],
            np.asfortranarray(np.stack([LABELS, LABELS], axis=1))[:, :1],
        ],
        ids=["list", "(n, 1)", "uint8", "int8 (n, 1)", "uint64", "big-endian", "strided", "a column"],
    )
    @pytest.mark.parametrize("kind", [tn.SoftmaxCrossEntropy, tn.CrossEntropy, tn.NegativeLogLikelihood])
    def test_accepted(self, kind, labels):
        loss = kind()
        expected = kind().forward(np.abs(OUTPUTS), LABELS)
        assert loss.forward(np.abs(OUTPUTS), labels) == expected
        np.testing.assert_array_equal(loss.check_targets(labels, (3,)), LABELS)

    def test_a_column_of_labels_for_one_class_is_no_one_hot(self):
        assert tn.SoftmaxCrossEntropy().forward(np.ones((4, 1)), np.zeros((4, 1), int)) == 0

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (np.eye(3, dtype=int)[LABELS], r"got one-hot of shape \(4, 3\); give labels.argmax\(1\)"),
            (LABELS.astype(float), r"from 0 to 2, got dtype float64; give labels.astype\(int\)"),
            (LABELS.astype(float)[:, None], "got dtype float64"),
            (LABELS > 0, "expected integers from 0 to 2, got dtype bool"),
            (LABELS.astype(object), "got dtype object"),
            (["a", "b", "c", "d"], r"got dtype <U1; .*names, y = np.unique\(labels, return_inverse=True\)"),
            (
                np.array(["a", "b", "c", "d"], object),
                r"got dtype object; .* np.unique\(labels, return_inverse",
            ),
            (LABELS + 0.5, r"got dtype float64$"),
            ([None] * 4, r"got dtype object$"),
            (
                (np.eye(3, dtype=int) | np.eye(3, k=1, dtype=int))[LABELS],
                r"of shape \(n,\), got shape \(4, 3\)$",
            ),
            (2 * np.eye(3, dtype=int)[LABELS], r"of shape \(n,\), got shape \(4, 3\)$"),
            (LABELS - 1, "from 0 to 2, as the model has 3 outputs; got -1 at index 1"),
            (LABELS + 1, "got 3 at index 0"),
            (LABELS[:, None] + 1, "got 3 at index 0"),
            ((LABELS + 1).astype(np.uint8), "got 3 at index 0"),
            (np.array([0, 0, 2**64 - 1, 0], np.uint64), "got 18446744073709551615 at index 2"),
            (np.array([0, 0, -(2**63), 0]), "got -9223372036854775808 at index 2"),
            (np.stack([LABELS] * 2, axis=1), r"expected shape \(n,\) or \(n, 1\), got \(4, 2\)"),
            (LABELS[:, None, None], r"expected shape \(n,\) or \(n, 1\), got \(4, 1, 1\)"),
            (np.int64(1), r"expected shape \(n,\) or \(n, 1\), got \(\)"),
            (LABELS[:3], "at least one; got 4 outputs and 3 targets"),
            (LABELS[:0], "at least one; got 4 outputs and 0 targets"),
            ([], "got dtype float64"),
        ],
    )
    @pytest.mark.parametrize("kind", [tn.SoftmaxCrossEntropy, tn.CrossEntropy, tn.NegativeLogLikelihood])
    def test_refused(self, kind, labels, message):
        with pytest.raises(ValueError, match=message):
            kind().forward(OUTPUTS, labels)

    def test_an_empty_batch_is_refused(self):
        with pytest.raises(ValueError, match="at least one; got 0 outputs and 0 targets"):
            tn.SoftmaxCrossEntropy().forward(OUTPUTS[:0], LABELS[:0])

    @pytest.mark.parametrize("shape", [(4,), (4, 2, 3)])
    def test_outputs_must_be_a_row_of_classes_each(self, shape):
        with pytest.raises(ValueError, match=r"class labels need outputs of shape \(batch, classes\)"):
            tn.SoftmaxCrossEntropy().forward(np.ones(shape), LABELS)


class TestSoftTargets:
    @pytest.mark.parametrize("name", [name for name, (loss, _) in LOSSES.items() if loss.is_classification])
    @given(batch=batches(), seed=seeds)
    def test_the_formula_and_its_gradient(self, name, batch, seed):
        loss, outputs, _ = case(name, batch)
        n, classes = outputs.shape
        if classes == 1:
            return  # these would be labels
        q = np.random.default_rng(seed).dirichlet(np.full(classes, 0.5), n)
        q[0] = np.eye(classes)[0]
        smoothing = loss.config().get("label_smoothing", 0.0)
        shares, log_p = (1 - smoothing) * q + smoothing / classes, reference_log_softmax(batch[0])
        expected = -math.fsum((shares * log_p).flat) / n
        assert loss.forward(outputs, q) == pytest.approx(expected, rel=1e-9, abs=1e-12)
        gradient, mixture = loss.backward(), 0
        for k in range(classes):  # the loss is linear in the targets
            loss.forward(outputs, np.full(n, k))
            mixture = mixture + q[:, k : k + 1] * loss.backward()
        np.testing.assert_allclose(gradient, mixture, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("name", [name for name, (loss, _) in LOSSES.items() if loss.is_classification])
    @given(batch=batches(), dtype=st.sampled_from(["float16", "float32", "float64", ">f8"]))
    def test_one_hot_ones_are_labels(self, name, batch, dtype):
        loss, outputs, labels = case(name, batch)
        if outputs.shape[1] == 1:
            return
        expected, gradient = loss.forward(outputs, labels), loss.backward()
        assert loss.forward(outputs, np.eye(outputs.shape[1], dtype=dtype)[labels]) == pytest.approx(expected)
        np.testing.assert_allclose(loss.backward(), gradient, rtol=1e-9, atol=1e-12)

    def test_a_share_of_0_costs_nothing_where_the_probability_is_0(self):
        loss, q = tn.CrossEntropy(), np.array([[0.5, 0.5, 0.0]])
        assert loss.forward(q, q) == pytest.approx(math.log(2))
        np.testing.assert_allclose(loss.backward(), [[-1, -1, 0]])

    @given(st.floats(-1e4, 1e4))
    def test_large_logits_stay_exact(self, constant):
        z = np.array([[3e4, 2.5, -1e4]]) + constant
        q = np.array([[0.25, 0.5, 0.25]])
        value = tn.SoftmaxCrossEntropy().forward(z.astype(np.float32), q)
        assert value == pytest.approx(0.5 * (3e4 - 2.5) + 0.25 * 4e4, rel=1e-5)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda q: q * 1.01, "sum of 1; row 0 has a sum of 1.01 and a minimum of"),
            (lambda q: q + np.array([-1, 1, 0]), "a minimum of -"),
            (lambda q: np.where(np.arange(4)[:, None] == 2, np.nan, q), "row 2 has a sum of nan"),
            (lambda q: (q > 0.3).astype(float), "targets: expected class numbers"),  # several of one example
            (lambda q: q[:, :2], "labels: expected integers"),
        ],
    )
    def test_refused(self, change, message):
        q = np.array([[0.4, 0.4, 0.2], [0, 0.5, 0.5], [1, 0, 0], [0.1, 0.2, 0.7]])
        tn.CrossEntropy().forward(np.full((4, 3), 1 / 3), q.astype(np.float16))
        with pytest.raises(ValueError, match=message):
            tn.CrossEntropy().forward(np.full((4, 3), 1 / 3), change(q))


class TestRegressionTargets:
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f8"])
    def test_floats_are_accepted_and_do_not_widen_the_outputs(self, dtype):
        loss = tn.MeanSquaredError()
        loss.forward(OUTPUTS.astype(np.float32), np.zeros((4, 3), dtype))
        assert loss.backward().dtype == np.float32

    def test_one_output_takes_a_vector(self):
        loss = tn.MeanSquaredError()
        assert loss.forward(np.array([[1.0], [2.0]]), np.array([0.0, 4.0])) == 2.5
        np.testing.assert_array_equal(loss.backward(), [[1], [-2]])

    @pytest.mark.parametrize(
        ("targets", "message"),
        [
            (np.zeros((4, 3), int), r"expects floats, got dtype int64; give targets.astype\('float32'\)"),
            (np.zeros((4, 3), bool), "expects floats, got dtype bool"),
            (np.zeros((4, 3), complex), "expects floats, got dtype complex128"),
            (np.zeros((4, 2)), r"expected the outputs' shape \(batch, 3\), got \(4, 2\)"),
            (np.zeros(4), r"expected the outputs' shape \(batch, 3\), got \(4,\)"),
            (np.zeros((4, 3, 1)), r"got \(4, 3, 1\)"),
            (np.float64(0), r"got \(\)"),
            (np.zeros((3, 3)), "at least one; got 4 outputs and 3 targets"),
            (np.where(np.eye(4, 3, -2), np.nan, 0), r"expected finite numbers, got nan at index \(2, 0\)"),
            (np.where(np.eye(4, 3, -2), -np.inf, 0), r"expected finite numbers, got -inf at index \(2, 0\)"),
        ],
    )
    def test_refused(self, targets, message):
        with pytest.raises(ValueError, match=message):
            tn.MeanSquaredError().forward(OUTPUTS, targets)


class TestALossOfOnesOwn:
    @pytest.mark.parametrize(
        "targets", [OUTPUTS, OUTPUTS[:, 0], np.arange(4), np.ones((4, 3, 2)), np.full(4, np.nan)], ids=str
    )
    def test_without_classes_it_takes_any_numbers(self, targets):
        class Own(tn.Loss):
            is_classification = False

        loss = Own()
        np.testing.assert_array_equal(loss.check_targets(targets, (3,)), targets)
        assert loss.prepare_targets(targets, (3,), np.dtype("float32")).dtype in (np.float32, np.int64)
        for wrong in (["a", "b"], 3.0):
            with pytest.raises(ValueError, match="targets: expected an array of real numbers"):
                loss.check_targets(wrong, (3,))

    def test_a_model_trains_with_it(self):
        class Absolute(tn.Loss):
            is_classification = False

            def forward(self, outputs, targets, total=None):
                self.sign, self.total = np.sign(outputs - targets), total
                return float(np.abs(outputs - targets).sum() / total)

            def backward(self):
                return self.sign / np.float32(self.total)

        model = tn.Sequential([tn.Dense(3)], (2,), seed=0)
        model.fit(np.ones((4, 2)), OUTPUTS, optimizer=tn.SGD(0.1), loss=Absolute(), verbose=0)
        assert set(model.evaluate(np.ones((4, 2)), OUTPUTS)) == {"loss"}


class TestLossObjects:
    @pytest.mark.parametrize("kind", [tn.SoftmaxCrossEntropy, tn.CrossEntropy])
    @pytest.mark.parametrize("smoothing", [-0.1, 1.0, 2, math.nan, "0.1", True])
    def test_label_smoothing_out_of_range(self, kind, smoothing):
        with pytest.raises(ValueError, match=rf"^{kind.__name__} label_smoothing: expected a number"):
            kind(label_smoothing=smoothing)

    @pytest.mark.parametrize(("loss", "_"), LOSSES.values(), ids=LOSSES)
    def test_repr_and_config_make_it_again(self, loss, _):
        assert eval(repr(loss), vars(tn)).config() == loss.config()
        assert type(loss)(**loss.config()).config() == loss.config()
        assert BY_NAME[type(loss).__name__] is type(loss)

    def test_the_logits_form_keeps_the_smoothing(self):
        assert tn.CrossEntropy(0.25).on_logits().label_smoothing == 0.25

    def test_a_loss_without_formulas_says_so(self):
        class Mine(tn.Loss):
            pass

        with pytest.raises(NotImplementedError, match="Mine defines no forward"):
            Mine().forward(OUTPUTS, LABELS)
        with pytest.raises(NotImplementedError, match="Mine defines no backward"):
            Mine().backward()
