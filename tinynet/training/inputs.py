"""Check the user's arrays, and prepare them, before anything is changed."""

import math
import numbers
from typing import Any

import numpy as np

from tinynet.engines.devices import CPU, Device, as_array, blocks, contiguous, is_mapped, to_host
from tinynet.losses import Loss
from tinynet.protocols import Model
from tinynet.support.checks import batch_shape
from tinynet.support.types import Array, Shape
from tinynet.training.batches import batch_dtype


def check_inputs(
    x: Any, input_shape: Shape, dtype: np.dtype[Any], name: str = "x", device: Device = CPU
) -> Array:
    """Return examples as a C-contiguous array in native byte order; the caller's array if it is one already.

    Integers stay integers (each batch is cast when it is used); floats are converted to the model's dtype. A
    memory-mapped file stays as it is: `ArrayBatches` converts each batch.

    Args: x: (n, *input_shape), numbers, in NumPy or on the model's device; name: its name in errors.
    Raises: ValueError: for other types and shapes, for no examples, and for NaN or infinite values; TypeError: for an
        array on the GPU if the model is not.
    """
    x = as_array(x, name, device)
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected real numbers, got dtype {x.dtype}{_dtype_hint(x, name)}")
    if x.shape[1:] != input_shape or x.ndim == 0:
        raise ValueError(
            f"{name}: expected shape {batch_shape(input_shape)}, got {x.shape}{_shape_hint(x.shape, input_shape)}"
        )
    if not len(x):
        raise ValueError(f"{name}: expected at least one example, got an empty array of shape {x.shape}")
    dtype = batch_dtype(x, dtype)
    with np.errstate(over="ignore"):  # overflow becomes infinite, which is detected below
        ready: Array = x if is_mapped(x) else contiguous(x, dtype)
        if dtype.kind == "f":
            _check_finite(ready, dtype, name)
    return ready


def _dtype_hint(x: Array, name: str) -> str:
    items = list(x.flat) if x.dtype == object else []
    if items and all(isinstance(item, np.ndarray) and item.shape == items[0].shape for item in items):
        return f"; give np.stack({name}), as all of its arrays have one shape"
    if items and all(isinstance(item, numbers.Real) for item in items):
        return f"; give {name}.astype('float32')"
    return ""


def _shape_hint(shape: Shape, input_shape: Shape) -> str:
    """How to make it fit, where that leaves every number in its place."""
    if shape == input_shape:
        return "; for a single example pass x[None]"
    if len(shape) == 4 and (*shape[2:], shape[1]) == input_shape:
        return "; if the channels come first, give x.transpose(0, 2, 3, 1)"
    several_channels = len(input_shape) == 3 and input_shape[-1] > 1  # in flat data they may come first
    for batch, sizes in ((-1, shape[1:]), (1, shape)):
        flat = len(input_shape) == 1 or (len(sizes) == 1 and not several_channels)
        same = [size for size in sizes if size > 1] == [size for size in input_shape if size > 1]
        if sizes and math.prod(sizes) == math.prod(input_shape) and (flat or same):
            code = f"x.reshape({', '.join(map(str, (batch, *input_shape)))})"
            return f"; {code} would fit" if batch == -1 else f"; for a single example pass {code}"
    return ""


def _check_finite(x: Array, dtype: np.dtype[Any], name: str) -> None:
    for start, block in blocks(x):
        cast = block.astype(dtype, copy=False)
        finite = np.isfinite(cast)
        if not finite.all():
            first = tuple(map(int, np.argwhere(~to_host(finite))[0]))
            raise ValueError(
                f"{name}: expected finite {dtype} numbers, got {to_host(cast[first])} at index "
                f"{(start + first[0], *first[1:])}; remove or repair such examples"
            )


def check_pair(x: Array, y: Array, x_name: str = "x", y_name: str = "y") -> None:
    """Raise ValueError unless there is one target per example."""
    if len(x) != len(y):
        raise ValueError(f"expected one target per example; {x_name} has {len(x)}, {y_name} has {len(y)}")


def check_data(x: Any, y: Any, model: Model, loss: Loss, suffix: str = "") -> tuple[Array, Array]:
    """Return inputs and targets, ready to use; raise ValueError. ``suffix`` follows their names in errors."""
    x = check_inputs(x, model.input_shape, model.dtype, f"x{suffix}", model.device)
    y = as_array(y, f"y{suffix}")
    check_pair(x, y if y.ndim else y[None], f"x{suffix}", f"y{suffix}")
    try:
        return x, loss.prepare_targets(y, model.output_shape, model.dtype)
    except ValueError as error:
        raise ValueError(f"y{suffix}: {error}") from None


def magnitude(x: Array) -> float:
    """The largest magnitude among the values."""
    return max(float(x.max()), -float(x.min()))


def looks_like_bytes(x: Array) -> bool:
    """Return whether the values may be pixels from 0 to 255, rather than from 0 to 1."""
    return x.dtype.kind in "iu" and int(x.max()) > 1


def looks_like_unit_range(x: Array) -> bool:
    """Return whether the values are floats from 0 to 1, and not all 0."""
    return x.dtype.kind == "f" and float(x.min()) >= 0 and 0 < float(x.max()) <= 1
