"""Operations: functions of arrays that an engine may run as one kernel instead of a chain of NumPy calls."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from tinynet.engines.devices import explain_mixture, kernels_for

F = TypeVar("F", bound=Callable[..., Any])

OPERATIONS: dict[str, str] = {}
"""Every operation's name, which is also its kernel's, and the module of its NumPy body."""


def operation(body: F) -> F:
    """Run the body on NumPy arrays, and the kernel of its name on an engine's; the first argument decides."""
    name, module = body.__name__, __name__ if isinstance(body, np.ufunc) else body.__module__
    if OPERATIONS.setdefault(name, module) != module:
        raise ValueError(f"operation {name}: {OPERATIONS[name]} already has one of that name; choose another")

    @functools.wraps(body)
    def run(*arguments: Any, **options: Any) -> Any:
        kernels = kernels_for.get(type(arguments[0]))
        try:
            return (body if kernels is None else getattr(kernels, name))(*arguments, **options)
        except TypeError as error:
            explain_mixture(name, [*arguments, *options.values()], error)
            raise

    return cast(F, run)


matmul = operation(np.matmul)
