"""Arguments for every operation, drawn by Hypothesis, and the comparison of an engine's results with NumPy's."""

import functools
import inspect
import itertools
import math
from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np

from tests.support.strict_twins import twin_of, work_memory
from tinynet.layers.windows.geometry import windows

EDGES = [1, 2, 3, 7, 16, 31, 32, 33, 63, 64, 65, 255, 256, 257, 1000]
MOVED = [  # dtypes to move from and to; each pair is compiled
    ("uint8", "uint8"), ("uint8", "float32"), ("bool", "bool"), ("int64", "int64"), ("float32", "float32"),
    ("float64", "float32"), ("int16", "float64"),
]  # fmt: skip


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
    if kind == "pool" and min(h, w) > 1 and draw(st.booleans()):  # which an engine may do in another way
        size = strides = 2, 2
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
    return (
        draw.any_layout(x),
        over,
        draw.outputs((c, *over.output_shape, n)),
        buffer(np.uint8),
        draw(st.booleans()),
    )


@case
def max_pool_backward(draw):
    given, over, y, _, rectified = max_pool(draw)
    x, y = given.values, y.values
    with np.errstate(all="ignore"):
        twin_of("max_pool")(x, over, y, None, rectified)
    dy = draw.any_layout(draw.normal(y.shape))
    return dy, given, On(y), over, draw.outputs(x.shape), buffer(draw.dtype), rectified


def depthwise_case(draw):
    """x, W, b, dy and windows; the arrays that are read mostly lie in memory as the loops want them."""
    c, n, over = places(draw, "kernel")
    m = draw(st.integers(1, 3))
    x = draw.normal((c, over.down.pixels, over.across.pixels, n), special=True)
    W, b = draw.normal((over.down.size, over.across.size, c, m)), draw.normal(c * m)
    return x, W, b, draw.normal((c, m, *over.output_shape, n), special=True), over


def mostly_dense(draw, values):
    return On(values) if draw(st.integers(0, 3)) else draw.any_layout(values)


@case
def depthwise(draw):
    x, W, b, y, over = depthwise_case(draw)
    x, b = mostly_dense(draw, x), On(b) if draw(st.booleans()) else None
    return x, On(W), b, over, draw.outputs(y.shape), buffer(draw.dtype)


@case
def depthwise_dw(draw):
    x, W, _, dy, over = depthwise_case(draw)
    return On(dy), mostly_dense(draw, x), over, draw.outputs(W.shape)


@case
def depthwise_dx(draw):
    x, W, _, dy, over = depthwise_case(draw)
    return mostly_dense(draw, dy), On(W), over, draw.outputs(x.shape), buffer(draw.dtype)


@case
def average_pool(draw):
    c, n, over = places(draw, "pool")
    x = draw.normal((c, over.down.pixels, over.across.pixels, n), special=True)
    return mostly_dense(draw, x), over, draw.outputs((c, *over.output_shape, n)), buffer(draw.dtype)


@case
def average_pool_backward(draw):
    c, n, over = places(draw, "pool")
    dy = draw.normal((c, *over.output_shape, n), special=True)
    dx = draw.outputs((c, over.down.pixels, over.across.pixels, n))
    return mostly_dense(draw, dy), over, dx, buffer(draw.dtype)


@case
def global_average(draw):
    x = draw.normal(draw.shape(4), special=True)
    return (On(x, (3, 1, 2, 0)) if draw(st.integers(0, 3)) else draw.any_layout(x),)


@case
def global_average_backward(draw):
    c, h, w, n = draw.shape(4)
    return mostly_dense(draw, draw.normal((n, c), special=True)), draw.outputs((c, h, w, n))


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


def update(draw, slots, *hyperparameters):
    """An optimizer's: params, grads, slots, scratch, step_size, its hyperparameters, decay."""
    arrays = vectors(draw, draw.size(), 3 + len(slots))
    for name, slot in zip(slots, arrays[2:-1], strict=True):
        slot.values = abs(slot.values) if name == "v" else slot.values
    decay = draw(st.sampled_from([1.0, 0.99])), draw(st.integers(0, arrays[0].values.size))
    return *arrays, draw.on_device_or_not(0.01, draw.dtype), *hyperparameters, decay


@case
def sgd_update(draw):
    return update(draw, [])


@case
def momentum_update(draw):
    return update(draw, ["velocity"], 0.9, draw(st.booleans()))


@case
def rmsprop_update(draw):
    return update(draw, ["v"], 0.9, 1e-7)


@case
def adam_update(draw):
    return update(draw, ["m", "v"], 0.9, 0.999, 1e-7)


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
SUMS = {"moments", "feature_sums", "channel_products", "sum_rows", "squared_norm", "global_average"}
SUMS |= {"depthwise", "depthwise_dw", "depthwise_dx", "average_pool", "average_pool_backward"}
LOGARITHMS = {"log_softmax", "softmax_cross_entropy"}
# What twins write and kernels need not.
SPOILT = {"moments": ("centred",)} | {
    f"{name}_update": ("scratch",) for name in ("sgd", "momentum", "rmsprop", "adam")
}


def compare(name, kernel, given, module, dtype):
    """Run a kernel and its twin on the same arguments, and compare what they return and write.

    Args: module: makes the kernel's arrays: NumPy, or a stand-in for CuPy.
    """
    twin, devices = twin_of(name), {}
    parameters = list(inspect.signature(twin).parameters)
    on_device = [
        devices.setdefault(id(one), one.put(module)) if isinstance(one, On) else one for one in given
    ]
    hosts = {id(one): one.values.copy() for one in given if isinstance(one, On)}
    on_host = [
        (hosts[id(one)] if one.values.ndim else hosts[id(one)][()]) if isinstance(one, On) else one
        for one in given
    ]
    with np.errstate(all="ignore"):
        expected = twin(*on_host)
    found = kernel(*on_device)
    if found is NotImplemented:
        return False

    pairs = []
    if expected is None:
        assert found is None
    else:
        several = isinstance(expected, tuple)
        for one, other in zip(
            *((value if several else (value,)) for value in (found, expected)), strict=True
        ):
            assert isinstance(one, module.ndarray)
            pairs.append(("result", one, other))
    for parameter, one, other in zip(parameters, on_device, on_host, strict=True):
        if isinstance(one, module.ndarray) and one.ndim and parameter not in SPOILT.get(name, ()):
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
    return True


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
