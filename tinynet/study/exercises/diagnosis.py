"""Why an answer is wrong: the result that each known mistake would give is compared with the answer's."""

import textwrap
import traceback
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from tinynet.study.exercises.exercise import Exercise, Mistake, StepExercise, Trial
from tinynet.support.types import Array

_RTOL = 1e-7  # of a result's largest number; float64 has 16 digits, and sums may be taken in any order
_SLOPE_RTOL = 1e-5  # for a central difference
_SLOPES = 40  # numbers of each gradient that are compared with the slope of forward


class Verdict(NamedTuple):
    """What to say about one result."""

    subject: str  # "dW"
    right: bool
    words: str


class Report(NamedTuple):
    """What a check found; ``print`` it."""

    exercise: Exercise
    verdicts: list[Verdict]

    @property
    def right(self) -> bool:
        """Whether nothing is wrong and something was checked."""
        return bool(self.verdicts) and all(verdict.right for verdict in self.verdicts)

    def __str__(self) -> str:
        width = max(len(verdict.subject) for verdict in self.verdicts) + 2
        lines = [f"{self.exercise.name}: {self.exercise.title}"]
        for verdict in self.verdicts:
            lines += textwrap.wrap(
                verdict.words,
                110,
                initial_indent=f"  {verdict.subject:<{width}}",
                subsequent_indent=" " * (width + 2),
                break_long_words=False,
                break_on_hyphens=False,
            )
        if self.right:
            lines.append(f"All right. Now compare your answer with {self.exercise.library}.")
        return "\n".join(lines)


class _Case(NamedTuple):
    """A trial, with what is right and what was found for one result."""

    trial: Trial
    right: Array
    found: Any


def diagnose(exercise: Exercise, module: ModuleType, file: str, seed: int = 0) -> Report:
    """Try the answer in a module on data drawn with the seed, and say what is right, what is wrong, and why.

    Args: file: the module's file, as tracebacks name it.
    """
    verdicts: list[Verdict] = []
    ran = []
    trials = exercise.draw(seed)
    for trial in trials:
        try:
            with np.errstate(all="ignore"):  # the results are checked below
                ran.append((trial, exercise.run(module, trial)))
        except NotImplementedError as error:
            blank = f"{exercise.kind}.{exercise.blank}"
            words = f"not written yet: {error}. Read the top of {file}, fill in {blank}, and try again"
            return Report(exercise, [Verdict(exercise.blank, False, words)])
        except Exception as error:
            if not verdicts:
                verdicts.append(_stopped(exercise, error, file, trial))
    if not ran:
        return Report(exercise, verdicts)

    for name in exercise.formulas:
        cases = [_Case(trial, trial.right[name], _as_array(result.found[name])) for trial, result in ran]
        verdict = _judge(exercise, module, name, cases)
        if verdict.right and len(ran) < len(trials):
            verdict = verdict._replace(words=f"{verdict.words} for the shapes it ran with")
        verdicts.append(verdict)
    if any(verdict.subject == exercise.output and not verdict.right for verdict in verdicts):
        return Report(exercise, verdicts)  # the slopes would be those of another forward

    verdicts = [
        _against_slopes(exercise, module, verdict, [trial for trial, _ in ran]) for verdict in verdicts
    ]
    changed = sorted({name for _, result in ran for name in result.changed})
    if changed:
        words = (
            f"wrong: {exercise.blank} wrote into {' and '.join(changed)}, which belongs to the caller; "
            "make a new array, or a copy"
        )
        verdicts.append(Verdict(" and ".join(changed), False, words))
    elif all(verdict.right for verdict in verdicts):
        verdicts += _second_time(exercise, [(result.found, result.again) for _, result in ran])
    return Report(exercise, verdicts)


def where(error: Exception, file: str) -> str:
    """The exception's name, and the last line of the file in its traceback: "ValueError on line 30, `return x`"."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    line = f" on line {frames[-1].lineno}, `{frames[-1].line}`" if frames else ""
    return type(error).__name__ + line


def _stopped(exercise: Exercise, error: Exception, file: str, trial: Trial) -> Verdict:
    """An exception, with the line in the student's file and the shapes that it happened with."""
    words = f"stopped with {where(error, file)}: {error}"
    values = {name: getattr(trial, name) for name in exercise.arguments()}
    shapes = [f"{name} {value.shape}" for name, value in values.items() if isinstance(value, np.ndarray)]
    words += f". The shapes were {', '.join(shapes)}"
    if " on line " not in where(error, file):
        words += f". The check calls {exercise.calls()}"
    if type(error).__name__ in exercise.errors:
        words += f". {exercise.errors[type(error).__name__]}"
    return Verdict("error", False, words)


