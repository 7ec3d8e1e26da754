"""The functions of CuPy that its strict stand-in has, with CuPy's names and arguments, and no others."""

import numpy as np


def wrap_around(indices, size):
    """Indices modulo the size, as in CuPy, which never finds one out of range."""
    return indices.astype(np.int64) % size if size else indices


class Functions:
    """Every public method stands in for a function of the module `cupy`."""

    # New arrays

    def empty(self, shape, dtype=float, order="C"):
        return self.allocate(shape, dtype, order)

    def full(self, shape, fill_value, dtype=None, order="C"):
        if dtype is None:
            dtype = fill_value.dtype if hasattr(fill_value, "dtype") else np.array(fill_value).dtype
        array = self.allocate(shape, dtype, order)
        array.fill(fill_value)
        return array

    def zeros(self, shape, dtype=float, order="C"):
        return self.full(shape, 0, dtype, order)

    def ones(self, shape, dtype=float, order="C"):
        return self.full(shape, 1, dtype, order)

    def arange(self, start, stop=None, step=1, dtype=None):
        values = np.arange(start, dtype=dtype) if stop is None else np.arange(start, stop, step, dtype)
        return self.compute(lambda: values)

    def empty_like(self, prototype, dtype=None, order="K", subok=None, shape=None):
        self._check_device(prototype)
        if subok is not None or shape is not None:
            raise NotImplementedError("subok, shape")
        return self.allocate_like(prototype._data, order, dtype)

    def full_like(self, a, fill_value, dtype=None, order="K", subok=None, shape=None):
        array = self.empty_like(a, dtype, order, subok, shape)
        array.fill(fill_value)
        return array

    def zeros_like(self, a, dtype=None, order="K", subok=None, shape=None):
        return self.full_like(a, 0, dtype, order, subok, shape)

    def ones_like(self, a, dtype=None, order="K", subok=None, shape=None):
        return self.full_like(a, 1, dtype, order, subok, shape)

    # From the host, and to it

    def array(self, obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
        if subok or ndmin:
            raise NotImplementedError("subok, ndmin")
        if blocking:
            self.cuda.synchronize("a blocking copy")
        order = order or "K"
        if isinstance(obj, self.ndarray):
            array = obj.astype(obj.dtype if dtype is None else dtype, order=order, copy=bool(copy))
            if copy is False and array is not obj:
                raise ValueError("Unable to avoid copy while creating an array as requested.")
            return array
        host = np.asarray(obj, dtype)
        if not host.ndim:
            return self.full((), host[()], host.dtype)  # the number is an argument of a kernel
        self.cuda.refuse_capture("a copy from the host")
        if order == "K":
            order = "F" if host.flags.f_contiguous and not host.flags.c_contiguous else "C"
        array = self.allocate(host.shape, host.dtype, order)
        array._data[...] = host
        return array

    def asarray(self, a, dtype=None, order=None, *, copy=None, blocking=False):
        return self.array(a, dtype, copy, order or "K", blocking=blocking)

    def ascontiguousarray(self, a, dtype=None):
        self._check_device(a)
        return a.astype(a.dtype if dtype is None else dtype, order="C", copy=False)

    def asnumpy(self, a, stream=None, order="C", out=None, *, blocking=True):
        if isinstance(a, self.ndarray):
            return a.get(stream, order, out, blocking)
        return np.asarray(a, order=order)

    # Views and copies

    def reshape(self, a, newshape, order="C", *, copy=None):
        self._check_device(a)
        if copy is not None:
            raise NotImplementedError("copy")
        return a.reshape(newshape, order=order)

    def ravel(self, a, order="C"):
        self._check_device(a)
        return a.ravel(order)

    def transpose(self, a, axes=None):
        return self._look(a, lambda data: data.transpose(axes))

    def swapaxes(self, a, axis1, axis2):
        return self._look(a, lambda data: data.swapaxes(axis1, axis2))

    def moveaxis(self, a, source, destination):
        return self._look(a, lambda data: np.moveaxis(data, source, destination))

    def squeeze(self, a, axis=None):
        return self._look(a, lambda data: data.squeeze(axis))

    def expand_dims(self, a, axis):
        return self._look(a, lambda data: np.expand_dims(data, axis))

    def broadcast_to(self, array, shape):
        return self._look(array, lambda data: np.broadcast_to(data, shape))

    def flip(self, a, axis=None):
        return self._look(a, lambda data: np.flip(data, axis))

    def copy(self, a, order="K"):
        self._check_device(a)
        return a.copy(order)

    def copyto(self, dst, src, casting="same_kind", where=None):
        self._check_device(dst)
        if isinstance(src, np.ndarray):
            if src.size != 1:
                raise ValueError("non-scalar numpy.ndarray cannot be used for copyto")
            src = src.squeeze()[()]
        arrays = [array for array in (src, where) if array is not None and not np.isscalar(array)]
        self._check_device(*arrays)
        if where is not None and np.isscalar(where):
            raise NotImplementedError("where: a device array")
        number = src if np.isscalar(src) else None
        masked = where is not None

        def copy(target, *inside):
            rest = list(inside)
            source = rest.pop(0) if number is None else number
            np.copyto(target, source, casting, **({"where": rest[0]} if masked else {}))

        self.write(copy, dst, *arrays)

    def concatenate(self, tup, axis=0, out=None, *, dtype=None, casting="same_kind"):
        return self._join(np.concatenate, tup, axis, out, dtype, casting)

    def stack(self, tup, axis=0, out=None, *, dtype=None, casting="same_kind"):
        return self._join(np.stack, tup, axis, out, dtype, casting)

    def where(self, condition, x=None, y=None):
        if x is None or y is None:
            raise NotImplementedError("where(condition): use nonzero")
        values = condition, x, y
        self._check_device(condition, *(value for value in (x, y) if not np.isscalar(value)))
        numbers = [value if np.isscalar(value) else None for value in values]

        def choose(*inside):
            rest = iter(inside)
            return np.where(*(next(rest) if x is None else x for x in numbers))

        return self.compute(choose, *(value for value in values if not np.isscalar(value)))

    def take(self, a, indices, axis=None, out=None):
        self._check_device(a, indices)
        self._check_integers(indices)
        if out is not None:
            raise NotImplementedError("take: out")
        size = a.size if axis is None else a.shape[axis]
        return self.compute(lambda data, i: np.take(data, wrap_around(i, size), axis), a, indices)

    def take_along_axis(self, a, indices, axis):
        self._check_device(a, indices)
        self._check_integers(indices)
        size = a.size if axis is None else a.shape[axis]
        return self.compute(lambda data, i: np.take_along_axis(data, wrap_around(i, size), axis), a, indices)

    def shape(self, a):
        self._check_device(a)
        return a.shape

    def ndim(self, a):
        self._check_device(a)
        return a.ndim

    def may_share_memory(self, a, b, max_work=None):
        self._check_device(a, b)
        return np.may_share_memory(a._data, b._data)

    # Sums and searches

    def sum(self, a, axis=None, dtype=None, out=None, keepdims=False):
        return self._reduce(np.sum, a, out, axis=axis, dtype=dtype, keepdims=keepdims)

    def prod(self, a, axis=None, dtype=None, out=None, keepdims=False):
        return self._reduce(np.prod, a, out, axis=axis, dtype=dtype, keepdims=keepdims)

    def mean(self, a, axis=None, dtype=None, out=None, keepdims=False):
        return self._reduce(np.mean, a, out, axis=axis, dtype=dtype, keepdims=keepdims)

    def var(self, a, axis=None, dtype=None, out=None, ddof=0, keepdims=False):
        return self._reduce(np.var, a, out, axis=axis, dtype=dtype, ddof=ddof, keepdims=keepdims)

    def std(self, a, axis=None, dtype=None, out=None, ddof=0, keepdims=False):
        return self._reduce(np.std, a, out, axis=axis, dtype=dtype, ddof=ddof, keepdims=keepdims)

    def max(self, a, axis=None, out=None, keepdims=False):
        return self._reduce(np.max, a, out, axis=axis, keepdims=keepdims)

    def min(self, a, axis=None, out=None, keepdims=False):
        return self._reduce(np.min, a, out, axis=axis, keepdims=keepdims)

    amax, amin = max, min

    def any(self, a, axis=None, out=None, keepdims=False):
        return self._reduce(np.any, a, out, axis=axis, keepdims=keepdims)

    def all(self, a, axis=None, out=None, keepdims=False):
        return self._reduce(np.all, a, out, axis=axis, keepdims=keepdims)

    def argmax(self, a, axis=None, dtype=None, out=None, keepdims=False):
        self._check_plain(dtype)
        return self._reduce(np.argmax, a, out, axis=axis, keepdims=keepdims)

    def argmin(self, a, axis=None, dtype=None, out=None, keepdims=False):
        self._check_plain(dtype)
        return self._reduce(np.argmin, a, out, axis=axis, keepdims=keepdims)

    def count_nonzero(self, a, axis=None):
        return self._reduce(np.count_nonzero, a, None, axis=axis)

    def cumsum(self, a, axis=None, dtype=None, out=None):
        return self._reduce(np.cumsum, a, out, axis=axis, dtype=dtype)

    def argsort(self, a, axis=-1, kind=None):
        if kind not in (None, "stable"):
            raise ValueError("kind can only be None or 'stable'")
        return self._reduce(np.argsort, a, None, axis=axis, kind="stable")

    def nonzero(self, a):
        self._check_device(a)
        if not a.ndim:
            raise ValueError("Calling nonzero on 0d arrays is not allowed.")
        self.cuda.synchronize("nonzero")
        return tuple(self.compute(lambda places=places: places) for places in a._data.nonzero())

    def array_equal(self, a1, a2, equal_nan=False):
        self._check_device(a1, a2)
        return self.compute(lambda x, y: np.array_equal(x, y, equal_nan), a1, a2)

    def clip(self, a, a_min, a_max, out=None):
        self._check_device(a)
        limits = a_min, a_max
        if any(not (limit is None or np.isscalar(limit)) for limit in limits):
            raise NotImplementedError("clip: numbers as limits")
        if out is not None:
            self._check_device(out)
            return self.write(lambda target, data: np.clip(data, *limits, out=target), out, a)
        return self.compute(lambda data: np.clip(data, *limits), a)

    def round(self, a, decimals=0, out=None):
        return self._reduce(np.round, a, out, decimals=decimals)

    # Products of matrices

    def matmul(
        self, *args, axes=None, axis=None, keepdims=False, casting="same_kind", dtype=None, signature=None,
        order="K", out=None,
    ):  # fmt: skip
        if (axes, axis, keepdims, casting, dtype, signature, order) != self._PLAIN:
            raise NotImplementedError("matmul: only out")
        return self._multiply(np.matmul, args, out)

    def vdot(self, a, b):
        return self._multiply(np.vdot, (a, b), None)

    def dot(self, a, b, out=None):
        return self._multiply(np.dot, (a, b), out)

    def tensordot(self, a, b, axes=2):
        return self._multiply(lambda x, y: np.tensordot(x, y, axes), (a, b), None)

    def einsum(self, *operands, **kwargs):
        subscripts, *arrays = operands
        if unknown := set(kwargs) - {"optimize"}:
            raise TypeError(f"einsum: did not understand the following kwargs: {sorted(unknown)}")
        if len(arrays) > 1:
            return self._multiply(lambda *inside: np.einsum(subscripts, *inside), arrays, None)
        self._check_device(*arrays)
        trial = np.asarray(np.einsum(subscripts, arrays[0]._data))
        if np.may_share_memory(trial, arrays[0]._data):
            return arrays[0]._view(trial)
        return self.compute(lambda data: np.einsum(subscripts, data), *arrays)

    # Parts of the above

    _PLAIN = (None, None, False, "same_kind", None, None, "K")

    def _check_device(self, *arrays):
        for array in arrays:
            if not isinstance(array, self.ndarray):
                raise TypeError(f"Unsupported type {type(array)}: expected a device array")

    @staticmethod
    def _check_integers(indices):
        if indices.dtype.kind not in "iu":
            raise IndexError(f"indices: expected integers, got {indices.dtype}")

    @staticmethod
    def _check_plain(dtype):
        if dtype is not None:
            raise NotImplementedError("dtype")

    def _look(self, a, function):
        self._check_device(a)
        return a._view(function(a._data))

    def _reduce(self, function, a, out, **options):
        """As in CuPy, ``out`` must have exactly the result's shape; here, its dtype as well."""
        self._check_device(a)
        if out is None:
            return self.compute(lambda data: function(data, **options), a)
        self._check_device(out)
        with np.errstate(all="ignore"):
            result = np.asarray(function(a._data, **options))
        if (out.shape, out.dtype) != (result.shape, result.dtype):
            raise ValueError(f"out: expected {result.shape} {result.dtype}, got {out.shape} {out.dtype}")
        return self.write(lambda target, data: np.copyto(target, function(data, **options)), out, a)

    def _add_reduceat(self, array, indices, axis, dtype, out):
        self._check_device(array, indices)
        self._check_integers(indices)
        if out is not None:
            raise NotImplementedError("reduceat: out")
        return self.compute(lambda data, i: np.add.reduceat(data, i, axis, dtype), array, indices)

    def _join(self, function, arrays, axis, out, dtype, casting):
        arrays = list(arrays)
        self._check_device(*arrays)
        if dtype is not None or casting != "same_kind":
            raise NotImplementedError("dtype, casting")
        if out is None:
            return self.compute(lambda *inside: function(inside, axis), *arrays)
        self._check_device(out)
        return self.write(lambda target, *inside: function(inside, axis, out=target), out, *arrays)

    def _multiply(self, function, arrays, out):
        """CuPy calls cuBLAS, which it refuses to do during a capture."""
        self._check_device(*arrays)
        if self.cuda.capturing:
            raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported.")
        if out is None:
            return self.compute(function, *arrays)
        self._check_device(out)
        return self.write(lambda target, *inside: function(*inside, out=target), out, *arrays)
