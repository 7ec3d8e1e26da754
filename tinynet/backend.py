"""Devices: where arrays live, on the CPU or the GPU. Only this module knows that there are two.

Layers, losses and optimizers call NumPy. Given GPU arrays, NumPy dispatches those calls to the GPU by its own
protocols (NEP 13 and 18), so the same lines run there. That leaves memory, which a `Device` allocates, and the
operations of the table below, each of which is a single kernel there instead of a chain of NumPy calls.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, cast

import numpy as np

from tinynet.types import Array, Shape

F = TypeVar("F", bound=Callable[..., Any])

OPERATIONS: dict[str, str] = {
    # operation, also the name of its kernel: the module of its NumPy twin
    "matmul": "tinynet.backend",
    "take_rows": "tinynet.batches",
    "flip_images": "tinynet.datasets.augment",
    "shift_images": "tinynet.datasets.augment",
    "erase_squares": "tinynet.datasets.augment",
    "rectify": "tinynet.layers.activations",
    "rectify_backward": "tinynet.layers.activations",
    "softmax": "tinynet.layers.activations",
    "log_softmax": "tinynet.layers.activations",
    "sum_rows": "tinynet.layers.dense",
    "sum_pixels": "tinynet.layers.conv",
    "channel_products": "tinynet.layers.depthwise",
    "take_windows": "tinynet.layers.patches",
    "add_windows": "tinynet.layers.patches",
    "max_pool": "tinynet.layers.pooling",
    "max_pool_backward": "tinynet.layers.pooling",
    "moments": "tinynet.layers.batchnorm",
    "standardize": "tinynet.layers.batchnorm",
    "move_averages": "tinynet.layers.batchnorm",
    "feature_sums": "tinynet.layers.batchnorm",
    "batchnorm_dx": "tinynet.layers.batchnorm",
    "drop": "tinynet.layers.dropout",
    "softmax_cross_entropy": "tinynet.losses",
    "cross_entropy_gradient": "tinynet.losses",
    "pick": "tinynet.losses",
    "subtract_targets": "tinynet.losses",
    "squared_norm": "tinynet.losses",
    "record": "tinynet.metrics",
    "set_numbers": "tinynet.device_steps",
    "adam_update": "tinynet.optimizers",
    "clip": "tinynet.optimizers",
}
"""The operations that are single kernels on the GPU (`tinynet.cuda_kernels`), and where their NumPy twins are."""

_PIECE = 1 << 26  # bytes of a large array that are copied to the GPU at a time

_kernels: dict[type, Any] = {}  # by type of array: the object whose methods are the operations there
_devices: dict[type, "Device"] = {}
_gpu: "Gpu | None" = None


class DeviceError(RuntimeError):
    """Raised when no GPU can be used; gives the reason."""


class DeviceMemoryError(MemoryError):
    """Raised when the GPU runs out of memory; suggests what to try, such as a smaller batch size."""


def operation(twin: F) -> F:
    """Run the function on NumPy arrays, and the kernel of the same name on GPU arrays; the first argument decides."""
    name = twin.__name__
    if OPERATIONS.get(name) != twin.__module__:
        raise LookupError(f"{twin.__module__}.{name}: OPERATIONS in tinynet/backend.py does not list it")

    @functools.wraps(twin)
    def run(*arguments: Any, **options: Any) -> Any:
        kernels = _kernels.get(type(arguments[0]))
        try:
            return (twin if kernels is None else getattr(kernels, name))(*arguments, **options)
        except TypeError as error:
            _explain_mixture(name, [*arguments, *options.values()], error)
            raise

    return cast(F, run)


@operation
def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """The matrix product a b, also for stacks of matrices, as in np.matmul."""
    result: Array = np.matmul(a, b, out=out)
    return result


def _explain_mixture(name: str, arguments: list[Any], error: TypeError) -> None:
    """Raises TypeError, with the fix, if the arguments mix arrays of both devices."""
    on_gpu = [type(value) in _devices for value in arguments]
    if any(on_gpu) and any(isinstance(value, np.ndarray) for value in arguments):
        raise TypeError(
            f"{name}: expected arrays of one device, got NumPy's and CuPy's together; cupy.asarray(a) brings one to "
            "the GPU, a.get() to the CPU, and model.to(device) a model"
        ) from error


class Device:
    """The CPU, with NumPy arrays."""

    name = "cpu"
    block_elements = 1 << 17
    """How many elements a convolution works on at a time: as many as stay in the second-level cache."""

    def empty(self, shape: Shape | int, dtype: Any) -> Array:
        """An uninitialised array."""
        return np.empty(shape, dtype)

    def zeros(self, shape: Shape | int, dtype: Any) -> Array:
        """An array of zeros."""
        return np.zeros(shape, dtype)

    def asarray(self, array: Any) -> Array:
        """The array on this device: itself, or a copy if it is on the other one."""
        return to_host(array)

    def constant(self, array: Array) -> Array:
        """A NumPy array that never changes, on this device; copied once."""
        return array

    @contextmanager
    def running(self) -> Iterator[None]:
        """Hold what work on the device needs, while a block runs."""
        yield

    @contextmanager
    def memory_errors(self, free: Callable[[], Any], advice: Callable[[], str]) -> Iterator[None]:
        """If the GPU runs out of memory in a block, release what ``free`` can, and raise an error with the advice."""
        yield

    def __reduce__(self) -> tuple[Callable[[str], "Device"], tuple[str]]:
        return get_device, (self.name,)  # copies and pickles of models share the device

    def __deepcopy__(self, memo: Any) -> "Device":
        return self

    def __repr__(self) -> str:
        return f"<tinynet device {self.name!r}>"


class Gpu(Device):
    """A CUDA device, with CuPy arrays.

    Args: cupy: the module; kernels: an object whose methods are the operations of OPERATIONS.
    """

    name = "gpu"
    block_elements = 1 << 28  # one large piece keeps a GPU busy; at most 1 GB of float32

    def __init__(self, cupy: Any, kernels: Any) -> None:
        self.cupy, self.kernels = cupy, kernels
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
        # CuPy copies an array by way of pinned memory, which it keeps: in pieces, that stays small.
        moved = self.empty(array.shape, array.dtype)
        rows = max(1, _PIECE * len(array) // array.nbytes)
        for start in range(0, len(array), rows):
            moved[start : start + rows] = self.cupy.asarray(array[start : start + rows], blocking=True)
        return moved

    def constant(self, array: Array) -> Array:
        # Kept with the array itself: as long as that lives, no other array can have its id.
        if id(array) not in self._constants:
            # Blocking: another thread's stream does not wait for this one, and may read it at once.
            self._constants[id(array)] = array, self.cupy.asarray(array, blocking=True)
        return self._constants[id(array)][1]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Use one stream for all work of a thread, and wait for it at the end. A graph can't be captured on CUDA's
        default stream, and a capture takes in whatever any thread sends to its stream.
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

        Call it within `running`. Capturing computes nothing. ``work`` must not read anything back. What it allocates
        comes from the graph's own pool, so that nothing else gets that memory while the graph lives.
        """
        cuda, held = self.cupy.cuda, []

        def allocate(size: int) -> Any:
            memory = cuda.memory.Memory(size)
            # Otherwise a pool short of memory would free memory that already captured kernels use.
            held.append(memory)
            return cuda.MemoryPointer(memory, 0)

        self.cupy.get_default_memory_pool().free_all_blocks()  # what the same step used when it ran
        pool = cuda.MemoryPool(allocate)
        with cuda.using_allocator(pool.malloc):
            self._stream.begin_capture()
            try:
                work()
            except BaseException:
                with suppress(Exception):  # it reports again what went wrong in the capture
                    self._stream.end_capture()
                raise
            graph = self._stream.end_capture()
        pool.free_all_blocks()  # in CuPy 15, a pool does not do so when it is destroyed

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
        # Outside the except block, because the error and its traceback hold on to arrays.
        mend = advice()
        free()
        self.cupy.get_default_memory_pool().free_all_blocks()
        raise DeviceMemoryError(f"out of GPU memory ({reason}); {mend}")


