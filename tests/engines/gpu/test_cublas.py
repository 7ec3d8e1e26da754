"""The calls of cuBLAS, with an implementation of its functions on host memory, tests/cublas_reference.cpp."""

import ctypes
import gc
import importlib.util
import itertools
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from tinynet.engines.gpu import cublas
from tinynet.engines.gpu.cublas import CublasError, Gemm

MAJOR = 99  # the reference's version, which no cuBLAS has


class DeviceArray(np.ndarray):
    """A NumPy array that gives its address as CuPy's do."""

    @property
    def data(self):
        return SimpleNamespace(ptr=self.__array_interface__["data"][0])


class StandIn:
    """What Gemm uses of CuPy, in NumPy."""

    __version__ = "14.0"
    ndarray = DeviceArray

    def __init__(self, library, major=MAJOR):
        self.library = library
        self.copies = 0
        self.thread = threading.local()
        self.cuda = self
        self.runtime = SimpleNamespace(runtimeGetVersion=lambda: 1000 * major + 30)

    @property
    def cublas(self):
        """At this point, CuPy loads its own wrapper, which is linked to the library."""
        return ctypes.CDLL(self.library)

    def get_current_stream(self):
        return SimpleNamespace(ptr=getattr(self.thread, "stream", 0))

    def empty(self, shape, dtype):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = np.empty(size + 512, np.uint8)
        start = -memory.ctypes.data % 512  # CuPy's memory is aligned like this
        return memory[start : start + size].view(dtype).reshape(shape).view(DeviceArray)

    def ascontiguousarray(self, array):
        self.copies += 1
        return np.ascontiguousarray(array).view(DeviceArray)

    def broadcast_to(self, array, shape):
        return np.broadcast_to(array, shape, subok=True)


class Product(ctypes.Structure):
    """An entry of the reference's log."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("stream", "workspace", "workspace_size", "compute", "batched", "count", "c")
    ]


class Reference:
    """The reference, compiled, and its log."""

    def __init__(self, path):
        self.path = path
        self.library = ctypes.CDLL(path)
        self.library.reference_product.restype = ctypes.POINTER(Product)

    def products(self):
        return [self.library.reference_product(i)[0] for i in range(self.library.reference_products())]

    def handles(self):
        return self.library.reference_handles()

    def fail(self, function, status):
        self.library.reference_fail(function.encode(), status)


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    compiler = shutil.which("g++")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs g++ and Linux's names for libraries")
    path = tmp_path_factory.mktemp("cublas") / f"libcublas.so.{MAJOR}"
    source = Path(__file__).with_name("cublas_reference.cpp")
    flags = ["-std=c++17", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{path.name}"]
    subprocess.run([compiler, *flags, str(source), "-o", str(path)], check=True)
    return Reference(str(path))


@pytest.fixture(scope="session")
def gemm(reference):
    return Gemm(StandIn(reference.path))


def on_device(array):
    return array.view(DeviceArray)


@dataclass
class Laid:
    """An array somewhere in larger memory."""

    array: np.ndarray
    memory: np.ndarray
    rest: np.ndarray  # a mask of the memory outside the array

    def rest_is(self, value):
        return np.array_equal(self.memory[self.rest], np.full(self.rest.sum(), value), equal_nan=True)


def lay_out(values, order, margins, steps):
    """Put the values in memory with the axes in that order, with NaN around and between them."""
    sizes = [
        before + (size - 1) * abs(step) + 1 + after if size else before + after
        for size, (before, after), step in zip(values.shape, margins, steps, strict=True)
    ]
    memory = np.full([sizes[axis] for axis in order], np.nan, values.dtype)
    rest = np.ones(memory.shape, bool)

    def view(whole):
        whole = whole.transpose(np.argsort(order))
        for axis, (size, (before, _), step) in enumerate(zip(values.shape, margins, steps, strict=True)):
            whole = np.moveaxis(np.moveaxis(whole, axis, 0)[before:][:: abs(step)][:size], 0, axis)
            whole = np.flip(whole, axis) if step < 0 else whole
        return whole

    array = on_device(view(memory))
    array[...] = values
    view(rest)[...] = False
    assert array.shape == values.shape
    return Laid(array, memory, rest)


@st.composite
def layouts(draw, ndim):
    """Arguments of lay_out, mostly with steps of 1 in memory, because only those need no copy."""
    order = draw(st.permutations(range(ndim)))
    margins = [draw(st.sampled_from([(0, 0), (0, 0), (1, 0), (2, 3)])) for _ in range(ndim)]
    steps = [draw(st.sampled_from([1, 1, 1, 1, 2, -1])) for _ in range(ndim)]
    return order, margins, steps


@st.composite
def operands(draw):
    """a, b, and out, laid out; integers, whose products are exact in any order and in TF32."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    sizes = st.integers(1, 5)
    m, k, n = draw(sizes), draw(sizes), draw(sizes)
    batch = draw(st.lists(st.integers(1, 4), max_size=3))

    def one(rows, columns):
        leading = [size if draw(st.booleans()) else 1 for size in batch][draw(st.integers(0, len(batch))) :]
        values = rng.integers(-4, 5, (*leading, rows, columns)).astype(dtype)
        laid = lay_out(values, *draw(layouts(values.ndim)))
        axis = draw(st.integers(0, values.ndim - 1))
        if draw(st.integers(0, 4)) == 0:  # the same element again and again, by a stride of 0
            laid.array = np.broadcast_to(laid.array.take([0], axis), values.shape, subok=True)
        if draw(st.booleans()):  # an axis of size 1 may have any stride
            odd = draw(st.sampled_from([0, 8, 24, -16, 1 << 40]))
            strides = [
                odd if size == 1 else s for s, size in zip(laid.array.strides, values.shape, strict=True)
            ]
            laid.array = np.lib.stride_tricks.as_strided(laid.array, strides=strides, subok=True)
        return laid.array

    a, b = one(m, k), one(k, n)
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), m, n)
    return a, b, lay_out(np.full(shape, np.nan, dtype), *draw(layouts(len(shape))))


