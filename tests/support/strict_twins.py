"""The operations on the strict stand-in's arrays: each is its NumPy body, run as one kernel."""

import functools
import importlib
import inspect

import numpy as np

import tinynet.training.gpu_steps  # noqa: F401  (has an operation too)
from tests.support.strict_cuda import poison
from tests.support.strict_functions import wrap_around
from tinynet.engines.gpu.kernels import Kernels
from tinynet.engines.operation import OPERATIONS

HOST_ARGUMENTS = ("flip_images", "shift_images", "erase_squares")  # take NumPy arrays besides device arrays
MIXED = (*HOST_ARGUMENTS, "take_rows", "record")  # their arrays need not have one floating dtype
INDICES = {  # which argument holds indices; those out of range wrap around, where a kernel would read wrong memory
    "take_rows": "order",
    "pick": "labels",
    "subtract_targets": "labels",
    "softmax_cross_entropy": "labels",
    "cross_entropy_gradient": "labels",
}
DENSE = {  # which arguments must be C-contiguous
    "take_rows": ("data", "order", "out"),
    "flip_images": ("x",),
    "shift_images": ("x",),
    "erase_squares": ("x",),
    "take_windows": ("padded", "columns"),
    "add_windows": ("columns", "padded"),
    "max_pool": ("y",),
    "max_pool_backward": ("y", "dx"),
    "adam_update": ("params", "grads", "m", "v"),
}
SCRATCH = {"moments": "centred", "adam_update": "scratch"}  # what twins write and kernels leave alone


