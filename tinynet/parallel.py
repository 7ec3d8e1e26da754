"""The processor's cores: how many threads BLAS uses, and elementwise work on two cores.

The number of BLAS threads belongs to the whole process. So it is counted: the first training run that starts
sets it, runs beside it leave it as it is, and the last one to end puts back what was there.
"""

import contextvars
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

# Below this many multiply-adds a step, waking a second thread costs more than it computes.
_MANY_MULTIPLY_ADDS = 400_000_000

# Below this many elements, handing half of the work to another thread costs more than it saves.
_MANY_ELEMENTS = 1 << 18

_lock = threading.Lock()
_holders = 0
_limit: Any = None
_executor: ThreadPoolExecutor | None = None
_controller: "ThreadpoolController | None" = None


def blas_threads_for(multiply_adds: int, batch_size: int) -> int | None:
    """How many BLAS threads a training step should use: 1 for small steps, None (BLAS's own choice) for large.

    Args: multiply_adds: of one example's forward pass; a step costs about three times that, per example.
    """
    return 1 if 3 * multiply_adds * batch_size < _MANY_MULTIPLY_ADDS else None


@contextmanager
def blas_threads(count: int | None) -> Iterator[None]:
    """Hold the number of BLAS threads while a block runs, unless a block elsewhere holds it already."""
    global _holders, _limit
    with _lock:
        if _holders == 0 and count is not None:
            _limit = _threadpools().limit(limits=count, user_api="blas")
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0 and _limit is not None:
                _limit.restore_original_limits()
                _limit = None


def in_halves(work: Callable[[int, int], None], start: int, stop: int) -> None:
    """``work(start, stop)``, or for large ranges ``work`` on both halves at once.

    For elementwise work: the parts must not depend on each other. NumPy lets other threads run while it computes.
    """
    if stop - start < _MANY_ELEMENTS or (os.cpu_count() or 1) < 2:
        work(start, stop)
        return
    middle = (start + stop) // 2
    context = contextvars.copy_context()  # with it, the thread has the caller's np.errstate
    other = _helper().submit(context.run, work, middle, stop)
    try:
        work(start, middle)
    finally:
        other.result()  # which also raises what went wrong there


def blas_info() -> list[dict[str, Any]]:
    """What threadpoolctl finds: library, version, kernels and threads of each BLAS in the process."""
    return [pool for pool in _threadpools().info() if pool["user_api"] == "blas"]


def _helper() -> ThreadPoolExecutor:
    global _executor
    with _lock:
        if _executor is None:
            _executor = ThreadPoolExecutor(1, thread_name_prefix="tinynet")
        return _executor


def _after_fork() -> None:
    global _executor, _lock
    _executor, _lock = (
        None,
        threading.Lock(),
    )  # the child has neither the helper's thread nor who held the lock


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _threadpools() -> "ThreadpoolController":
    global _controller
    if _controller is None:
        from threadpoolctl import ThreadpoolController  # looks through every loaded library: on first use

        _controller = ThreadpoolController()
    return _controller
