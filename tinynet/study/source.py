"""A method's own source lines, for the page."""

import inspect
import textwrap
from pathlib import Path
from typing import NamedTuple

_PACKAGE = Path(__file__).parents[1]


class Source(NamedTuple):
    """Lines of a file."""

    file: str  # "tinynet/layers/dense.py"
    first_line: int  # counted from 1
    text: str


def method_source(owner: type, name: str) -> Source | None:
    """The source of a class's method, from the class that defines it; None where there is none, as in a console."""
    try:
        lines, first = inspect.getsourcelines(getattr(owner, name))
        path = Path(inspect.getsourcefile(getattr(owner, name)) or "")
    except (OSError, TypeError):
        return None
    file = path.relative_to(_PACKAGE.parent).as_posix() if path.is_relative_to(_PACKAGE) else path.name
    return Source(file, first, textwrap.dedent("".join(lines)).rstrip())
