"""CPU cores: how many threads BLAS uses, and elementwise work on two threads.

The number of BLAS threads is shared by the whole process, so its users are counted: the first training run sets it,
concurrent runs leave it alone, and the last one to end restores it.
"""

import contextlib
import contextvars
import functools
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinynet.support.types import Array

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

# A step is worth one BLAS thread for every this many multiply-adds.
_MULTIPLY_ADDS_PER_THREAD = 8_000_000

# Below this many elements, handing half of the work to another thread costs more than it saves.
MANY_ELEMENTS = 1 << 18

_lock = threading.Lock()
_holders = 0
_held: int | None = None  # the number of BLAS threads while it is held
_found = 1  # and before it was held
_limit: Any = None
_executor: ThreadPoolExecutor | None = None
_controller: "ThreadpoolController | None" = None


def blas_threads_for(multiply_adds: int, batch_size: int) -> int:
    """How many BLAS threads a training step should use: from 1 for small steps to all cores for large.

    Args: multiply_adds: of one example's forward pass; a step costs about three times that, per example.
    """
    return max(1, min(cores(), 3 * multiply_adds * batch_size // _MULTIPLY_ADDS_PER_THREAD))


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Hold the number of BLAS threads while a block runs, unless a block elsewhere holds it already.

    It is never raised, because the user may have limited it, for example with ``OPENBLAS_NUM_THREADS=1``.
    """
    global _held, _found, _holders, _limit
    with _lock:
        if _holders == 0:
            _found = _blas_threads_now()
            _held = min(count, _found)
            _limit = _threadpools().limit(limits=_held, user_api="blas")
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders = max(0, _holders - 1)
            if _holders == 0 and _limit is not None:
                _limit.restore_original_limits()
                _held = _limit = None


def in_halves(work: Callable[[int, int], None], start: int, stop: int, array: Array) -> None:
    """``work(start, stop)``, or for an array on the CPU ``work`` on both halves at once; for MANY_ELEMENTS and more.

    For elementwise work, whose parts must not depend on each other. NumPy lets other threads run while it computes.
    Done only while BLAS is held at one thread, because its idle threads would busy-wait on the other cores.
    """
    if not isinstance(array, np.ndarray) or _held != 1 or threads_allowed() < 2:
        work(start, stop)
        return
    middle = (start + stop) // 2
    context = contextvars.copy_context()  # gives the thread the caller's np.errstate
    other = _helper().submit(context.run, work, middle, stop)
    try:
        work(start, middle)
    finally:
        other.result()  # also raises any error from there


def cores() -> int:
    """How many cores this process may use: those it may run on or its container's quota, whichever is less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, _quota())


@functools.cache  # a quota hardly ever changes, and steps ask for it
def _quota() -> int:
    return math.ceil(min(quota(Path("/")), sys.maxsize))  # 1.5 cores keep two threads busy most of the time


def quota(root: Path) -> float:
    """How many cores' time the process's control groups (cgroups) allow, which is how containers are limited.

    A quota also holds for the groups below, so the smallest on the way up counts. Infinite without one.

    Args: root: the folder in which ``proc`` and ``sys`` are.
    Source: Linux, Documentation/admin-guide/cgroup-v2.rst (cpu.max) and scheduler/sched-bwc.rst (version 1).
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(errors="replace").splitlines()
    except OSError:  # not Linux
        return math.inf
    found = math.inf
    # "0::/path" in version 2, "4:cpu,cpuacct:/path" in version 1
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") > 1):
        if controllers and "cpu" not in controllers.split(","):
            continue
        for name in (controllers, "cpu") if controllers else ("", "unified"):
            mount = root / "sys/fs/cgroup" / name
            # Under a path of the host's, a container finds nothing but its own group, which is the mount.
            group = mount / path.lstrip("/")
            for folder in (group, *group.parents):
                found = min(found, _quota_of(folder))
                if folder == mount:
                    break
    return found


def _quota_of(folder: Path) -> float:
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        # Without a limit, version 2 says "max", which is no number, and version 1 says -1.
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            microseconds, period = map(int, " ".join((folder / name).read_text() for name in names).split())
            if microseconds > 0:
                return microseconds / period
    return math.inf


def threads_allowed() -> int:
    """How many threads this process may compute with: its cores or its BLAS threads, whichever are fewer."""
    with _lock:
        return min(cores(), _found if _holders else _blas_threads_now())


def _blas_threads_now() -> int:
    """The current number of BLAS threads; if BLAS has no adjustable threads, OMP_NUM_THREADS or the cores.

    Where it has, BLAS itself obeys OMP_NUM_THREADS, and its own variable, such as OPENBLAS_NUM_THREADS, before that.
    """
    pools = [int(pool["num_threads"]) for pool in blas_info() if pool.get("threading_layer") != "disabled"]
    if pools:
        return min(pools)
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # "4,2" is for nested regions
    return int(asked) if asked.isdecimal() and int(asked) else cores()


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
    # The child lacks the helper's thread, the thread that held the lock, and the runs that held BLAS.
    global _executor, _held, _holders, _limit, _lock
    _executor, _held, _holders, _limit, _lock = None, None, 0, None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _threadpools() -> "ThreadpoolController":
    global _controller
    if _controller is None:
        from threadpoolctl import ThreadpoolController  # on first use: it looks through every loaded library

        _controller = ThreadpoolController()
    return _controller
