"""Metrics against values computed by hand, and identities that hold for any labels."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from tests.support.strategies import seeds
from tinynet import metrics

# Class 0: two right, one predicted as 1. Class 1: one right, one predicted as 2. Class 2 never occurs.
LABELS = [0, 0, 0, 1, 1]
PREDICTED = [0, 0, 1, 1, 2]


@st.composite
def label_pairs(draw):
    """True and predicted labels, and the number of classes: at least one more than the largest label."""
    rng = np.random.default_rng(draw(seeds))
    n, classes = draw(st.integers(1, 60)), draw(st.integers(1, 6))
    return rng.integers(0, classes, n), rng.integers(0, classes, n), classes


class TestAccuracy:
    def test_worked_by_hand(self):
        assert metrics.accuracy(LABELS, PREDICTED) == 0.6

    @given(label_pairs())
    def test_is_the_mean_of_the_hits(self, pair):
        labels, predicted, _ = pair
        hits = [a == b for a, b in zip(labels.tolist(), predicted.tolist(), strict=True)]
        assert metrics.accuracy(labels, predicted) == sum(hits) / len(hits)
        assert metrics.accuracy(labels, predicted) == metrics.accuracy(predicted, labels)
        assert metrics.accuracy(labels, labels) == 1

    def test_integer_types_may_differ(self):
        assert metrics.accuracy(np.array(LABELS, np.uint8), np.array(PREDICTED, ">i8")) == 0.6
        assert metrics.accuracy(np.array([2**64 - 1], np.uint64), np.array([-1])) == 0


class TestConfusionMatrix:
    def test_rows_are_true_classes_and_columns_predicted_ones(self):
        expected = [[2, 1, 0], [0, 1, 1], [0, 0, 0]]
        np.testing.assert_array_equal(metrics.confusion_matrix(LABELS, PREDICTED), expected)

    def test_more_classes_than_appear(self):
        matrix = metrics.confusion_matrix(LABELS, PREDICTED, classes=5)
        assert matrix.shape == (5, 5)
        assert matrix.sum() == 5

    @given(label_pairs())
    def test_counts_every_pair_once(self, pair):
        labels, predicted, classes = pair
        matrix = metrics.confusion_matrix(labels, predicted, classes)
        for true in range(classes):
            for called in range(classes):
                assert matrix[true, called] == np.sum((labels == true) & (predicted == called))
        np.testing.assert_array_equal(metrics.confusion_matrix(predicted, labels, classes), matrix.T)

    def test_labels_of_one_byte_do_not_wrap_around(self):
        labels = np.array([250, 251, 250], np.uint8)
        matrix = metrics.confusion_matrix(labels, labels)
        assert matrix.shape == (252, 252)
        assert (matrix[250, 250], matrix[251, 251], matrix.sum()) == (2, 1, 3)

    @pytest.mark.parametrize(
        ("labels", "predicted", "classes", "message"),
        [
            ([0, 3], [0, 1], 3, "from 0 to 2, got 0 to 3"),
            ([0, 1], [0, 3], 3, "from 0 to 2, got 0 to 3"),
            ([0, 1], [-1, 1], None, "from 0 to 1, got -1 to 1"),
            ([0, 0], [0, 0], 0, "classes: expected a positive int, got 0"),
            ([0, 1], [0, 1], 2.5, "classes: expected a positive int, got 2.5"),
            ([0, 1], [0, 1], "2", "classes: expected a positive int, got '2'"),
        ],
    )
    def test_labels_out_of_range(self, labels, predicted, classes, message):
        with pytest.raises(ValueError, match=message):
            metrics.confusion_matrix(labels, predicted, classes)


class TestClassificationReport:
    def test_worked_by_hand(self):
        report = metrics.classification_report(LABELS, PREDICTED)
        assert report.classes[0] == ("0", 1.0, pytest.approx(2 / 3), pytest.approx(4 / 5), 3)
        assert report.classes[1] == ("1", 0.5, 0.5, 0.5, 2)
        assert report.classes[2] == ("2", 0.0, 0.0, 0.0, 0)
        assert report.macro == ("macro average", 0.5, pytest.approx(7 / 18), pytest.approx(1.3 / 3), 5)
        assert report.accuracy == 0.6

    @given(label_pairs())
    def test_identities(self, pair):
        labels, predicted, classes = pair
        names = [f"class {index}" for index in range(classes)]
        report = metrics.classification_report(labels, predicted, names)
        assert [row.name for row in report.classes] == names
        assert sum(row.support for row in report.classes) == report.macro.support == len(labels)
        assert report.accuracy == pytest.approx(metrics.accuracy(labels, predicted))
        # Recall weighted by how often a class occurs is accuracy; so is precision, by how often it is predicted.
        recalled = sum(row.recall * row.support for row in report.classes)
        called = np.bincount(predicted, minlength=classes)
        precise = sum(row.precision * count for row, count in zip(report.classes, called, strict=True))
        assert recalled == pytest.approx(precise)
        assert recalled / len(labels) == pytest.approx(report.accuracy)
        for row in report.classes:
            assert min(row.precision, row.recall) - 1e-12 <= row.f1 <= max(row.precision, row.recall) + 1e-12
            if row.f1:
                assert 2 / row.f1 == pytest.approx(1 / row.precision + 1 / row.recall)
        for name in ("precision", "recall", "f1"):
            mean = sum(getattr(row, name) for row in report.classes) / classes
            assert getattr(report.macro, name) == pytest.approx(mean)

    @given(label_pairs())
    def test_true_and_predicted_exchanged_exchange_precision_and_recall(self, pair):
        labels, predicted, classes = pair
        names = [str(index) for index in range(classes)]
        one = metrics.classification_report(labels, predicted, names).classes
        other = metrics.classification_report(predicted, labels, names).classes
        for row, swapped in zip(one, other, strict=True):
            assert (row.precision, row.recall) == (swapped.recall, swapped.precision)
            assert row.f1 == pytest.approx(swapped.f1)

    def test_perfect(self):
        report = metrics.classification_report([0, 1, 2], [0, 1, 2])
        assert report.macro[1:] == (1.0, 1.0, 1.0, 3)
        assert report.accuracy == 1.0

    def test_as_a_table(self):
        report = metrics.classification_report(LABELS, PREDICTED, ["shirt", "a bag of some kind", "boot"])
        lines = str(report).splitlines()
        assert lines[0].split() == ["precision", "recall", "F1", "support"]
        assert lines[1].split() == ["shirt", "1.0000", "0.6667", "0.8000", "3"]
        assert lines[2].split() == ["a", "bag", "of", "some", "kind", "0.5000", "0.5000", "0.5000", "2"]
        assert lines[4].split() == ["macro", "average", "0.5000", "0.3889", "0.4333", "5"]
        assert lines[5].split() == ["accuracy", "0.6000"]
        assert len({len(line) for line in lines[:5]}) == 1

    def test_too_few_names(self):
        with pytest.raises(ValueError, match="expected labels from 0 to 1, got 0 to 2"):
            metrics.classification_report(LABELS, PREDICTED, ["a", "b"])


@pytest.mark.parametrize(
    "measure", [metrics.accuracy, metrics.confusion_matrix, metrics.classification_report]
)
@pytest.mark.parametrize(
    ("labels", "predicted", "message"),
    [
        ([0, 1], [0], r"the same shape \(n,\), n at least 1; got \(2,\) and \(1,\)"),
        ([], [], r"n at least 1; got \(0,\) and \(0,\)"),
        ([[0], [1]], [[0], [1]], r"got \(2, 1\) and \(2, 1\)"),
        ([0, 1], [0.0, 1.0], r"predicted labels: expected integers, got dtype float64.*argmax\(1\)"),
        ([True, False], [0, 1], "true labels: expected integers, got dtype bool"),
        ([0, 1], [[0.2, 0.8], [0.5, 0.5]], r"got \(2,\) and \(2, 2\)"),
    ],
)
def test_what_are_no_labels_is_refused(measure, labels, predicted, message):
    with pytest.raises(ValueError, match=message):
        measure(labels, predicted)
