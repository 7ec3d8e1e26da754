"""Matrix products on the GPU: cuBLAS, called through ctypes.

CuPy wraps cuBLAS, but refuses to call it while a stream is captured (NotImplementedError), and a whole training step
has to become one CUDA graph. cuBLAS itself can be captured, so this module calls the library that CuPy has loaded.
"""

import ctypes
import importlib
import math
import os
import threading
import weakref
from typing import Any, NamedTuple

import numpy as np

from tinynet.support.types import Array, Shape

# Values from cublas_api.h and library_types.h.
_OP_N, _OP_T = 0, 1  # cublasOperation_t: a matrix as it is, or transposed
_GEMM_DEFAULT = -1  # cublasGemmAlgo_t: cuBLAS chooses
_COMPUTE_32F, _COMPUTE_32F_FAST_TF32, _COMPUTE_64F = 68, 77, 70  # cublasComputeType_t
_WORKSPACE = 32 << 20  # bytes, as NVIDIA recommends for Hopper and Blackwell
_LARGEST = 2**31 - 1  # sizes are C ints

# The functions' parameters: p a pointer, i int, l long long, z size_t. A product takes the handle, two operations,
# three sizes and alpha; pointer, type, leading dimension (and the step to the next matrix) of A and of B; beta; the
# same for C; (the number of matrices,) the compute type and the algorithm.
_TYPES = {"p": ctypes.c_void_p, "i": ctypes.c_int, "l": ctypes.c_longlong, "z": ctypes.c_size_t}
_FUNCTIONS = {
    "cublasCreate_v2": "p",
    "cublasDestroy_v2": "p",
    "cublasSetStream_v2": "pp",
    "cublasSetWorkspace_v2": "ppz",
    "cublasGemmEx": "p iiiii p pii pii p pii ii",
    "cublasGemmStridedBatchedEx": "p iiiii p piil piil p piil iii",
    "cublasGetStatusName": "i",
}

_tf32 = False


class CublasError(RuntimeError):
    """Raised when cuBLAS is missing or reports a status other than success."""


def allow_tf32(allowed: bool) -> None:
    """Let products of float32 matrices use the tensor cores' TF32 format, in this process; it is off by default.

    TF32 rounds each factor to 10 bits of mantissa instead of 23, a relative error of up to 5e-4; the products are
    summed in float32. float64 is not affected. A captured CUDA graph keeps the setting of when it was captured.
    """
    global _tf32
    _tf32 = bool(allowed)


def tf32_allowed() -> bool:
    """Whether products of float32 matrices may use TF32."""
    return _tf32


