"""The time budget of a run: whether one more measurement fits, judging by similar ones."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Budget:
    """Seconds spent on measurements, each with a task, a case and a contender.

    Args: limit: may be infinite; now: the clock.
    """

    def __init__(self, limit: float = math.inf, now: Callable[[], float] = time.monotonic) -> None:
        self.limit, self.now = limit, now
        self.started = now()
        self.spent: dict[tuple[str, str, str], float] = {}  # on the longest measurement of its kind

    def left(self) -> float:
        return self.limit - (self.now() - self.started)

    def over(self) -> bool:
        return self.left() <= 0

    def at_most(self, seconds: float) -> float:
        """Return that many seconds, or those left if fewer."""
        return max(0.0, min(seconds, self.left()))

    def expected(self, task: str, case: str, contender: str) -> float:
        """Return the time that the same measurement took before, or else the same task of that contender, or else 0."""
        if (task, case, contender) in self.spent:
            return self.spent[task, case, contender]
        alike = (seconds for key, seconds in self.spent.items() if key[::2] == (task, contender))
        return max(alike, default=0.0)

    def allows(self, task: str, case: str, contender: str) -> bool:
        """Return whether such a measurement is expected to finish in time."""
        return not self.over() and self.expected(task, case, contender) <= self.left()

    @contextmanager
    def spending(self, task: str, case: str, contender: str) -> Iterator[Callable[[], float]]:
        """Time a measurement in a with block; yields a function that returns the seconds so far."""
        started = self.now()

        def seconds() -> float:
            return self.now() - started

        try:
            yield seconds
        finally:
            key = (task, case, contender)
            self.spent[key] = max(self.spent.get(key, 0.0), seconds())
