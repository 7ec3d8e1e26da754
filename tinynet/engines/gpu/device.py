"""The GPU's memory, streams and graphs, through CuPy."""

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
    """A CUDA device, with CuPy arrays.

    Args: cupy: the module; kernels: an object whose methods are the operations of OPERATIONS.
    """

    name = "gpu"
    block_elements = 1 << 28  # one large piece keeps a GPU busy; at most 1 GB of float32

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
        # CuPy copies through pinned memory, which it keeps; copying in pieces keeps that small.
        moved = self.empty(array.shape, array.dtype)
        rows = max(1, _PIECE * len(array) // array.nbytes)
        for start in range(0, len(array), rows):
            moved[start : start + rows] = self.cupy.asarray(array[start : start + rows], blocking=True)
        return moved

    def constant(self, array: Array) -> Array:
        # The array is kept too: while it lives, no other array can have its id.
        if id(array) not in self._constants:
            # Blocking, because another thread's stream may read it at once, without waiting for this one.
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
                f"{what}: the model and therefore the batch are on the GPU; move what {what} draws to the GPU with "
                f"cupy.asarray, or use the steps of tinynet.datasets.augment ({error})"
            ) from error

    @contextmanager
    def running(self) -> Iterator[None]:
        """Use one stream for all of a thread's work, and wait for it at the end.

        A graph can't be captured on CUDA's default stream, and a capture records whatever any thread sends to its
        stream.
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
        """Wait for all work; call it within `running`."""
        self._stream.synchronize()

    def capture(self, work: Callable[[], Any]) -> Callable[[], None]:
        """Capture the kernels that ``work`` launches as one CUDA graph; returns a function that runs them again.

        Call it within `running`. Capturing computes nothing. ``work`` must not read anything back. It allocates from
        the graph's own pool, so that nothing else gets that memory while the graph lives.
        """
        cuda, held = self.cupy.cuda, []

        def allocate(size: int) -> Any:
            memory = cuda.memory.Memory(size)
            # Otherwise a pool short of memory would free memory that already captured kernels use.
            held.append(memory)
            return cuda.MemoryPointer(memory, 0)

        self.cupy.get_default_memory_pool().free_all_blocks()  # used by the same step when it ran
        pool = cuda.MemoryPool(allocate)
        with cuda.using_allocator(pool.malloc):
            self._stream.begin_capture()
            try:
                work()
            except BaseException:
                with suppress(Exception):  # reports the capture's error again
                    self._stream.end_capture()
                raise
            graph = self._stream.end_capture()
        pool.free_all_blocks()  # CuPy 15 does not do this when it destroys a pool

        def replay() -> None:
            assert held is not None  # keeps the graph's memory alive
            graph.launch(self._stream)

        return replay

    @contextmanager
    def memory_errors(self, free: Callable[[], Any], advice: Callable[[], str]) -> Iterator[None]:
        try:
            yield
            return
        except self.cupy.cuda.memory.OutOfMemoryError as error:
            reason = str(error)
        # Outside the except block, because the error and its traceback keep arrays alive.
        hint = advice()
        free()
        self.cupy.get_default_memory_pool().free_all_blocks()
        raise DeviceMemoryError(f"out of GPU memory ({reason}); {hint}")


def find_cupy() -> Any:
    """CuPy, if it finds a GPU. Raises: DeviceError: with the reason, before the first semicolon."""
    try:
        import cupy

        version = cupy.__version__  # the leftovers of a removed package have none
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            raise DeviceError(
                "device 'gpu': CuPy is not installed; install it with python -m pip install cupy-cuda12x for CUDA 12, "
                "or cupy-cuda13x for CUDA 13, or use device='cpu'"
            ) from None
        raise DeviceError(
            f"device 'gpu': CuPy is installed but can't be imported: {type(error).__name__}: {error}; fix the cause "
            "or reinstall CuPy, or use device='cpu'"
        ) from error
    try:
        count, reason = cupy.cuda.runtime.getDeviceCount(), "CUDA reports no device"
    except Exception as error:  # its class can't be named without importing its module
        count, reason = 0, f"CUDA reports: {error}"
    if not count:
        raise DeviceError(
            f"device 'gpu': CuPy {version} is installed but finds no GPU: {reason}; install or repair "
            "NVIDIA's driver (nvidia-smi shows what it sees), or use device='cpu'"
        )
    return cupy


def find_gpu() -> Gpu:
    """The GPU, through CuPy. Raises: DeviceError: if there is none, with the reason."""
    cupy = find_cupy()
    return Gpu(cupy, Kernels(cupy))
