"""Operations: functions of arrays that an engine may run as one kernel instead of a chain of NumPy calls."""

import functools
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, TypeVar, cast

import numpy as np

from tinynet.engines.devices import explain_mixture, kernels_for
from tinynet.support.types import Array

F = TypeVar("F", bound=Callable[..., Any])

OPERATIONS: dict[str, str] = {}
"""Every operation's name, which is also its kernel's, and the module of its NumPy body."""


Loops = Mapping[str, Callable[..., Any]]

loops: ContextVar[Loops] = ContextVar("loops", default=MappingProxyType({}))
"""The compiled loops that compute operations on NumPy arrays, by name; none with the NumPy engine."""


def operation(body: F) -> F:
    """Run the body on NumPy arrays, and the kernel of its name on an engine's; the first argument decides.

    With the Numba engine, a compiled loop takes the NumPy arrays that it knows; for others it returns NotImplemented.
    """
    name, module = body.__name__, __name__ if isinstance(body, np.ufunc) else body.__module__
    if OPERATIONS.setdefault(name, module) != module:
        raise ValueError(f"operation {name}: {OPERATIONS[name]} already has one of that name; choose another")

    @functools.wraps(body)
    def run(*arguments: Any, **options: Any) -> Any:
        kernels = kernels_for.get(type(arguments[0]))
        if kernels is None and (loop := loops.get().get(name)) is not None:
            result = loop(*arguments, **options)
            if result is not NotImplemented:
                return result
        try:
            return (body if kernels is None else getattr(kernels, name, body))(*arguments, **options)
        except TypeError as error:
            explain_mixture(name, [*arguments, *options.values()], error)
            raise

    return cast(F, run)


# What several layers use. All other operations are in the files of their layers.

matmul = operation(np.matmul)

_RUN = 256  # rows


@operation
def sum_rows(rows: Array, out: Array) -> None:
    """out = sum_n rows, (n, features) -> (features,)."""
    if len(rows) <= _RUN:
        np.add.reduce(rows, axis=0, out=out)
    else:
        out[...] = sum_of_rows(rows)


def sum_of_rows(rows: Array, other: Array | None = None) -> Array:
    """sum_n rows, or sum_n rows other, (n, features) -> (features,).

    A single running sum of many float32 loses digits: after 400,000 rows it is wrong by a thousandth. So runs of 256
    rows are summed first, and then, in float64, the sums of the runs.
    """
    total: Array
    if len(rows) <= _RUN:
        total = np.add.reduce(rows, axis=0) if other is None else np.einsum("nf,nf->f", rows, other)
        return total
    whole, features = len(rows) - len(rows) % _RUN, rows.shape[1]
    runs = [array[:whole].reshape(-1, _RUN, features) for array in (rows, other) if array is not None]
    sums = np.einsum("rnf->rf" if other is None else "rnf,rnf->rf", *runs)
    total = np.add.reduce(sums, axis=0, dtype=np.float64)
    total += sum_of_rows(rows[whole:], None if other is None else other[whole:])
    return total.astype(rows.dtype)
