"""Use of the CPU's cores: how many threads BLAS uses, elementwise work on two, and a batch split between threads.

The number of BLAS threads applies to the whole process, so the training runs are counted: the first to start
sets it, others that run at the same time leave it alone, and the last to end restores what was there.
"""

import contextvars
import copy
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from tinynet.layers import BatchNorm
from tinynet.layers.shard import Shard
from tinynet.losses import Loss
from tinynet.protocols import Model
from tinynet.types import Array

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

# One BLAS thread is worth using per this many multiply-adds of a step.
_MULTIPLY_ADDS_PER_THREAD = 8_000_000

# Below this many multiply-adds per step, splitting the batch between threads costs more than it gains.
_MANY_MULTIPLY_ADDS = 400_000_000

# Below this many elements, handing half of the work to another thread costs more than it saves.
_MANY_ELEMENTS = 1 << 18

# Dense networks have one multiply-add per parameter; from this many on, a network counts as convolutional.
_CONVOLUTIONAL = 8

# Parts of a batch with fewer examples than this are too small to be worth a thread.
_SMALLEST_SHARD = 16

_lock = threading.Lock()
_holders = 0
_held: int | None = None  # the number of BLAS threads while it is held
_found = 1  # and before
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


def in_halves(work: Callable[[int, int], None], start: int, stop: int) -> None:
    """Run ``work(start, stop)``, or for large ranges ``work`` on both halves at once; for arrays on the CPU.

    The work must be elementwise: the halves must not depend on each other. NumPy lets other threads run while it
    computes. Ranges are split only while BLAS is held at one thread: its other threads wait for their next product in a
    busy loop, which takes up their cores.
    """
    if stop - start < _MANY_ELEMENTS or _held != 1 or threads_allowed() < 2:
        work(start, stop)
        return
    middle = (start + stop) // 2
    context = contextvars.copy_context()  # gives the thread the caller's np.errstate
    other = _helper().submit(context.run, work, middle, stop)
    try:
        work(start, middle)
    finally:
        other.result()  # also raises any error from there