CPU = Device()
"""The CPU."""


def get_device(name: Any) -> Device:
    """The device of that name: "cpu", "gpu", or "auto" for the GPU if there is one.

    Raises: ValueError: for any other name. DeviceError: for "gpu" if there is none, with the reason.
    """
    if name not in ("cpu", "gpu", "auto"):
        raise ValueError(f"device: expected 'cpu', 'gpu' or 'auto', got {name!r}")
    if name == "cpu":
        return CPU
    try:
        return _find_gpu()
    except DeviceError:
        if name == "gpu":
            raise
        return CPU


def find_cupy() -> Any:
    """The GPU's array module, if it finds a GPU. Raises: DeviceError: with the reason, up to the first semicolon."""
    try:
        import cupy

        version = cupy.__version__  # the leftovers of a removed package have none
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
    except Exception as error:  # of a class that can't be named without importing its module
        count, reason = 0, f"CUDA reports: {error}"
    if not count:
        raise DeviceError(
            f"device 'gpu': CuPy {version} is installed and finds no GPU: {reason}; install or repair "
            "NVIDIA's driver (nvidia-smi shows what it sees), or give device='cpu'"
        )
    return cupy


def _find_gpu() -> Gpu:
    global _gpu
    if _gpu is None:
        cupy = find_cupy()
        from tinynet.cuda_kernels import Kernels

        use_gpu(Gpu(cupy, Kernels(cupy)))
    assert _gpu is not None
    return _gpu


def use_gpu(gpu: Gpu | None) -> Gpu | None:
    """Set the device that "gpu" stands for and return the former one; None clears it."""
    global _gpu
    former, _gpu = _gpu, gpu
    _kernels.clear()
    _devices.clear()
    if gpu is not None:
        _kernels[gpu.cupy.ndarray], _devices[gpu.cupy.ndarray] = gpu.kernels, gpu
    return former


def device_of(array: Any) -> Device:
    """The device that the array is on; anything but a GPU array counts as the CPU's."""
    return _devices.get(type(array), CPU)


def to_host(array: Any) -> Array:
    """The array as a NumPy array: itself, or a copy if it is on the GPU."""
    host: Array = array.get() if type(array) in _devices else np.asarray(array)
    return host


def number(value: Any) -> Any:
    """A NumPy scalar as a float; a GPU array () as it is, because reading it would wait for all work before it."""
    return value if type(value) in _devices else float(value)


def contiguous(array: Array, dtype: Any = None) -> Array:
    """The array in C order and of a dtype; itself if it already is."""
    if device_of(array) is CPU:
        return np.ascontiguousarray(array, dtype)
    array = array if dtype is None else array.astype(dtype, copy=False)
    return array if array.flags.c_contiguous else array.copy()


def check_device(array: Any, device: Device, name: str) -> None:
    """Raises TypeError, with the fix, unless the array is on the device."""
    found = device_of(array)
    if found is not device:
        mend = f"{name}.get()" if found.name == "gpu" else f"cupy.asarray({name})"
        raise TypeError(
            f"{name}: expected an array on the model's device, {device.name!r}, got one on {found.name!r}; give "
            f"{mend}, or move the model with model.to({found.name!r})"
        )
