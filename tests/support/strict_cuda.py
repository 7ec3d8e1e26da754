"""CUDA as the strict stand-in for CuPy sees it: memory that is counted, streams, and graphs of captured work.

All work "on the device" is functions that compute with NumPy. They run at once or, while a stream is captured, only
when the graph is launched.
"""

import threading
import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

TOTAL_BYTES = 1 << 34
BLOCK = 512  # CuPy's pool allocates multiples of this many bytes


class CUDARuntimeError(RuntimeError):
    """Stands in for cupy.cuda.runtime's."""


class OutOfMemoryError(MemoryError):
    """Stands in for cupy.cuda.memory's."""


class Raw:
    """cupy.cuda.memory.Memory: what CUDA itself allocates, held until nothing refers to it."""

    _cuda: "Cuda"

    def __init__(self, size):
        cuda = self._cuda
        if cuda.limit is not None and cuda.live_bytes + size > cuda.limit:
            raise OutOfMemoryError(
                f"Out of memory allocating {size:,} bytes (allocated so far: {cuda.live_bytes:,} bytes, limit set "
                f"to: {cuda.limit:,} bytes)."
            )
        self.size = size
        cuda.live_bytes += size
        weakref.finalize(self, cuda._free, size).atexit = False


class MemoryPointer:
    """cupy.cuda.MemoryPointer."""

    def __init__(self, mem, offset):
        if offset:
            raise NotImplementedError("offset")
        self.mem = mem


class Memory:
    """One allocation: lives as long as the arrays that view it, not as long as graphs that will use it."""

    def __init__(self, pool, raw):
        self.pool, self.raw = pool, raw


