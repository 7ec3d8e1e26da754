"""The base class of optimizers: all of a step but the formula, which is in `tinynet.optimizers`.

Each optimizer sees the whole model as two flat vectors, ``params`` and ``grads``, so a step is a dozen NumPy
calls, however deep the network is. ``update`` is the formula. Everything works in place, in memory that the
optimizer owns.
"""

import inspect
import math
import weakref
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from tinynet.engines.cpu import MANY_ELEMENTS, in_halves
from tinynet.engines.devices import device_of, to_host
from tinynet.engines.operation import operation
from tinynet.support.arguments import defaults_of, shown
from tinynet.support.checks import check_name, check_number
from tinynet.support.errors import NonFiniteError
from tinynet.support.types import Array, Decay, Schedule

_FLUSH_EVERY = 256  # steps
_FLUSH_BLOCK = 1 << 15  # elements

_ELSEWHERE = {
    "lr": "learning_rate",
    "rate": "learning_rate",
    "decay": "weight_decay",
    "clipnorm": "clip_norm",
    "beta1": "beta_1",
    "beta2": "beta_2",
    "betas": "beta_1",
    "eps": "epsilon",
}


NO_DECAY: Decay = (1.0, 0)

_models: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
"""The models, by the id of their ``params``."""


def introduce(model: Any) -> None:
    """Let optimizers know whose the vector ``model.params`` is."""
    _models[id(model.params)] = model


