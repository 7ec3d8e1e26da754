"""The GPU's memory, streams and graphs, by way of CuPy."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from tinynet.engines.devices import Device
from tinynet.engines.gpu.kernels import Kernels
from tinynet.support.errors import DeviceError, DeviceMemoryError
from tinynet.support.types import Array, Shape

_PIECE = 1 << 26  # bytes of a large array that are copied to the GPU at a time


class Gpu(Device):
    """A CUDA device, and CuPy.

    Args: cupy: the module; kernels: an object whose methods are the operations of OPERATIONS.
    """

    name = "gpu"
    block_elements = 1 << 28  # a GPU is kept busy by one large piece; 1 GB of float32 at most

    def __init__(self, cupy: Any, kernels: Any) -> None:
        self.cupy, self.kernels = cupy, kernels
        self.array_type: type = cupy.ndarray
        self._constants: dict[int, tuple[Array, Array]] = {}
        self._of_thread = threading.local()

    def empty(self, shape: Shape | int, dtype: Any) -> Array:
        array: Array = self.cupy.empty(shape, dtype)
        return array

    def zeros(self, shape: Shape | int, dtype: Any) -> Array:
        array: Array = self.cupy.zeros(shape, dtype)
        return array

    def asarray(self, array: Any) -> Array:
        moved: Array
        if not isinstance(array, np.ndarray) or array.nbytes <= _PIECE:
            moved = self.cupy.asarray(array)
            return moved
        # On its way to the GPU, CuPy copies an array to memory that it locks and keeps: the size of a piece, so.
        moved = self.empty(array.shape, array.dtype)
        rows = max(1, _PIECE * len(array) // array.nbytes)
        for start in range(0, len(array), rows):
            moved[start : start + rows] = self.cupy.asarray(array[start : start + rows], blocking=True)
        return moved

    def constant(self, array: Array) -> Array:
        # Kept beside the array itself: as long as it lives, no other can have its identity.
        if id(array) not in self._constants:
            # All of it is there before another thread's stream, which does not wait for this one, can read it.
            self._constants[id(array)] = array, self.cupy.asarray(array, blocking=True)
        return self._constants[id(array)][1]

    def bring(self, name: str) -> str:
        return f"cupy.asarray({name})"

    def on_host(self, model: Any) -> Any:
        return model.copy(device="cpu")

    def protect(self, array: Array) -> None:
        pass

    @contextmanager
    def mixtures(self, what: str) -> Iterator[None]:
        try:
            yield
        except TypeError as error:
            raise TypeError(
                f"{what}: the model is on the GPU, and so is the batch that it is given; bring what it draws there by "
                f"cupy.asarray, or take the steps of tinynet.datasets.augment ({error})"
            ) from error

    @contextmanager
    def running(self) -> Iterator[None]:
        """One stream for all work of a thread, as a graph can't be captured on CUDA's default stream, and takes in what
        any thread sends to the stream meanwhile; the work has ended at the end.
        """
        if self._stream is None:
            self._of_thread.stream = self.cupy.cuda.Stream(non_blocking=True)
        self.cupy.cuda.get_current_stream().synchronize()
        with self._stream:
            try:
                yield
            finally:
                self._stream.synchronize()

    @property
    def _stream(self) -> Any:
        return getattr(self._of_thread, "stream", None)

    def synchronize(self) -> None:
        """Wait for all work; within `running`."""
        self._stream.synchronize()

    def capture(self, work: Callable[[], Any]) -> Callable[[], None]:
        """The kernels that ``work`` launches, as one CUDA graph: a function that runs them again; within `running`.

        Nothing is computed yet. ``work`` must not read anything back. What it allocates comes from a pool of the
        graph's own, so that nobody else gets that memory as long as the graph lives.
        """
        cuda, held = self.cupy.cuda, []

        def allocate(size: int) -> Any:
            memory = cuda.memory.Memory(size)
            # Else a pool that is short of memory gives up what kernels captured before work in.
            held.append(memory)
            return cuda.MemoryPointer(memory, 0)

        self.cupy.get_default_memory_pool().free_all_blocks()  # what the same step took when it ran
        pool = cuda.MemoryPool(allocate)
        with cuda.using_allocator(pool.malloc):
            self._stream.begin_capture()
            try:
                work()
            except BaseException:
                with suppress(Exception):  # what has gone wrong in the capture, it says again
                    self._stream.end_capture()
                raise
            graph = self._stream.end_capture()
        pool.free_all_blocks()  # which in CuPy 15 a pool does not do at its end

        def replay() -> None:
            assert held is not None  # the graph's memory lives as long as this function
            graph.launch(self._stream)

        return replay

    @contextmanager
    def memory_errors(self, free: Callable[[], Any], advice: Callable[[], str]) -> Iterator[None]:
        try:
            yield
            return
        except self.cupy.cuda.memory.OutOfMemoryError as error:
            reason = str(error)
        # Out here, as the error and its traceback hold on to arrays.
        mend = advice()
        free()
        self.cupy.get_default_memory_pool().free_all_blocks()
        raise DeviceMemoryError(f"the GPU's memory does not suffice ({reason}); {mend}")


def find_cupy() -> Any:
    """The module CuPy, which has found a GPU. Raises: DeviceError: with the reason, up to the first semicolon."""
    try:
        import cupy

        version = cupy.__version__  # which what a removed package leaves behind does not have
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            raise DeviceError(
                "device 'gpu': CuPy is not installed; python -m pip install cupy-cuda12x gets it for CUDA 12, and "
                "cupy-cuda13x is the package for CUDA 13; or give device='cpu'"
            ) from None
        raise DeviceError(
            f"device 'gpu': CuPy is installed and can't be imported: {type(error).__name__}: {error}; repair what it "
            "names or install CuPy anew, or give device='cpu'"
        ) from error
    try:
        count, reason = cupy.cuda.runtime.getDeviceCount(), "CUDA reports no device"
    except Exception as error:  # CuPy's own kind, whose module can't be named without CuPy
        count, reason = 0, f"CUDA reports: {error}"
    if not count:
        raise DeviceError(
            f"device 'gpu': CuPy {version} is installed and finds no GPU: {reason}; install or repair "
            "NVIDIA's driver (nvidia-smi shows what it sees), or give device='cpu'"
        )
    return cupy


def find_gpu() -> Gpu:
    """The GPU, by way of CuPy. Raises: DeviceError: if there is none, with the reason."""
    cupy = find_cupy()
    return Gpu(cupy, Kernels(cupy))
