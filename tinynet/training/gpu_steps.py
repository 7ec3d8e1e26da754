"""Training steps on the GPU, which holds the data set and replays one CUDA graph, once per step.

Nothing is read back during a step, so the CPU runs ahead of the GPU. Only four numbers differ from step to step, and
they are sent to the GPU before each. The loss is read every hundred steps.
"""

import math
import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any, cast

import numpy as np

from tinynet.engines.cpu import blas_threads, blas_threads_for
from tinynet.engines.devices import blocks, is_mapped
from tinynet.engines.gpu.device import Gpu
from tinynet.engines.operation import operation
from tinynet.metrics import record
from tinynet.optimizer import Optimizer
from tinynet.protocols import Model
from tinynet.support import random
from tinynet.support.errors import REMEDY, DeviceMemoryError, NonFiniteError
from tinynet.support.types import Array
from tinynet.training.batches import ArrayBatches, Batches, augmented, batch_dtype, take_rows
from tinynet.training.callbacks import Callback
from tinynet.training.data import Pair
from tinynet.training.run import Meter, Run
from tinynet.training.steps import changes_between_steps

LOOK_EVERY = 100
"""Steps from one check of the loss to the next."""

_PLAIN = (bool, int, float, str, np.generic, type(None))
Attributes = dict[tuple[int, str], Any]


