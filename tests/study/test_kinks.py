"""The side of its corners on which a network was, as read from its layers and compared with plain loops."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import tinynet as tn
from tests.support.strategies import pool
from tinynet.study.gradients.kinks import PoolKinks, UnitKinks, crossed, kink_pattern, winners


def pattern(model, x):
    model.forward(x, training=True)
    return kink_pattern(model)


def model_of(*layers, input_shape):
    return tn.Sequential(layers, input_shape=input_shape, seed=0, dtype="float64")


UNITS = np.array([[-2.0, -1e-3, 0.5, 3.0]])


@pytest.mark.parametrize("kind", [tn.ReLU, tn.LeakyReLU])
class TestUnits:
    def test_one_unit_on_another_side_is_a_crossing(self, kind):
        model = model_of(kind(), input_shape=(4,))
        here = pattern(model, UNITS)
        assert not crossed(here, pattern(model, 1.5 * UNITS))
        for unit in range(4):
            there = UNITS.copy()
            there[0, unit] *= -1
            assert crossed(here, pattern(model, there))
            assert crossed(pattern(model, there), here)

    def test_a_corner_belongs_to_the_side_below_it(self, kind):
        model = model_of(kind(), input_shape=(1,))
        corner = pattern(model, np.zeros((1, 1)))
        assert not crossed(corner, pattern(model, np.array([[-1e-6]])))
        assert crossed(corner, pattern(model, np.array([[1e-6]])))

    def test_a_pattern_stays_as_it_was(self, kind):
        model = model_of(kind(), input_shape=(4,))
        here = pattern(model, UNITS)
        model.forward(-UNITS, training=True)
        assert not crossed(here, pattern(model, UNITS))


def test_rounding_of_a_relu_is_no_crossing():
    model = model_of(tn.ReLU(), input_shape=(2,))
    below = pattern(model, np.array([[1.0, -1e-16]]))
    assert not crossed(below, pattern(model, np.array([[1.0, 1e-16]])))
    assert crossed(below, pattern(model, np.array([[1.0, 1e-9]])))


IMAGE = np.array(
    [
        [1.0, 2.0, 0.0, 0.0],
        [3.0, 0.0, 0.0, 0.0],
        [4.0, 4.0, 1.0, 2.0],
        [4.0, 0.0, 2.0, 1.0],
    ]
).reshape(1, 4, 4, 1)


def test_winners_of_a_pool_and_the_first_of_equal_pixels():
    model = model_of(tn.MaxPool2D(), input_shape=(4, 4, 1))
    (kinks,) = pattern(model, IMAGE)
    assert isinstance(kinks, PoolKinks)
    np.testing.assert_array_equal(kinks.winners[0, :, :, 0], [[2, 0], [0, 1]])


@pytest.mark.parametrize("kind", [tn.MaxPool2D, tn.GlobalMaxPool2D])
@settings(max_examples=40)
@given(data=st.data())
def test_winners_are_those_of_plain_loops(kind, data):
    case = data.draw(pool(kind)) if kind is tn.MaxPool2D else None
    layer = kind() if case is None else case.layer
    x = np.round(
        case.x if case else np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(3, 4, 5, 2))
    )
    model = model_of(layer, input_shape=x.shape[1:])  # rounded, so that there are ties
    model.forward(x, training=True)
    found = winners(layer, layer._x, layer._y)
    down, across = layer.windows
    for c, i, j, n in np.ndindex(found.shape):
        pixels = [
            (x[n, row, column, c], u * across.size + v)
            for u in range(down.size)
            for v in range(across.size)
            if 0 <= (row := i * down.stride - down.before + u) < down.pixels
            and 0 <= (column := j * across.stride - across.before + v) < across.pixels
        ]
        assert (
            found[c, i, j, n] == max(pixels, key=lambda pixel: pixel[0])[1]
        )  # max takes the first of equal ones


@pytest.mark.parametrize("layer", [tn.MaxPool2D, tn.GlobalMaxPool2D])
def test_another_winner_is_a_crossing(layer):
    model = model_of(layer(), input_shape=(2, 2, 1))
    x = np.array([0.1, 0.2, 0.3, 0.0]).reshape(1, 2, 2, 1)
    here = pattern(model, x)
    assert not crossed(here, pattern(model, 2 * x))
    there = x.copy()
    there[0, 0, 0] = 0.3 + 1e-9
    assert crossed(here, pattern(model, there))
    assert crossed(pattern(model, there), here)


def test_pixels_that_differ_by_rounding_count_as_equal():
    model = model_of(tn.MaxPool2D(), input_shape=(2, 2, 1))
    plain = np.ones((1, 2, 2, 1))
    speck = plain.copy()
    speck[0, 1, 1] += 4e-16
    one, other = pattern(model, plain), pattern(model, speck)
    assert one[0].winners.item() != other[0].winners.item()
    assert not crossed(one, other)
    assert not crossed(other, one)


def test_kinks_of_all_layers_are_found_those_in_residual_blocks_too():
    block = tn.Residual(tn.Conv2D(2, 3, padding="same"), tn.Residual(tn.ReLU()), projection=tn.MaxPool2D(1))
    model = model_of(block, tn.MaxPool2D(), tn.LeakyReLU(), tn.Flatten(), tn.Softmax(), input_shape=(4, 4, 2))
    kinks = pattern(model, np.random.default_rng(0).standard_normal((3, 4, 4, 2)))
    assert [type(each) for each in kinks] == [UnitKinks, PoolKinks, PoolKinks, UnitKinks]


def test_a_network_without_corners_has_none_and_neither_has_one_that_did_not_run():
    smooth = model_of(tn.Dense(3), tn.Tanh(), tn.BatchNorm(), tn.Softmax(), input_shape=(4,))
    assert pattern(smooth, np.random.default_rng(0).standard_normal((5, 4))) == []
    idle = model_of(tn.ReLU(), tn.LeakyReLU(), input_shape=(4,))
    idle.forward(UNITS)
    assert kink_pattern(idle) == []
