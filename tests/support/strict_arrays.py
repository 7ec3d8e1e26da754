"""A strict stand-in for CuPy on the CPU, so that everything that runs on a GPU can be tested without one.

It refuses what CuPy 14 refuses, and some more. What is allowed gives CuPy's result: a scalar is a 0-d array, results
are C-ordered, indices out of range wrap around, new memory is poisoned, and while a stream is captured, nothing is
computed.
"""

import functools

import numpy as np
import pytest

from tests.support.strict_cuda import Cuda
from tests.support.strict_functions import Functions, wrap_around
from tests.support.strict_ndarray import UFUNCS, StrictArray
from tests.support.strict_twins import Twins
from tinynet.engines import devices
from tinynet.engines.gpu.device import Gpu


def refuse_host(arguments):
    """Raises TypeError if NumPy arrays are among the arguments, as CuPy does."""
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            raise TypeError(f"Unsupported type {type(argument)}")


class Strict(Functions):
    """Stands in for the module `cupy`. `synchronizations` counts how often the host has waited for a value."""

    __version__ = "14.2.0"
    newaxis, inf, nan, pi = None, np.inf, np.nan, np.pi

    def __init__(self):
        self.cuda = Cuda()
        self.ndarray = type("ndarray", (StrictArray,), {"_strict": self})

    @staticmethod
    def fresh():
        """Another stand-in, which shares nothing with this one."""
        return Strict()

    @property
    def synchronizations(self):
        return self.cuda.synchronizations

    def limit_memory(self, limit):
        """A context in which no more than this many bytes can be allocated in all."""
        return self.cuda.limited(limit)

    def get_default_memory_pool(self):
        return self.cuda.default_pool

    def __getattr__(self, name):
        if name in UFUNCS:
            return functools.partial(self._call_by_name, UFUNCS[name])
        if isinstance(getattr(np, name, None), type) and issubclass(getattr(np, name), np.generic):
            return getattr(np, name)
        raise AttributeError(f"the strict stand-in for CuPy has no {name!r}")

    def _call_by_name(self, ufunc, *inputs, out=None, **options):
        return self.call_ufunc(ufunc, "__call__", inputs, out, options)

    # What all the functions are built from

    def wrap(self, data, memory, base=None):
        array = object.__new__(self.ndarray)
        array._data, array._memory, array.base = data, memory, base
        return array

    def allocate(self, shape, dtype, order="C"):
        return self.wrap(*self.cuda.allocate(shape, dtype, order))

    def allocate_like(self, data, order="C", dtype=None):
        """Memory for an array like this NumPy array; order "K" adopts the order of its axes in memory."""
        dtype = data.dtype if dtype is None else dtype
        if order == "A" or order is None:
            raise NotImplementedError("order: 'C', 'F' or 'K'")
        if order != "K" or data.flags.c_contiguous:
            return self.allocate(data.shape, dtype, "F" if order == "F" else "C")
        axes = sorted(range(data.ndim), key=lambda axis: -abs(data.strides[axis]))
        array = self.allocate([data.shape[axis] for axis in axes], dtype)
        array._data = array._data.transpose(np.argsort(axes))
        return array

    def compute(self, function, *arrays, order="C"):
        """A new array with what ``function`` returns for the NumPy arrays inside these."""
        inside = [array._data for array in arrays]
        with np.errstate(all="ignore"):
            value = np.asarray(function(*inside))  # in a capture, only for its shape and dtype
        result = self.allocate_like(value, order)
        known = [] if self.cuda.capturing else [value]
        target = result._data

        def work():
            np.copyto(target, known.pop() if known else function(*inside))

        self.cuda.launch(work, [*arrays, result])
        return result

    def write(self, function, out, *arrays):
        """Call ``function(out, arrays)``, which writes into out, on the NumPy arrays inside; return out."""
        inside, target = [array._data for array in arrays], out._data
        if self.cuda.capturing:
            with np.errstate(all="ignore"):
                function(target.copy(order="K"), *inside)  # raises what it would raise
        self.cuda.launch(lambda: function(target, *inside), [out, *arrays])
        return out

    def call_ufunc(self, ufunc, method, inputs, out, options):
        refuse_host((*inputs, out))
        if out is not None and not isinstance(out, self.ndarray):
            raise TypeError(f"out: expected a device array, got {type(out)}")
        if ufunc is np.matmul and method == "__call__":
            return self.matmul(*inputs, out=out, **options)
        if ufunc.signature is not None:
            return NotImplemented
        if method != "__call__":
            names = {"reduce": {"add": "sum", "multiply": "prod"}, "reduceat": {"add": "_add_reduceat"}}
            name = names.get(method, {}).get(ufunc.__name__)
            if name is None:
                raise NotImplementedError(f"`{ufunc.__name__}.{method}` is not supported yet")
            defaults = {"axis": 0, "dtype": None, **({"keepdims": False} if method == "reduce" else {})}
            return getattr(self, name)(*inputs, out=out, **{**defaults, **options})
        if unknown := set(options) - {"dtype", "casting"}:
            raise TypeError(f"Wrong arguments {sorted(unknown)}")
        arrays = [value for value in inputs if isinstance(value, self.ndarray)]
        numbers = [None if isinstance(value, self.ndarray) else value for value in inputs]

        def call(out, inside):
            rest = iter(inside)
            return ufunc(*(next(rest) if x is None else x for x in numbers), out=out, **options)

        if out is None:
            return self.compute(lambda *inside: call(None, inside), *arrays)
        return self.write(lambda target, *inside: call(target, inside), out, *arrays)

    def prepare_index(self, key, shape):
        """(function that returns NumPy's index, device arrays in it, whether it has a mask); integers wrap around."""
        key = key if isinstance(key, tuple) else (key,)
        arrays = [part for part in key if isinstance(part, self.ndarray)]
        masks = [part for part in arrays if part.dtype == bool]
        if len(masks) > 1 or any(mask.ndim == 0 for mask in masks):
            raise IndexError("one mask of at least one axis at a time")
        taken = {id(part): part.ndim if part.dtype == bool else 1 for part in arrays}
        used = sum(taken.get(id(part), 1) for part in key if part is not None and part is not Ellipsis)
        if used > len(shape):
            raise IndexError(f"too many indices: {used} for {len(shape)} axes")
        axis, parts = 0, []
        for part in key:
            if part is Ellipsis:
                axis += len(shape) - used
            elif isinstance(part, self.ndarray) and part.dtype != bool:
                if part.dtype.kind not in "iu":
                    raise IndexError(
                        f"arrays used as indices must be of integer or boolean type, got {part.dtype}"
                    )
                parts.append(functools.partial(wrap_around, part._data, shape[axis]))
                axis += 1
                continue
            elif isinstance(part, self.ndarray):
                axis += part.ndim
            elif isinstance(part, slice) or (
                isinstance(part, (int, np.integer)) and not isinstance(part, bool)
            ):
                if isinstance(part, slice):
                    part.indices(shape[axis])  # raises TypeError for device arrays, which have no __index__
                axis += 1
            elif part is not None:
                raise TypeError(
                    f"an index is an integer, a slice, None, ... or a device array; got {type(part)}"
                )
            data = getattr(part, "_data", part)  # not the array itself: a graph must not keep it alive
            parts.append(lambda data=data: data)
        if not arrays and not any(part is Ellipsis for part in key):
            parts.append(lambda: Ellipsis)  # an array, never a scalar
        return lambda: tuple(part() for part in parts), arrays, bool(masks)


strict = Strict()


@pytest.fixture
def stand_in():
    """A fresh stand-in for CuPy as tinynet's "gpu"."""
    cupy = Strict()
    former = devices.use_gpu(Gpu(cupy, Twins(cupy)))
    yield cupy
    devices.use_gpu(former)