class Optimizer:
    """The base class of optimizers: learning rate, weight decay, gradient clipping, slots and the step count.

    Args:
        learning_rate: a positive number, or a schedule, a function of the step (0, 1, ...).
        weight_decay: applies to weights, not biases. If ``decoupled``, each step subtracts this share of
            them, times the learning rate: params -= learning_rate weight_decay params
            (Loshchilov & Hutter 2019). Otherwise weight_decay params, the gradient of an L2 penalty, is
            added to the gradient.
        clip_norm: the largest allowed norm of the whole gradient; a larger gradient is scaled down to it
            (Pascanu, Mikolov & Bengio 2013).
    """

    slot_names: tuple[str, ...] = ()  # the vectors it keeps, each of the size of params
    _decays_in_update = False  # whether `update` takes ``decay``, and shrinks the weights itself

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._decays_in_update = "decay" in inspect.signature(cls.update).parameters

    def __init__(
        self,
        learning_rate: float | Schedule,
        weight_decay: float = 0.0,
        decoupled: bool = True,
        clip_norm: float | None = None,
    ) -> None:
        self.learning_rate = self._first_rate = learning_rate
        self.weight_decay = check_number("weight_decay", weight_decay, 0, math.inf)
        self.decoupled = bool(decoupled)
        self.clip_norm = None if clip_norm is None else check_number("clip_norm", clip_norm, 1e-30, math.inf)
        self.step_count = 0
        self.slots: dict[str, Array] = {}
        self._prepared: Array | None = None  # the parameters for which `prepare` has been called
        self._scratch: Array | None = None
        self._gradient: Array | None = None  # after the penalty and clipping, if either of them is used
        self._model: weakref.ref[Any] | None = None  # the one that it trains
        self._overflowed = False  # a slot is infinite, and steps would do nothing

    def __setattr__(self, name: str, value: Any) -> None:
        if name[0] != "_" and name not in self.__dict__ and not hasattr(type(self), name):
            known = defaults_of(self)
            if name not in known:
                check_name(self, name, ["learning_rate", *known], _ELSEWHERE)
        object.__setattr__(self, name, value)

    @property
    def learning_rate(self) -> float | Schedule:
        """The learning rate: a number, or the schedule."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float | Schedule) -> None:
        self._learning_rate = value if callable(value) else check_number("learning_rate", value, 0, math.inf)

    def current_learning_rate(self) -> float:
        """The learning rate of the next step."""
        if not callable(self._learning_rate):
            return self._learning_rate
        rate = self._learning_rate(self.step_count)
        if type(rate) is float and 0 <= rate < math.inf:
            return rate
        return check_number(f"learning rate at step {self.step_count}", rate, 0, math.inf)

    def step_size(self, learning_rate: float) -> float:
        """The one number in which the learning rate and step count enter the formula: here, the rate itself."""
        return learning_rate

    def update(self, params: Array, grads: Array, step_size: float, scratch: Array, **slots: Any) -> None:
        """The formula, in place on one range of the vectors. It must be elementwise, as large ranges are split in two.

        Args: step_size: what `step_size` returned for the learning rate; with Adam, it includes the corrections for the
            first steps.

        An update that also takes ``decay``, (factor, count), does the weight decay: it begins by multiplying the first
        ``count`` parameters of the range by the factor.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no update(params, grads, ...)")

    def step(
        self,
        params: Array,
        grads: Array,
        decay_size: int | None = None,
        ranges: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        """Do one step: change ``params`` in place and leave ``grads`` alone.

        Args:
            params, grads: flat vectors of one size and dtype.
            decay_size, ranges: how many parameters decay, from the front, and the (start, stop) ranges to change.
                Without both, those of the model whose ``params`` these are; for other vectors, all.
        Raises: ValueError: if it was first used with another model, size or dtype. NonFiniteError: if a slot or a
            parameter overflows; Adam would never again move a parameter whose v is infinite.
        """
        if decay_size is None and ranges is None:
            model = _models.get(id(params))
            if model is not None and model.params is params:
                self.begin(model)
                decay_size, ranges = model.decay_size, model.trainable_ranges()
        if self._prepared is not params:
            self.prepare(params)
        try:
            with np.errstate(over="raise", invalid="raise", under="ignore"):
                self.apply(params, grads, *self.next_step(), decay_size, ranges)
        except FloatingPointError as error:
            raise self._overflow(error) from error
        if self.step_count % _FLUSH_EVERY == 0:
            self._flush_denormals()

    def _overflow(self, error: FloatingPointError) -> NonFiniteError:
        self._prepared = None  # the next step complains
        infinite = [name for name, slot in self.slots.items() if not np.isfinite(slot).all()]
        self._overflowed = bool(infinite)
        what = f"; not finite any more: {', '.join(infinite)}" if infinite else ""
        return NonFiniteError(f"the update of {type(self).__name__} overflowed ({error}){what}")

    def next_step(self) -> tuple[float, float]:
        """Count a step; return what `apply` takes: the step size, and the factor of decay, 1 without decay."""
        learning_rate = self.current_learning_rate()
        self.__dict__["step_count"] += 1  # without `__setattr__`, as this is done in every step
        decays = self.weight_decay and self.decoupled
        return self.step_size(learning_rate), 1 - learning_rate * self.weight_decay if decays else 1.0

    def apply(
        self,
        params: Array,
        grads: Array,
        step_size: Any,
        kept: Any,
        decay_size: int | None = None,
        ranges: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        """Change the parameters: decay, clip, and `update` range by range, with the numbers from `next_step`.

        In a step that a GPU repeats, both numbers are arrays ().
        """
        decay_size = params.size if decay_size is None else decay_size
        ranges = [(0, params.size)] if ranges is None else ranges
        penalty = self.weight_decay if not self.decoupled else 0.0
        if penalty or self.clip_norm is not None:
            grads = self._penalise_and_clip(params, grads, decay_size, ranges, penalty)
        assert self._scratch is not None
        scratch, decays = self._scratch, self.weight_decay and self.decoupled

        def work(start: int, stop: int) -> None:
            part, decay = params[start:stop], (kept, max(0, min(decay_size, stop) - start) if decays else 0)
            more: dict[str, Any] = {name: slot[start:stop] for name, slot in self.slots.items()}
            if self._decays_in_update and isinstance(kept, float):
                more["decay"] = decay
            else:
                shrink(part, decay)
            self.update(part, grads[start:stop], step_size, scratch[start:stop], **more)

        for start, stop in ranges:
            if stop - start < MANY_ELEMENTS:
                work(start, stop)
            else:
                in_halves(work, start, stop, params)

    def begin(self, model: Any) -> None:
        """Belong to this model, and allocate the slots; `fit` and `train_step` call this first.

        Raises: ValueError: if another model has been trained: its slots, step count and reduced rate would go on here.
        """
        if self.step_count and self._model is not None and self._model() is not model:
            raise ValueError(
                f"this {type(self).__name__} has done {self.step_count} steps with another model; create a new "
                "optimizer for each model, or call reset() on this one"
            )
        self.prepare(model.params)
        self._model = weakref.ref(model)

    def reset(self) -> None:
        """Forget all steps, as if newly created; a learning rate that was changed becomes the first one again."""
        self.learning_rate, self.step_count, self.slots = self._first_rate, 0, {}
        self._prepared = self._scratch = self._gradient = self._model = None
        self._overflowed = False

    def prepare(self, params: Array) -> None:
        """Allocate the slots for these parameters, or check that the existing slots match them.

        The slots are put on the parameters' device.
        """
        if self._overflowed:
            raise NonFiniteError(
                f"this {type(self).__name__} has overflowed, and its steps would do nothing; create a new one, or call "
                "reset()"
            )
        if self._scratch is None or type(self._scratch) is not type(params):
            device, slots = device_of(params), dict(self.slots)
            for name in self.slot_names:
                slot = slots.get(name)
                slots[name] = np.zeros_like(params) if slot is None else device.asarray(slot)
            # Assigned together, so that nothing changes if memory runs out.
            self._scratch, self._gradient, self.slots = np.empty_like(params), None, slots
        for own in (self._scratch, *self.slots.values()):
            if own.shape != params.shape or own.dtype != params.dtype:
                raise ValueError(
                    f"this {type(self).__name__} was first used with a model of {own.size} {own.dtype} "
                    f"parameters and can't continue with one of {params.size} {params.dtype}; create a new optimizer"
                )
        self._prepared = params

    def _penalise_and_clip(
        self, params: Array, grads: Array, decay_size: int, ranges: Sequence[tuple[int, int]], penalty: float
    ) -> Array:
        if self._gradient is None:
            self._gradient = np.empty_like(grads)
        gradient = self._gradient
        np.copyto(gradient, grads)
        if penalty:
            assert self._scratch is not None
            gradient[:decay_size] += np.multiply(params[:decay_size], penalty, out=self._scratch[:decay_size])
        if self.clip_norm is not None:
            clip(gradient, ranges, self.clip_norm)
        return gradient

    def _flush_denormals(self) -> None:
        # A slot whose gradient has become 0 (as for border pixels) decays into denormal numbers, which slow many
        # processors down a hundredfold. They are far too small to move a parameter.
        assert self._scratch is not None
        for slot in self.slots.values():
            tiny = float(np.finfo(slot.dtype).tiny)
            for start in range(0, slot.size, _FLUSH_BLOCK):
                block = slot[start : start + _FLUSH_BLOCK]
                magnitude = np.abs(block, out=self._scratch[start : start + _FLUSH_BLOCK])
                block[magnitude < tiny] = 0

    def state(self) -> dict[str, Any]:
        """What a later run needs to continue: ``step_count``, and a copy of each slot."""
        return {
            "step_count": self.step_count,
            "slots": {name: np.array(to_host(slot)) for name, slot in self.slots.items()},
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state`; raises ValueError if it belongs to another kind of optimizer."""
        slots = state["slots"]
        if (slots or state["step_count"]) and set(slots) != set(self.slot_names):
            raise ValueError(
                f"{type(self).__name__} keeps the slots {sorted(self.slot_names)}, the state has {sorted(slots)}"
            )
        self.step_count = int(state["step_count"])
        self.slots = {name: np.array(slot) for name, slot in slots.items()}
        self._prepared = self._scratch = self._gradient = self._model = None
        self._overflowed = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | dict.fromkeys(("_prepared", "_scratch", "_gradient", "_model"))

    def __copy__(self) -> Self:
        twin = object.__new__(type(self))
        slots = {name: slot.copy() for name, slot in self.slots.items()}  # steps change slots in place
        twin.__dict__.update(self.__getstate__(), slots=slots)
        return twin

    def __repr__(self) -> str:
        return f"<{shown(self)}, {self.step_count} steps>"


@operation
def clip(gradient: Array, ranges: Sequence[tuple[int, int]], clip_norm: float) -> None:
    """Scale the gradient down to a norm of clip_norm if its norm over the ranges is larger."""
    norm = math.hypot(*(gradient_norm(gradient[start:stop]) for start, stop in ranges))
    if norm > clip_norm:
        gradient *= clip_norm / norm


def gradient_norm(gradient: Array) -> float:
    """The Euclidean norm, even if the squares overflow or underflow."""
    norm = math.sqrt(float(np.vdot(gradient, gradient)))
    if 1e-15 < norm < math.inf or math.isnan(norm) or not gradient.size:
        return norm
    largest = float(np.max(np.abs(gradient)))
    if largest in (0, math.inf):
        return largest
    return largest * math.sqrt(float(np.sum(np.square(gradient / largest))))


def shrink(params: Array, decay: Decay) -> None:
    """Weight decay, in place."""
    factor, count = decay
    if count:
        params[:count] *= factor
