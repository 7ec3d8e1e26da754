"""The operations of `OPERATIONS` on GPU arrays; each launches a kernel of `tinynet.engines.gpu.source`.

Nothing is read back and nothing waits, so that a whole step can be captured in a CUDA graph. A number that changes
from step to step may be a 0-d array on the GPU.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinynet.engines.gpu.source import BASICS, MATH, MOVES
from tinynet.support.types import Array, Decay, Shape

_THREADS = 256  # per block
_BLOCKS = 1 << 16  # at most; each thread then takes several elements
_PART = 1 << 15  # numbers that one block sums; more are split into parts, which a second kernel adds
_SQUARES = 256  # blocks that sum the squares of a gradient
_WIDE = 1 << 31  # from this many elements, an index needs 64 bits

_C_NAMES = {
    "bool": "bool",
    "int8": "signed char",
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned int",
    "int64": "long long",
    "uint64": "unsigned long long",
    "float32": "float",
    "float64": "double",
}
# The structs of the source.
_LAYOUT = np.dtype([("n", np.int64, 4), ("s", np.int64, 4)])
_STEPS = np.dtype([("row", np.int64), ("feature", np.int64)])
_WINDOWS = np.dtype([("down", np.int32, 6), ("across", np.int32, 6)])

Windows = Sequence[Sequence[int]]
"""A `tinynet.layers.windows.geometry.Windows`: pixels, size, stride, before, after and outputs, down and across."""


class Kernels:
    """The operations on a GPU; the NumPy function of the same name says what each does.

    Args: cp: the cupy module.
    """

    def __init__(self, cp: Any) -> None:
        self.cp = cp
        self._modules: dict[Any, Any] = {}
        self._functions: dict[Any, Any] = {}
        self._gemm: Any = None

    # -- layers -------------------------------------------------------------------------------------

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        if self._gemm is None:
            from tinynet.engines.gpu.cublas import Gemm

            self._gemm = Gemm(self.cp)
        product: Array = self._gemm.matmul(a, b, out)
        return product

    def rectify(
        self, x: Array, bias: Array | None, out: Array | None, zeros: Callable[[Array], Array] | None
    ) -> Array:
        y = self._writable(self.cp.empty_like(x) if out is None else out)
        features, apart = x.shape[-1], max(1, y.strides[-1] // y.itemsize)
        self._each("rectify", y, *self._beside(y, x), bias, features, apart, y, y.size)
        return self._written(y, out)

    def rectify_backward(self, dy: Array, y: Array, out: Array, buffer: Callable[..., Array]) -> Array:
        dx = self._writable(out)
        self._each("rectify_backward", dx, *self._beside(dx, dy), *self._beside(dx, y), dx, dx.size)
        return self._written(dx, out)

    def softmax(self, x: Array) -> Array:
        return self._softmax("softmax", x)

    def log_softmax(self, x: Array) -> Array:
        return self._softmax("log_softmax", x)

    def sum_rows(self, rows: Array, out: Array) -> None:
        self._sum_features(rows, None, out, None)

    def take_windows(self, padded: Array, windows: Windows, rows: slice, columns: Array) -> None:
        channels, taps = len(padded), len(columns) // len(padded)
        blocks = _blocks(columns.size // (channels * taps))
        # A thread writes the same column for several channels, as long as enough threads are busy.
        at_once = min(channels, -(-4096 // (blocks * taps)))
        arguments = padded, _layout(padded), _windows(windows), rows.start, rows.stop - rows.start, columns
        self._launch("take_windows", columns, (blocks, at_once, taps), (_THREADS,), arguments)

    def add_windows(self, columns: Array, padded: Array, windows: Windows, rows: slice) -> None:
        where = _layout(padded), _windows(windows), rows.start, rows.stop - rows.start
        self._each("add_windows", padded, columns, padded, *where)

    def max_pool(
        self, images: Array, windows: Windows, y: Array, buffer: Callable[..., Array] | None, rectify: bool
    ) -> None:
        self._each("max_pool", y, images, _layout(images), _windows(windows), y)
        if rectify:
            self.rectify(y, None, y, None)

    def max_pool_backward(
        self, dy: Array, x: Array, y: Array, windows: Windows, dx: Array, buffer: Callable[..., Array],
        rectified: bool,
    ) -> None:  # fmt: skip
        if rectified:
            dy = self.rectify_backward(dy, y, self.cp.empty_like(y), buffer)
        self._each("max_pool_backward", dx, dy, _layout(dy), x, _layout(x), y, _windows(windows), dx)

    def moments(self, rows: Array, centred: Array, shard: Any) -> tuple[Array, Array]:
        (m, f), (grid, block, parts, chunk) = rows.shape, _columns(rows)
        means, variances = (self.cp.empty((parts, f), rows.dtype) for _ in range(2))
        self._launch("moments", rows, grid, block, (rows, _steps(rows), m, f, chunk, means, variances))
        if parts == 1:
            return means[0], variances[0]
        mean, var = (self.cp.empty(f, rows.dtype) for _ in range(2))
        grid, block = _columns(means)[:2]
        self._launch("combine_moments", rows, grid, block, (means, variances, parts, m, f, chunk, mean, var))
        return mean, var

    def standardize(
        self, rows: Array, centred: Array, mean: Array, var: Array, epsilon: float, gamma: Array, beta: Array, y: Array
    ) -> Array:  # fmt: skip
        inv_std: Array = self.cp.empty_like(mean)
        given = rows, _steps(rows), mean, var, rows.dtype.type(epsilon), gamma, beta
        made = centred, _steps(centred), y, _steps(y), inv_std
        self._each("standardize", rows, *given, *made, _features_inner(y), *rows.shape)
        return inv_std

    def move_averages(
        self, running_mean: Array, mean: Array, running_var: Array, var: Array, momentum: float
    ) -> None:
        shares = mean.dtype.type(momentum), mean.dtype.type(1 - momentum)
        self._each("move_averages", mean, running_mean, mean, running_var, var, *shares, mean.size)

    def feature_sums(self, dy: Array, x_hat: Array, dbeta: Array, dgamma: Array) -> None:
        self._sum_features(dy, x_hat, dbeta, dgamma)

    def batchnorm_dx(
        self, dy: Array, x_hat: Array, dgamma: Array, dbeta: Array, m: int, gamma: Array, inv_std: Array, dx: Array
    ) -> None:  # fmt: skip
        given = dy, _steps(dy), x_hat, _steps(x_hat), dgamma, dbeta, dy.dtype.type(m), gamma, inv_std
        self._each("batchnorm_dx", dy, *given, dx, _steps(dx), _features_inner(dx), *dy.shape)

    def drop(
        self, x: Array, key: tuple[int, int], first_row: int, step: Any, threshold: int, mask: Array, y: Array
    ) -> None:
        if not x.strides == mask.strides == y.strides or not 2 <= x.ndim <= 5:
            dense = self.cp.ascontiguousarray(x).reshape(len(x), -1)
            parts = self.cp.empty_like(dense), self.cp.empty_like(dense)
            self.drop(dense, key, first_row, step, threshold, *parts)
            mask[...], y[...] = (part.reshape(x.shape) for part in parts)
            return
        n, units = len(x), math.prod(x.shape[1:])
        by_row, *by_unit = _strides(x)
        random = *_philox_key(key), np.uint64(first_row), *self._scalar(step, np.int64), threshold
        scale, sizes = x.dtype.type(1 / (1 - threshold / 65536)), (n, units, by_row)
        arguments = (
            x,
            *random,
            scale,
            mask,
            y,
            *sizes,
            _packed(x.shape[1:], tuple(by_unit)),
            by_row < min(by_unit),
        )
        self._launch("drop", x, (_blocks(n * -(-units // 16)),), (_THREADS,), arguments)

    # -- batches ------------------------------------------------------------------------------------

    def take_rows(self, data: Array, order: Array | None, start: Any, out: Array) -> Array:
        types, row = (data.dtype, out.dtype), math.prod(out.shape[1:])
        arguments = data, order, *self._scalar(start, np.int64), out, row, out.size
        self._launch("take_rows", out, (_blocks(out.size),), (_THREADS,), arguments, types)
        return out

    def flip_images(self, x: Array, mirrored: Array) -> Array:
        return self._moved("flip_images", x, (mirrored,))

    def shift_images(self, x: Array, up: Array, left: Array, pixels: int, fill: float) -> Array:
        return self._moved("shift_images", x, (up, left), pixels, x.dtype.type(fill))

    def erase_squares(
        self, x: Array, chosen: Array, top: Array, left: Array, size: Array, fill: float
    ) -> Array:
        return self._moved("erase_squares", x, (chosen, top, left, size), x.dtype.type(fill))

    # -- losses and optimizers ----------------------------------------------------------------------

    def softmax_cross_entropy(self, logits: Array, labels: Array, smoothing: float) -> tuple[Array, Array]:
        logits = self.cp.ascontiguousarray(logits)
        losses, probabilities = self.cp.empty(len(logits), logits.dtype), self.cp.empty_like(logits)
        s = logits.dtype.type(smoothing)
        self._rows("softmax_cross_entropy", logits, logits, labels, s, losses, probabilities)
        return losses, probabilities

    def cross_entropy_gradient(
        self, probabilities: Array, labels: Array, smoothing: float, total: int
    ) -> Array:
        p = self.cp.ascontiguousarray(probabilities)
        return self._minus_targets(p, total, labels, smoothing, total, self.cp.empty_like(p))

    def pick(self, scores: Array, labels: Array) -> Array:
        picked: Array = self.cp.empty(len(scores), scores.dtype)
        self._each("pick", picked, scores, _steps(scores), labels, picked, len(scores))
        return picked

    def subtract_targets(self, gradient: Array, labels: Array, smoothing: float, total: int) -> None:
        dense = self.cp.ascontiguousarray(gradient)
        self._written(self._minus_targets(dense, 1, labels, smoothing, total, dense), gradient)

    def channel_products(self, x: Array, dy: Array, out: Array) -> None:
        products = self.cp.ascontiguousarray(x * dy).reshape(out.size, -1)
        sums = self.cp.empty(out.size, out.dtype)
        self.sum_rows(products.T, sums)
        out[...] = sums.reshape(out.shape)

    def squared_norm(self, x: Array) -> Array:
        column = self.cp.ascontiguousarray(x).reshape(-1, 1)
        sums = self.cp.empty((2, 1), x.dtype)  # of x, and of x^2
        self._sum_features(column, column, *sums)
        norm: Array = sums[1].reshape(())
        return norm

    def record(self, meter: Array, value: Any, outputs: Array, labels: Array | None) -> None:
        scores = self.cp.ascontiguousarray(outputs).reshape(len(outputs), -1)
        lanes = _power_of_two(scores.shape[1], _THREADS)
        if labels is not None and labels.ndim == 2:
            labels = labels.argmax(axis=1)
        arguments = meter, *self._scalar(value, scores.dtype.type), scores, labels, *scores.shape
        self._launch("record", scores, (1,), (lanes, 1024 // lanes), arguments)

    def set_numbers(
        self, floats: Array, ints: Array, start: int, step: int, step_size: float, kept: float
    ) -> None:
        number = floats.dtype.type
        self._launch(
            "set_numbers", floats, (1,), (1,), (floats, ints, start, step, number(step_size), number(kept))
        )

    def adam_update(
        self, params: Array, grads: Array, m: Array, v: Array, scratch: Array, step_size: Any, beta_1: float,
        beta_2: float, epsilon: float, decay: Decay,
    ) -> None:  # fmt: skip
        kept, decayed = decay
        if decayed:
            params[:decayed] *= kept
        number = params.dtype.type
        factors = *self._scalar(step_size, number), number(beta_1), number(beta_2), number(epsilon)
        self._each("adam_update", params, params, grads, m, v, *factors, params.size)

    def clip(self, gradient: Array, ranges: Sequence[tuple[int, int]], clip_norm: float) -> None:
        sums = self.cp.empty((len(ranges), _SQUARES, 2), np.float64)
        for (start, stop), part in zip(ranges, sums, strict=True):
            arguments = gradient[start:stop], stop - start, part
            self._launch("sum_squares", gradient, (_SQUARES,), (_THREADS,), arguments)
        self._each("clip", gradient, gradient, gradient.size, sums, len(ranges) * _SQUARES, float(clip_norm))

    # -- launching ----------------------------------------------------------------------------------

    def _launch(
        self,
        name: str,
        like: Array,
        grid: Shape,
        block: Shape,
        arguments: tuple[Any, ...],
        types: tuple[Any, ...] | None = None,
    ) -> None:
        """Run the kernel for this array's size and dtype, or for the two dtypes that it moves data between."""
        key = name, types or like.dtype, like.size >= _WIDE
        function = self._functions.get(key)
        if function is None:
            module = self._module(types or (like.dtype,), like.size >= _WIDE)
            function = self._functions[key] = module.get_function(name)
        function(grid, block, arguments)

    def _each(self, name: str, like: Array, *arguments: Any) -> None:
        """Run a kernel with one thread per element of an array."""
        self._launch(name, like, (_blocks(like.size),), (_THREADS,), arguments)

    def _rows(self, name: str, x: Array, *arguments: Any) -> None:
        """Run a kernel on the rows of x (n, k), with a power of two of threads per row."""
        n, k = x.shape
        lanes = _power_of_two(k, _THREADS)
        height = _THREADS // lanes
        self._launch(name, x, (_blocks(n, height),), (lanes, height), (*arguments, n, k))

    def _module(self, types: tuple[Any, ...], wide: bool) -> Any:
        """The source compiled for these dtypes."""
        if (types, wide) not in self._modules:
            names = tuple(dtype.name for dtype in types)
            if not set(names) <= set(_C_NAMES) or (len(types) == 1 and types[0].kind != "f"):
                raise TypeError(
                    f"there are no GPU kernels for {' and '.join(names)}: models are float32 or float64, data "
                    f"{', '.join(_C_NAMES)}; convert the array, for example with x.astype('float32')"
                )
            options = "-std=c++17", *(["-DWIDE"] if wide else [])
            self._modules[types, wide] = self.cp.RawModule(code=source(*names), options=options)
        return self._modules[types, wide]

    def _scalar(self, value: Any, kind: type[np.generic]) -> tuple[Any, Any]:
        """A number, perhaps on the GPU, as two parameters of a kernel: its GPU array or None, and its value."""
        if isinstance(value, self.cp.ndarray):
            return value.astype(kind, copy=False), kind(0)
        return None, kind(value)

    def _moved(self, name: str, x: Array, on_host: tuple[Array, ...], *arguments: Any) -> Array:
        """A new array of the images, whose pixels a kernel moves."""
        x = self.cp.ascontiguousarray(x)
        y: Array = self.cp.empty_like(x)
        sizes = *x.shape[1:3], math.prod(x.shape[3:]), x.size
        arguments = (x, *map(self.cp.asarray, on_host), *arguments, y, *sizes)
        self._launch(name, x, (_blocks(x.size),), (_THREADS,), arguments, (x.dtype, x.dtype))
        return y

    def _softmax(self, name: str, x: Array) -> Array:
        x = self.cp.ascontiguousarray(x)
        y: Array = self.cp.empty_like(x)
        self._rows(name, x.reshape(-1, x.shape[-1]), x, y)
        return y

    def _minus_targets(
        self, scores: Array, divisor: int, labels: Array, smoothing: float, total: int, out: Array
    ) -> Array:
        """out = scores / divisor - q / total, for dense arrays."""
        number, k = scores.dtype.type, scores.shape[1]
        shares = number(divisor), number((1 - smoothing) / total), number(smoothing / (total * k))
        self._each("subtract_targets", scores, scores, labels, *shares, out, k, scores.size)
        return out

    def _sum_features(self, rows: Array, other: Array | None, sums: Array, others: Array | None) -> None:
        """sums = sum over rows, others = sum of rows other; many rows are summed in parts first."""
        (m, f), (grid, block, parts, chunk) = rows.shape, _columns(rows)
        given = rows, _steps(rows), other, _steps(rows if other is None else other), True, m, f, chunk
        if parts == 1:
            self._launch("feature_sums", rows, grid, block, (*given, sums, others))
            return
        part: Array = self.cp.empty((parts, f), rows.dtype)
        other_part = None if other is None else self.cp.empty((parts, f), rows.dtype)
        self._launch("feature_sums", rows, grid, block, (*given, part, other_part))
        (width, _), block = _columns(part)[:2]
        given = part, _steps(part), other_part, _steps(part), False, parts, f, parts
        self._launch("feature_sums", rows, (width, 1), block, (*given, sums, others))

    # -- memory -------------------------------------------------------------------------------------

    def _writable(self, out: Array) -> Array:
        """``out`` if its elements lie without gaps, in any order, else an array to be copied into it."""
        return out if _order(out) is not None else self.cp.empty(out.shape, out.dtype)

    def _written(self, array: Array, out: Array | None) -> Array:
        """The result, in ``out`` if that was given."""
        if out is None or out is array:
            return array
        out[...] = array
        return out

    def _beside(self, out: Array, array: Array) -> tuple[Array, Array]:
        """An array, and the layout that finds the elements of ``out`` in it, counted in memory order."""
        if array.strides == out.strides:
            return array, _SAME
        if array.ndim > 4:
            copy = self.cp.empty_like(out)
            copy[...] = array
            return copy, _SAME
        order, strides = _order(out) or (), _strides(array)
        return array, _packed(tuple(array.shape[i] for i in order), tuple(strides[i] for i in order))