@given(operands())
@settings(max_examples=300)
def test_any_shapes_and_layouts_multiply_as_in_numpy(gemm, case):
    a, b, out = case
    expected = np.matmul(np.asarray(a), np.asarray(b))
    a_before, b_before = a.copy(), b.copy()
    assert gemm.matmul(a, b, out=out.array) is out.array
    np.testing.assert_array_equal(out.array, expected)
    assert out.rest_is(np.nan)
    np.testing.assert_array_equal(a, a_before)
    np.testing.assert_array_equal(b, b_before)
    new = gemm.matmul(a, b)
    np.testing.assert_array_equal(new, expected)
    assert new.flags.c_contiguous
    assert new.dtype == a.dtype


def random(*shape, dtype=np.float32):
    return on_device(np.random.default_rng(0).integers(-4, 5, shape).astype(dtype))


def spectrum():
    """Frequencies of all channels, as a convolution keeps them: (count, c, n) in memory, viewed as (c, count, n)."""
    c, p, n, count = 3, 6, 4, 5
    memory = random(count, c, n)
    return random(count, p), random(c * p, n).reshape(c, p, n), memory.transpose(1, 0, 2)


UNCOPIED = {
    "dense": lambda: (random(3, 4), random(4, 5), random(3, 5)),
    "a transposed": lambda: (random(4, 3).T, random(4, 5), random(3, 5)),
    "b transposed": lambda: (random(3, 4), random(5, 4).T, random(3, 5)),
    "out transposed": lambda: (random(3, 4), random(4, 5), random(5, 3).T),
    "all transposed": lambda: (random(4, 3).T, random(5, 4).T, random(5, 3).T),
    "a column": lambda: (random(3, 4), random(4, 7)[:, 2:3], random(3, 1)),
    "a row": lambda: (random(9, 4)[4:5], random(4, 7), random(1, 7)),
    "one of every two": lambda: (random(8)[::2][None], random(8)[::2][:, None], random(1, 1)),
    "one of every two, as outer product": lambda: (
        random(6)[::2][:, None],
        random(8)[::2][None],
        random(3, 4),
    ),
    "parts of rows": lambda: (random(3, 9)[:, 2:6], random(4, 8)[:, 3:], random(3, 7)[:, 1:6]),
    "stacks": lambda: (random(6, 3, 4), random(6, 4, 5), random(6, 3, 5)),
    "a stack and one": lambda: (random(6, 3, 4), random(4, 5), random(6, 3, 5)),
    "one and a stack": lambda: (random(3, 4), random(6, 4, 5), random(6, 3, 5)),
    "a stack of one": lambda: (random(1, 3, 4), random(6, 4, 5), random(6, 3, 5)),
    "a stack in one": lambda: (random(1, 6, 3, 4), random(6, 4, 5), random(1, 6, 3, 5)),
    "a stack of stacks": lambda: (random(2, 3, 3, 4), random(2, 3, 4, 5), random(2, 3, 3, 5)),
    "a spectrum": spectrum,
}


