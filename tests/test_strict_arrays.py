"""The strict stand-in for CuPy: NumPy's results, CuPy's refusals, and graphs that compute only when launched."""

import copy
import gc
import inspect
import operator
import sys
from types import ModuleType

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays

from tests.strict_arrays import UFUNCS, Strict, strict
from tests.strict_cuda import CUDARuntimeError, OutOfMemoryError
from tests.strict_functions import Functions
from tests.strict_twins import Twins
from tinynet import backend

DTYPES = ["bool", "uint8", "int32", "int64", "float32", "float64"]
BINARY = [np.add, np.subtract, np.multiply, np.divide, np.maximum, np.minimum, np.greater, np.equal]
UNARY = [np.exp, np.sqrt, np.log, np.tanh, np.negative, np.abs, np.isfinite, np.square]
REDUCTIONS = [
    np.sum,
    np.prod,
    np.mean,
    np.max,
    np.min,
    np.argmax,
    np.argmin,
    np.any,
    np.all,
    np.count_nonzero,
]

dtypes = st.sampled_from(DTYPES)
seeds = st.integers(0, 2**32 - 1)


def numbers(seed, shape, dtype):
    return np.random.default_rng(seed).integers(-9, 9, shape).astype(dtype)


def check_equal(found, expected):
    """The same values, shape and dtype."""
    assert isinstance(found, strict.ndarray)
    expected = np.asarray(expected)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(found.get(), expected)


