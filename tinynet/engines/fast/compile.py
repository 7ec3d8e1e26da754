"""The decorators of this folder: `loop` for an operation, `kernel` for what it compiles."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])

LOOPS: dict[str, Callable[..., Any]] = {}
"""The operations that have a loop, by name."""


def loop(operation: F) -> F:
    """Register what computes the operation of this name.

    It takes what the operation's NumPy body takes. It checks the arrays, and for those that its kernel does not know it
    returns NotImplemented, upon which the NumPy body computes.
    """
    LOOPS[operation.__name__] = operation
    return operation


def kernel(body: F) -> F:
    """Compile a loop over arrays, for each combination of dtypes that it meets; kept in the user's cache folder.

    As in NumPy, division by 0 gives infinity. A product and a sum may be rounded once in place of twice. Nothing is
    assumed about NaN or infinity, and no sum is reordered.
    """
    return _compiled(body, {"contract"})


def reordered(body: F) -> F:
    """Like `kernel`, but a sum may be added up in any order, as vector instructions do; for sums in float64."""
    return _compiled(body, {"contract", "reassoc"})


def _compiled(body: F, flags: set[str]) -> F:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": flags}
    try:
        compiled: Any = numba.njit(cache=True, **options)(body)
    except RuntimeError:  # no folder can be written: each process compiles anew
        return cast(F, numba.njit(**options)(body))
    if cache := cache_of(compiled):
        cache.load_overload = _or_nothing(cache.load_overload, cache.flush)
        cache.save_overload = _or_nothing(cache.save_overload)
    return cast(F, compiled)


def cache_of(kernel: Any) -> Any:
    """Where Numba keeps what it has compiled for a kernel; None with NUMBA_DISABLE_JIT=1, as Python runs it then."""
    return getattr(kernel, "_cache", None)


def _or_nothing(step: Callable[..., Any], otherwise: Callable[[], Any] = lambda: None) -> Callable[..., Any]:
    """A step that does nothing where it fails: a full disk or a damaged file costs the time to compile, and no run."""

    def attempt(*arguments: Any) -> Any:
        try:
            return step(*arguments)
        except Exception:
            with suppress(OSError):
                otherwise()
            return None

    return attempt