@pytest.mark.parametrize("name", UNCOPIED)
def test_layouts_of_the_layers_take_one_call_and_no_copy(reference, name):
    a, b, out = UNCOPIED[name]()
    stand_in = StandIn(reference.path)
    gemm, before = Gemm(stand_in), len(reference.products())
    gemm.matmul(a, b, out=out)
    np.testing.assert_array_equal(out, np.matmul(np.asarray(a), np.asarray(b)))
    (product,) = reference.products()[before:]
    assert stand_in.copies == 0
    assert product.c == out.data.ptr
    assert product.batched == (out.ndim > 2)


def packed():
    """Numbers whose distance in memory is not a multiple of their size."""
    return on_device(np.zeros((3, 4), [("skipped", "u1"), ("number", "f4")])["number"])


COPIED = {
    "backwards": lambda: random(3, 4)[:, ::-1],
    "every other in both": lambda: random(6, 8)[::2, ::2],
    "rows that overlap": lambda: np.lib.stride_tricks.sliding_window_view(random(6), 4, subok=True),
    "one row again and again": lambda: np.broadcast_to(random(1, 4), (3, 4), subok=True),
    "a stack backwards": lambda: random(5, 3, 4)[::-1],
    "a stack of stacks, the inner repeated": lambda: np.broadcast_to(
        random(2, 1, 3, 4), (2, 3, 3, 4), subok=True
    ),
    "packed with others": packed,
}


@pytest.mark.parametrize("name", COPIED)
def test_layouts_that_cublas_does_not_take_are_copied(reference, name):
    a, b = COPIED[name](), random(4, 5)
    stand_in = StandIn(reference.path)
    result = Gemm(stand_in).matmul(a, b)
    np.testing.assert_array_equal(result, np.matmul(np.asarray(a), np.asarray(b)))
    assert stand_in.copies == 1


@pytest.mark.parametrize(
    "shapes", [((0, 3), (3, 2)), ((3, 2), (2, 0)), ((0, 3, 2), (2, 4)), ((0, 0), (0, 0))]
)
def test_empty_products(gemm, reference, shapes):
    before = len(reference.products())
    a, b = (random(*shape) for shape in shapes)
    assert gemm.matmul(a, b).shape == np.matmul(np.asarray(a), np.asarray(b)).shape
    assert len(reference.products()) == before


@pytest.mark.parametrize("leading", [(), (4,)])
def test_sums_of_nothing_are_zero(gemm, leading):
    a, b, shape = random(*leading, 3, 0), random(0, 2), (*leading, 3, 2)
    out = lay_out(
        np.full(shape, np.nan, np.float32), range(len(shape)), [(1, 1)] * len(shape), [2] * len(shape)
    )
    gemm.matmul(a, b, out=out.array)
    np.testing.assert_array_equal(out.array, np.zeros(shape))
    assert out.rest_is(np.nan)
    np.testing.assert_array_equal(gemm.matmul(a, b), np.zeros(shape))