def _as_array(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, (float, np.generic)) else value


def _judge(exercise: Exercise, module: ModuleType, name: str, cases: list[_Case]) -> Verdict:
    """Whether a result is right in all trials; if not, what is wrong with it."""
    strange = [case.found for case in cases if not isinstance(case.found, np.ndarray)]
    if strange:
        return Verdict(name, False, _no_array(exercise, name, strange[0]))
    if name == exercise.output and not all(_agree(case.found, case.right) for case in cases):
        words = f"wrong: forward was right in the original file but is not now; restore it. {exercise.formulas[name]}"
        return Verdict(name, False, words)
    types = {case.found.dtype for case in cases} - {np.dtype(np.float64)}
    if any(dtype.kind != "f" for dtype in types):
        words = f"wrong: its dtype is {types.pop()}, which can't hold a gradient; use floats, as in np.zeros_like(x)"
        return Verdict(name, False, words)
    if types and all(_agree(case.found, case.right, 1e-4) for case in cases):
        words = f"wrong: its numbers are right, but its dtype is {types.pop()}; x and dy are float64, so keep float64"
        return Verdict(name, False, words)
    if all(_agree(case.found, case.right) for case in cases):
        return Verdict(name, True, "right")
    for mistake in _mistakes(exercise, name):
        if all(_fits(mistake, case) for case in cases):
            if mistake.accepted:
                return Verdict(name, True, f"right: it {mistake.words}")
            return Verdict(
                name, False, f"wrong: it {_filled(mistake.words, cases)}. {exercise.formulas[name]}"
            )
    return Verdict(name, False, f"{_unnamed(exercise, module, name, cases)}. {exercise.formulas[name]}")


def _no_array(exercise: Exercise, name: str, found: Any) -> str:
    returned = name in (exercise.output, exercise.gradients[0])
    if found is None:
        return (
            f"missing: {exercise.blank} returned None; return {name}"
            if returned
            else f"missing: set self.{name}"
        )
    return f"wrong: it is a {type(found).__name__}, but must be an array"


def _agree(found: Array, expected: Any, rtol: float = _RTOL) -> bool:
    expected = np.asarray(expected)
    return found.shape == expected.shape and bool(_close(found, expected, rtol).all())


def _close(found: Array, expected: Array, rtol: float = _RTOL) -> Array:
    """Which numbers agree; small numbers may carry the rounding errors of large summands."""
    finite = np.abs(expected[np.isfinite(expected)])
    scale = float(finite.max()) if finite.size else 0.0
    close: Array = np.isclose(found, expected, rtol=rtol, atol=rtol * scale + 1e-14, equal_nan=True)
    return close


def _fits(mistake: Mistake, case: _Case) -> bool:
    try:
        with np.errstate(all="ignore"):
            if mistake.fits is not None:
                return mistake.fits(case.trial, case.found)
            return _agree(case.found, mistake.gives(case.trial))
    except (ValueError, IndexError):  # the mistake can't happen with these shapes
        return False


def _filled(words: str, cases: list[_Case]) -> str:
    """Words, with the shapes of the first trial in which they differ."""
    case = next((case for case in cases if case.found.shape != case.right.shape), cases[0])
    return words.format(found=case.found.shape, right=case.right.shape)


def _mistakes(exercise: Exercise, name: str) -> Iterator[Mistake]:
    """The exercise's own mistakes, those that any gradient can have, and each of these times a factor."""
    own = [mistake for mistake in exercise.mistakes if mistake.tensor == name]
    yield from own
    if isinstance(exercise, StepExercise):
        return
    general = list(_general(exercise, name))
    yield from general
    for mistake in (*own, *general):
        for words, factor in _FACTORS:
            if not mistake.accepted:
                yield Mistake(
                    name, f"{mistake.words}; in addition, it {words}", _times(factor, mistake.gives)
                )


_FACTORS: tuple[tuple[str, Callable[[Trial], float]], ...] = (
    ("has the wrong sign", lambda t: -1.0),
    ("is twice as large as it should be", lambda t: 2.0),
    ("is half as large as it should be", lambda t: 0.5),
    ("is n times too large, where n is the batch size", lambda t: float(t.n)),
    ("is divided by the batch size n, but should not be", lambda t: 1 / t.n),
)