def workers_for(model: Model, batch_size: int) -> int:
    """How many threads to split a batch between: 1 unless a step is long, as with convolutions.

    A network of dense layers has as many multiply-adds as parameters, and its threads would only sum gradients. With
    layers from outside the library, batches are not split, as those may compute something over the batch.
    """
    multiply_adds = model.multiply_adds()
    if (
        3 * multiply_adds * batch_size < _MANY_MULTIPLY_ADDS
        or multiply_adds < _CONVOLUTIONAL * model.params.size
        or not all(type(layer).__module__.startswith("tinynet.layers.") for _, layer in model.walk())
    ):
        return 1
    return max(1, min(threads_allowed(), batch_size // _SMALLEST_SHARD))


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_allowed() -> int:
    """How many threads this process may compute with: the number of its cores, or of BLAS threads if that is less."""
    with _lock:
        return min(cores(), _found if _holders else _blas_threads_now())


def _blas_threads_now() -> int:
    """The present number of BLAS threads; the number of cores if BLAS has none that could be set."""
    pools = [pool for pool in blas_info() if pool.get("threading_layer") != "disabled"]
    return min([pool["num_threads"] for pool in pools], default=cores())


class _TeamShard(Shard):
    """One worker's part of a batch."""

    def __init__(self, index: int, barrier: threading.Barrier, slots: list[list[Array]]) -> None:
        self.index, self.is_first = index, index == 0
        self.barrier, self.slots = barrier, slots  # not the team: that cycle would keep the model in memory
        self.rows, self.all_rows = 1, 1
        self.turn = 0

    def total(self, count: int) -> int:
        return count // self.rows * self.all_rows

    def sum(self, array: Array) -> Array:
        # Two lists in turn: while one worker still reads a sum's list, another may write the next, but not one further.
        self.turn = 1 - self.turn
        slots = self.slots[self.turn]
        slots[self.index] = array
        self.barrier.wait()
        total: Array = slots[0] + slots[1]
        for part in slots[2:]:
            total += part
        return total

    def sums(self, *arrays: Array) -> Sequence[Array]:
        return list(self.sum(np.stack(arrays)))

    def __reduce__(self) -> tuple[type[Shard], tuple[()]]:
        return Shard, ()  # a copy of the model, made meanwhile, gets whole batches


class Team:
    """A model and replicas of it, each of which takes part of every batch, in its own thread.

    The parts' losses and gradients are divided by the size of the whole batch, and summed in a fixed order.
    Batch-norm's statistics are those of the whole batch, and dropout drops the same units as without splitting.
    """

    def __init__(self, model: Model, workers: int) -> None:
        self.model, self.workers = model, workers
        self.models = [model, *(model.replica() for _ in range(workers - 1))]
        self.batchnorms = [
            [layer for _, layer in member.walk() if isinstance(layer, BatchNorm)] for member in self.models
        ]
        self.layers = list(
            zip(*([layer for _, layer in member.walk()] for member in self.models), strict=True)
        )
        self.barrier = threading.Barrier(workers)
        slots: list[list[Array]] = [[np.empty(0)] * workers, [np.empty(0)] * workers]
        self.shards = [_TeamShard(index, self.barrier, slots) for index in range(workers)]

    def __enter__(self) -> "Team":
        if self.workers > 1:
            self.pool = ThreadPoolExecutor(self.workers - 1, thread_name_prefix="tinynet worker")
        return self

    def __exit__(self, *error: object) -> None:
        if self.workers > 1:
            self.barrier.abort()  # frees a worker that waits for one that never started
            self.pool.shutdown()

    def loss_and_gradients(self, x: Array, y: Array, loss: Loss) -> float:
        """As the model's own method; its gradients and outputs are then those of the whole batch."""
        if len(x) < 2 * self.workers or self.workers == 1:
            return self.model.loss_and_gradients(x, y, loss)
        self._follow()
        edges = [len(x) * index // self.workers for index in range(self.workers + 1)]
        parts = [slice(start, stop) for start, stop in itertools.pairwise(edges)]
        step = self.model.step
        self.barrier.reset()
        futures = [
            # A copy of the context gives the thread the caller's np.errstate.
            self.pool.submit(
                contextvars.copy_context().run, self._work, index, step, x, y, loss, parts[index]
            )
            for index in range(1, self.workers)
        ]
        errors: list[BaseException] = []
        values = []
        try:
            values.append(self._work(0, step, x, y, loss, parts[0]))
        except BaseException as error:
            self.barrier.abort()  # Ctrl-C may come before this thread's part has begun
            errors.append(error)
        for future in futures:
            try:
                values.append(future.result())
            except BaseException as error:
                errors.append(error)
        if errors:  # the first that is not just a consequence of another
            raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
        for replica in self.models[1:]:
            self.model.grads[...] += replica.grads
        self.model.outputs = np.concatenate([member.outputs for member in self.models])
        return sum(values)

    def _follow(self) -> None:
        """Copy to the replicas' layers the plain settings that a callback may have changed: ``trainable``, a rate."""
        for layer, *twins in self.layers:
            for name, value in vars(layer).items():
                if isinstance(value, (bool, int, float, str)):
                    for twin in twins:
                        if vars(twin).get(name) != value:
                            setattr(twin, name, value)

    def _work(self, index: int, step: int, x: Array, y: Array, loss: Loss, part: slice) -> float:
        member, shard = self.models[index], self.shards[index]
        try:
            shard.rows, shard.all_rows, shard.turn = part.stop - part.start, len(x), 0
            member.step = step
            for layer in self.batchnorms[index]:
                layer.shard = shard
            return member.loss_and_gradients(x[part], y[part], copy.copy(loss), len(x), part.start)
        except BaseException:
            self.barrier.abort()  # otherwise the others would wait for this one
            raise
        finally:
            for layer in self.batchnorms[index]:
                vars(layer).pop("shard", None)


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
    # The child has neither the helper's thread, nor the thread that held the lock, nor the runs that held BLAS.
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