@settings(max_examples=60)
@given(
    st.sampled_from(BINARY),
    arrays.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3),
    dtypes,
    dtypes,
    seeds,
)
def test_binary_ufuncs_are_numpys(ufunc, shapes, one, other, seed):
    a, b = (numbers(seed, shapes.input_shapes[i], dtype) for i, dtype in enumerate((one, other)))
    if ufunc is np.subtract and one == other == "bool":
        return
    with np.errstate(all="ignore"):
        expected = ufunc(a, b)
        check_equal(ufunc(strict.asarray(a), strict.asarray(b)), expected)
        out = strict.empty(expected.shape, expected.dtype)
        assert ufunc(strict.asarray(a), strict.asarray(b), out=out) is out
        check_equal(out, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", [2, 2.5, np.float32(2.5), np.float64(2.5), np.int64(3), True])
def test_numbers_are_as_weak_as_numpys(number, dtype):
    a = numbers(0, (3, 2), dtype)
    check_equal(strict.asarray(a) * number, a * number)
    check_equal(number + strict.asarray(a), number + a)
    zero_d = strict.asarray(np.asarray(number))
    check_equal(strict.asarray(a) * zero_d, a * np.asarray(number))


@pytest.mark.parametrize("ufunc", UNARY)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_unary_ufuncs_are_numpys(ufunc, dtype):
    a = numbers(1, (2, 3), dtype)
    with np.errstate(all="ignore"):
        expected = ufunc(a)
    check_equal(ufunc(strict.asarray(a)), expected)
    check_equal(getattr(strict, ufunc.__name__)(strict.asarray(a)), expected)
    check_equal(ufunc(strict.asarray(a)[0, 0]), expected[0, 0])


@pytest.mark.parametrize("function", REDUCTIONS)
@pytest.mark.parametrize("axis", [None, 0, -1])
@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_reductions_are_numpys(function, axis, dtype):
    a = numbers(2, (4, 3), dtype)
    check_equal(function(strict.asarray(a), axis=axis), function(a, axis=axis))


def test_functions_are_numpys():
    a, b = numbers(3, (2, 3, 4), "float32"), numbers(4, (2, 3, 4), "float32")
    x, y = strict.asarray(a), strict.asarray(b)
    check_equal(np.stack([x, y], axis=1), np.stack([a, b], axis=1))
    check_equal(np.concatenate([x, y], axis=2), np.concatenate([a, b], axis=2))
    check_equal(np.moveaxis(x, 0, 2), np.moveaxis(a, 0, 2))
    check_equal(np.where(x > y, x, 0), np.where(a > b, a, 0))
    check_equal(np.einsum("nhw,nhw->n", x, y), np.einsum("nhw,nhw->n", a, b))
    check_equal(np.matmul(x, y.swapaxes(1, 2)), a @ b.swapaxes(1, 2))
    check_equal(x @ y.swapaxes(1, 2), a @ b.swapaxes(1, 2))
    check_equal(np.add.reduce(x, axis=(0, 2), keepdims=True), np.add.reduce(a, axis=(0, 2), keepdims=True))
    check_equal(
        np.add.reduceat(x, strict.asarray([0, 2]), axis=2), np.add.reduceat(a, np.array([0, 2]), axis=2)
    )
    check_equal(np.broadcast_to(x[0, 0], (5, 4)), np.broadcast_to(a[0, 0], (5, 4)))
    check_equal(np.array_equal(x, x), True)
    check_equal(np.clip(x, -1, 1), np.clip(a, -1, 1))
    check_equal(np.arange(3, like=x), np.arange(3))
    check_equal(np.zeros((2, 1), np.float32, like=x), np.zeros((2, 1), np.float32))
    check_equal(np.full_like(x, 3), np.full_like(a, 3))
    best = np.argmax(x, axis=-1)
    check_equal(
        np.take_along_axis(x, best[..., None], axis=-1),
        np.take_along_axis(a, a.argmax(axis=-1)[..., None], axis=-1),
    )
    np.copyto(x, y, where=x > y)
    check_equal(x, np.where(a > b, b, a))


@pytest.mark.parametrize(
    "key",
    [
        0,
        -1,
        (1, 2),
        (slice(1, None), None),
        (..., 0),
        (slice(None, None, -1), ..., slice(0, 2)),
        (),
        np.int64(1),
    ],
)
def test_views_are_numpys(key):
    a = numbers(5, (3, 4, 2), "float64")
    x = strict.asarray(a)
    check_equal(x[key], a[key])
    x[key] = 7
    a[key] = 7
    check_equal(x, a)
    x[key][...] = 8  # a view, even of no axes
    a[key] = 8
    check_equal(x, a)


@pytest.mark.parametrize("other", [(), (slice(None), 1), (slice(1, 3),)])
@settings(max_examples=20)
@given(seed=seeds)
def test_arrays_of_indices_wrap_around(other, seed):
    a, i = numbers(seed, (4, 3, 2), "float32"), np.array([[0, 5], [-1, -9]])
    x = strict.asarray(a)
    check_equal(x[(strict.asarray(i), *other)], a[(i % 4, *other)])
    check_equal(np.take(x, strict.asarray(i), axis=1), np.take(a, i % 3, axis=1))


def test_items_set_by_indices_and_masks():
    a = numbers(6, (5, 3), "float32")
    x, rows = strict.asarray(a), strict.asarray(np.array([6, 3]))
    x[rows] = strict.asarray(np.float32([[1, 2, 3], [4, 5, 6]]))
    a[[1, 3]] = [[1, 2, 3], [4, 5, 6]]
    check_equal(x, a)
    x[x > 4], a[a > 4] = 0, 0
    check_equal(x, a)
    check_equal(x[x < 0], a[a < 0])
    with pytest.raises(AssertionError, match="set twice"):
        x[strict.asarray([1, 6])] = strict.asarray(np.float32([[1], [2]]))


@settings(max_examples=40)
@given(st.permutations(range(3)), seeds)
def test_layouts_are_cupys(axes, seed):
    a = numbers(seed, (2, 3, 4), "float32").transpose(axes)
    x = strict.asarray(a.copy(order="K").transpose(np.argsort(axes))).transpose(axes)
    assert x.strides == a.strides
    assert np.empty_like(x).strides == np.empty_like(a).strides
    assert x.astype("float64").strides == a.astype("float64").strides
    for new in (x + 1, x.copy(), np.exp(x), np.where(x > 0, x, 0), np.add.reduce(x, axis=0), x.ravel()):
        assert new.flags.c_contiguous
    check_equal(x.reshape(4, -1), a.reshape(4, -1))


REFUSED = {
    "NumPy operand": (TypeError, lambda x, a: x + a),
    "NumPy operand on the left": (TypeError, lambda x, a: a + x),
    "NumPy operand in place": (TypeError, lambda x, a: operator.iadd(x, a)),
    "NumPy operand in place on the left": (TypeError, lambda x, a: operator.iadd(a, x)),
    "NumPy out": (TypeError, lambda x, a: np.add(x, x, out=a)),
    "NumPy matmul": (TypeError, lambda x, a: a @ x),
    "NumPy array set": (ValueError, lambda x, a: operator.setitem(x, ..., a)),
    "NumPy where": (TypeError, lambda x, a: np.where(a, x, x)),
    "NumPy copyto": (ValueError, lambda x, a: np.copyto(x, a)),
    "copyto NumPy": (TypeError, lambda x, a: np.copyto(a, x)),
    "NumPy concatenate": (TypeError, lambda x, a: np.concatenate([x, a])),
    "NumPy index": (TypeError, lambda x, a: x[np.array([0])]),
    "list index": (TypeError, lambda x, a: x[[0]]),
    "bool index": (TypeError, lambda x, a: x[True]),
    "float index": (TypeError, lambda x, a: x[1.0]),
    "array of floats as index": (IndexError, lambda x, a: x[x]),
    "index out of range": (IndexError, lambda x, a: x[2]),
    "device array in a slice": (TypeError, lambda x, a: x[: np.argmax(x)]),
    "device array as range": (TypeError, lambda x, a: range(np.argmax(x))),
    "device array as index of NumPy's": (TypeError, lambda x, a: a[np.argmax(x)]),
    "asarray": (TypeError, lambda x, a: np.asarray(x)),
    "array": (TypeError, lambda x, a: np.array(x)),
    "ascontiguousarray": (TypeError, lambda x, a: np.ascontiguousarray(x)),
    "as_strided": (TypeError, lambda x, a: np.lib.stride_tricks.as_strided(x, (2,), (8,))),
    "linalg": (TypeError, lambda x, a: np.linalg.norm(x)),
    "a function not listed": (TypeError, lambda x, a: np.cross(x, x)),
    "NumPy vstack": (TypeError, lambda x, a: np.vstack([x, x])),
    "where=": (TypeError, lambda x, a: np.add(x, 1, where=x > 0)),
    "sum where=": (TypeError, lambda x, a: np.sum(x, where=x > 0)),
    "max initial=": (TypeError, lambda x, a: np.max(x, initial=0)),
    "reduce initial=": (TypeError, lambda x, a: np.add.reduce(x, initial=0)),
    "take mode=": (TypeError, lambda x, a: np.take(x, np.argmax(x), mode="clip")),
    "einsum out=": (TypeError, lambda x, a: np.einsum("ij->i", x, out=x[0])),
    "maximum.reduce": (NotImplementedError, lambda x, a: np.maximum.reduce(x)),
    "multiply.reduceat": (NotImplementedError, lambda x, a: np.multiply.reduceat(x, np.argmax(x))),
    "add.accumulate": (NotImplementedError, lambda x, a: np.add.accumulate(x)),
    "add.at": (NotImplementedError, lambda x, a: np.add.at(x, 0, 1)),
    "add.outer": (NotImplementedError, lambda x, a: np.add.outer(x, x)),
    "modf, of two results": (TypeError, lambda x, a: np.modf(x)),
    "out too small": (ValueError, lambda x, a: np.add(x, x, out=x[0])),
    "out of another kind": (TypeError, lambda x, a: np.add(x, 0.5, out=strict.zeros(x.shape, int))),
    "sum's out of another shape": (ValueError, lambda x, a: np.sum(x, axis=0, out=strict.zeros(2))),
    "vecdot": (TypeError, lambda x, a: np.vecdot(x, x)),
    "truth of many": (ValueError, lambda x, a: bool(x)),
    "len of a scalar": (TypeError, lambda x, a: len(x[0, 0])),
    "iteration over a scalar": (TypeError, lambda x, a: iter(x[0, 0])),
    "hash": (TypeError, lambda x, a: hash(x)),
    "set of another dtype": (TypeError, lambda x, a: x.set(a.astype("float32"))),
    "set of a list": (TypeError, lambda x, a: x.set([[1]])),
    "get's out": (NotImplementedError, lambda x, a: x.get(out=a)),
    "an object array": (ValueError, lambda x, a: strict.asarray(np.array([None]))),
    "another stand-in's array": (TypeError, lambda x, a: x + Strict().zeros(x.shape)),
    "pickle": (TypeError, lambda x, a: x.__reduce_ex__(2)),
    "a name CuPy lacks": (AttributeError, lambda x, a: strict.vecdot),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals(what):
    a = numbers(7, (2, 3), "float64")
    error, call = REFUSED[what]
    x = strict.asarray(a)
    with pytest.raises(error):
        call(x, a)
    np.testing.assert_array_equal(x.get(), numbers(7, (2, 3), "float64"))
    np.testing.assert_array_equal(a, numbers(7, (2, 3), "float64"))


def test_new_memory_is_poison():
    assert np.isnan(strict.empty(3).get()).all()
    assert (strict.empty(3, "uint8").get() == 0xAB).all()
    assert strict.empty(2, "int64").get().tobytes() == b"\xab" * 16


def test_synchronizations_are_counted():
    own = strict.fresh()
    x = own.asarray([1.0, 2.0])
    assert own.synchronizations == 0
    for count, wait in enumerate(
        [x.get, x.tolist, x[0].item, lambda: bool(x[0]), lambda: float(x[1]), lambda: x[x > 1], x.nonzero], 1
    ):
        wait()
        assert own.synchronizations == count
    assert strict.synchronizations != own.synchronizations or strict is not own


def captured(cupy, work):
    """(stream, graph, pool and results) of the work."""
    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
    with stream, cupy.cuda.using_allocator(pool.malloc):
        stream.begin_capture()
        try:
            kept = work()
        finally:
            graph = stream.end_capture()
    return stream, graph, (pool, kept)


def test_a_graph_computes_when_launched_and_with_the_memory_as_it_is_then():
    cupy = Strict()
    x, index = cupy.asarray([1.0, 2.0, 3.0]), cupy.asarray(1)

    def work():
        y = np.exp(x * 2)
        np.add(x, 1, out=x)
        z = y[None, index[None]].sum()
        x[:1] = 0
        return y, z, x.reshape(3, 1).copy()

    stream, graph, (pool, (y, z, late)) = captured(cupy, work)
    check = np.testing.assert_array_equal
    check(x.get(), [1, 2, 3])
    assert np.isnan(y.get()).all()
    assert np.isnan(late.get()).all()
    graph.launch(stream)
    check(y.get(), np.exp([2.0, 4.0, 6.0]))
    check(x.get(), [0, 3, 4])
    x.set(np.array([5.0, 6.0, 7.0]))
    index.set(np.array(2))
    graph.launch(stream)
    check(y.get(), np.exp([10.0, 12.0, 14.0]))
    check(z.get(), np.exp(14.0))
    check(late.get(), [[0], [7], [8]])
    del pool


WAITS = {
    "get": lambda cupy, x: x.get(),
    "item": lambda cupy, x: x[0].item(),
    "truth": lambda cupy, x: bool(x[0] > 0),
    "a mask": lambda cupy, x: x[x > 0],
    "a mask set": lambda cupy, x: operator.setitem(x, x > 0, 1),
    "nonzero": lambda cupy, x: x.nonzero(),
    "from the host": lambda cupy, x: cupy.asarray(np.ones(2)),
    "set": lambda cupy, x: x.set(np.ones(3)),
    "synchronize": lambda cupy, x: cupy.cuda.get_current_stream().synchronize(),
}


@pytest.mark.parametrize("what", WAITS)
def test_a_capture_refuses_the_host(what):
    cupy = Strict()
    x = cupy.asarray([1.0, 2.0, 3.0])

    def work():
        with pytest.raises(CUDARuntimeError, match="Unsupported"):
            WAITS[what](cupy, x)

    with pytest.raises(CUDARuntimeError, match="Invalidated"):
        captured(cupy, work)


def test_a_capture_refuses_cublas_and_memory_that_is_not_its_own():
    cupy = Strict()
    x = cupy.ones((2, 2))
    for product in (lambda: x @ x, lambda: np.einsum("ij,jk", x, x), lambda: cupy.dot(x, x)):
        with pytest.raises(NotImplementedError, match="cuBLAS"):
            captured(cupy, product)
    stream = cupy.cuda.Stream()
    with stream:
        stream.begin_capture()
        with pytest.raises(CUDARuntimeError, match="pool"):
            cupy.empty(3)
    with pytest.raises(RuntimeError, match="legacy"):
        cupy.cuda.get_current_stream().begin_capture()


def test_a_capture_refuses_what_would_fail_later():
    cupy = Strict()
    x = cupy.ones((2, 2))
    for wrong in (
        lambda: np.add(x, 1, out=x[0]),
        lambda: operator.setitem(x, 0, cupy.ones(3)),
        lambda: np.copyto(x, cupy.ones(3)),
    ):
        with pytest.raises(ValueError, match="broadcast"):
            captured(cupy, wrong)


def test_a_graph_keeps_no_memory_alive():
    cupy = Strict()
    x, others = cupy.ones(3), [cupy.ones(3)]
    stream, graph, (pool, kept) = captured(cupy, lambda: np.multiply(x, others[0], out=x).sum())
    graph.launch(stream)
    others.clear()
    gc.collect()
    with pytest.raises(AssertionError, match="freed"):
        graph.launch(stream)
    stream, graph, (pool, kept) = captured(cupy, lambda: x.sum())
    del pool, kept
    gc.collect()
    with pytest.raises(AssertionError, match="freed"):
        graph.launch(stream)


def test_memory_is_counted_and_limited():
    cupy = Strict()
    pool = cupy.get_default_memory_pool()
    x = cupy.zeros(1024, "uint8")
    view = x[10:20].reshape(2, 5)
    assert pool.used_bytes() == 1024
    del x
    gc.collect()
    assert pool.used_bytes() == 1024
    with cupy.limit_memory(2048):
        y = view + 1
        with pytest.raises(OutOfMemoryError, match="Out of memory allocating 1,024 bytes"):
            cupy.empty(600, "uint8")
    del view, y
    gc.collect()
    assert pool.used_bytes() == 0
    cupy.empty(10**5)
    assert copy.deepcopy(cupy.ones(3)).get().tolist() == [1, 1, 1]


# Twins


def scale(x, factor, out=None):
    return np.multiply(x, factor, out=out)


def pick(scores, labels):
    return scores[np.arange(len(labels)), labels]


def rectify(x, bias, out, zeros):
    return np.maximum(x, zeros(x), out=out)


def moments(rows, centred, shard):
    mean = np.mean(rows, axis=0)
    np.subtract(rows, mean, out=centred)
    return mean, np.mean(centred**2, axis=0)


def take_rows(data, order, start, out):
    np.copyto(out, data[order[start : start + len(out)]])
    return out


@pytest.fixture
def twins(monkeypatch):
    """(stand-in, its Twins) with small operations of this module."""
    module, operations = ModuleType("tests.small_operations"), {}
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(backend, "OPERATIONS", operations)
    for twin in (scale, pick, rectify, moments, take_rows):
        operations[twin.__name__] = module.__name__
        monkeypatch.setattr(twin, "__module__", module.__name__)
        setattr(module, twin.__name__, backend.operation(twin))
    cupy = Strict()
    return cupy, Twins(cupy)


def test_twins_compute_at_once_or_in_a_graph(twins):
    cupy, kernels = twins
    x, factor = cupy.asarray([[1.0, -2.0], [3.0, 4.0]]), cupy.asarray(2.0)
    out = cupy.empty((2, 2))
    assert kernels.scale(x, factor, out=out) is out
    check = np.testing.assert_array_equal
    check(out.get(), [[2, -4], [6, 8]])
    check(kernels.scale(x, 3).get(), [[3, -6], [9, 12]])
    check(kernels.rectify(x, None, None, x.fill).get(), [[1, 0], [3, 4]])
    centred = cupy.empty((2, 2))

    def work():
        kernels.scale(x, factor, out=x)
        return kernels.moments(x, centred, None)

    stream, graph, (pool, (mean, var)) = captured(cupy, work)
    check(x.get(), [[1, -2], [3, 4]])
    assert np.isnan(mean.get()).all()
    factor.set(np.array(10.0))
    graph.launch(stream)
    check(x.get(), [[10, -20], [30, 40]])
    check(mean.get(), [20, 10])
    check(var.get(), [100, 900])
    check(centred.get(), [[-10, -30], [10, 30]])
    graph.launch(stream)
    check(mean.get(), [200, 100])
    del pool


def test_twins_read_their_counters_at_each_launch(twins):
    cupy, kernels = twins
    data, order = cupy.asarray(np.arange(6.0)), cupy.asarray([5, 4, 3, 8, 1, 0])
    start, out = cupy.asarray(0), cupy.empty(2)

    def work():
        kernels.take_rows(data, order, start, out)
        np.add(start, 2, out=start)

    stream, graph, pool = captured(cupy, work)
    for expected in ([5, 4], [3, 2], [1, 0]):
        graph.launch(stream)
        np.testing.assert_array_equal(out.get(), expected)
    del pool


def test_twins_refuse_what_kernels_do_not_take(twins):
    cupy, kernels = twins
    x = cupy.ones((2, 2))
    for wrong, error in [
        (lambda: kernels.scale(np.ones(2), 2), TypeError),
        (lambda: kernels.scale(x, np.ones(2)), TypeError),
        (lambda: kernels.scale(x, cupy.ones(2, "float32")), TypeError),
        (lambda: kernels.scale([x], 2), TypeError),
        (lambda: kernels.take_rows(x.T, None, 0, x), ValueError),
        (lambda: kernels.nothing(x), AttributeError),
    ]:
        with pytest.raises(error):
            wrong()


def test_twins_labels_out_of_range_go_unnoticed(twins):
    cupy, kernels = twins
    scores = cupy.asarray(np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(kernels.pick(scores, cupy.asarray([3, -1])).get(), [0, 5])


def test_matmul_is_exact_about_its_result(stand_in):
    a, b = numbers(8, (2, 3, 4), "float32"), numbers(9, (4, 5), "float32")
    x, y = stand_in.asarray(a), stand_in.asarray(b)
    out = stand_in.empty((2, 3, 5), "float32")
    assert backend.matmul(x, y, out=out) is out
    np.testing.assert_array_equal(out.get(), a @ b)
    np.testing.assert_array_equal(backend.matmul(x, y).get(), a @ b)
    with pytest.raises(ValueError, match="matmul, out"):
        backend.matmul(x, y, out=stand_in.empty((1, 2, 3, 5), "float32"))
    with pytest.raises(TypeError, match="one dtype"):
        backend.matmul(x, y, out=stand_in.empty((2, 3, 5)))
    gpu = backend.get_device("gpu")
    with gpu.running():
        replay = gpu.capture(lambda: backend.matmul(x, y, out=out))
        out.fill(0)
        replay()
    np.testing.assert_array_equal(out.get(), a @ b)


# Against CuPy itself, which needs no device for this

PUBLIC = [name for name in vars(Functions) if not name.startswith("_")]


@pytest.fixture(scope="module")
def cupy():
    return pytest.importorskip("cupy", reason="needs the package cupy, though no GPU")


@pytest.mark.parametrize("name", PUBLIC)
def test_functions_have_cupys_arguments(cupy, name):
    def parameters(function):
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    assert parameters(getattr(strict, name)) == parameters(getattr(cupy, name))


def test_cupy_has_the_ufuncs(cupy):
    assert not [name for name in UFUNCS if not hasattr(cupy, name)]


@pytest.mark.parametrize("ufunc", [*BINARY, *UNARY], ids=lambda ufunc: ufunc.__name__)
def test_cupys_ufuncs_give_these_dtypes(cupy, ufunc):
    """The first of CuPy's loops whose inputs the arrays' dtypes can be cast to, as CuPy chooses."""
    loops = [types.split("->") for types in getattr(cupy, ufunc.__name__).types]
    for one in DTYPES:
        for other in DTYPES if ufunc.nin == 2 else [one]:
            given = [one, other][: ufunc.nin]
            found = next(
                (out for ins, out in loops if all(map(np.can_cast, given, ins))),
                None,
            )
            try:
                expected = getattr(strict, ufunc.__name__)(
                    *(strict.ones((1,), dtype) for dtype in given)
                ).dtype
            except TypeError:
                continue  # refused here
            assert found is not None
            assert np.dtype(found) == expected, given
