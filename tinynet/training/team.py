"""A batch divided between threads, each with a replica of the model."""

import contextvars
import copy
import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tinynet.engines import cpu
from tinynet.layers import BatchNorm, Layer
from tinynet.layers.shard import Shard
from tinynet.losses import Loss
from tinynet.protocols import Model
from tinynet.support.types import Array

# Below this many multiply-adds a step, dividing the batch between threads costs more than it gains.
_MANY_MULTIPLY_ADDS = 400_000_000

# Dense networks have one multiply-add per parameter; from this many on, a network counts as convolutional.
_CONVOLUTIONAL = 8

# Parts of a batch with fewer examples than this are too small to be worth a thread.
_SMALLEST_SHARD = 16


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
    return max(1, min(cpu.threads_allowed(), batch_size // _SMALLEST_SHARD))


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
        self.models = [model, *(model._replica() for _ in range(workers - 1))]
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

    def forward_backward(self, layers: Sequence[Layer], x: Array, y: Array, loss: Loss, total: int) -> float:
        """As the model's own; its gradients and outputs are then those of the whole batch."""
        if len(x) < 2 * self.workers or self.workers == 1:
            return float(self.model._forward_backward(layers, x, y, loss, total))
        self._follow()
        edges = [len(x) * index // self.workers for index in range(self.workers + 1)]
        parts = [slice(start, stop) for start, stop in itertools.pairwise(edges)]
        self.barrier.reset()
        futures = [
            # A copy of the context gives the thread the caller's np.errstate.
            self.pool.submit(
                contextvars.copy_context().run, self._work, index, len(layers), x, y, loss, parts[index]
            )
            for index in range(1, self.workers)
        ]
        errors: list[BaseException] = []
        values = []
        try:
            values.append(self._work(0, len(layers), x, y, loss, parts[0]))
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

    def _work(self, index: int, depth: int, x: Array, y: Array, loss: Loss, part: slice) -> float:
        member, shard = self.models[index], self.shards[index]
        try:
            shard.rows, shard.all_rows, shard.turn = part.stop - part.start, len(x), 0
            if index:
                member._begin_step(part.start, self.model.step - 1)
            for layer in self.batchnorms[index]:
                layer.shard = shard
            layers, loss = member.layers[:depth], copy.copy(loss)
            return float(member._forward_backward(layers, x[part], y[part], loss, len(x)))
        except BaseException:
            self.barrier.abort()  # otherwise the others would wait for this one
            raise
        finally:
            for layer in self.batchnorms[index]:
                vars(layer).pop("shard", None)
