"""Which engine computes operations on NumPy arrays: NumPy itself, or loops that Numba has compiled."""

import functools
import importlib.util
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType

from tinynet.engines.operation import Loops, loops
from tinynet.support.errors import EngineError
from tinynet.support.types import EngineName

_NAMES = ("auto", "numpy", "numba")
_chosen: str | None = None  # by `use`; None: by TINYNET_ENGINE, or else "auto"
_held: ContextVar[bool] = ContextVar(
    "held", default=False
)  # by a run, which keeps the engine that it began with


class use:
    """Choose the engine for later calls of `fit`, `predict`, `evaluate` and `train_step`; in a ``with``, until its end.

    A call keeps the engine that it began with.

    Args: name: "numpy"; "numba", from the extra ``[fast]``; or "auto", Numba if it is installed.
    Raises: ValueError: for another name. EngineError: for "numba", if it can't be used, with the reason.
    """

    def __init__(self, name: EngineName) -> None:
        global _chosen
        _check(name, "engine")
        if name == "numba":
            _numba()
        self._former, _chosen = _chosen, name

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        global _chosen
        _chosen = self._former


def current() -> str:
    """The engine that computes here: "numpy" or "numba"."""
    return "numba" if _loops() else "numpy"


def about_numba() -> str:
    """What `python -m tinynet info` says of Numba."""
    if not _installed():
        return "; Numba, which computes faster, is not installed"
    from importlib.metadata import version  # only here, as importing it takes many milliseconds

    return f", with Numba {version('numba')}"


@contextmanager
def running(name: EngineName | None = None) -> Iterator[None]:
    """Compute with the chosen engine, or with this one, while a block runs; a block within it keeps its engine."""
    if _held.get():
        yield
        return
    engine, held = loops.set(_loops() if name is None else _find(name)), _held.set(True)
    try:
        yield
    finally:
        loops.reset(engine)
        _held.reset(held)


def _loops() -> Loops:
    if _held.get():
        return loops.get()
    return _find(_chosen or _check(os.environ.get("TINYNET_ENGINE", "auto"), "TINYNET_ENGINE"))


def _find(name: str) -> Loops:
    if name == "numpy" or (name == "auto" and not _installed()):
        return {}
    try:
        return _numba()
    except EngineError as error:
        if name == "numba":
            raise
        _warn_once(str(error))
        return {}


def _check(name: str, what: str) -> str:
    if name not in _NAMES:
        raise ValueError(f"{what}: expected 'auto', 'numpy' or 'numba', got {name!r}")
    return name


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("numba") is not None


@functools.cache
def _numba() -> Loops:
    if not _installed():
        raise EngineError(
            "engine 'numba': Numba is not installed; install it with python -m pip install 'tinynet[fast]'"
        )
    try:
        from tinynet.engines.fast.operations import LOOPS, try_out

        try_out()
    except Exception as error:  # whatever a broken installation raises
        raise EngineError(f"engine 'numba': Numba can't be used, so NumPy computes: {error}") from error
    return LOOPS


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=2)
