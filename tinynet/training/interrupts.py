"""Hold Ctrl-C until a batch is finished."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class HeldInterrupt:
    """While a block runs in the main thread, the first Ctrl-C sets ``pending`` and the second raises at once.

    The previous handler is restored at the end. Nothing is changed in other threads, where Ctrl-C is ignored
    (as in a shell script's background job), or where another part of the program handles SIGINT in a way that
    Python can't restore.
    """

    def __init__(self) -> None:
        self.pending = False
        self._former: Any = None

    def __enter__(self) -> "HeldInterrupt":
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) not in (None, signal.SIG_IGN):
            self._former = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._former is not None:
            signal.signal(signal.SIGINT, self._former)
            around = getattr(self._former, "__self__", None)
            if self.pending and isinstance(around, HeldInterrupt):
                around.pending = True  # a run inside another run's callback: both end

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.pending:
            raise KeyboardInterrupt
        self.pending = True
