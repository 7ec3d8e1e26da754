"""Layer: the protocol that every layer follows, the library's and your own."""

import inspect
import math
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from tinynet import initializers
from tinynet.engines.devices import CPU, Device, as_array
from tinynet.initializers import Initializer
from tinynet.support.arguments import arguments_of, defaults_of, shown
from tinynet.support.checks import MAX_AXES, batch_shape, check_bool, check_name
from tinynet.support.errors import NotComputedError
from tinynet.support.types import Array, Memory, Shape


class ParamSpec(NamedTuple):
    """A parameter declared by `build`; the model allocates it."""

    name: str
    shape: Shape
    initializer: Initializer
    decay: bool


class StateSpec(NamedTuple):
    """An array that is saved but not trained, declared by `build`; the model allocates it."""

    shape: Shape
    value: float  # initial value of every element


AS_ITS_INPUT = "as its input"
"""What a layer ``gives`` that leaves the meaning of its input: of probabilities it makes probabilities."""


class Layer:
    """A function with parameters, and its derivative.

    To write your own layer, define ``forward(x, training)`` and ``backward(dy)``, and also
    ``build(input_shape)`` if the layer has parameters or changes the shape. `Sequential` calls ``build``
    once, then allocates every parameter declared with ``add_param("W", ...)``: ``layer.W`` and its gradient
    ``layer.dW`` are views into the model's two flat vectors.

    - If ``training``, ``forward`` keeps what ``backward`` needs on ``self``, under the names in ``cache_names``
      (``_x``, ``_mask``). Otherwise it writes nothing to ``self`` and returns a new array, or x itself or a view of it.
    - ``backward`` **overwrites** the gradients of the parameters and returns dx, or None if
      ``needs_input_grad`` is False. A frozen layer (``trainable = False``) writes no gradients.
    - Neither writes into ``x`` or ``dy``. The array that either returns in training may be a buffer that the
      layer owns, valid until its next call.
    - On a GPU, x and dy are GPU arrays, which NumPy's functions accept. ``capturable = True`` promises that both
      methods do the same with their arrays in every step, and nothing else; a step is then captured and replayed.
    """

    children: tuple["Layer", ...] = ()
    state_names: tuple[str, ...] = ()  # arrays that are saved but not trained
    cache_names: tuple[str, ...] = ()  # what forward keeps for backward; `forget` drops it
    gives: str | None = None
    """What its outputs are, for a loss to check: "probabilities" (which sum to 1), "independent probabilities",
    "log-probabilities" or "real numbers". Each class says it for itself; None fits every loss."""
    capturable = False  # read only for layers from outside the library
    trainable = True
    needs_input_grad = True
    rectified = False  # whether its last forward in training did the work of the ReLU after it; backward then does too
    freezes = 0  # how often ``trainable`` was set, of any layer: what depends on it is then found again

    input_shape: Shape | None = None  # both are set when the layer is built, without the batch axis
    output_shape: Shape | None = None
    dtype: np.dtype[Any] = np.dtype(np.float32)
    device: Device = CPU  # where parameters, state and buffers live
    _views: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.param_specs: dict[str, ParamSpec] = {}
        self.state_specs: dict[str, StateSpec] = {}
        self._buffers: dict[str, Array] = {}  # flat
        # Views of their front parts, each with the request it answers: shape, dtype, strides of ``like``.
        self._buffer_views: dict[str, tuple[Array, tuple[Any, ...]]] = {}

    def build(self, input_shape: Shape) -> Shape:
        """Declare the parameters and return the output shape; neither shape includes the batch axis.

        Raises: ValueError: if the layer can't take this input.
        """
        return input_shape

    def forward(self, x: Array, training: bool = False) -> Array:
        """y = f(x)."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward(x, training)")

    def backward(self, dy: Array) -> Array | None:
        """Return dL/dx for dy = dL/dy; write dL/dW into ``dW``, and likewise for every parameter."""
        raise NotImplementedError(f"{type(self).__name__} defines no backward(dy)")

    def multiply_adds(self) -> int:
        """Multiply-adds of the matrix work in forward, for one example."""
        return 0

    def config(self) -> dict[str, Any]:
        """The constructor's arguments by name, which suffice to recreate the layer.

        Each argument is read from the attribute of the same name, so a layer that stores its arguments
        under their own names doesn't have to define ``config``.
        """
        return arguments_of(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Create a layer from the result of `config`."""
        arguments = dict(config)
        parameters = inspect.signature(cls.__init__).parameters.values()
        several = next((item.name for item in parameters if item.kind is item.VAR_POSITIONAL), "")
        return cls(*arguments.pop(several, ()), **arguments)

    # -- what layers call -------------------------------------------------------------------------

    def add_param(self, name: str, shape: Shape, initializer: str | Initializer, decay: bool = True) -> None:
        """Declare a parameter; for use in `build`. ``decay``: whether weight decay applies to it."""
        shape = tuple(int(size) for size in shape)
        self.param_specs[name] = ParamSpec(name, shape, initializers.get(initializer), decay)

    def add_state(self, name: str, shape: Shape, value: float) -> None:
        """Declare an array listed in ``state_names``, saved but not trained; for use in `build`."""
        self.state_specs[name] = StateSpec(tuple(int(size) for size in shape), value)

    def make_state(self) -> None:
        """Allocate the arrays that `add_state` declared; the model calls this for every layer once all are built."""
        for name, spec in self.state_specs.items():
            self.bind(name, np.full(spec.shape, spec.value, self.dtype))

    def buffer(self, name: str, shape: Shape, dtype: Any, like: Array | None = None) -> Array:
        """Uninitialised memory, kept from step to step; the caller must fill all of it.

        A smaller last batch gets the front part of the memory already allocated. ``like``: an array of that shape
        whose order of axes in memory is adopted (images between convolutions are not in NumPy's usual order).
        """
        wanted = (shape, dtype, None if like is None else like.strides)
        known = self._buffer_views.get(name)
        if known is not None and known[1] == wanted:
            return known[0]
        size = math.prod(shape)
        memory = self._buffers.get(name)
        if memory is None or memory.dtype != dtype or memory.size < size:
            memory = self._buffers[name] = self.device.empty(size, dtype)
        axes = range(len(shape)) if like is None else memory_order(like)
        ordered = memory[:size].reshape([shape[axis] for axis in axes])
        view = ordered.transpose(np.argsort(axes))
        self._buffer_views[name] = view, wanted
        return view

    def memory(self, dtype: Any, training: bool) -> Memory:
        """A function (name, shape) that returns a buffer in training, and otherwise a new array."""
        if training:
            return lambda name, shape: self.buffer(name, shape, dtype)
        return lambda name, shape: self.device.empty(shape, dtype)

    def cached(self, value: Any) -> Any:
        """What `forward` kept, for layers that set it to None in the class; others name it in ``cache_names``."""
        if value is None:
            kind = type(self).__name__
            raise NotComputedError(
                f"{kind}.backward needs what {kind}.forward(x, training=True) keeps; call that first"
            )
        return value

    # -- what the model calls ---------------------------------------------------------------------

    def setup(self, input_shape: Shape, dtype: Any) -> Shape:
        """Build the layer, only once, and record its shapes; a layer made of layers calls this on its children."""
        if self.output_shape is not None:
            raise ValueError(
                "this layer object is already in use: create a new one for each place, "
                "or use model.copy() for a second model"
            )
        self.dtype = np.dtype(dtype)
        built: Any = self.build(tuple(input_shape))
        if not isinstance(built, tuple):
            raise ValueError(
                f"its build(input_shape) must return the output shape as a tuple; it returned {built!r}"
            )
        output_shape = tuple(int(size) for size in built)
        if len(output_shape) > MAX_AXES or math.prod(output_shape) > sys.maxsize:
            raise ValueError(
                f"no array can hold the output: its shape is {batch_shape(output_shape[:MAX_AXES])}"
            )
        if math.prod(output_shape) < 1:
            raise ValueError(f"the output would be empty: its shape is {batch_shape(output_shape)}")
        self.input_shape, self.output_shape = tuple(input_shape), output_shape
        return output_shape

    def bind(self, name: str, view: Array) -> None:
        """Bind an array to a name: from now on, ``layer.name = a`` copies ``a`` into it."""
        self._views = self._views | {name}
        self.__dict__[name] = view

    def forget(self) -> None:
        """Drop the buffers and what `forward` kept; parameters and state stay."""
        self._buffers, self._buffer_views = {}, {}
        for name in self.cache_names:
            self.__dict__.pop(name, None)

    def unbuild(self) -> None:
        """Undo `setup`: drop the parameters, state and shapes."""
        self.forget()
        for name in self._views:
            del self.__dict__[name]
        for layer in self.children:
            layer.unbuild()
        self._views, self.param_specs, self.state_specs = frozenset(), {}, {}
        self.input_shape = self.output_shape = None
        self.__dict__.pop("device", None)

    def __setattr__(self, name: str, value: Any) -> None:
        # Parameters are views into the model's vectors, which the optimizer updates. So assigning
        # copies into the view: rebinding the name would cut the layer off from training.
        if name not in self._views:
            if name[0] != "_" and name not in self.__dict__ and not hasattr(type(self), name):
                self._check_name(name)
            if name == "trainable":
                value = check_bool("trainable", value)
            object.__setattr__(self, name, value)
            if name == "trainable":
                Layer.freezes += 1
                for layer in self.children:
                    layer.trainable = value
            return
        view = self.__dict__[name]
        array = as_array(value, name)
        if array.shape != view.shape:
            raise ValueError(f"{type(self).__name__}.{name}: expected shape {view.shape}, got {array.shape}")
        view[...] = self.device.asarray(array)

    def _check_name(self, name: str) -> None:
        """Refuse ``trainble``; and, of the library's layers, any misspelt argument."""
        known, own = ["trainable"], defaults_of(self)
        if type(self).__module__.startswith("tinynet.") and self.output_shape is not None:
            known += own
        if name not in own:
            check_name(self, name, known, {"frozen": "trainable", "requires_grad": "trainable"})

    def __getattr__(self, name: str) -> Any:
        # Only called when the ordinary lookup fails.
        if name in type(self).cache_names:
            kind = type(self).__name__
            raise NotComputedError(
                f"{kind}.backward needs what {kind}.forward(x, training=True) keeps; call that first"
            )
        hint = ""
        if "_buffers" not in self.__dict__ and not name.startswith("__"):
            hint = f"; the __init__ of {type(self).__name__} must call super().__init__() first"
        elif self.__dict__.get("output_shape") is None and not name.startswith("__"):
            hint = "; it is not built yet: Sequential builds its layers and allocates their parameters"
        raise AttributeError(f"{type(self).__name__!r} layer has no attribute {name!r}{hint}")

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name not in self.cache_names}
        state["_buffers"], state["_buffer_views"] = {}, {}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __repr__(self) -> str:
        return shown(self)


def memory_order(x: Array) -> list[int]:
    """The axes of an array, from the slowest in memory to the fastest."""
    return sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