class Twins:
    """What is `tinynet.engines.gpu.kernels.Kernels`. Args: strict: the stand-in for CuPy."""

    def __init__(self, strict):
        self._strict = strict

    def __getattr__(self, name):
        if name not in OPERATIONS or not hasattr(Kernels, name):  # others run their bodies, call by call
            raise AttributeError(name)
        return functools.partial(self._run, name)

    def _run(self, name, *arguments, **options):
        strict = self._strict
        twin = twin_of(name)
        bound = inspect.signature(twin).bind(*arguments, **options)
        given = bound.arguments
        self._check(name, given)
        arrays = list({id(x): x for x in given.values() if isinstance(x, strict.ndarray)}.values())
        number = {id(array): i for i, array in enumerate(arrays)}
        places = {key: number[id(x)] for key, x in given.items() if isinstance(x, strict.ndarray)}
        # The device arrays themselves are not kept, because a graph must not keep them alive.
        rest = {key: x for key, x in given.items() if key not in places}
        for key, value in rest.items():
            if callable(value):
                rest[key] = functools.partial(work_memory, arrays[0].dtype)
        signature, indices, first = inspect.signature(twin), INDICES.get(name), next(iter(given))

        def call(inside):
            values = rest | {key: inside[place] for key, place in places.items()}
            if values.get(indices) is not None:
                size = len(values[first]) if name == "take_rows" else values[first].shape[-1]
                values[indices] = wrap_around(values[indices], size)
            return self._compute(name, signature.bind(**values))

        return self._launch(name, call, arrays)

    def _compute(self, name, bound):
        """The operation on NumPy arrays."""
        values = bound.arguments
        if name == "standardize":  # its kernel computes this itself
            np.subtract(values["rows"], values["mean"], out=values["centred"])
        result = twin_of(name)(*bound.args, **bound.kwargs)
        if name in SCRATCH:
            poison(values[SCRATCH[name]])
        return result

    def _check(self, name, given):
        """Raises TypeError or ValueError for arguments that the kernels don't support."""
        strict = self._strict
        if not isinstance(next(iter(given.values()), None), strict.ndarray):
            raise TypeError(f"{name}: the first argument must be a device array")
        for key, value in given.items():
            if isinstance(value, np.ndarray):
                if name not in HOST_ARGUMENTS:
                    raise TypeError(f"{name}, {key}: a NumPy array can't be an argument of a kernel")
                strict.cuda.refuse_capture("a copy from the host")
            if isinstance(value, (list, tuple)) and any(isinstance(part, strict.ndarray) for part in value):
                raise TypeError(f"{name}, {key}: a list of device arrays can't be an argument of a kernel")
            dense = key in DENSE.get(name, ()) and isinstance(value, strict.ndarray)
            if dense and not value.flags.c_contiguous:
                raise ValueError(
                    f"{name}, {key}: expected C-contiguous, got strides {value.strides} of {value.shape}"
                )
        arrays = {key: value for key, value in given.items() if isinstance(value, strict.ndarray)}
        dtypes = {key: value.dtype for key, value in arrays.items() if value.dtype.kind == "f"}
        if name not in MIXED and len(set(dtypes.values())) > 1:
            raise TypeError(f"{name}: expected arrays of one dtype, got {dtypes}")
        if name == "matmul":
            a, b, out = given["a"], given["b"], given.get("out")
            stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
            if out is not None and out.shape != (*stack, a.shape[-2], b.shape[-1]):
                raise ValueError(f"matmul, out: got {out.shape} for {a.shape} by {b.shape}")
            if len(dtypes) != len(arrays):
                raise TypeError("matmul: expected float32 or float64")

    def _launch(self, name, call, arrays):
        """Run the twin and return its results as device arrays; in a capture, record it and return poisoned ones."""
        strict = self._strict
        capturing, inside = strict.cuda.capturing, [array._data for array in arrays]
        trial = [stand_in_data(data) for data in inside] if capturing else inside
        with np.errstate(all="ignore"):
            value = call(trial)
        several = isinstance(value, tuple)
        values = value if several else (value,)
        results, fresh = [], []
        for part in values:
            same = next((i for i, data in enumerate(trial) if part is data), None)
            if part is None or same is not None:
                results.append(None if part is None else arrays[same])
                continue
            if not isinstance(part, (np.ndarray, np.generic)):
                raise TypeError(f"{name}: a kernel returns device arrays, got {type(part)}")
            if any(np.may_share_memory(part, data) for data in trial):
                raise TypeError(f"{name}: a kernel can't return a view of an argument")
            array = strict.allocate_like(np.asarray(part), "K" if name == "rectify" else "C")
            results.append(array)
            fresh.append((len(results) - 1, array._data, array))
        known = None if capturing else values
        targets = [(i, data) for i, data, _ in fresh]

        def work():
            got = known
            if got is None:
                got = call(inside)
                got = got if several else (got,)
            for i, data in targets:
                np.copyto(data, got[i])

        strict.cuda.launch(work, [*arrays, *(array for *_, array in fresh)])
        return tuple(results) if several else results[0]


def twin_of(name):
    """The NumPy function of an operation."""
    body = getattr(importlib.import_module(OPERATIONS[name]), name).__wrapped__
    return _matmul if body is np.matmul else body


def _matmul(a, b, out=None):
    return np.matmul(a, b, out=out)


def stand_in_data(data):
    """An array of the same shape, dtype and layout, for a twin that is run only for its results' shapes."""
    copy = np.empty_like(data)
    if data.dtype.kind in "iub":
        copy[...] = 0  # poison would not be a valid index
    else:
        poison(copy)
    return copy


def work_memory(dtype, *arguments, **options):
    """Stands in for a layer's `zeros(x)`, `memory(name, shape)` or `buffer(name, shape, dtype, like)`."""
    if isinstance(arguments[0], np.ndarray):
        return np.zeros_like(arguments[0])
    arguments = dict(zip(("name", "shape", "dtype", "like"), arguments, strict=False)) | options
    dtype, like = arguments.get("dtype", dtype), arguments.get("like")
    memory = np.empty(arguments["shape"], dtype) if like is None else np.empty_like(like, dtype)
    poison(memory)
    return memory