class GpuSteps:
    """The steps of a run whose model is on the GPU.

    The first full batch is computed kernel by kernel, which also allocates all memory that a step needs. From the
    second on, a captured graph of these kernels runs. Batches of another size, such as an epoch's last, run without it.
    So does a run with a layer, a loss or an optimizer from outside the library, unless that is ``capturable``: a graph
    repeats the operations on their arrays, and nothing else that their code does.

    Raises: DeviceMemoryError: if the data set does not fit.
    """

    workers = 1

    def __init__(
        self,
        run: Run,
        batches: Batches,
        validation: Pair | None,
        callbacks: Sequence[Callback],
        workers: int | None,
    ) -> None:
        if workers not in (None, 1):
            raise ValueError(f"workers: a GPU takes whole batches; expected None or 1, got {workers}")
        self.run, self.batches, self.validation = run, batches, validation
        self.device = cast(Gpu, run.model.device)
        self._watched = changes_between_steps(callbacks)

    def __enter__(self) -> "GpuSteps":
        with ExitStack() as stack:
            stack.enter_context(
                self.device.memory_errors(
                    self.run.model.forget,
                    lambda: "the model's optimizer and data don't fit; make them smaller",
                )
            )
            # For what the host computes meanwhile, such as validation that does not fit there.
            threads = blas_threads_for(self.run.model.multiply_adds(), self.run.batch_size)
            stack.enter_context(blas_threads(threads))
            stack.enter_context(self.device.running())
            self._begin()
            stack.callback(self.close)
            self._held = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._held.__exit__(*error)

    def _begin(self) -> None:
        run, batches = self.run, self.batches
        dtype = run.model.dtype
        # These differ from step to step: where the batch begins, dropout's step number, the optimizer's two numbers.
        self._ints, self._floats = self.device.zeros(2, np.int64), self.device.zeros(2, dtype)
        self._start, self._dropout_step = self._ints[0], self._ints[1]
        self._step_size, self._kept = self._floats[0], self._floats[1]
        self._batch = self._row = 0  # the step's batch, and its first row in the order

        run.meter = Meter(self.device.zeros(4, np.float64))
        self._good: Snapshot | None = None
        self._replay: Callable[[], None] | None = None
        self._captured_with: Attributes = {}  # the settings of layers, loss and optimizer at the capture
        self._captured_arrays: list[Array] = []  # what the graph reads and writes outside its own memory
        self._settings_may_differ = True
        self._warm = self._refused = False
        self._take_parts()
        self._x: Array | None = None
        self._y: Array | None = None
        self._data: tuple[Array, Array] | None = None
        self._order: Array | None = None
        self._batch_size = 0
        if isinstance(batches, ArrayBatches):
            self._batch_size = min(batches.batch_size, len(batches.x))
            size = batches.x.size * batches.x_dtype.itemsize + batches.y.size * batches.y_dtype.itemsize
            advice = f"the data set takes {size / 1e6:,.0f} MB: give an iterable of batches instead"
            with self.device.memory_errors(self.close, lambda: advice):
                self._data = self._moved(batches.x, batches.x_dtype), self._moved(batches.y, batches.y_dtype)

    def _moved(self, array: Array, dtype: np.dtype[Any]) -> Array:
        """The array on the GPU, in the dtype; a memory-mapped file is moved part by part."""
        if not is_mapped(array):
            return self.device.asarray(array)
        moved = self.device.empty(array.shape, dtype)
        for start, block in blocks(array):
            moved[start : start + len(block)] = self.device.asarray(np.ascontiguousarray(block, dtype))
        return moved

    def prepare(self) -> None:
        run = self.run
        with self.device.memory_errors(
            self.close, lambda: "the optimizer's vectors are too large for this GPU"
        ):
            run.optimizer.begin(run.model)
        if self.validation is not None and self.validation[1] is not None:
            # If it does not fit, it stays where it was and is moved batch by batch.
            with suppress(DeviceMemoryError), self.device.memory_errors(lambda: None, lambda: ""):
                x, y = self.validation
                self.validation = self._moved(x, batch_dtype(x, run.model.dtype)), y

    def epoch(self, first: int) -> Iterator[int]:
        """Train on an epoch's batches, beginning at ``first``; yields each batch's number once its step is queued.

        Raises: NonFiniteError: naming the range of batches in which the loss or a parameter became NaN or infinite; the
            model is then as it was before them. DeviceMemoryError: if the GPU runs out of memory, with what to try.
        """
        run = self.run
        self._settings_may_differ = True  # a callback may have changed them between the epochs
        if (run.loss, run.optimizer) != (self._loss, self._optimizer):
            self._take_parts()
        with self.device.memory_errors(self._give_up, self._advice):
            self._look_from(first)
            for batch, size in self._batches(first):
                run.learning_rate = self._optimizer.current_learning_rate()
                self._send(batch)
                run.model._begin_step(step=self._dropout_step)
                self._step(size)
                yield batch
                if batch + 1 - self._looked >= LOOK_EVERY:
                    self._look(batch + 1)

    def _take_parts(self) -> None:
        """Start with the run's loss and optimizer, which a callback may have replaced."""
        run = self.run
        self._loss, self._optimizer = run.loss, run.optimizer
        self._replay, self._warm, self._good = None, False, None
        # Its formula may use the step count, or its step may not be the library's at all.
        self._own_step = not _is_capturable(run.optimizer) or type(run.optimizer).step is not Optimizer.step
        self._refused |= self._own_step or not all(map(_is_capturable, self._parts()))

    def _parts(self) -> list[Any]:
        """The objects that a step consists of."""
        return [self._loss, self._optimizer, *(layer for _, layer in self.run.model.walk())]

    def settle(self) -> None:
        """Check the loss and the parameters now; raises NonFiniteError."""
        with self.device.memory_errors(self._give_up, self._advice):
            self._look(self.run.batch + 1)

    def close(self) -> None:
        """Release what the steps hold on the GPU; the model stays as it is."""
        self.device.synchronize()  # a graph that is still running needs its memory
        self._replay = self._x = self._y = self._data = self._order = self._good = None
        self._captured_arrays = []
        self._warm = False
        self.run.model.forget()

    def _give_up(self) -> None:
        if self._good is not None:
            self._good.put_back()
        self.close()

    def _advice(self) -> str:
        size = self._batch_size
        return f"try batch_size={size // 2}" if size > 1 else "the model is too large for this GPU"

    # -- a step -------------------------------------------------------------------------------------

    def _batches(self, first: int) -> Iterator[tuple[int, int]]:
        """The number and size of each batch, which is in ``_x`` and ``_y`` or is taken from the data by the step."""
        model, batches = self.run.model, self.batches
        if not isinstance(batches, ArrayBatches):
            for batch, (x, y) in enumerate(batches.epoch(model.epoch, first), first):
                self._reserve(x, y)
                assert self._x is not None
                assert self._y is not None
                np.copyto(self._x[: len(x)], self.device.asarray(x), casting="unsafe")
                np.copyto(self._y[: len(y)], self.device.asarray(y))
                yield batch, len(x)
            return
        self._reserve(batches.x[: self._batch_size], batches.y[: self._batch_size])
        before = batches.before(model.epoch)
        for batch in range(first, batches.steps):
            number, index = divmod(before + batch, batches.in_a_pass)
            if batch == first or index == 0:
                self._set_order(batches.order(number))
            self._row = index * batches.batch_size
            yield batch, min(batches.batch_size, len(batches.x) - self._row)

    def _set_order(self, order: Array | None) -> None:
        """Put a pass's order into the same memory, which the graph reads."""
        if order is not None:
            if self._order is None:
                self._order = self.device.empty(order.shape, np.int64)
            np.copyto(self._order, self.device.asarray(order.astype(np.int64, copy=False)))

    def _reserve(self, x: Array, y: Array) -> None:
        """Allocate memory for batches of this size and smaller ones."""
        if self._x is None or self._y is None or len(self._x) < len(x) or self._y.shape[1:] != y.shape[1:]:
            self._x = self.device.empty(x.shape, self.run.model.dtype)
            self._y = self.device.empty(y.shape, self.run.model.dtype if y.dtype.kind == "f" else y.dtype)
            self._replay, self._warm, self._batch_size = None, False, len(x)

    def _send(self, batch: int) -> None:
        self._batch = batch
        # An optimizer with its own step counts for itself and computes its own numbers.
        step_size, kept = (0.0, 1.0) if self._own_step else self._optimizer.next_step()
        set_numbers(self._floats, self._ints, self._row, self.run.model.step, step_size, kept)

    def _step(self, size: int) -> None:
        """Do the step with the numbers sent: by the graph, captured first if needed, or kernel by kernel."""
        if self._data is not None and self.batches.augment is not None:
            self._take_augmented(size)
        assert self._x is not None
        if size != len(self._x) or self._refused:
            self._compute(size)
            return
        if self._watched or self._settings_may_differ:
            self._forget_graph_of_another_step()
        if not self._warm:
            self._compute(size)
            self._warm = True
            return
        if self._replay is None:
            self._capture(size)
        if self._replay is None:
            self._compute(size)
        else:
            self._replay()

    def _capture(self, size: int) -> None:
        """Capture the step's kernels, or warn why that is impossible."""
        refused = ""
        try:
            self._replay = self.device.capture(lambda: self._compute(size))
        except Exception as error:  # of CUDA, of its library, or of a layer that reads numbers back
            refused = str(error) or type(error).__name__
        # Outside the except block, because the error and its traceback keep the memory that was allocated.
        if self._replay is None:
            self._refused = True
            warnings.warn(
                f"the step can't be captured as a CUDA graph and is computed kernel by kernel: {refused}",
                stacklevel=2,
            )
            return
        self._captured_with, self._captured_arrays = _plain_attributes(self._parts()), self._arrays()

    def _compute(self, size: int) -> None:
        """One step as kernels: batch, gradients, metrics, update."""
        model, loss, optimizer = self.run.model, self._loss, self._optimizer
        assert self._x is not None
        assert self._y is not None
        x, y = self._x[:size], self._y[:size]
        if self._data is not None:
            data_x, data_y = self._data
            if self.batches.augment is None:
                take_rows(data_x, self._order, self._start, x)
            take_rows(data_y, self._order, self._start, y)
        layers, fused = model._fuse(loss)
        value = model._forward_backward(layers, x, y, fused, size)
        assert model.outputs is not None
        record(self.run.meter.totals, value, model.outputs, y if loss.is_classification else None)
        vectors, parts = (model.params, model.grads), (model.decay_size, model.trainable_ranges())
        if self._own_step:
            optimizer.step(*vectors, *parts)
        else:
            optimizer.apply(*vectors, self._step_size, self._kept, *parts)

    def _take_augmented(self, size: int) -> None:
        """Take the batch and augment it; the random numbers are drawn on the CPU."""
        assert self._data is not None
        assert self.batches.augment is not None
        assert self._x is not None
        run, data = self.run, self._data[0]
        batch = self.device.empty((size, *data.shape[1:]), data.dtype)
        take_rows(data, self._order, self._start, batch)
        generator = random.generator(run.model.seed, random.AUGMENT, run.model.epoch, self._batch)
        np.copyto(self._x[:size], augmented(self.batches.augment, batch, generator), casting="unsafe")

    def _forget_graph_of_another_step(self) -> None:
        """Drop the graph if a callback changed what kernels were launched with: a rate, memory, what is frozen."""
        self._settings_may_differ = False
        self._optimizer.prepare(self.run.model.params)  # set_state may have given it other slots
        if self._replay is None:
            return
        now, then = self._arrays(), self._captured_arrays
        same = len(now) == len(then) and all(map(operator.is_, now, then))
        if not same or _plain_attributes(self._parts()) != self._captured_with:
            self._replay, self._captured_arrays, self._warm = None, [], False

    def _arrays(self) -> list[Array]:
        """The memory of model and optimizer; a graph is valid while this stays the same and is not freed."""
        model, optimizer = self.run.model, self._optimizer
        buffers = [array for _, layer in model.walk() for array in layer._buffers.values()]
        own = [model.params, model.grads, *model.named_state().values(), *buffers, *optimizer.slots.values()]
        work = optimizer._scratch, optimizer._gradient
        return [*own, *(array for array in work if array is not None)]

    # -- checking the loss --------------------------------------------------------------------------

    def _look_from(self, batch: int) -> None:
        """Save the model as it is before this batch."""
        self._looked = batch
        good = self._good or Snapshot(self.run.model, self._optimizer)
        good.take()
        self._good = good

    def _look(self, batch: int) -> None:
        """Raises NonFiniteError if the steps before this batch made the loss or a parameter NaN or infinite."""
        run = self.run
        slots = {f"the optimizer's {name}": slot for name, slot in self._optimizer.slots.items()}
        arrays = {"a parameter": run.model.params} | run.model.named_state() | slots
        what = "the loss" if not math.isfinite(run.meter.read()[0]) else ""
        what = what or next(
            (name for name, array in arrays.items() if not bool(np.isfinite(array).all())), ""
        )
        if not what:
            self._look_from(batch)
            return
        assert self._good is not None
        self._good.put_back()
        raise NonFiniteError(
            f"epoch {run.epoch + 1}, among batches {self._looked + 1} to {batch}: {what} became NaN or infinite. "
            f"The model is as it was before batch {self._looked + 1}. {REMEDY}"
        )


