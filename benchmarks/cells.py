"""Tables and numbers in the style of the reports."""

import re
from collections.abc import Iterable

from summary import Spread


def table(head: list[str], rows: Iterable[list[str]], align: str = "") -> str:
    """Return a Markdown table; ``align`` has "l" or "r" for each column, by default "l" and then "r" for numbers."""
    align = align or "l".ljust(len(head), "r")
    lines = [head, ["---" if side == "l" else "---:" for side in align], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def number(value: float | None) -> str:
    """Format with three significant digits, or as a whole number from 100 on; a dash for None."""
    if value is None:
        return "-"
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}"


def median(spread: Spread | None) -> str:
    return number(None if spread is None else spread.median)


def median_and_range(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.median:.3f} ({spread.low:.3f} to {spread.high:.3f})"


def small(values: list[float], marks: list[str] | None = None) -> str:
    """Format differences as powers of ten, "0, 3e-8, 6e-3*"."""
    cells = [f"{value:.0e}".replace("e-0", "e-") if value else "0" for value in values]
    return ", ".join(cell + mark for cell, mark in zip(cells, marks or [""] * len(cells), strict=True))


def one_line(text: str) -> str:
    """Return the line of an error that says what is wrong, safe inside a table: the last "SomeError: ...", if any."""
    lines = text.strip().splitlines()
    named = (line for line in reversed(lines) if re.match(r"[\w.]+: ", line))  # advice may follow it
    return next(named, lines[-1]).replace("|", "\\|")[:200]
