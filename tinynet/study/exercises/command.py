"""python -m tinynet exercise NAME FILE: check an answer to an exercise."""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from tinynet.files.atomic import write_bytes
from tinynet.study.exercises import dense_layers, image_layers, optimizers
from tinynet.study.exercises.diagnosis import Report, Verdict, diagnose, where
from tinynet.study.exercises.exercise import Exercise

EXERCISES = {
    exercise.name: exercise
    for exercise in (*dense_layers.EXERCISES, *image_layers.EXERCISES, *optimizers.EXERCISES)
}
"""Every exercise by name, from easy to hard."""

BLANKS = Path(__file__).parent / "blanks"
_FOLDER = "exercises"  # where the lessons and the README have the student put the blanks


def check(name: str, path: str | os.PathLike[str], seed: int = 0) -> Report:
    """Run the file of an exercise, and report what is right, what is wrong, and why.

    Args: name: a key of ``EXERCISES``; path: the file with the answer, which is executed; seed: for the data.
    Raises: ValueError: if there is no such exercise; OSError: if the file can't be read.
    """
    exercise, file = _find(name), os.fspath(path)
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
        words = f"defines no class {exercise.kind}; fill in the blank of the original file, which --write gives you"
        return Report(exercise, [Verdict("file", False, words)])
    return diagnose(exercise, module, file, seed)


def _find(name: str) -> Exercise:
    if name not in EXERCISES:
        raise ValueError(f"unknown exercise {name!r}; known: {', '.join(EXERCISES)}")
    return EXERCISES[name]


def write_blanks(folder: Path, names: Iterable[str] = EXERCISES) -> list[Path]:
    """Write the files with the lessons and the blanks of these exercises to a folder, which is created if missing.

    Raises: ValueError: if there is no such exercise; OSError: if a file exists, which may hold an answer, or can't be
        written. No file is written then.
    """
    targets = [folder / f"{_find(name).name}.py" for name in names]
    for target in targets:
        if target.exists():
            raise FileExistsError(
                f"{target} exists and may hold your answer; choose another folder, or move it away"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for target in targets:
        write_bytes(target, (BLANKS / target.name).read_bytes())
    return targets


def _default_file(name: str) -> Path:
    """The answer in the current folder or where the README has it; otherwise the blank itself."""
    places = (Path(folder, f"{name}.py") for folder in (".", _FOLDER))
    return next(filter(Path.exists, places), BLANKS / f"{name}.py")


def add_command(subparsers: Any) -> None:
    """Add the command ``exercise`` to the result of `argparse.ArgumentParser.add_subparsers`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "exercise",
        help="write a backward pass yourself, and be told what is wrong with it",
    )
    parser.add_argument("name", nargs="?", help="which exercise; leave it out to list them all")
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        help=f"your answer, which is executed; default: NAME.py or {_FOLDER}/NAME.py",
    )
    parser.add_argument(
        "--write", type=Path, metavar="DIR", help="write the files with the blanks, or NAME's, to a folder"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; return 0 if the answer is right, 1 if not, 2 if there is no such exercise or file."""
    if options.name is None and options.write is None:
        print(
            "Each file has a lesson and a blank. Get the files:  python -m tinynet exercise --write exercises\n"
            "Fill in a blank, then check your answer:            python -m tinynet exercise NAME FILE"
        )
        width = max(map(len, EXERCISES)) + 2
        for exercise in EXERCISES.values():
            print(f"  {exercise.name:<{width}}{exercise.title}")
        return 0
    try:
        if options.write is not None:
            for path in write_blanks(options.write, [options.name] if options.name else EXERCISES):
                print(f"wrote {path}")
            return 0
        path = options.file or _default_file(options.name)
        report = check(options.name, path)
    except (ValueError, OSError) as error:
        print(f"python -m tinynet exercise: {error}", file=sys.stderr)
        return 2
    if options.file is None:
        print(path)
    print(report)
    return 0 if report.right else 1
