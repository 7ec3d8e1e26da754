"""Which models and optimizers are in training: two runs must not change the same one at once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

# (process, identity), so that a forked child may train its copies.
_in_use: dict[tuple[int, int], object] = {}


@contextmanager
def in_use(*used: object) -> Iterator[None]:
    """Raises RuntimeError if another `fit`, in another thread or enclosing this one, is using one of the objects."""
    keys, claim = [(os.getpid(), id(one)) for one in used], object()
    try:
        for key, one in zip(keys, used, strict=True):
            if _in_use.setdefault(key, claim) is not claim:  # atomic, as two threads may ask at once
                raise RuntimeError(
                    f"this {type(one).__name__} is in use by another fit; wait until that ends, or give each fit "
                    "its own"
                )
        yield
    finally:
        for key in keys:
            if _in_use.get(key) is claim:
                del _in_use[key]


def is_in_use(used: object) -> bool:
    """Whether a `fit` is using the object."""
    return (os.getpid(), id(used)) in _in_use