def _times(factor: Callable[[Trial], float], gives: Callable[[Trial], Any]) -> Callable[[Trial], Any]:
    return lambda t: factor(t) * gives(t)


def _general(exercise: Exercise, name: str) -> Iterator[Mistake]:
    """Mistakes that any gradient can have."""

    def right(t: Trial) -> Any:
        return t.right[name]

    def ignoring_dy(t: Trial) -> Any:
        return exercise.solve(SimpleNamespace(**vars(t) | {"dy": np.ones_like(t.dy)}))[name]

    def transposed(t: Trial) -> Any:
        if right(t).ndim != 2:
            raise ValueError("only a matrix can be transposed")
        return right(t).T

    for words, factor in _FACTORS:
        yield Mistake(name, words, _times(factor, right))
    source = name.removeprefix("d")
    yield Mistake(name, "is 0 everywhere", lambda t: np.zeros_like(right(t)))
    yield Mistake(name, f"is transposed: yours has shape {{found}}, but {source} has {{right}}", transposed)
    yield Mistake(name, "has shape {found} instead of {right}: leave out keepdims", lambda t: right(t)[None])
    if "dy" in exercise.upstream:
        yield Mistake(
            name,
            "ignores dy: it is what a dy of ones would give; the chain rule multiplies by dy",
            ignoring_dy,
        )
        yield Mistake(name, "is dy, unchanged", lambda t: t.dy)


def _unnamed(exercise: Exercise, module: ModuleType, name: str, cases: list[_Case]) -> str:
    """What can be said about a mistake that has no name here."""
    case = next(case for case in cases if not _agree(case.found, case.right))
    found, right = case.found, case.right
    if found.shape != right.shape:
        return f"wrong: it has shape {found.shape}, but should have {right.shape}"
    wrong = ~_close(found, right)
    first = tuple(map(int, np.argwhere(wrong)[0]))
    words = (
        f"wrong in {int(wrong.sum())} of {right.size} numbers; the first is {exercise.place(name, first)}: yours is "
        f"{found[first]:.6g}, but it should be {right[first]:.6g}"
    )
    if case.trial.smooth:
        words += f" (the slope of forward is {exercise.slope(module, case.trial, name, first):.6g})"
    if not np.isfinite(found).all():
        words += "; some numbers are NaN or infinite"
    ratio = _ratio(cases)
    return words + (f"; every number is {ratio:.6g} times what is right" if ratio is not None else "")


def _ratio(cases: list[_Case]) -> float | None:
    """The ratio of the found numbers to the right ones, if it is the same everywhere."""
    found = np.concatenate([np.ravel(case.found) for case in cases])
    right = np.concatenate([np.ravel(case.right) for case in cases])
    if found.shape != right.shape:
        return None
    ratio = float(np.vdot(found, right) / np.vdot(right, right))
    return ratio if _agree(found, ratio * right) else None


def _against_slopes(exercise: Exercise, module: ModuleType, verdict: Verdict, trials: list[Trial]) -> Verdict:
    """The verdict, but wrong if the library's gradient is not the slope of the answer's own forward."""
    name = verdict.subject
    trial = next((trial for trial in trials if trial.smooth), None)
    if trial is None or name not in exercise.gradients or not verdict.right:
        return verdict
    right = trial.right[name]
    order = np.random.default_rng(0).permutation(right.size)[:_SLOPES]
    for flat in sorted(order):
        index = tuple(map(int, np.unravel_index(flat, right.shape)))
        slope = exercise.slope(module, trial, name, index)
        if not abs(slope - right[index]) <= _SLOPE_RTOL * (1 + abs(right[index])):
            words = (
                f"wrong: it is what the library gives, but {exercise.place(name, index)} is {right[index]:.6g}, "
                f"and the slope of forward is {slope:.6g}"
            )
            return Verdict(name, False, words)
    return verdict._replace(words=f"{verdict.words}; the slope of forward agrees")


def _second_time(exercise: Exercise, pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[Verdict]:
    """A verdict if a second call of backward gives something else."""
    for found, again in pairs:
        for name in again:
            if not isinstance(again[name], np.ndarray) or not _agree(again[name], found[name]):
                words = (
                    f"wrong: called a second time after the same forward, backward gives a different {name}. Either "
                    "it adds to the old value (self.d... += instead of =), or it changed in place what forward stored"
                )
                return [Verdict("again", False, words)]
    return []