class Cuda:
    """Stands in for `cupy.cuda`, with the bookkeeping that the stand-in needs."""

    def __init__(self):
        self.live_bytes, self.limit, self.synchronizations = 0, None, 0
        self._local = threading.local()
        self._null = Stream.__new__(Stream)
        self._null._prepare(self, ptr=0)
        self._streams = 0
        self.Stream = type("Stream", (Stream,), {"_cuda": self, "null": self._null})
        self.MemoryPool = type("MemoryPool", (MemoryPool,), {"_cuda": self})
        self.MemoryPointer = MemoryPointer
        self.default_pool = DefaultPool(self)
        self.memory = SimpleNamespace(
            OutOfMemoryError=OutOfMemoryError, Memory=type("Memory", (Raw,), {"_cuda": self})
        )
        self.runtime = SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            getDeviceCount=lambda: 1,
            getDevice=lambda: 0,
            getDeviceProperties=lambda device: {"name": b"a strict stand-in", "totalGlobalMem": TOTAL_BYTES},
            memGetInfo=lambda: (TOTAL_BYTES - self.live_bytes, TOTAL_BYTES),
            runtimeGetVersion=lambda: 13000,
            driverGetVersion=lambda: 13000,
        )

    # Memory

    @property
    def pool(self):
        """The pool that `using_allocator` has set, or None."""
        return getattr(self._local, "pool", None)

    @contextmanager
    def using_allocator(self, allocator=None):
        """A context in which memory comes from the pool whose ``malloc`` is given."""
        former, self._local.pool = self.pool, None if allocator is None else allocator.__self__
        try:
            yield
        finally:
            self._local.pool = former

    @contextmanager
    def limited(self, limit):
        former, self.limit = self.limit, limit
        try:
            yield
        finally:
            self.limit = former

    def allocate(self, shape, dtype, order="C"):
        """(poisoned array, its Memory)."""
        dtype = np.dtype(dtype)
        if dtype.kind not in "biufc" or dtype.itemsize > (16 if dtype.kind == "c" else 8):
            raise ValueError(f"Unsupported dtype {dtype}")
        capture = self.get_current_stream()._capture
        if capture is not None and self.pool is None:
            raise CUDARuntimeError(
                "memory during a capture must come from the graph's own pool: others would be given it as well"
            )
        data = np.empty(shape, dtype, order)
        size = -(-data.nbytes // BLOCK) * BLOCK
        raw = self.memory.Memory(size) if self.pool is None else self.pool.malloc(size).mem
        poison(data)
        return data, Memory(self.pool, raw)

    def _free(self, size):
        self.live_bytes -= size

    # Work

    def get_current_stream(self):
        return getattr(self._local, "streams", [self._null])[-1]

    @property
    def capturing(self):
        return self.get_current_stream()._capture is not None

    def launch(self, work, arrays):
        """Run ``work``, which uses these arrays, or record it if the current stream is being captured."""
        capture = self.get_current_stream()._capture
        if capture is None:
            with np.errstate(all="ignore"):
                work()
        else:
            capture.record(work, [array._memory for array in arrays])

    def synchronize(self, what):
        """Count that the host waits for the device; this invalidates a capture in progress."""
        self.synchronizations += 1
        self.refuse_capture(what)

    def refuse_capture(self, what):
        capture = self.get_current_stream()._capture
        if capture is not None:
            capture.invalid = what
            raise CUDARuntimeError(
                f"cudaErrorStreamCaptureUnsupported: {what} is not permitted when stream is capturing"
            )


class Stream:
    """cupy.cuda.Stream."""

    _cuda: Cuda

    def __init__(self, null=False, ptds=False, non_blocking=False):
        if null or ptds:
            raise NotImplementedError("only new streams")
        self._cuda._streams += 1
        self._prepare(self._cuda, ptr=self._cuda._streams << 8)

    def _prepare(self, cuda, ptr):
        self._cuda, self.ptr, self._capture = cuda, ptr, None

    def __enter__(self):
        local = self._cuda._local
        local.streams = [*getattr(local, "streams", [self._cuda._null]), self]
        return self

    def __exit__(self, *error):
        self._cuda._local.streams.pop()

    def synchronize(self):
        if self._capture is not None:
            self._capture.invalid = "synchronize"
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: synchronize during a capture")

    def begin_capture(self):
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self._capture is not None:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream is already capturing")
        self._capture = Graph(self._cuda)

    def is_capturing(self):
        return self._capture is not None

    def end_capture(self):
        graph, self._capture = self._capture, None
        if graph is None:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream is not capturing")
        if graph.invalid:
            raise CUDARuntimeError(f"cudaErrorStreamCaptureInvalidated: by {graph.invalid}")
        return graph


class Graph:
    """cupy.cuda.Graph: what was captured, in order. Like CUDA's, it keeps no memory alive."""

    def __init__(self, cuda):
        self._cuda, self._works, self._used, self.invalid = cuda, [], set(), ""

    def record(self, work, memories):
        self._works.append(work)
        for memory in memories:
            # The graph's own pool keeps its memory, even what was released during the capture.
            own = memory.pool is not None and memory.pool is self._cuda.pool
            self._used.add(weakref.ref(memory.raw if own else memory))

    def launch(self, stream=None):
        self._cuda.refuse_capture("launching a graph")
        if any(used() is None for used in self._used):
            raise AssertionError(
                "the graph uses memory that was freed after the capture; keep its arrays and its pool"
            )
        for work in self._works:
            with np.errstate(all="ignore"):
                work()


class MemoryPool:
    """cupy.cuda.MemoryPool: keeps what it has allocated until memory runs short.

    Args: allocator: returns a MemoryPointer for a number of bytes; None uses CUDA's own memory.
    """

    _cuda: Cuda

    def __init__(self, allocator=None):
        self._allocator = allocator or (lambda size: MemoryPointer(self._cuda.memory.Memory(size), 0))
        self._kept = []

    def malloc(self, size):
        try:
            pointer = self._allocator(size)
        except OutOfMemoryError:
            self.free_all_blocks()
            pointer = self._allocator(size)
        self._kept.append(pointer.mem)
        return pointer

    def free_all_blocks(self):
        self._kept.clear()  # arrays hold what they use


class DefaultPool:
    """What get_default_memory_pool() returns."""

    def __init__(self, cuda):
        self._cuda = cuda
        self.freed = 0

    def used_bytes(self):
        return self._cuda.live_bytes

    def total_bytes(self):
        return self._cuda.live_bytes

    def free_all_blocks(self):
        self.freed += 1


def poison(data):
    """Fill an array as uninitialised memory is filled here, so that no result of it can pass for a right one."""
    # A byte that is neither 0 nor 1 is not a valid bool: NumPy may crash on it.
    data[...] = {"f": np.nan, "c": np.nan, "b": True}.get(data.dtype.kind, 0)
    if data.dtype.kind in "iu":
        data[...] = np.frombuffer(b"\xab" * data.dtype.itemsize, data.dtype)[0]