REFUSED = {
    "a from NumPy": (TypeError, lambda: (np.ones((2, 2)), random(2, 2)), "expected a on the GPU"),
    "b from NumPy": (TypeError, lambda: (random(2, 2), np.ones((2, 2), "f4")), r"give cupy.asarray\(b\)"),
    "whole numbers": (TypeError, lambda: (random(2, 2, dtype=int), random(2, 2, dtype=int)), "int64"),
    "half": (TypeError, lambda: (random(2, 2, dtype="f2"), random(2, 2, dtype="f2")), "float16"),
    "complex": (TypeError, lambda: (random(2, 2, dtype="c8"), random(2, 2, dtype="c8")), "complex64"),
    "two dtypes": (TypeError, lambda: (random(2, 2), random(2, 2, dtype="f8")), "b float64 with a float32"),
    "a vector": (ValueError, lambda: (random(2), random(2, 2)), r"a with 2 axes or more, got \(2,\)"),
    "other k": (ValueError, lambda: (random(2, 3), random(2, 3)), r"got \(2, 3\) and \(2, 3\)"),
    "other stacks": (
        ValueError,
        lambda: (random(2, 3, 3), random(4, 3, 3)),
        r"got \(2, 3, 3\) and \(4, 3, 3\)",
    ),
    "too large": (
        ValueError,
        lambda: (np.broadcast_to(random(1, 1), (2**31, 1), subok=True), random(1, 1)),
        r"sizes below 2\^31",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_operands(gemm, reference, name):
    kind, operands, message = REFUSED[name]
    before = len(reference.products())
    with pytest.raises(kind, match=message):
        gemm.matmul(*operands())
    assert len(reference.products()) == before


@pytest.mark.parametrize(
    ("kind", "out", "message"),
    [
        (TypeError, lambda: np.full((2, 3), 7, np.float32), "expected out on the GPU"),
        (TypeError, lambda: on_device(np.full((2, 3), 7.0)), "out float64 with a float32"),
        (
            ValueError,
            lambda: on_device(np.full((3, 2), 7, np.float32)),
            r"out of shape \(2, 3\), got \(3, 2\)",
        ),
        (ValueError, lambda: on_device(np.full((1, 2, 3), 7, np.float32)), r"out of shape \(2, 3\)"),
    ],
)
def test_refused_out_stays_as_it_was(gemm, kind, out, message):
    out = out()
    with pytest.raises(kind, match=message):
        gemm.matmul(random(2, 4), random(4, 3), out=out)
    np.testing.assert_array_equal(out, np.full(out.shape, 7))


OVERLAPS = {  # a, b and out
    "a": lambda memory: (memory[:16], memory[16:32], memory[:16]),
    "b": lambda memory: (memory[:16], memory[16:32], memory[16:32]),
    "part of b": lambda memory: (memory[:16], memory[16:32], memory[24:40]),
    "the last of a": lambda memory: (memory[:16], memory[40:56], memory[15:31]),
    "the first of b": lambda memory: (memory[:16], memory[31:47], memory[16:32]),
    "a backwards": lambda memory: (memory[:16], memory[16:32], memory[15::-1]),
}


@pytest.mark.parametrize("name", OVERLAPS)
def test_out_over_an_operand(gemm, name):
    a, b, out = (part.reshape(4, 4) for part in OVERLAPS[name](random(64)))
    expected = np.matmul(np.array(a), np.array(b))
    gemm.matmul(a, b, out=out)
    np.testing.assert_array_equal(out, expected)


def test_tf32_is_a_choice_and_reaches_cublas(gemm, reference):
    rng = np.random.default_rng(1)
    a, b = (on_device(rng.uniform(1, 2, (8, 8))) for _ in range(2))
    exact = np.matmul(np.asarray(a), np.asarray(b))
    assert not cublas.tf32_allowed()

    def error(dtype, compute):
        result = gemm.matmul(a.astype(dtype), b.astype(dtype))
        assert reference.products()[-1].compute == compute
        return np.abs(result / exact - 1).max()

    assert error(np.float32, 68) < 1e-6
    cublas.allow_tf32(True)
    try:
        assert cublas.tf32_allowed()
        assert 1e-5 < error(np.float32, 77) < 1e-3
        assert error(np.float64, 70) < 1e-14
    finally:
        cublas.allow_tf32(False)
    assert error(np.float32, 68) < 1e-6


def test_each_stream_has_its_workspace_at_each_product(reference):
    """Setting the stream makes cuBLAS forget its workspace, so it must be set again."""
    stand_in = StandIn(reference.path)
    gemm, before = Gemm(stand_in), len(reference.products())
    for stand_in.thread.stream in (0, 512, 512, 0):
        gemm.matmul(random(2, 3), random(3, 2))
    products = reference.products()[before:]
    assert [p.stream for p in products] == [0, 512, 512, 0]
    assert {p.workspace_size for p in products} == {32 << 20}
    first, second, third, fourth = (p.workspace for p in products)
    assert first == fourth
    assert second == third
    assert first != second


def test_threads_take_turns(reference):
    """Each product runs on the stream of the thread that called it."""
    stand_in = StandIn(reference.path)
    gemm, before = Gemm(stand_in), len(reference.products())
    a, b = random(16, 16), random(16, 16)
    expected = np.matmul(np.asarray(a), np.asarray(b))
    outs = {512 * (i + 1): [on_device(np.empty((16, 16), np.float32)) for _ in range(100)] for i in range(4)}

    def work(stream):
        stand_in.thread.stream = stream
        for out in outs[stream]:
            gemm.matmul(a, b, out=out)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, outs))
    for out in itertools.chain(*outs.values()):
        np.testing.assert_array_equal(out, expected)
    stream_of = {p.c: p.stream for p in reference.products()[before:]}
    assert stream_of == {out.data.ptr: stream for stream, of_stream in outs.items() for out in of_stream}