class Gemm:
    """Matrix products on the current CUDA device, on CuPy's current stream.

    Args: cp: the cupy module.
    Raises: CublasError: if cuBLAS can't be found or started.
    """

    def __init__(self, cp: Any) -> None:
        self.cp = cp
        self._library = _load(cp)
        # By dtype: cudaDataType; one and zero, which cuBLAS reads through host pointers.
        self._kinds: dict[Any, tuple[int, Any, Any]] = {
            np.dtype(np.float32): (0, ctypes.c_float(1), ctypes.c_float(0)),
            np.dtype(np.float64): (1, ctypes.c_double(1), ctypes.c_double(0)),
        }
        self._handle = ctypes.c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        # Not at exit, when the driver may already be gone.
        weakref.finalize(self, self._library.cublasDestroy_v2, self._handle).atexit = False
        self._workspaces: dict[int, Any] = {}  # by stream
        self._lock = threading.Lock()

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """a b: (..., m, k) (..., k, n) -> (..., m, n), as in np.matmul; leading axes broadcast.

        Operands whose strides cuBLAS can't take (for example, neither of the last two axes has unit stride) are
        copied first. If that holds for ``out``, or its range of memory overlaps an operand's, the product is computed
        elsewhere and copied into it.

        Raises: TypeError: unless all are CuPy arrays of one dtype, float32 or float64. ValueError: for shapes that
        don't match, or a size of 2^31 or more. Nothing is written then. CublasError: with the status from cuBLAS.
        """
        batch = self._check(a, b, out)
        shape = (*batch, a.shape[-2], b.shape[-1])
        if out is None:
            out = self.cp.empty(shape, a.dtype)
        if 0 in shape:
            return out
        if a.shape[-1] == 0:
            out[...] = 0
            return out
        target = _place(out, batch)
        if target is None or _overlap(out, a) or _overlap(out, b):
            out[...] = self.matmul(a, b)
            return out
        self._launch(a, b, target, batch)
        return out

    def _check(self, a: Array, b: Array, out: Array | None) -> Shape:
        """The shape of the leading axes."""
        for name, array in [("a", a), ("b", b), *([] if out is None else [("out", out)])]:
            if not isinstance(array, self.cp.ndarray):
                raise TypeError(
                    f"matmul: expected {name} on the GPU, a CuPy array, got {type(array).__name__}; "
                    f"give cupy.asarray({name})"
                )
            if array.dtype not in self._kinds or array.dtype != a.dtype:
                raise TypeError(
                    f"matmul: expected arrays of one dtype, float32 or float64, got {name} {array.dtype} with a "
                    f"{a.dtype}; convert with astype"
                )
            if array.ndim < 2:
                raise ValueError(f"matmul: expected {name} with 2 axes or more, got {array.shape}; reshape")
        try:
            batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        except ValueError:
            batch = None
        if batch is None or a.shape[-1] != b.shape[-2]:
            raise ValueError(f"matmul: expected a (..., m, k) and b (..., k, n), got {a.shape} and {b.shape}")
        shape = (*batch, a.shape[-2], b.shape[-1])
        if out is not None and out.shape != shape:
            raise ValueError(f"matmul: expected out of shape {shape}, got {out.shape}")
        if max(math.prod(batch), *a.shape[-2:], b.shape[-1]) > _LARGEST:
            raise ValueError(f"matmul: expected sizes below 2^31, got {a.shape}, {b.shape}; divide the work")
        return batch

    def _launch(self, a: Array, b: Array, target: "_Place", batch: Shape) -> None:
        kind, one, zero = self._kinds[a.dtype]
        compute = _COMPUTE_64F if kind else _COMPUTE_32F_FAST_TF32 if _tf32 else _COMPUTE_32F
        # cuBLAS reads memory by columns, so it sees a matrix stored by rows transposed. Hence an out stored by rows is
        # computed as out^T = b^T a^T, and one stored by columns as out = a b.
        rows, inner, columns = a.shape[-2], a.shape[-1], b.shape[-1]
        if not target.by_columns:
            a, b, rows, columns = b, a, columns, rows
        places = self._operand(a, batch), self._operand(b, batch), target
        operations = [_OP_N if place.by_columns == target.by_columns else _OP_T for place in places[:2]]
        count = math.prod(batch)
        name, parts = ("cublasGemmEx", 3) if count == 1 else ("cublasGemmStridedBatchedEx", 4)
        first, second, third = [(p.array.data.ptr, kind, p.leading, p.step)[:parts] for p in places]
        arguments = [*operations, rows, columns, inner, ctypes.addressof(one), *first, *second]
        arguments += [ctypes.addressof(zero), *third, *([count] if count > 1 else []), compute, _GEMM_DEFAULT]
        stream = self.cp.cuda.get_current_stream().ptr
        with self._lock:  # threads share the handle
            if stream not in self._workspaces:
                self._workspaces[stream] = self.cp.empty(_WORKSPACE, np.uint8)
            self._call("cublasSetStream_v2", self._handle, stream)
            # Each time, because setting the stream resets it; without one, a capture allocates its own.
            self._call("cublasSetWorkspace_v2", self._handle, self._workspaces[stream].data.ptr, _WORKSPACE)
            self._call(name, self._handle, *arguments)

    def _operand(self, array: Array, batch: Shape) -> "_Place":
        place = _place(array, batch) or _place(self.cp.ascontiguousarray(array), batch)
        if place is None:  # some leading axes are repeated, so that no single step leads through them
            whole = self.cp.broadcast_to(array, (*batch, *array.shape[-2:]))
            place = _place(self.cp.ascontiguousarray(whole), batch)
        assert place is not None
        return place

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            reason = self._library.cublasGetStatusName(status).decode()
            raise CublasError(f"cuBLAS: {name} failed with status {status}, {reason}")


