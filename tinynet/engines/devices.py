"""Where arrays live: in main memory, as NumPy arrays, or on a GPU.

Layers, losses and optimizers call NumPy. Given GPU arrays, NumPy passes those calls to their library through its
protocols (NEP 13 and 18), so the same lines run there. Two things remain: memory, which a `Device` provides, and the
operations of `tinynet.engines.operation`, each of which is one kernel there instead of a chain of NumPy calls.
"""

import math
import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from tinynet.support.errors import DeviceError
from tinynet.support.types import Array, DeviceName, Shape

if TYPE_CHECKING:
    from tinynet.engines.gpu.device import Gpu

_BLOCK = 1 << 20  # elements

kernels_for: dict[type, Any] = {}
"""For each array type, the object whose methods are its operations."""

_devices: dict[type, "Device"] = {}
_gpu: "Gpu | None" = None


class Device:
    """The CPU, with NumPy arrays."""

    name: DeviceName = "cpu"
    block_elements = 1 << 17
    """How many elements a convolution works on at a time: as many as fit into the L2 cache."""

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

    def bring(self, name: str) -> str:
        """The code that moves an array to this device, for error messages."""
        return f"{name}.get()"

    def on_host(self, model: Any) -> Any:
        """The model, or a copy of it in main memory."""
        return model

    def protect(self, array: Array) -> None:
        """Make the array read-only, if its type supports that: writing into it raises ValueError."""
        array.flags.writeable = False

    @contextmanager
    def mixtures(self, what: str) -> Iterator[None]:
        """Explain a TypeError from user code that may have mixed arrays of two devices."""
        yield

    @contextmanager
    def running(self) -> Iterator[None]:
        """Hold what work on the device needs while a block runs."""
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
        if _gpu is None:
            from tinynet.engines.gpu.device import find_gpu

            use_gpu(find_gpu())
        assert _gpu is not None
        return _gpu
    except DeviceError:
        if name == "gpu":
            raise
        return CPU


def use_gpu(gpu: "Gpu | None") -> "Gpu | None":
    """Set the device called "gpu" and return the previous one; None clears it."""
    global _gpu
    former, _gpu = _gpu, gpu
    kernels_for.clear()
    _devices.clear()
    if gpu is not None:
        kernels_for[gpu.array_type], _devices[gpu.array_type] = gpu.kernels, gpu
    return former


def device_of(array: Any) -> Device:
    """The device that the array is on; anything but a GPU array counts as the CPU's."""
    return _devices.get(type(array), CPU)


def to_host(array: Any) -> Array:
    """The array as a NumPy array: itself, or a copy if it is on the GPU."""
    host: Array = array.get() if type(array) in _devices else np.asarray(array)
    return host


def is_array(value: Any) -> bool:
    """Whether the value is a NumPy or GPU array."""
    return isinstance(value, np.ndarray) or type(value) in _devices


def as_array(value: Any, name: str, device: Device | None = None) -> Array:
    """The value as an array. A GPU array stays where it is, which must be ``device`` if that is given.

    Raises: ValueError: if its parts differ in shape, or if it has a mask. TypeError: for an array on another device.
    """
    if type(value) in _devices:
        if device is not None:
            check_device(value, device, name)
        on_gpu: Array = value
        return on_gpu
    for part in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(part, np.ma.MaskedArray):
            raise ValueError(
                f"{name}: expected an array without a mask, got a masked array, whose mask would be ignored; leave "
                f"out the masked examples, or give {name}.filled(...) with a value to put in their place"
            )
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{name}: expected an array of numbers, got parts that don't form one: {error}"
        ) from None


def contiguous(array: Array, dtype: Any = None) -> Array:
    """The array in C order and the given dtype; itself if it already is."""
    if device_of(array) is CPU:
        return np.ascontiguousarray(array, dtype)
    array = array if dtype is None else array.astype(dtype, copy=False)
    return array if array.flags.c_contiguous else array.copy()


def is_mapped(array: Any) -> bool:
    """Whether the array is a memory-mapped file or a view of one, which may be larger than the memory."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)


def blocks(array: Array) -> Iterator[tuple[int, Array]]:
    """The array in parts of bounded size, to be checked in turn, each with the number of its first row."""
    rows = max(1, _BLOCK // max(1, math.prod(array.shape[1:])))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


def check_device(array: Any, device: Device, name: str) -> None:
    """Raises TypeError, with the fix, unless the array is on the device."""
    found = device_of(array)
    if found is not device:
        raise TypeError(
            f"{name}: expected an array on the model's device, {device.name!r}, got one on {found.name!r}; give "
            f"{device.bring(name)}, or move the model with model.to({found.name!r})"
        )


def explain_mixture(name: str, arguments: list[Any], error: TypeError) -> None:
    """Raises TypeError, with the fix, if the arguments mix arrays of both devices."""
    found = [_devices[type(value)] for value in arguments if type(value) in _devices]
    if found and any(isinstance(value, np.ndarray) for value in arguments):
        raise TypeError(
            f"{name}: expected arrays of one device, got NumPy's and the GPU's together; {found[0].bring('a')} brings "
            f"one to the GPU, {CPU.bring('a')} to the CPU, and model.to(device) a model"
        ) from error
