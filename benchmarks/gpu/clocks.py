"""How long work took: on the wall clock, and on the device between two events of its own."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Span(NamedTuple):
    """Seconds; those of the device only where it has events."""

    wall: float
    device: float | None = None


class WallClock:
    """From `start` to `stop`, on a device that has done all work at both.

    Args: wait: until all work that was handed to the device is done.
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
    """The same, and what passed on the device between the events that are recorded at both ends.

    Args:
        record: puts an event behind the work that the device has been handed, and returns it.
        milliseconds: between two events.
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
    """Events on CuPy's current stream."""

    def record() -> Any:
        event = cupy.cuda.Event()
        event.record()
        return event

    return EventClock(cupy.cuda.runtime.deviceSynchronize, record, cupy.cuda.get_elapsed_time)


def torch_clock(torch: Any) -> EventClock:
    """Events on PyTorch's current stream."""

    def record() -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    return EventClock(torch.cuda.synchronize, record, lambda begin, end: begin.elapsed_time(end))