def source(*names: str) -> str:
    """The kernels' source for a model's dtype, or for the two dtypes that data is moved between."""
    kinds = ("Real",) if len(names) == 1 else ("Source", "Target")
    typedefs = (f"typedef {_C_NAMES[name]} {kind};\n" for name, kind in zip(names, kinds, strict=True))
    kernels = MATH if len(names) == 1 else MOVES
    return "".join(typedefs) + BASICS + kernels


def _blocks(elements: int, of_block: int = _THREADS) -> int:
    """How many blocks to launch for this many elements."""
    return max(1, min(-(-elements // of_block), _BLOCKS))


def _power_of_two(number: int, most: int) -> int:
    """The smallest power of two that is not below ``number``, but at most ``most``."""
    return min(1 << max(0, number - 1).bit_length(), most)


def _strides(array: Array) -> tuple[int, ...]:
    """Strides in elements."""
    return tuple(stride // array.itemsize for stride in array.strides)


def _order(array: Array) -> tuple[int, ...] | None:
    """The axes from slow to fast in memory; None if there are gaps."""
    order = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    expected = array.itemsize
    for axis in reversed(order):
        if array.shape[axis] != 1:
            if array.strides[axis] != expected:
                return None
            expected *= array.shape[axis]
    return tuple(order)


def _features_inner(rows: Array) -> bool:
    """Whether the features of (m, f) lie side by side in memory."""
    return bool(rows.strides[1] <= rows.strides[0])


def _columns(rows: Array) -> tuple[Shape, Shape, int, int]:
    """Grid and block for sums over axis 0 of (m, f), the number of parts, and the rows in each.

    A block takes up to 32 features if they lie side by side in memory, otherwise one.
    """
    m, f = rows.shape
    width = _power_of_two(f, 32) if _features_inner(rows) else 1
    blocks = -(-f // width)
    parts = 1 if m * width <= _PART else max(1, min(4 * m * width // _PART, 512 // blocks))
    chunk = max(1, -(-m // parts))
    parts = max(1, -(-m // chunk))
    return (blocks, parts), (width, _power_of_two(chunk, 1024 // width)), parts, chunk


@functools.lru_cache(maxsize=4096)
def _packed(shape: Shape, strides: Shape) -> Array:
    """A ``Layout`` of up to four axes."""
    missing = 4 - len(shape)
    layout: Array = np.array(((1,) * missing + shape, (0,) * missing + strides), _LAYOUT)
    return layout


def _layout(array: Array) -> Array:
    return _packed(array.shape, _strides(array))


@functools.lru_cache(maxsize=1024)
def _windows(windows: Windows) -> Array:
    packed: Array = np.array(tuple(map(tuple, windows)), _WINDOWS)
    return packed


@functools.lru_cache(maxsize=1024)
def _philox_key(key: tuple[int, int]) -> tuple[Any, ...]:
    """The key's words as NumPy reads them: it turns a tuple with one word below 2^63 and one above into floats."""
    return tuple(np.random.Philox(key=key).state["state"]["key"])


def _steps(rows: Array) -> Array:
    packed: Array = np.array(_strides(rows), _STEPS)
    return packed


_SAME = _packed((0,) * 4, (0,) * 4)
