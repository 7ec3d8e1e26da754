"""python -m tinynet exercise NAME FILE: check an answer to an exercise."""

import argparse
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from tinynet.study.exercises import dense_layers, image_layers, optimizers
from tinynet.study.exercises.diagnosis import Report, Verdict, diagnose, where

EXERCISES = {
    exercise.name: exercise
    for exercise in (*dense_layers.EXERCISES, *image_layers.EXERCISES, *optimizers.EXERCISES)
}
"""Every exercise by name, from easy to hard."""


def check(name: str, path: str | os.PathLike[str], seed: int = 0) -> Report:
    """Run the file of an exercise, and report what is right, what is wrong, and why.

    Args: name: a key of ``EXERCISES``; path: the file with the answer, which is executed; seed: for the data.
    Raises: ValueError: if there is no such exercise; OSError: if the file can't be read.
    """
    if name not in EXERCISES:
        raise ValueError(f"unknown exercise {name!r}; known: {', '.join(EXERCISES)}")
    exercise, file = EXERCISES[name], os.fspath(path)
    source = Path(path).read_bytes()
    module = ModuleType(f"exercise_{name}")
    try:
        exec(compile(source, file, "exec", dont_inherit=True), vars(module))
    except SyntaxError as error:
        words = f"not valid Python: {error.msg} on line {error.lineno}, `{(error.text or '').strip()}`"
        return Report(exercise, [Verdict("file", False, words)])
    except Exception as error:
        words = f"stopped with {where(error, file)}, before it defined {exercise.kind}: {error}"
        return Report(exercise, [Verdict("file", False, words)])
    if not isinstance(getattr(module, exercise.kind, None), type):
        words = (
            f"defines no class {exercise.kind}; fill in the blank of the original file in examples/exercises/"
        )
        return Report(exercise, [Verdict("file", False, words)])
    return diagnose(exercise, module, file, seed)


def add_command(subparsers: Any) -> None:
    """Add the command ``exercise`` to the result of `argparse.ArgumentParser.add_subparsers`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "exercise",
        help="check an answer to an exercise in examples/exercises/, and say what is wrong with it",
    )
    parser.add_argument("name", nargs="?", help="which exercise; leave it out to list them all")
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        help="your answer, which is executed; default: examples/exercises/NAME.py",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; return 0 if the answer is right, 1 if not, 2 if there is no such exercise or file."""
    if options.name is None:
        print(
            "Each file has a lesson and a blank. Fill in the blank, then run: python -m tinynet exercise NAME FILE"
        )
        width = max(map(len, EXERCISES)) + 2
        for exercise in EXERCISES.values():
            print(f"  {exercise.name:<{width}}{exercise.title}")
        return 0
    path = options.file or Path("examples", "exercises", f"{options.name}.py")
    try:
        report = check(options.name, path)
    except (ValueError, OSError) as error:
        print(f"python -m tinynet exercise: {error}", file=sys.stderr)
        return 2
    print(report)
    return 0 if report.right else 1
