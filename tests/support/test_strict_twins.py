"""The strict stand-in's operations: each gives the result of its NumPy twin, at once and in a graph."""

import copy
import importlib
import inspect

import numpy as np
import pytest

from tests.support import strict_twins
from tests.support.strict_arrays import Strict
from tinynet.engines import devices
from tinynet.engines.gpu.kernels import Kernels
from tinynet.engines.operation import OPERATIONS, matmul
from tinynet.layers.activations import rectify, softmax
from tinynet.layers.shard import WHOLE_BATCH
from tinynet.layers.windows.geometry import windows
from tinynet.losses import pick
from tinynet.training.batches import take_rows

F = np.float32
WINDOWS = windows((5, 6, 2), 3, 2, "valid", "test")  # 2 by 2 of them


def floats(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(F)


def labels(*values):
    return np.array(values, np.int64)


def host(*values):
    """An argument that stays a NumPy array on the GPU as well."""
    return Host(np.array(values))


class Host:
    def __init__(self, array):
        self.array = array


def memory(name, shape, dtype=F, like=None):
    return np.empty(shape, dtype)


def arguments_of(name):
    """An operation's arguments, with NumPy arrays in place of GPU arrays."""
    x, images, table = floats(4, 3), floats(2, 5, 6, 3), floats(4, 3)
    f = [floats(3) + i for i in range(6)]
    pooled = np.maximum.reduce([images[:, i : i + 3 : 2, j : j + 4 : 2] for i in range(3) for j in range(3)])
    return {
        "matmul": (floats(2, 3, 4), floats(4, 5)),
        "take_rows": (x, labels(3, 1, 0, 2), np.int64(1), np.empty((2, 3), np.float64)),
        "flip_images": (images, host(True, False)),
        "shift_images": (images, host(0, 2), host(1, 2), 1, 0.5),
        "erase_squares": (images, host(False, True), host(1, 2), host(0, 3), host(2, 2), 0.5),
        "rectify": (x, f[0], None, np.zeros_like),
        "rectify_backward": (x, table, np.empty_like(x), memory),
        "softmax": (x,),
        "log_softmax": (x,),
        "sum_rows": (x, np.empty(3, F)),
        "channel_products": (floats(2, 1, 3, 3, 4), floats(2, 3, 3, 3, 4), np.empty((2, 3), F)),
        "take_windows": (images, WINDOWS, slice(0, 1), np.empty((2 * 9, 1 * 2 * 3), F)),
        "add_windows": (floats(2 * 9, 1 * 2 * 3), images, WINDOWS, slice(1, 2)),
        "max_pool": (images, WINDOWS, np.empty((2, 2, 2, 3), F), memory, False),
        "max_pool_backward": (
            floats(2, 2, 2, 3),
            images,
            pooled,
            WINDOWS,
            np.empty_like(images),
            memory,
            True,
        ),
        "moments": (x, np.empty_like(x), WHOLE_BATCH),
        "standardize": (x, x - f[0], f[0], f[1] ** 2, 1e-3, f[2], f[3], np.empty_like(x)),
        "move_averages": (f[0], f[1], f[2], f[3], 0.9),
        "feature_sums": (x, table, np.empty(3, F), np.empty(3, F)),
        "batchnorm_dx": (x, table, f[0], f[1], 4, f[2], f[3], np.empty_like(x)),
        "drop": (x, (3, 4), 5, np.int64(6), 10_000, np.empty_like(x), np.empty_like(x)),
        "softmax_cross_entropy": (x, labels(0, 1, 2, 0), 0.1),
        "cross_entropy_gradient": (x, labels(0, 1, 2, 0), 0.1, 4),
        "pick": (x, labels(0, 1, 2, 0)),
        "subtract_targets": (x, labels(0, 1, 2, 0), 0.1, 4),
        "squared_norm": (x,),
        "record": (np.ones(4), F(0.5), x, labels(0, 1, 2, 0)),
        "set_numbers": (np.empty(2, F), np.empty(2, np.int64), 3, 4, 0.5, 0.25),
        "adam_update": (f[0], f[1], f[2], f[3] ** 2, np.empty(3, F), F(0.01), 0.9, 0.999, 1e-7, (0.99, 2)),
        "clip": (floats(12), [(0, 4), (6, 12)], 0.5),
    }[name]


def to_device(cupy, value):
    if isinstance(value, Host):
        return value.array
    return cupy.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else value


def to_host(value):
    return value.array if isinstance(value, Host) else value


def as_tuple(result):
    return result if isinstance(result, tuple) else (result,)


def check_same(found, expected):
    """Compare tuples of results, except those that are not arrays."""
    for one, other in zip(found, expected, strict=True):
        if isinstance(other, (np.ndarray, np.generic)):
            one = one if isinstance(one, np.ndarray) else one.get()
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if hasattr(Kernels, name)])
def test_operations_are_their_twins_at_once_and_in_a_graph(stand_in, name):
    operation = getattr(importlib.import_module(OPERATIONS[name]), name)
    given = arguments_of(name)
    plain = [to_host(value) for value in copy.deepcopy(given)]
    expected = as_tuple(operation(*plain))
    for i, key in enumerate(inspect.signature(operation).parameters):
        if key == strict_twins.SCRATCH.get(name):
            plain[i] = np.full_like(plain[i], np.nan)

    at_once = [to_device(stand_in, value) for value in given]
    check_same(as_tuple(operation(*at_once)), expected)
    check_same(at_once, plain)

    if name in strict_twins.HOST_ARGUMENTS:
        return
    gpu = devices.get_device("gpu")
    later, results = [to_device(stand_in, value) for value in given], []
    with gpu.running():
        before = [value.get() if isinstance(value, stand_in.ndarray) else value for value in later]
        replay = gpu.capture(lambda: results.append(operation(*later)))
        check_same(later, before)
        replay()
    check_same(as_tuple(results[0]), expected)
    check_same(later, plain)