@pytest.mark.parametrize(
    ("function", "status", "name"),
    [
        ("cublasCreate_v2", 1, "CUBLAS_STATUS_NOT_INITIALIZED"),
        ("cublasSetStream_v2", 7, "CUBLAS_STATUS_INVALID_VALUE"),
        ("cublasSetWorkspace_v2", 7, "CUBLAS_STATUS_INVALID_VALUE"),
        ("cublasGemmEx", 13, "CUBLAS_STATUS_EXECUTION_FAILED"),
        ("cublasGemmStridedBatchedEx", 3, "CUBLAS_STATUS_ALLOC_FAILED"),
    ],
)
def test_statuses_become_errors(reference, function, status, name):
    matrices = random(2, 3, 3) if "Batched" in function else random(3, 3)
    reference.fail(function, status)
    try:
        with pytest.raises(CublasError, match=f"{function} failed with status {status}, {name}"):
            Gemm(StandIn(reference.path)).matmul(matrices, matrices)
    finally:
        reference.fail("", 0)


def test_a_handle_goes_with_its_object(reference):
    gc.collect()
    before = reference.handles()
    gemm = Gemm(StandIn(reference.path))
    assert reference.handles() == before + 1
    del gemm
    gc.collect()
    assert reference.handles() == before


def test_a_library_under_another_name_is_found_by_cuda_pathfinder(reference, monkeypatch):
    pathfinder = ModuleType("cuda.pathfinder")
    pathfinder.load_nvidia_dynamic_lib = lambda name: SimpleNamespace(
        abs_path={"cublas": reference.path}[name]
    )
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", pathfinder)
    result = Gemm(StandIn(reference.path, major=98)).matmul(random(2, 3), random(3, 2))
    np.testing.assert_array_equal(result, np.matmul(np.asarray(random(2, 3)), np.asarray(random(3, 2))))


def test_no_library_is_explained():
    with pytest.raises(CublasError, match=r"98.*CuPy 14.0.*no-such-file.*pip install 'cupy-cuda98x\[ctk\]'"):
        Gemm(StandIn("/no-such-file", major=98))


def test_the_module_needs_no_cupy():
    code = "import sys, tinynet.engines.gpu.cublas; sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
def test_real_cupy_without_a_device_is_refused_with_the_reason():
    import cupy

    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        devices = 0
    if devices:
        pytest.skip("there is a GPU")
    with pytest.raises(CublasError, match="cuBLAS"):
        Gemm(cupy)