def _is_capturable(part: Any) -> bool:
    return type(part).__module__.startswith("tinynet.") or bool(getattr(part, "capturable", False))


@operation
def set_numbers(floats: Array, ints: Array, start: int, step: int, step_size: float, kept: float) -> None:
    """ints = (start, step)     floats = (step_size, kept)

    Kernel arguments are copied at the launch; an array on the host would have to stay unchanged until the GPU has read
    it.
    """
    ints[0], ints[1] = start, step
    floats[0], floats[1] = step_size, kept


class Snapshot:
    """A copy of parameters, state and slots, and of the step counts."""

    def __init__(self, model: Model, optimizer: Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        self.copies = [array.copy() for array in self._arrays()]
        self.counts = model.step, optimizer.step_count

    def _arrays(self) -> list[Array]:
        self.optimizer.prepare(self.model.params)  # a callback may have given it other slots by set_state
        return [self.model.params, *self.model.named_state().values(), *self.optimizer.slots.values()]

    def take(self) -> None:
        """Copy the current values."""
        for copy, array in zip(self.copies, self._arrays(), strict=True):
            np.copyto(copy, array)
        self.counts = self.model.step, self.optimizer.step_count

    def put_back(self) -> None:
        """Restore the copied values."""
        for copy, array in zip(self.copies, self._arrays(), strict=True):
            np.copyto(array, copy)
        self.model.step, self.optimizer.step_count = self.counts


def _plain_attributes(parts: list[Any]) -> Attributes:
    """The numbers and strings that loss, optimizer and layers hold, on which Python code may branch; no arrays."""
    return {
        (index, name): value
        for index, part in enumerate(parts)
        for name, value in ({"trainable": getattr(part, "trainable", None)} | vars(part)).items()
        if name != "step_count" and name[0] != "_"
        if isinstance(value, _PLAIN)
        or (isinstance(value, tuple) and all(isinstance(item, _PLAIN) for item in value))
    }
