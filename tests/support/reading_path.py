"""The reading path: what runs in one training step of mlp_adam, on NumPy, as `sys.setprofile` sees it.

``python -m tests.support.reading_path`` writes its figures into the README.
"""

import inspect
import re
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

import tinynet as tn
from tinynet.training.steps import CpuSteps

ROOT = Path(__file__).parents[2]
PACKAGE = Path(tn.__file__).parent


class ReadingPath(NamedTuple):
    """What a step enters."""

    lines: dict[str, int]  # by file: lines of the functions that are entered
    calls: int


def measure():
    """A step is from one resumption of the loop over the batches to the next, in the middle of an epoch."""
    recipe = tn.recipes.make("mlp_adam", seed=0)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (4 * recipe.batch_size, 28, 28), dtype=np.uint8)
    y = rng.integers(0, 10, len(x))
    entered, steps = Counter(), 0

    def look(frame, event, argument):
        nonlocal steps
        code = frame.f_code
        if event != "call" or not Path(code.co_filename).is_relative_to(PACKAGE):
            return
        steps += code is CpuSteps.epoch.__code__
        if steps == 3:
            entered[code] += 1

    former = sys.getprofile()
    sys.setprofile(look)
    try:
        recipe.model.fit(x, y, **recipe.fit_arguments() | {"epochs": 1}, verbose=0)
    finally:
        sys.setprofile(former)
    lines = Counter()
    for code in entered:
        if not code.co_name.startswith("<"):  # a comprehension's lines are its function's
            name = Path(code.co_filename).relative_to(PACKAGE.parent).as_posix()
            lines[name] += len(inspect.getsourcelines(code)[0])
    return ReadingPath(dict(lines), sum(entered.values()))


SUMMARY = re.compile(r"(?<=<!-- reading path -->\n)[^\n]*\n")
ROW = re.compile(r"^\| \[`(tinynet/[\w/]+\.py)`\]\([^)]*\) \| (\d+) \|", re.M)


def summary(path):
    lines = sum(path.lines.values())
    return f"{len(path.lines)} files, {lines} lines in the functions entered, {path.calls} Python calls."


def rewritten(readme, path):
    """The README with the figures of a path."""
    readme = SUMMARY.sub(lambda _: summary(path) + "\n", readme)
    return ROW.sub(
        lambda row: row[0].replace(f"| {row[2]} |", f"| {path.lines.get(row[1], row[2])} |"), readme
    )


if __name__ == "__main__":
    found = measure()
    file = ROOT / "README.md"
    file.write_text(rewritten(file.read_text(encoding="utf-8"), found), encoding="utf-8")
    print(summary(found))
    for name, count in sorted(found.lines.items()):
        print(f"{count:>5}  {name}")