class _Place(NamedTuple):
    """Where matrices lie in memory, in cuBLAS's terms: counted in elements."""

    array: Any
    by_columns: bool  # the elements of a column are adjacent, not those of a row
    leading: int  # from one row, or column, to the next
    step: int  # from one matrix to the next; 0: always the same matrix


def _place(array: Array, batch: Shape) -> _Place | None:
    """How the matrices of (..., rows, columns), repeated to ``batch``, lie in memory; None: cuBLAS can't read them."""
    size = array.dtype.itemsize
    if any(stride % size for stride in array.strides):
        return None
    *steps, down, across = (stride // size for stride in array.strides)
    rows, columns = array.shape[-2:]
    # One stride for all leading axes: each axis must continue where the next inner one ends.
    step, count = 0, 1
    missing = len(batch) - len(steps)
    for axis in reversed(range(len(batch))):
        if batch[axis] == 1:
            continue
        own = 0 if axis < missing or array.shape[axis - missing] == 1 else steps[axis - missing]
        if count == 1:
            step = own
        elif own != step * count:
            return None
        count *= batch[axis]
    # The stride of an axis of size 1 is arbitrary.
    if across == 1 or columns == 1:
        by_columns, leading, least = False, down if rows > 1 else columns, columns
    elif down == 1 or rows == 1:
        by_columns, leading, least = True, across, rows
    else:
        return None
    if step < 0 or not least <= leading <= _LARGEST:
        return None
    return _Place(array, by_columns, leading, step)


def _overlap(a: Array, b: Array) -> bool:
    """Whether the ranges of memory overlap, from the first byte of each array to its last."""
    (a_start, a_stop), (b_start, b_stop) = _range(a), _range(b)
    return a_start < b_stop and b_start < a_stop


def _range(array: Any) -> tuple[int, int]:
    reach = [stride * (size - 1) for stride, size in zip(array.strides, array.shape, strict=True)]
    start, stop = (array.data.ptr + sum(r for r in reach if r * sign > 0) for sign in (-1, 1))
    return start, stop + array.dtype.itemsize


def _load(cp: Any) -> Any:
    """The cuBLAS that CuPy uses, with its functions' argument types declared."""
    major = cp.cuda.runtime.runtimeGetVersion() // 1000
    name = f"cublas64_{major}.dll" if os.name == "nt" else f"libcublas.so.{major}"
    try:
        cp.cuda.cublas  # noqa: B018 - loads the library, wherever it is; then its name alone finds it
        try:
            library = ctypes.CDLL(name)
        except OSError:
            found = importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib("cublas")
            library = ctypes.CDLL(found.abs_path)
    except Exception as error:  # CuPy and cuda-pathfinder decide of which class
        reason = str(error).strip()
        raise CublasError(
            f"cuBLAS: could not load the library {name}, which CuPy {cp.__version__} needs ({reason}); install the "
            f"CUDA toolkit {major}, or run python -m pip install 'cupy-cuda{major}x[ctk]'"
        ) from error
    for function, types in _FUNCTIONS.items():
        getattr(library, function).argtypes = [_TYPES[letter] for letter in types.replace(" ", "")]
    library.cublasGetStatusName.restype = ctypes.c_char_p
    return library
