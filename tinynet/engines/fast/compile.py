"""The decorators that compile a kernel."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def kernel(loop: F) -> F:
    """Compile a loop over arrays, for each combination of dtypes that it meets; kept in the user's cache folder.

    As in NumPy, division by 0 gives infinity. A product and a sum may be rounded once in place of twice. Nothing is
    assumed about NaN or infinity, and no sum is reordered.
    """
    return _compiled(loop, {"contract"})


def reordered(loop: F) -> F:
    """Like `kernel`, but a sum may be added up in any order, as vector instructions do; for sums in float64."""
    return _compiled(loop, {"contract", "reassoc"})


def _compiled(loop: F, flags: set[str]) -> F:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": flags}
    try:
        return cast(F, numba.njit(cache=True, **options)(loop))
    except RuntimeError:  # no folder can be written: each process compiles anew
        return cast(F, numba.njit(**options)(loop))
