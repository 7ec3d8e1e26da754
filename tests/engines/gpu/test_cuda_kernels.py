"""The CUDA kernels, run on the CPU from their source, against their NumPy twins."""

import functools
import inspect
import itertools
import math
import re
import shutil
import subprocess
from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from tests.support import cuda_emulation
from tests.support.strict_twins import twin_of, work_memory
from tinynet.engines.gpu import kernels, source
from tinynet.engines.operation import OPERATIONS
from tinynet.layers.windows.geometry import windows

EDGES = [1, 2, 3, 7, 16, 31, 32, 33, 63, 64, 65, 255, 256, 257, 1000]
MOVED = [  # dtypes to move from and to; each pair is compiled
    ("uint8", "uint8"), ("uint8", "float32"), ("bool", "bool"), ("int64", "int64"), ("float32", "float32"),
    ("float64", "float32"), ("int16", "float64"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def compiler():
    cuda_emulation.skip_without_compiler()


# -- arguments ----------------------------------------------------------------------------------------


class On:
    """An array for the device: its values, the order of its axes in memory, and the step between elements.

    ``unset``: the device gets NaN instead of the values, which only the twin needs.
    """

    def __init__(self, values, order=None, step=1, unset=False):
        self.values, self.step, self.unset = np.asarray(values), step, unset
        self.order = tuple(range(self.values.ndim)) if order is None else order

    def put(self, cuda):
        shape = [self.values.shape[axis] for axis in self.order]
        if shape:
            shape[-1] *= abs(self.step)
        memory = cuda.empty(shape, self.values.dtype)
        if shape:
            memory = memory[..., :: self.step]
        array = memory.transpose(np.argsort(self.order)) if shape else memory
        if not self.unset:
            array[...] = self.values
        return array


class Draw:
    """Draws a case's arguments."""

    def __init__(self, data):
        self.data = data
        self.dtype = np.dtype(self(st.sampled_from(["float32", "float64"])))
        self.rng = np.random.default_rng(self(st.integers(0, 2**32)))

    def __call__(self, strategy):
        return self.data.draw(strategy)

    def size(self, most=1000):
        return self(st.sampled_from([size for size in EDGES if size <= most]) | st.integers(1, min(most, 40)))

    def shape(self, axes, most=3000):
        """A shape with this many axes and not many elements; one axis may be long."""
        shape = [self(st.integers(1, 6)) for _ in range(axes)]
        axis = self(st.integers(0, axes - 1))
        shape[axis] = self.size(max(1, most // math.prod(shape)))
        return tuple(shape)

    def table(self):
        """A shape (m, f) to be summed over; some have many rows."""
        m, f = (
            self(st.sampled_from([1, 2, 33, 257, 999, 1000])),
            self(st.sampled_from([1, 2, 5, 31, 32, 33, 40])),
        )
        return (m, f) if self(st.integers(0, 3)) else (f, m)

    def normal(self, shape, special=False):
        """Normal numbers, or integers with ties; perhaps with NaN, infinities and zeros of both signs."""
        values = self.rng.standard_normal(shape)
        if self(st.booleans()):
            values = np.round(values)
        if special and self(st.booleans()):
            places = self.rng.random(shape) < 0.1
            values = np.where(places, self.rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], shape), values)
        return values.astype(self.dtype)

    def numbers(self, shape, dtype):
        if np.dtype(dtype).kind == "f":
            return self.rng.standard_normal(shape).astype(dtype)
        return self.rng.integers(0, 2 if dtype == "bool" else 120, shape).astype(dtype)

    def any_layout(self, values):
        order = tuple(self(st.permutations(range(values.ndim))))
        return On(values, order, self(st.sampled_from([1, 1, 1, 2, 3, -1])))

    def dense(self, values, order=None):
        return On(values, order)

    def outputs(self, shape, dtype=None):
        return On(np.full(shape, np.nan, dtype or self.dtype))

    def on_device_or_not(self, value, dtype):
        return On(np.asarray(value, dtype)) if self(st.booleans()) else value

    def labels(self, n, k):
        return On(self.rng.integers(0, k, n))

    def smoothing(self):
        return self(st.sampled_from([0.0, 0.1, 0.9]))


def buffer(dtype):
    return functools.partial(work_memory, dtype)


CASES = {}


def case(build):
    CASES[build.__name__] = build
    return build


# Each returns the arguments for the operation of the same name.


@case
def take_rows(draw):
    dtype, target = draw(st.sampled_from(MOVED))
    total, row = draw.size(300), draw.shape(draw(st.integers(1, 3)), 300) if draw(st.booleans()) else ()
    n = draw(st.integers(1, total))
    start = draw(st.integers(0, total - n))
    order = None if draw(st.booleans()) else On(draw.rng.permutation(total))
    data = On(draw.numbers((total, *row), dtype))
    return data, order, draw.on_device_or_not(start, np.int64), On(np.zeros((n, *row), target), unset=True)


def images(draw):
    shape = draw.shape(draw(st.integers(3, 4)))
    return draw.numbers(shape, draw(st.sampled_from([dtype for dtype, other in MOVED if dtype == other])))


@case
def flip_images(draw):
    x = images(draw)
    return On(x), draw.rng.random(len(x)) < 0.5


@case
def shift_images(draw):
    x, pixels = images(draw), draw(st.integers(1, 4))
    up, left = draw.rng.integers(0, 2 * pixels + 1, (2, len(x)))
    return On(x), up, left, pixels, draw(st.sampled_from([0, 1, 0.0]))


@case
def erase_squares(draw):
    x = images(draw)
    n, height, width = x.shape[:3]
    size = draw.rng.integers(1, min(height, width) + 1, n)
    top, left = draw.rng.integers(0, height - size + 1), draw.rng.integers(0, width - size + 1)
    return On(x), draw.rng.random(n) < 0.5, top, left, size, draw(st.sampled_from([0, 1, 1.0]))


@case
def rectify(draw):
    x = draw.normal(draw.shape(draw(st.integers(2, 5))), special=True)
    given = draw.any_layout(x)
    bias = On(draw.normal(x.shape[-1:])) if draw(st.booleans()) else None
    kind = draw(st.sampled_from(["new", "in place", "like x", "other"]))
    out = {"new": None, "in place": given, "like x": On(x, given.order, given.step, True)}.get(kind)
    if kind == "other":
        out = draw.any_layout(x)
        out.unset = True
    return given, bias, out, draw(st.sampled_from([None, np.zeros_like]))


@case
def rectify_backward(draw):
    dy = draw.normal(draw.shape(draw(st.integers(2, 5))))
    y = np.maximum(draw.normal(dy.shape, special=True), 0)
    given = [draw.any_layout(array) for array in (dy, y, dy)]
    if draw(st.booleans()):
        given[1].order, given[2].order = given[0].order, given[0].order
    given[2].unset = True
    return *given, buffer(draw.dtype)


def scores(draw, special=False):
    k = draw.size()
    x = draw.normal((draw.size(max(1, 4000 // k)), k), special)
    return x * draw.dtype.type(draw(st.sampled_from([1, 1, 30, 1e4])))


@case
def softmax(draw):
    x = scores(draw, special=True)
    return (draw.any_layout(x[:, None] if draw(st.booleans()) else x),)


log_softmax = CASES["log_softmax"] = softmax


@case
def sum_rows(draw):
    shape = draw.table()
    return draw.any_layout(draw.normal(shape)), draw.outputs(shape[1])


def places(draw, kind):
    """(c, n, windows)."""
    h, w = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    padding = draw(st.sampled_from(["valid", "same"]))
    most = (h, w) if padding == "valid" else (11, 11)
    size = tuple(draw(st.integers(1, side)) for side in most)
    strides = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    return draw(st.integers(1, 5)), draw.size(40), windows((h, w, 1), size, strides, padding, kind)


def columns_case(draw):
    c, n, over = places(draw, "kernel")
    sides = (axis.pixels + axis.before + axis.after for axis in over)
    start = draw(st.integers(0, over.down.outputs - 1))
    rows = slice(start, draw(st.integers(start + 1, over.down.outputs)))
    columns = over.area * c, (rows.stop - start) * over.across.outputs * n
    return draw.normal((c, *sides, n)), over, rows, draw.normal(columns)


@case
def take_windows(draw):
    padded, over, rows, columns = columns_case(draw)
    return On(padded), over, rows, On(columns, unset=True)


@case
def add_windows(draw):
    padded, over, rows, columns = columns_case(draw)
    return On(columns), On(padded), over, rows


@case
def max_pool(draw):
    c, n, over = places(draw, "pool")
    x = draw.normal((c, over.down.pixels, over.across.pixels, n), special=True)
    return draw.any_layout(x), over, draw.outputs((c, *over.output_shape, n))


@case
def max_pool_backward(draw):
    given, over, y = max_pool(draw)
    x, y = given.values, y.values
    with np.errstate(all="ignore"):
        twin_of("max_pool")(x, over, y)
    dy = draw.any_layout(draw.normal(y.shape))
    return dy, given, On(y), over, draw.outputs(x.shape), buffer(draw.dtype)


def rows_of_features(draw, count):
    shape = draw.table()
    given = [draw.any_layout(draw.normal(shape)) for _ in range(count)]
    if draw(st.booleans()):
        for one in given:
            one.order, one.step = given[0].order, 1
    return given


def vectors(draw, f, count):
    return [On(draw.normal(f)) for _ in range(count)]


@case
def moments(draw):
    rows, centred = rows_of_features(draw, 2)
    rows.values = rows.values + draw.dtype.type(draw(st.sampled_from([0, 100])))
    return rows, centred, SimpleNamespace(total=lambda m: m, sum=lambda array: array)


@case
def standardize(draw):
    rows, centred, y = rows_of_features(draw, 3)
    mean, var = rows.values.mean(axis=0), rows.values.var(axis=0)
    centred.values, centred.unset, y.unset = rows.values - mean, True, True
    gamma, beta = vectors(draw, len(mean), 2)
    return rows, centred, On(mean), On(var), 1e-5, gamma, beta, y


@case
def move_averages(draw):
    return *vectors(draw, draw.size(), 4), draw(st.sampled_from([0.0, 0.9, 1.0]))


@case
def feature_sums(draw):
    dy, x_hat = rows_of_features(draw, 2)
    return dy, x_hat, *(draw.outputs(dy.values.shape[1]) for _ in range(2))


@case
def batchnorm_dx(draw):
    dy, x_hat, dx = rows_of_features(draw, 3)
    dx.unset = True
    m, f = dy.values.shape
    dgamma, dbeta, gamma, inv_std = vectors(draw, f, 4)
    return dy, x_hat, dgamma, dbeta, m + draw(st.integers(0, 3)), gamma, inv_std, dx


@case
def drop(draw):
    x = draw.any_layout(draw.normal(draw.shape(draw(st.integers(2, 6)))))
    same = draw(st.booleans())
    if same and draw(st.booleans()):
        x.order, x.step = (
            x.order[::-1] if x.order[0] == 0 else (*(i for i in x.order if i), 0),
            1,
        )  # rows innermost
    mask, y = (On(x.values, x.order, x.step) if same else draw.any_layout(x.values) for _ in range(2))
    mask.unset = y.unset = True
    words = st.integers(0, 2**64 - 2**12)  # NumPy may round larger ones to 2^64
    key = draw(words), draw(words)
    step = draw.on_device_or_not(draw(st.integers(0, 10) | st.integers(0, 2**62)), np.int64)
    threshold = draw(st.sampled_from([0, 1, 65535]) | st.integers(0, 65535))
    return x, key, draw(st.integers(0, 300) | st.integers(0, 2**40)), step, threshold, mask, y


@case
def softmax_cross_entropy(draw):
    z = scores(draw)
    return draw.any_layout(z), draw.labels(*z.shape), draw.smoothing()


@case
def cross_entropy_gradient(draw):
    p = abs(scores(draw))
    total = len(p) + draw(st.integers(0, 5))
    return draw.any_layout(p), draw.labels(*p.shape), draw.smoothing(), total


subtract_targets = CASES["subtract_targets"] = cross_entropy_gradient


@case
def pick(draw):
    z = scores(draw, special=True)
    return draw.any_layout(z), draw.labels(*z.shape)


@case
def channel_products(draw):
    c, m, *pixels = draw.shape(5)
    x, dy = (draw.any_layout(draw.normal((c, k, *pixels))) for k in (1, m))
    return x, dy, draw.any_layout(np.full((c, m), np.nan, draw.dtype))


@case
def squared_norm(draw):
    return (draw.any_layout(draw.normal(draw.shape(draw(st.integers(1, 4)), 20000))),)


@case
def record(draw):
    meter = On(draw.rng.integers(0, 9, 4).astype(float))
    value = draw.on_device_or_not(draw.dtype.type(draw.rng.standard_normal()), draw.dtype)
    if draw(st.integers(0, 3)) == 0:
        return meter, value, draw.any_layout(draw.normal(draw.shape(draw(st.integers(2, 4))))), None
    z = scores(draw, special=True)
    return meter, value, draw.any_layout(z), On(z.argmax(axis=1) * (draw.rng.random(len(z)) < 0.7))


@case
def set_numbers(draw):
    counts = st.integers(0, 2**62)
    return (
        draw.outputs(2),
        On(np.zeros(2, np.int64)),
        draw(counts),
        draw(counts),
        0.1,
        draw(st.sampled_from([1.0, 0.999])),
    )


@case
def adam_update(draw):
    params, grads, m, v, scratch = vectors(draw, draw.size(), 5)
    v.values = abs(v.values)
    return params, grads, m, v, scratch, draw.on_device_or_not(0.01, draw.dtype), 0.9, 0.999, 1e-7


@case
def clip(draw):
    size = draw.size()
    scale = draw(st.sampled_from([1e-10, 1, 1e3, 1e20, 1e37] + [1e180, 1e300] * (draw.dtype == "float64")))
    gradient = draw.normal(size) * draw.dtype.type(scale)
    if draw(st.integers(0, 9)) == 0:  # not both: hypot(inf, NaN) is inf
        gradient[draw(st.integers(0, size - 1))] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    edges = sorted({draw(st.integers(0, size)) for _ in range(4)} | {0})
    ranges = [(0, size)] if len(edges) == 1 else list(itertools.pairwise(edges))[::2]
    return On(gradient), ranges, draw(st.sampled_from([1e-3, 1.0, 1e10]))


# -- the comparison -----------------------------------------------------------------------------------

EXACT = {
    "take_rows",
    "flip_images",
    "shift_images",
    "erase_squares",
    "take_windows",
    "add_windows",
    "max_pool",
}
EXACT |= {"max_pool_backward", "rectify", "rectify_backward", "pick", "drop"}
SUMS = {"moments", "feature_sums", "channel_products", "sum_rows", "squared_norm"}
LOGARITHMS = {"log_softmax", "softmax_cross_entropy"}
SPOILT = {"moments": ("centred",), "adam_update": ("scratch",)}  # what twins write and kernels need not


def compare(name, given, cuda, dtype):
    """Run the kernel and its twin on the same arguments, and compare what they return and write."""
    twin, devices = twin_of(name), {}
    parameters = list(inspect.signature(twin).parameters)
    on_device = [devices.setdefault(id(one), one.put(cuda)) if isinstance(one, On) else one for one in given]
    hosts = {id(one): one.values.copy() for one in given if isinstance(one, On)}
    on_host = [
        (hosts[id(one)] if one.values.ndim else hosts[id(one)][()]) if isinstance(one, On) else one
        for one in given
    ]
    with np.errstate(all="ignore"):
        expected = twin(*on_host)
    found = getattr(kernels.Kernels(cuda), name)(*on_device)
    assert cuda.launches

    pairs = []
    if expected is None:
        assert found is None
    else:
        several = isinstance(expected, tuple)
        for one, other in zip(
            *((value if several else (value,)) for value in (found, expected)), strict=True
        ):
            assert isinstance(one, cuda.ndarray)
            pairs.append(("result", one, other))
    for parameter, one, other in zip(parameters, on_device, on_host, strict=True):
        if isinstance(one, cuda.ndarray) and one.ndim and parameter not in SPOILT.get(name, ()):
            pairs.append((parameter, one, other))
    # Rounding errors are small compared with this, even if the result has cancelled.
    arrays = [one.values for one in given if isinstance(one, On)]
    scale = max(float(np.nan_to_num(abs(array)).max()) for array in arrays) if name in SUMS else 0.0
    scale = 1.0 if name in LOGARITHMS else scale
    for what, one, other in pairs:
        other = np.asarray(other)
        assert one.shape == other.shape, what
        # A 0-d result from NumPy may be a Python number.
        assert one.dtype == other.dtype, what
        if name in EXACT:
            np.testing.assert_array_equal(one, other, what)
        else:
            near(one, other, dtype, scale, what)


def near(found, expected, dtype, scale, what):
    """Equal up to rounding errors relative to the largest number, or to ``scale``."""
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(found, expected, what)
        return
    finite = expected[np.isfinite(expected)]
    largest = max(scale, float(abs(finite).max()) if finite.size else 0.0)
    precision = 3e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(
        found, expected, precision, precision * min(largest, 1e30) + 1e-300, err_msg=what
    )


@pytest.mark.parametrize("name", sorted(CASES))
@settings(max_examples=50)
@given(data=st.data())
def test_kernel_computes_what_its_twin_does(name, data):
    cuda = cuda_emulation.Cuda()
    cuda.order = data.draw(st.sampled_from(cuda_emulation.ORDERS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_BLOCKS", data.draw(st.sampled_from([1 << 16, 2])))  # threads loop
        patch.setattr(kernels, "_PART", data.draw(st.sampled_from([1 << 15, 256])))  # sums in parts
        draw = Draw(data)
        given = CASES[name](draw)
        dtypes = {one.values.dtype.name for one in given if isinstance(one, On)}
        if not dtypes & {"float64", "bool"} and data.draw(
            st.booleans()
        ):  # each dtype would be compiled twice
            patch.setattr(kernels, "_WIDE", 0)
        compare(name, given, cuda, draw.dtype)


def test_every_operation_has_a_kernel_of_its_signature_and_a_case_here():
    assert set(CASES) == set(OPERATIONS) - {"matmul"}  # which is cuBLAS's
    for name in OPERATIONS:
        kernel = inspect.signature(getattr(kernels.Kernels, name)).parameters
        assert list(kernel)[1:] == list(inspect.signature(twin_of(name)).parameters), name


def test_each_kernel_of_the_source_is_launched():
    found = re.findall(r"__global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\(", source.MATH + source.MOVES)
    launched = re.findall(r'_(?:launch|each|rows|moved|softmax)\(\s*"(\w+)"', inspect.getsource(kernels))
    assert set(found) == set(launched)
    assert len(found) == len(set(found))


# -- what the comparison can't show -------------------------------------------------------------------


def run(name, *given, order="forward"):
    """A kernel's results and its arguments afterwards, from a fresh stand-in."""
    cuda = cuda_emulation.Cuda()
    cuda.order = order
    on_device = [one.put(cuda) if isinstance(one, On) else one for one in given]
    found = getattr(kernels.Kernels(cuda), name)(*on_device)
    return (
        [one for one in (found if isinstance(found, tuple) else (found,)) if one is not None],
        on_device,
        cuda,
    )


@pytest.mark.parametrize("shape", [(64, 300), (5000, 10), (3, 1), (40000, 8)])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_sums_have_the_same_bits_whatever_the_order_of_the_threads(shape, order):
    rng = np.random.default_rng(0)
    rows, x_hat = (On(rng.standard_normal(shape, np.float32) + 3, order) for _ in range(2))
    f = np.full(shape[1], np.nan, np.float32)
    bits = set()
    for threads in cuda_emulation.ORDERS:
        (mean, var), *_ = run("moments", rows, x_hat, None, order=threads)
        _, (*_, dbeta, dgamma), _ = run("feature_sums", rows, x_hat, On(f), On(f), order=threads)
        (norm,), *_ = run("squared_norm", rows, order=threads)
        bits.add(b"".join(array.tobytes() for array in (mean, var, dbeta, dgamma, norm)))
    assert len(bits) == 1


@pytest.mark.parametrize("threads", cuda_emulation.ORDERS)
@pytest.mark.parametrize("shape", [(1500, 3), (70, 5, 5, 3)])
@pytest.mark.parametrize("channel_major", [False, True])
def test_dropout_over_several_rounds_of_a_block(threads, shape, channel_major, monkeypatch):
    monkeypatch.setattr(kernels, "_BLOCKS", 1)
    order = tuple(range(len(shape)))[:: -1 if channel_major else 1]
    x = On(np.random.default_rng(0).standard_normal(shape), order)
    mask, y = (On(x.values, order, unset=True) for _ in range(2))
    cuda = cuda_emulation.Cuda()
    cuda.order = threads
    compare("drop", (x, (2**63 + 12345, 5), 7, 11, 30_000, mask, y), cuda, np.dtype(float))
    assert cuda.launches == ["drop"]


def test_float32_sums_of_a_long_column_keep_their_digits():
    rng = np.random.default_rng(1)
    rows = On(rng.standard_normal((300_000, 2), np.float32) + 10, (1, 0))
    exact = rows.values.astype(np.float64)
    (mean, var), _, cuda = run("moments", rows, None, None)
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=2e-7)
    np.testing.assert_allclose(var, exact.var(axis=0), rtol=2e-6)
    assert cuda.launches == ["moments", "combine_moments"]  # it was summed in parts
    _, (_, total), cuda = run("sum_rows", rows, On(np.empty(2, np.float32), unset=True))
    np.testing.assert_allclose(total, exact.sum(axis=0), rtol=2e-7)
    assert cuda.launches == ["feature_sums"] * 2


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("softmax", [On(np.ones((64, 10), np.float32))]),
        ("softmax_cross_entropy", [On(np.ones((64, 10), np.float32)), On(np.zeros(64, np.int64)), 0.1]),
        ("sum_rows", [On(np.ones((512, 300), np.float32)), On(np.zeros(300, np.float32))]),
        ("moments", [On(np.ones((30_000, 2), np.float32), (1, 0)), None, None]),
        ("rectify", [On(np.ones((4, 5, 6, 7)), (3, 1, 2, 0)), On(np.ones(7)), None, None]),
        ("rectify_backward", [On(np.ones((4, 5, 6)), order) for order in [(0, 1, 2), (2, 1, 0), (2, 1, 0)]] + [None]),
        ("drop", [On(np.ones((9, 7))), (1, 2), 0, 3, 99, On(np.ones((9, 7))), On(np.ones((9, 7)))]),
    ],
)  # fmt: skip
def test_it_is_one_launch(name, given):
    assert run(name, *given)[2].launches in ([name], ["feature_sums"])


def test_no_number_is_read_beyond_the_last_window_of_padding_only():
    # Windows of "same" padding with strides above their size: the last tap of a row belongs to no window.
    over = windows((5, 5, 1), (3, 3), (4, 4), "same", "pool")
    x = np.arange(25.0).reshape(1, 5, 5, 1)
    _, (_, _, y), _ = run("max_pool", On(x), over, On(np.zeros((1, *over.output_shape, 1)), unset=True))
    expected = np.empty(y.shape)
    twin_of("max_pool")(x, over, expected)
    np.testing.assert_array_equal(y, expected)


def test_nan_is_passed_on_and_is_the_first_argmax():
    x = np.array([[1.0, np.nan, 3.0], [np.nan, 2.0, np.nan], [5.0, 5.0, 1.0]])
    (y,), *_ = run("rectify", On(x), None, None, None)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    for labels, hits in [([1, 0, 0], 3), ([2, 2, 1], 0)]:
        _, (meter, *_), _ = run("record", On(np.zeros(4)), 2.0, On(x), On(np.array(labels)))
        assert meter.tolist() == [6.0, hits, 3.0, 2.0]
    ties = On(np.ones((4, 600)))
    _, (meter, *_), _ = run("record", On(np.zeros(4)), 2.0, ties, On(np.array([0, 256, 512, 0])))
    assert meter.tolist() == [8.0, 2.0, 4.0, 2.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clip_where_the_squares_overflow(dtype):
    g = np.array([3e200, 4e200] if dtype == np.float64 else [3e30, 4e30], dtype)
    _, (clipped, *_), _ = run("clip", On(g), [(0, 2)], 10.0)
    np.testing.assert_allclose(clipped, [6, 8], rtol=1e-6)


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match="no GPU kernels for float16.*float32"):
        run("softmax", On(np.ones((2, 3), np.float16)))
    with pytest.raises(TypeError, match="no GPU kernels for int64"):
        run("softmax", On(np.ones((2, 3), np.int64)))


@pytest.mark.parametrize("names", [("float32",), ("float64",), ("uint8", "float32"), ("int64", "int64")])
@pytest.mark.parametrize("wide", [False, True])
def test_nvcc_compiles_the_kernels_without_warnings(names, wide, tmp_path):
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed")
    path = tmp_path / "kernels.cu"
    path.write_text(kernels.source(*names))
    options = ["-std=c++17", "-arch=sm_80", "-Werror", "all-warnings", *(["-DWIDE"] if wide else [])]
    command = ["nvcc", *options, "-Xptxas", "-v", "-cubin", "-o", str(tmp_path / "kernels.cubin"), str(path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert not re.search(r"[1-9]\d* bytes spill", result.stderr)  # registers suffice
