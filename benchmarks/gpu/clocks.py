"""Measure how long work takes: on the wall clock, and on the device between two of its events."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Span(NamedTuple):
    """Seconds; those of the device only if it has events."""

    wall: float
    device: float | None = None


class WallClock:
    """Measures from `start` to `stop`, with the device idle at both.

    Args: wait: waits until the device has done all its work.
    """

    def __init__(self, wait: Callable[[], None]) -> None:
        self.wait = wait

    def start(self) -> None:
        self.wait()
        self._started = time.perf_counter()

    def stop(self) -> Span:
        self.wait()
        return Span(time.perf_counter() - self._started)


class EventClock(WallClock):
    """Also measures the time on the device, between events recorded at both ends.

    Args:
        record: records an event after the work submitted to the device, and returns it.
        milliseconds: returns the time between two events.
    """

    def __init__(
        self,
        wait: Callable[[], None],
        record: Callable[[], Any],
        milliseconds: Callable[[Any, Any], float],
    ) -> None:
        super().__init__(wait)
        self.record, self.milliseconds = record, milliseconds

    def start(self) -> None:
        super().start()
        self._begin = self.record()

    def stop(self) -> Span:
        end = self.record()
        span = super().stop()
        return span._replace(device=self.milliseconds(self._begin, end) / 1000)


def cupy_clock(cupy: Any) -> EventClock:
    """Return a clock with events on CuPy's current stream."""

    def record() -> Any:
        event = cupy.cuda.Event()
        event.record()
        return event

    return EventClock(cupy.cuda.runtime.deviceSynchronize, record, cupy.cuda.get_elapsed_time)


def torch_clock(torch: Any) -> EventClock:
    """Return a clock with events on PyTorch's current stream."""

    def record() -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    return EventClock(torch.cuda.synchronize, record, lambda begin, end: begin.elapsed_time(end))
