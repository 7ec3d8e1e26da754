"""A method's source lines, for the page."""

import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tinynet.engines.operation import OPERATIONS, matmul

_PACKAGE = Path(__file__).parents[1]


class Source(NamedTuple):
    """Some lines of a file."""

    file: str  # "tinynet/layers/dense.py"
    first_line: int  # counted from 1
    text: str


def method_sources(owner: type, name: str) -> list[Source]:
    """The source of a class's method, where it is defined, and of the operations that it calls, in order.

    Empty if there is no source, as for code typed into a console.
    """
    method = inspect.unwrap(getattr(owner, name))
    called = [method.__globals__.get(word) for word in method.__code__.co_names]
    operations = [function for function in called if _is_operation(function)]
    found = (_source(function) for function in (method, *operations))
    return [source for source in found if source is not None]


def _is_operation(function: Any) -> bool:
    # matmul is left out: it is NumPy's own.
    name = getattr(function, "__name__", "")
    return function is not matmul and OPERATIONS.get(name, "") == getattr(function, "__module__", None)


def _source(function: Callable[..., Any]) -> Source | None:
    function = inspect.unwrap(function)
    try:
        lines, first = inspect.getsourcelines(function)
        path = Path(inspect.getsourcefile(function) or "")
    except (OSError, TypeError):
        return None
    file = path.relative_to(_PACKAGE.parent).as_posix() if path.is_relative_to(_PACKAGE) else path.name
    if lines[0].startswith("@operation"):
        lines, first = lines[1:], first + 1
    return Source(file, first, textwrap.dedent("".join(lines)).rstrip())
