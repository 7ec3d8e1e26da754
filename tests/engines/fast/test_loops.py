"""Each compiled loop against its NumPy body."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import tinynet as tn
from tests.support.operation_cases import CASES, Draw, On, compare, near
from tinynet.engines.choice import running
from tinynet.engines.operation import OPERATIONS
from tinynet.support.random import dropout_bits

LOOPS = pytest.importorskip("tinynet.engines.fast.operations").LOOPS


def test_every_loop_is_of_an_operation():
    assert set(LOOPS) <= set(OPERATIONS)


class OftenDense(Draw):
    """In half of the examples, all arrays are in C order: a loop leaves most other layouts to NumPy."""

    def __init__(self, data):
        super().__init__(data)
        self.is_dense = self(st.booleans())

    def any_layout(self, values):
        return On(values) if self.is_dense else super().any_layout(values)


def compare_with_body(name, data):
    """Whether the loop took the arguments that were drawn."""
    draw = OftenDense(data)
    with np.errstate(all="ignore"):
        return compare(name, LOOPS[name], CASES[name](draw), np, draw.dtype)


@pytest.mark.parametrize("name", sorted(set(LOOPS) - {"max_pool_backward"}))
def test_a_loop_computes_what_its_body_does(name):
    taken = []

    @settings(max_examples=100)
    @given(data=st.data())
    def check(data):
        taken.append(compare_with_body(name, data))

    check()
    assert sum(taken) > len(taken) / 10  # otherwise little was compared


@settings(max_examples=100)
@given(data=st.data())
def test_a_max_pools_winners_are_kept_for_backward(data):
    draw = OftenDense(data)
    images, over, *_ = CASES["max_pool"](draw)
    # (n, h, w, c). A NaN that wins takes the gradient in the loop; in NumPy's body, which compares, nothing does.
    x = np.where(np.isnan(images.values), 0, images.values).astype(draw.dtype).swapaxes(0, 3)
    (down, across), dy = over, draw.normal((x.shape[3], *over.output_shape, len(x))).swapaxes(0, 3)
    padding = "same" if any((down.before, down.after, across.before, across.after)) else "valid"
    rectify = data.draw(st.booleans())
    results = []
    for engine in ("numba", "numpy"):
        layer = tn.MaxPool2D((down.size, across.size), (down.stride, across.stride), padding)
        tn.Sequential([layer], input_shape=x.shape[1:], seed=0, dtype=x.dtype)
        with running(engine), np.errstate(invalid="ignore"):
            results.append(
                (layer.forward(x, training=True, rectify=rectify).copy(), layer.backward(dy).copy())
            )
    (y, dx), (expected_y, expected_dx) = results
    np.testing.assert_array_equal(y, expected_y)
    near(dx, expected_dx, draw.dtype, 1.0, "dx")  # windows that overlap are added in another order


@pytest.mark.parametrize("label", [-1, 3, 1000])
def test_a_label_out_of_range_reads_no_foreign_memory(label):
    """The loop leaves it to NumPy, which says so."""
    scores, labels = np.ones((2, 3), np.float32), np.array([0, label])
    assert LOOPS["softmax_cross_entropy"](scores, labels, 0.1) is NotImplemented
    assert LOOPS["cross_entropy_gradient"](scores, labels, 0.1, 2) is NotImplemented


def test_a_unit_whose_bits_are_the_threshold_is_kept():
    key, x, mask, y = (3, 5), np.ones((4, 6)), np.empty((4, 6)), np.empty((4, 6))
    threshold = int(dropout_bits(key, 0, 2, 4, 6)[1, 2])
    LOOPS["drop"](x, key, 0, 2, threshold, mask, y)
    assert y[1, 2] == mask[1, 2] == 1 / (1 - threshold / 2**16)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_nan_and_infinity_go_through_a_pool_and_its_relu(size, padding):
    layer = tn.MaxPool2D(size, padding=padding)
    tn.Sequential([layer], (7, 7, 1), seed=0)
    for place, value in itertools.product(range(49), [np.nan, np.inf, -np.inf]):
        x = -np.ones((1, 7, 7, 1), np.float32)
        x.flat[place] = value
        with running("numba"):
            found = layer.forward(x, rectify=True)
        np.testing.assert_array_equal(found, layer.forward(x, rectify=True))


class Wrong(tn.Layer):
    """Its gradient has another shape than its input."""

    def __init__(self, columns):
        super().__init__()
        self.columns = columns

    def forward(self, x, training=False):
        return x

    def backward(self, dy):
        return np.ones((len(dy) * 1000, self.columns), dy.dtype)


@pytest.mark.parametrize("layer", [tn.ReLU, tn.BatchNorm], ids=["ReLU", "BatchNorm"])
@pytest.mark.parametrize("columns", [3, 4])
def test_a_gradient_of_another_shape_reads_no_foreign_memory(layer, columns):
    """A loop has no bounds checks; NumPy refuses the shapes."""
    model = tn.Sequential([tn.Dense(4), layer(), Wrong(columns)], (2,), seed=0)
    with running("numba"), pytest.raises(ValueError, match="shape|broadcast|dimension"):
        model.loss_and_gradients(
            np.ones((5, 2), np.float32), np.zeros((5, 4), np.float32), tn.MeanSquaredError()
        )


@pytest.mark.parametrize("layer", [tn.DepthwiseConv2D, tn.AveragePool2D])
@pytest.mark.parametrize("shape", [(2, 2, 1, 3), (2, 4, 4, 5), (1, 4, 4, 3)])
def test_an_images_gradient_of_another_shape_is_left_to_numpy(layer, shape):
    layer, dy = layer(2, strides=1), np.ones(shape, np.float32).swapaxes(0, 3)
    tn.Sequential([tn.DepthwiseConv2D(1), layer], (5, 5, 2), seed=0)
    results = []
    for engine in ("numpy", "numba"):
        with running(engine):
            layer.forward(np.ones((2, 5, 5, 3), np.float32).swapaxes(0, 3), training=True)
            try:
                results.append(layer.backward(dy).tolist())
            except ValueError as error:
                results.append(str(error))
    assert results[0] == results[1]


class Smaller(tn.Layer):
    """Its images are smaller than its build says."""

    def forward(self, x, training=False):
        return np.ascontiguousarray(x.swapaxes(0, 3)[:, :3, :3]).swapaxes(0, 3)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: tn.MaxPool2D(),
        lambda: tn.MaxPool2D(3, 1),
        lambda: tn.AveragePool2D(),
        lambda: tn.Conv2D(2, 3),
        lambda: tn.DepthwiseConv2D(3),
    ],
    ids=["MaxPool2D 2x2", "MaxPool2D 3x3", "AveragePool2D", "Conv2D", "DepthwiseConv2D"],
)
def test_images_of_another_size_read_no_foreign_memory(layer):
    model = tn.Sequential([Smaller(), layer()], (8, 8, 2), seed=0)
    with running("numba"), pytest.raises((ValueError, TypeError), match="shape|broadcast|small|buffer"):
        model.forward(np.ones((4, 8, 8, 2), np.float32), training=True)
