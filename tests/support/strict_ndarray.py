"""The strict stand-in's array, `cupy.ndarray`: it holds a NumPy array, which only the stand-in looks at."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.support.strict_functions import Functions

UFUNCS = {
    name: function
    for name, function in vars(np).items()
    if isinstance(function, np.ufunc) and function.nout == 1
    if name not in ("isnat", "matvec", "spacing", "vecdot", "vecmat")  # missing from CuPy 14
}
SCALARS = (bool, int, float, complex, np.bool_, np.number)


class StrictArray(np.lib.mixins.NDArrayOperatorsMixin):
    """Stands in for `cupy.ndarray`. Each `Strict` has its own subclass."""

    _strict: Any  # a tests.support.strict_arrays.Strict
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
        """A copy as a NumPy array."""
        if stream is not None or out is not None or not blocking:
            raise NotImplementedError("only get() without arguments")
        self._strict.cuda.synchronize("get")
        return np.array(self._data, order=order)

    def set(self, array):
        """Refused: it may read the array after it has returned, when that may be freed or overwritten."""
        raise NotImplementedError("set: use asarray, which copies to its own memory first")

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

    # CuPy's array has no __index__ either.

    def __len__(self):
        if not self.ndim:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __iter__(self):
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        return f"<strict array {self.shape} {self.dtype}>"  # CuPy's repr would read the values back

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
        """A view if the layout allows one, else a copy."""
        reshaped = self._data.reshape(*shape, order=order)
        if not self.size or np.may_share_memory(reshaped, self._data):
            return self._view(reshaped)
        return self._strict.compute(lambda data: data.reshape(*shape, order=order), self, order=order)

    def ravel(self, order="C"):
        return self.reshape(-1, order=order)

    def flatten(self, order="C"):
        return self.copy(order).reshape(-1, order=order)

    # Copies

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        if subok is not None or casting is not None:
            raise TypeError("astype: only dtype, order and copy")
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
