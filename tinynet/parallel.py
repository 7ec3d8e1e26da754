"""The processor's cores: the one place that sets how many threads BLAS uses.

The setting belongs to the whole process. So it is counted: the first training run that starts sets it,
runs beside it leave it as it is, and the last one to end puts back what was there.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

# Below this many multiply-adds a step, waking a second thread costs more than it computes.
_MANY_MULTIPLY_ADDS = 400_000_000

_lock = threading.Lock()
_holders = 0
_limit: Any = None
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


def blas_info() -> list[dict[str, Any]]:
    """What threadpoolctl finds: library, version, kernels and threads of each BLAS in the process."""
    return [pool for pool in _threadpools().info() if pool["user_api"] == "blas"]


def _threadpools() -> "ThreadpoolController":
    global _controller
    if _controller is None:
        from threadpoolctl import ThreadpoolController  # looks through every loaded library: on first use

        _controller = ThreadpoolController()
    return _controller
