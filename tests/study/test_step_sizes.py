"""The V: error against step size, as numbers and as a picture."""

import numpy as np
import pytest
from matplotlib.image import imread

import tinynet as tn
from tests.plots.test_plots import texts
from tinynet.plots import style
from tinynet.plots.sweep import Panel, error_by_step
from tinynet.study.gradients.step_sizes import EPSILONS, step_sizes

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((6, 5)), RNG.integers(0, 3, 6)


def smooth():
    return tn.Sequential([tn.Dense(7), tn.Tanh(), tn.Dense(3), tn.Softmax()], input_shape=(5,), seed=0)


def by_epsilon(tensor):
    return dict(zip(EPSILONS, tensor.medians, strict=True))


def test_the_error_is_a_v():
    sweep = step_sizes(smooth(), X, Y, tn.CrossEntropy())
    assert [tensor.name for tensor in sweep.tensors] == ["0.W", "0.b", "2.W", "2.b", "x"]
    assert 1e-7 < sweep.best < 1e-3
    for tensor in sweep.tensors:
        error = by_epsilon(tensor)
        assert error[1e-6] < 1e-3 * error[1e-1]
        assert error[1e-6] < 1e-3 * error[1e-12]
        assert not tensor.crossed.any()
        # Right of the V's tip the error falls with the step squared; left of it, it rises with the step's inverse.
        assert error[1e-1] / error[1e-3] == pytest.approx(1e4, rel=0.5)
        expected = tensor.rounding / 1e-11
        assert expected / 30 < error[1e-11] < expected * 30


def test_a_wrong_backward_has_no_v():
    class Slightly(tn.Tanh):
        def backward(self, dy):
            return 1.01 * super().backward(dy)

    model = tn.Sequential([tn.Dense(7), Slightly(), tn.Dense(3), tn.Softmax()], input_shape=(5,), seed=0)
    tensors = {tensor.name: tensor for tensor in step_sizes(model, X, Y, tn.CrossEntropy()).tensors}
    assert min(tensors["0.W"].medians) == pytest.approx(0.01, rel=0.05)
    assert min(tensors["2.W"].medians) < 1e-8


def test_large_inputs_have_the_v_in_the_same_place():
    pixels = 1e4 * X
    model = tn.Sequential([tn.Rescale(1e-4), tn.Dense(3), tn.Tanh()], (5,), seed=0)
    (error,) = (by_epsilon(tensor) for tensor in step_sizes(model, pixels).tensors if tensor.name == "x")
    assert error[1e-6] < 1e-7
    assert error[1e-12] > 1e-6


def test_what_crosses_a_kink_is_marked():
    model = tn.Sequential([tn.ReLU()], input_shape=(3,), seed=0)
    (tensor,) = step_sizes(model, np.array([[0.05, 1e-4, 2.0]]), max_elements=3).tensors
    crossed = dict(zip(EPSILONS, tensor.crossed, strict=True))
    np.testing.assert_array_equal(crossed[1e-1], [True, True, False])
    np.testing.assert_array_equal(crossed[1e-3], [False, True, False])
    np.testing.assert_array_equal(crossed[1e-6], [False, False, False])


def test_elements_that_are_a_kink_themselves_are_not_taken_where_there_are_others():
    class Both(tn.ReLU):  # gives a kink a gradient, so that it is large enough to be drawn
        def backward(self, dy):
            return dy * (self._y >= 0)

    model = tn.Sequential([Both()], input_shape=(8,), seed=0)
    x = np.array([[0.0] * 5 + [1.0, 2.0, 3.0]])
    (tensor,) = step_sizes(model, x, max_elements=3).tensors
    assert (by_epsilon(tensor)[1e-6], tensor.errors.shape[1]) == (pytest.approx(0, abs=1e-8), 3)
    (tensor,) = step_sizes(model, np.zeros((1, 8)), max_elements=3).tensors
    assert tensor.crossed.all()


