"""A strict stand-in for CuPy on the CPU, so that all that runs on a GPU can be tested without one.

What CuPy 14 refuses is refused here, and some more; what is allowed gives CuPy's result: a scalar is an array of no
axes, results are C-ordered, indices out of range wrap around, new memory is poison, and while a stream captures,
nothing is computed.
"""

import functools
from types import SimpleNamespace

import numpy as np
import pytest

from tests.strict_cuda import Cuda
from tests.strict_functions import Functions, wrap_around
from tests.strict_twins import Twins
from tinynet import backend

UFUNCS = {
    name: function
    for name, function in vars(np).items()
    if isinstance(function, np.ufunc) and function.nout == 1
    if name not in ("isnat", "matvec", "spacing", "vecdot", "vecmat")  # CuPy 14 has none
}
SCALARS = (bool, int, float, complex, np.bool_, np.number)


def refuse_host(arguments):
    """Raises TypeError if NumPy's arrays are among them, as CuPy does."""
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            raise TypeError(f"Unsupported type {type(argument)}")


class StrictArray(np.lib.mixins.NDArrayOperatorsMixin):
    """What is `cupy.ndarray`. Each `Strict` has a subclass of its own."""

    _strict: "Strict"
    __array_priority__ = 100

    def __init__(self, *arguments, **options):
        raise NotImplementedError("use empty()")

    shape = property(lambda self: self._data.shape)
    dtype = property(lambda self: self._data.dtype)
    ndim = property(lambda self: self._data.ndim)
    size = property(lambda self: self._data.size)
    nbytes = property(lambda self: self._data.nbytes)
    itemsize = property(lambda self: self._data.itemsize)
    strides = property(lambda self: self._data.strides)
    T = property(lambda self: self.transpose())

    @property
    def flags(self):
        flags = self._data.flags
        return SimpleNamespace(
            c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=self.base is None
        )

    # Protocols

    def __array__(self, *arguments, **options):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        if UFUNCS.get(ufunc.__name__) is not ufunc:
            return NotImplemented
        if out is not None and len(out) != 1:
            raise ValueError("The 'out' parameter must have exactly one array value")
        out = out[0] if out else None
        for value in (*inputs, *(() if out is None else (out,))):
            if not isinstance(value, (*SCALARS, self._strict.ndarray, np.ndarray)):
                return NotImplemented
        return self._strict.call_ufunc(ufunc, method, inputs, out, options)

    def __array_function__(self, function, types, arguments, options):
        name = function.__name__
        ours = getattr(Functions, name, None) if function.__module__ == "numpy" else None
        if ours is None or not all(issubclass(kind, (self._strict.ndarray, np.ndarray)) for kind in types):
            return NotImplemented
        return getattr(self._strict, name)(*arguments, **options)

    # To the host

    def get(self, stream=None, order="C", out=None, blocking=True):
        """A copy as NumPy's array."""
        if stream is not None or out is not None or not blocking:
            raise NotImplementedError("get() alone")
        self._strict.cuda.synchronize("get")
        return np.array(self._data, order=order)

    def set(self, array):
        """Take over a NumPy array of the same dtype and shape."""
        if not isinstance(array, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if array.dtype != self.dtype:
            raise TypeError(f"{array.dtype} array cannot be set to {self.dtype} array")
        if array.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {array.shape}")
        if not (self.flags.c_contiguous or self.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        self._strict.cuda.refuse_capture("a copy from the host")
        self._data[...] = array

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def __bool__(self):
        if self.size != 1:
            raise ValueError(f"The truth value of an array of {self.size} elements is ambiguous")
        return bool(self.get().item())

    def __int__(self):
        return int(self.item())

    def __float__(self):
        return float(self.item())

    def __complex__(self):
        return complex(self.item())

    # CuPy's has no __index__ either.

    def __len__(self):
        if not self.ndim:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __iter__(self):
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        return f"<strict array {self.shape} {self.dtype}>"  # CuPy's would read the values back

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def __reduce_ex__(self, protocol):
        raise TypeError("arrays on the device are not pickled: use get()")

    # Views

    def _view(self, data):
        return self._strict.wrap(data, self._memory, self if self.base is None else self.base)

    def view(self, dtype=None):
        return self._view(self._data.view() if dtype is None else self._data.view(dtype))

    def transpose(self, *axes):
        return self._view(self._data.transpose(*axes))

    def swapaxes(self, axis1, axis2):
        return self._view(self._data.swapaxes(axis1, axis2))

    def squeeze(self, axis=None):
        return self._view(self._data.squeeze(axis))

    def reshape(self, *shape, order="C"):
        """A view where the layout allows one, else a copy."""
        reshaped = self._data.reshape(*shape, order=order)
        if np.may_share_memory(reshaped, self._data):
            return self._view(reshaped)
        return self._strict.compute(lambda data: data.reshape(*shape, order=order), self, order=order)

    def ravel(self, order="C"):
        return self.reshape(-1, order=order)

    def flatten(self, order="C"):
        return self.copy(order).reshape(-1, order=order)

    # Copies

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        if subok is not None or casting not in (None, "unsafe"):
            raise NotImplementedError("astype: dtype, order and copy alone")
        same = np.dtype(dtype) == self.dtype and (order == "K" or self._data.flags[f"{order}_CONTIGUOUS"])
        if same and not copy:
            return self
        return self._strict.compute(lambda data: data.astype(dtype, order=order), self, order=order)

    def copy(self, order="C"):
        return self.astype(self.dtype, order)

    def fill(self, value):
        """Write one value everywhere."""
        if isinstance(value, np.ndarray) or getattr(value, "shape", ()) != ():
            raise ValueError("non-scalar array cannot be used for fill")
        self[...] = value

    # Items

    def __getitem__(self, key):
        index, arrays, masked = self._strict.prepare_index(key, self.shape)
        if not arrays:
            return self._view(self._data[index()])
        if masked:
            self._strict.cuda.synchronize("indexing by a mask")
        return self._strict.compute(lambda data, *_: data[index()], self, *arrays)

    def __setitem__(self, key, value):
        strict = self._strict
        index, arrays, masked = strict.prepare_index(key, self.shape)
        if isinstance(value, StrictArray):
            new = value._data
        elif isinstance(value, SCALARS):
            new = np.asarray(value).astype(self.dtype)
            if isinstance(value, int) and not isinstance(value, bool) and self.dtype.kind in "iu":
                new = np.array(value, self.dtype)  # raises OverflowError
        else:
            raise ValueError(f"an item is set from a device array or a number, got {type(value)}")
        if masked:
            strict.cuda.synchronize("indexing by a mask")
        target, numbers = self._data, np.arange(self.size).reshape(self.shape)
        scattered = bool(arrays) and not masked

        def work():
            places = index()
            if scattered and new.size > 1:
                chosen = numbers[places].ravel()
                if np.unique(chosen).size < chosen.size:
                    raise AssertionError("places set twice: on a GPU any of the values may win")
            target[places] = new

        if strict.cuda.capturing:
            target[index()].shape  # noqa: B018  (raises IndexError as the work would)
            np.broadcast_to(new, target[index()].shape)
        strict.cuda.launch(work, [self, *arrays, *([value] if isinstance(value, StrictArray) else [])])


METHODS = (
    *("all", "any", "argmax", "argmin", "argsort", "clip", "cumsum", "max", "mean", "min", "nonzero"),
    *("prod", "round", "std", "sum", "take", "var"),
)


def _method(name):
    def method(self, *arguments, **options):
        return getattr(self._strict, name)(self, *arguments, **options)

    return method


for _name in METHODS:
    setattr(StrictArray, _name, _method(_name))


class Strict(Functions):
    """What is the module `cupy`. `synchronizations` counts how often the host has waited for a value."""

    __version__ = "14.2.0"
    newaxis, inf, nan, pi = None, np.inf, np.nan, np.pi

    def __init__(self):
        self.cuda = Cuda()
        self.ndarray = type("ndarray", (StrictArray,), {"_strict": self})

    @staticmethod
    def fresh():
        """Another one, which shares nothing with this."""
        return Strict()

    @property
    def synchronizations(self):
        return self.cuda.synchronizations

    def limit_memory(self, limit):
        """Within it, no more than so many bytes can be allocated in all."""
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

    # What all the functions are made of

    def wrap(self, data, memory, base=None):
        array = object.__new__(self.ndarray)
        array._data, array._memory, array.base = data, memory, base
        return array

    def allocate(self, shape, dtype, order="C"):
        return self.wrap(*self.cuda.allocate(shape, dtype, order))

    def allocate_like(self, data, order="C", dtype=None):
        """Memory for an array like this NumPy array; order "K" takes over the order of its axes in memory."""
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
        """A new array of what ``function`` gives for the NumPy arrays inside of these."""
        inside = [array._data for array in arrays]
        with np.errstate(all="ignore"):
            value = np.asarray(function(*inside))  # in a capture, for its shape and dtype alone
        result = self.allocate_like(value, order)
        known = [] if self.cuda.capturing else [value]
        target = result._data

        def work():
            np.copyto(target, known.pop() if known else function(*inside))

        self.cuda.launch(work, [*arrays, result])
        return result

    def write(self, function, out, *arrays):
        """``function(out, arrays)`` on the NumPy arrays inside, which writes into out; returns out."""
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
            if unknown := set(options) - set(defaults):
                raise TypeError(
                    f"{ufunc.__name__}.{method}() got unexpected keyword arguments {sorted(unknown)}"
                )
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
        """(function giving the index for NumPy, device arrays in it, is there a mask); integers wrap around."""
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
            data = getattr(part, "_data", part)  # not the array itself, whose life a graph must not prolong
            parts.append(lambda data=data: data)
        if not arrays and not any(part is Ellipsis for part in key):
            parts.append(lambda: Ellipsis)  # an array, never a scalar
        return lambda: tuple(part() for part in parts), arrays, bool(masks)


strict = Strict()


@pytest.fixture
def stand_in():
    """A fresh stand-in for CuPy as tinynet's "gpu"."""
    cupy = Strict()
    former = backend.use_gpu(backend.Gpu(cupy, Twins(cupy)))
    yield cupy
    backend.use_gpu(former)