def test_a_graph_reads_its_numbers_at_each_launch(stand_in):
    data, order = stand_in.asarray(np.arange(6.0)), stand_in.asarray([5, 4, 3, 8, 1, 0])
    start, out = stand_in.asarray(np.array([0]))[0], stand_in.empty(2)

    def work():
        take_rows(data, order, start, out)
        np.add(start, 2, out=start)

    gpu = devices.get_device("gpu")
    with gpu.running():
        replay = gpu.capture(work)
        for expected in ([5, 4], [3, 2], [1, 0]):
            replay()
            np.testing.assert_array_equal(out.get(), expected)


def test_results_are_the_very_array_given(stand_in):
    x, y, out = (stand_in.asarray(floats(3, 3)) for _ in range(3))
    assert matmul(x, y, out=out) is out
    assert matmul(x, y) is not out


def test_results_are_dense_and_rectified_ones_like_their_argument(stand_in):
    x = stand_in.asarray(floats(3, 4)).T
    assert rectify(x, None, None, None).strides == x.strides
    assert softmax(x).flags.c_contiguous


def test_labels_out_of_range_go_unnoticed(stand_in):
    scores = stand_in.asarray(np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(pick(scores, stand_in.asarray([3, -1])).get(), [0, 5])


REFUSED = {
    "no device array first": (TypeError, lambda k, x: k.matmul(np.ones((2, 2)), x)),
    "nothing": (TypeError, lambda k, x: k.matmul()),
    "NumPy second": (TypeError, lambda k, x: k.matmul(x, np.ones((2, 2)))),
    "NumPy out": (TypeError, lambda k, x: k.matmul(x, x, out=np.ones((2, 2)))),
    "a list of arrays": (TypeError, lambda k, x: k.clip(x, [x], 1.0)),
    "two dtypes": (TypeError, lambda k, x: k.matmul(x, x.astype("float32"))),
    "matmul of integers": (TypeError, lambda k, x: k.matmul(x.astype(int), x.astype(int))),
    "matmul's out of another shape": (ValueError, lambda k, x: k.matmul(x, x, out=x[None])),
    "matmul's out of another dtype": (TypeError, lambda k, x: k.matmul(x, x, out=x.astype("float32"))),
    "not dense": (ValueError, lambda k, x: k.take_rows(x.T, None, 0, x)),
    "another stand-in's": (TypeError, lambda k, x: k.softmax(Strict().ones((2, 2)))),
    "no operation": (AttributeError, lambda k, x: k.no_operation(x)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals(stand_in, what):
    error, call = REFUSED[what]
    with pytest.raises(error):
        call(strict_twins.Twins(stand_in), stand_in.ones((2, 2)))


def test_a_capture_refuses_arguments_on_the_host(stand_in):
    x = stand_in.asarray(floats(2, 5, 6, 3))
    gpu = devices.get_device("gpu")
    with gpu.running(), pytest.raises(stand_in.cuda.runtime.CUDARuntimeError, match="Unsupported"):
        gpu.capture(lambda: gpu.kernels.flip_images(x, np.array([True, False])))


@pytest.mark.parametrize("table", [strict_twins.DENSE, strict_twins.INDICES, strict_twins.SCRATCH])
def test_the_tables_name_arguments(table):
    for name, keys in table.items():
        operation = getattr(importlib.import_module(OPERATIONS[name]), name)
        keys = {keys} if isinstance(keys, str) else set(keys)
        assert keys <= set(inspect.signature(operation).parameters)