def test_a_gradient_of_zero_has_no_relative_error():
    model = tn.Sequential([tn.Dense(4), tn.BatchNorm(), tn.Tanh(), tn.Dense(3), tn.Softmax()], (5,), seed=0)
    sweep = step_sizes(model, X, Y, tn.CrossEntropy())
    assert sweep.left_out == ["0.b"]
    assert "Without 0.b" in str(sweep)
    nothing = step_sizes(tn.Sequential([tn.Rescale(0.0)], (5,), seed=0), X)
    assert nothing.tensors == []
    assert "no relative error" in str(nothing)


def test_elements_are_drawn_by_seed_among_the_sizeable():
    one, again, other = (step_sizes(smooth(), X, max_elements=3, seed=seed) for seed in (1, 1, 2))
    for first, second in zip(one.tensors, again.tensors, strict=True):
        np.testing.assert_array_equal(first.errors, second.errors)
    assert any(
        first.errors.shape != second.errors.shape or (first.errors != second.errors).any()
        for first, second in zip(one.tensors, other.tensors, strict=True)
    )
    assert {tensor.errors.shape for tensor in one.tensors} == {(len(EPSILONS), 3)}


def test_the_table_has_a_row_for_each_tensor_and_says_where_the_error_is_least():
    sweep = step_sizes(smooth(), X, Y, tn.CrossEntropy())
    lines = str(sweep).splitlines()
    assert lines[1].split() == ["tensor", *(f"{epsilon:.0e}" for epsilon in EPSILONS)]
    assert [line.split()[0] for line in lines[2:8]] == ["0.W", "0.b", "2.W", "2.b", "x", "all"]
    assert lines[8].startswith(f"Smallest at {sweep.best:.0e}")


@pytest.mark.parametrize("epsilons", [(), (1e-3, 0.0), (-1e-3,)])
def test_bad_steps_are_refused(epsilons):
    with pytest.raises(ValueError, match="epsilons: expected numbers above 0"):
        step_sizes(smooth(), X, epsilons=epsilons)


def panels(count):
    steps = np.array(EPSILONS)
    error = np.minimum(1e-17 / steps + steps**2, 5)
    errors = error[:, None] * [0.2, 1.0, 4.0]
    return [Panel(f"{number}.W (3, 3, 128, 128)", errors, steps > 1e-3, 1e-17) for number in range(count)]


def draw(count, path=None):
    with style.house_style(path):
        figure = error_by_step("A title", "A line that says what it is.", EPSILONS, panels(count))
        return style.finish(figure, path)


@pytest.mark.parametrize("count", [1, 2, 5, 21])
def test_nothing_written_overlaps_or_is_cut(count):
    figure = draw(count)
    boxes = []
    for text in texts(figure):
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1, text
        boxes.append((text.get_text(), box))
    for number, (one, box) in enumerate(boxes):
        for other, other_box in boxes[:number]:
            apart = (
                box.x0 >= other_box.x1
                or other_box.x0 >= box.x1
                or box.y0 >= other_box.y1
                or other_box.y0 >= box.y1
            )
            assert apart, f"{one!r} runs into {other!r}"


def test_what_is_drawn_are_the_numbers(tmp_path):
    figure = draw(1, tmp_path / "v.png")
    _, axes = figure.axes  # the page, the panel
    (panel,) = panels(1)
    rounding, medians, few, most = axes.lines
    np.testing.assert_allclose(medians.get_xdata(), EPSILONS)
    np.testing.assert_allclose(medians.get_ydata(), np.median(panel.errors, axis=1))
    np.testing.assert_allclose(rounding.get_ydata(), 1e-17 / np.array(EPSILONS))
    np.testing.assert_array_equal(most.get_xdata(), [1e-1, 1e-2])
    assert len(few.get_xdata()) == len(EPSILONS) - 2
    assert most.get_markerfacecolor() == style.PAPER
    assert imread(tmp_path / "v.png").shape[2] == 4
