"""The strict stand-in for CuPy: memory, waiting for the device, and graphs that compute only when launched."""

import copy
import gc
import operator

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from tests.support.strict_arrays import Strict
from tests.support.strict_cuda import CUDARuntimeError, OutOfMemoryError


def test_new_memory_is_poison():
    assert np.isnan(Strict().empty(3).get()).all()
    assert (Strict().empty(3, "uint8").get() == 0xAB).all()
    assert Strict().empty(2, "int64").get().tobytes() == b"\xab" * 16


def test_synchronizations_are_counted():
    own, other = Strict(), Strict()
    x = own.asarray([1.0, 2.0])
    assert own.synchronizations == 0
    for count, wait in enumerate(
        [x.get, x.tolist, x[0].item, lambda: bool(x[0]), lambda: float(x[1]), lambda: x[x > 1], x.nonzero], 1
    ):
        wait()
        assert own.synchronizations == count
    assert other.synchronizations == 0


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
    np.copyto(x, cupy.asarray([5.0, 6.0, 7.0]))
    np.copyto(index, cupy.asarray(2))
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
    "graph": lambda cupy, x: captured(cupy, lambda: None)[1].launch(),
    "from the host": lambda cupy, x: cupy.asarray(np.ones(2)),
    "a blocking copy": lambda cupy, x: cupy.asarray(np.ones(2), blocking=True),
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


STEPS = {
    "add": lambda x, y: np.add(x, y, out=x),
    "a new array": lambda x, y: np.copyto(y, np.tanh(x) + y[::-1]),
    "rows": lambda x, y: operator.setitem(x, slice(1, 3), y[:2] * 0.5),
    "a column": lambda x, y: operator.isub(x, x[:, :1]),
    "a sum": lambda x, y: np.divide(y, np.abs(x).sum() + 1, out=y),
    "a mean": lambda x, y: np.subtract(y, np.mean(y, axis=0), out=y),
    "indices": lambda x, y: np.copyto(x, y[np.argsort(x[:, 0])]),
    "a choice": lambda x, y: np.copyto(y, np.where(x > y, x, y).T.reshape(y.shape)),
    "scattered": lambda x, y: operator.setitem(y, np.argsort(y[:, 1]), x),
    "a reshaped copy": lambda x, y: np.multiply(x, x.T.reshape(x.shape), out=x),
}


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=6), st.integers(1, 3))
def test_a_graph_does_what_its_work_does(steps, launches):
    cupy = Strict()
    start = np.random.default_rng(0).standard_normal((2, 4, 3))
    x, y = (cupy.asarray(part) for part in start)

    def work():
        for step in steps:
            STEPS[step](x, y)

    for _ in range(launches):
        work()
    expected = x.get(), y.get()
    np.copyto(x, cupy.asarray(start[0]))
    np.copyto(y, cupy.asarray(start[1]))
    stream, graph, pool = captured(cupy, work)
    np.testing.assert_array_equal([x.get(), y.get()], start)
    for _ in range(launches):
        graph.launch(stream)
    np.testing.assert_array_equal([x.get(), y.get()], expected)
    del pool
