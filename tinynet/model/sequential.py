"""Sequential: a chain of layers, with all parameters in one vector."""

import copy
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tinynet.engines.choice import running
from tinynet.engines.devices import CPU, Device, check_device, get_device, to_host
from tinynet.files import architecture, storage
from tinynet.layers import Dropout, Layer
from tinynet.layers.chain import backward_through, forward_through, set_up, walk
from tinynet.losses import Loss
from tinynet.model import heads, inference, summary
from tinynet.model.parameters import Parameters
from tinynet.optimizer import Optimizer, introduce
from tinynet.support import random
from tinynet.support.checks import batch_shape, check_bool, check_dtype, check_shape
from tinynet.support.errors import ModelFileError, NonFiniteError, NotComputedError
from tinynet.support.types import Array, DeviceName, FloatType, Shape
from tinynet.training.in_use import is_in_use
from tinynet.training.inputs import check_data
from tinynet.training.loop import check_parts, fit
from tinynet.training.run import History
from tinynet.training.steps import are_finite, refuse_step, refuse_update


class Sequential:
    """A chain of layers, each taking the output of the one before.

    The model is built at once: each layer declares its parameters, then all of them are placed in two flat
    vectors, ``params`` and ``grads``, and every ``layer.W`` and ``layer.dW`` is a view into those. Parameters that
    weight decay applies to come first. Names are paths: ``"2.W"`` is the W of ``layers[2]``.

    Args:
        layers: `Layer` objects, each used in one place only.
        input_shape: the shape of one example, without the batch axis, such as (28, 28).
        seed: for initial values, shuffles and dropout; None draws a fresh one, kept as ``model.seed``.
        dtype: "float32" or "float64".
        device: "cpu", "gpu", or "auto" for the GPU if there is one.
    Raises: ValueError: naming the layer that can't take its input, and the fix. DeviceError: if there is no GPU.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: Sequence[int],
        seed: int | None = None,
        dtype: FloatType = "float32",
        device: DeviceName = "cpu",
    ) -> None:
        target = get_device(device)
        self.device = CPU  # initial values are drawn on the CPU, so that both devices start alike
        self.dtype = check_dtype(dtype)
        self.seed = random.draw_seed() if seed is None else random.check_seed(seed)
        self.input_shape: Shape = check_shape("input_shape", input_shape)
        if not isinstance(layers, Iterable):
            raise TypeError(f"layers: expected a list of Layer objects, got {layers!r}")
        self.layers = tuple(layers)
        self.loss: Loss | None = None  # the loss it was fitted with
        self.history: History | None = None  # of its last fit
        self.fitted_on_bytes = False
        self.fitted_magnitude: float | None = (
            None  # the largest of the inputs it was fitted on; None if unknown
        )
        self.step = 0  # training steps begun; dropout masks depend on it
        self.epoch = 0  # epochs trained; shuffles depend on it
        self.outputs: Array | None = None  # of the last training step
        self._last_was_inference = False
        self._input: Array | None = None  # memory for a training batch in the model's dtype
        self._build()
        try:
            self._parameters = Parameters(self.layers, self.dtype, self.seed)
            introduce(self)
            self._dropouts = [layer for _, layer in self.walk() if isinstance(layer, Dropout)]
            for index, layer in enumerate(self._dropouts):
                layer.key = random.dropout_key(self.seed if layer.seed is None else layer.seed, index)
            self._move(self.dtype, target)
        except BaseException:  # out of memory, an initializer's error, Ctrl-C
            for built in self.layers:
                built.unbuild()  # so that they can be used again
            raise

    # -- building ---------------------------------------------------------------------------------

    def _build(self) -> None:
        if not self.layers:
            raise ValueError("layers: expected at least one layer, got none")
        for index, layer in enumerate(self.layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"layer {index}: expected a Layer object such as Dense(10), got {layer!r}")
        self.output_shape: Shape = set_up(self.layers, self.input_shape, self.dtype)

    @property
    def params(self) -> Array:
        """All parameters, in one flat vector."""
        return self._parameters.values

    @property
    def grads(self) -> Array:
        """The gradients of all parameters, in one flat vector, in the order of ``params``."""
        return self._parameters.grads

    @property
    def decay_size(self) -> int:
        """How many parameters, at the front of ``params``, weight decay applies to."""
        return self._parameters.decay_size

    @property
    def trainable(self) -> bool:
        """Whether any layer trains; setting it sets that of all layers."""
        return any(layer.trainable for _, layer in self.walk())

    @trainable.setter
    def trainable(self, value: bool) -> None:
        value = check_bool("trainable", value)
        for layer in self.layers:
            layer.trainable = value

    def walk(self) -> Iterator[tuple[str, Layer]]:
        """Every layer with its path, including layers inside layers: ``("0", ...), ("5", ...), ("5.1", ...)``."""
        return walk(self.layers)

    # -- the function and its gradient --------------------------------------------------------------

    def forward(self, x: Array, training: bool = False) -> Array:
        """The last layer's output (n, ...) for x (n, *input_shape); ``training`` keeps what backward needs."""
        y = self.run(self.layers, x, training)
        self._last_was_inference = not training
        return y

    def run(self, layers: Sequence[Layer], x: Array, training: bool) -> Array:
        """`forward` through the first of the layers, such as ``model.layers[:3]``."""
        self._check_input(x)
        if training:
            self._last_was_inference = False
        return self._through(layers, x, training)

    def _check_input(self, x: Array) -> None:
        check_device(x, self.device, "x")
        if x.shape[1:] != self.input_shape:
            raise ValueError(f"x: expected shape (batch, {str(self.input_shape)[1:]}, got {x.shape}")

    def _through(self, layers: Sequence[Layer], x: Array, training: bool) -> Array:
        if x.dtype != self.dtype:
            x = self._cast_into_buffer(x) if training else x.astype(self.dtype)
        y = forward_through(layers, x, training)
        expected = layers[-1].output_shape if layers else self.input_shape
        if y.shape[1:] != expected:
            assert expected is not None
            raise ValueError(
                f"the model was built for outputs {batch_shape(expected)} but gave {y.shape}: the build of "
                f"a layer returns a different shape from its forward"
            )
        return y

    def _cast_into_buffer(self, x: Array) -> Array:
        if self._input is None or len(self._input) < len(x):
            self._input = self.device.empty(x.shape, self.dtype)
        buffer = self._input[: len(x)]
        np.copyto(buffer, x, casting="unsafe")
        return buffer

    def backward(self, dy: Array) -> None:
        """Write all trainable parameters' gradients into ``grads``; layers below the first trainable one do nothing.

        Raises: NotComputedError: unless the last call of `forward` was one with ``training=True``.
        """
        if self._last_was_inference:  # the layers still hold what an earlier forward kept
            raise NotComputedError("backward needs what forward(x, training=True) keeps; call that first")
        backward_through(self.layers, dy, needs_input_grad=False)

    def loss_and_gradients(
        self, x: Array, y: Array, loss: Loss, total: int | None = None, first_row: int = 0
    ) -> float:
        """Return the loss of a batch; leave the gradients in ``grads`` (0 where frozen) and the outputs in ``outputs``.

        A final Softmax and a CrossEntropy are trained as one function of the logits, and ``outputs`` then holds the
        logits. The gradient is the same, and finite even for logits of +-1e4.

        Args: x (n, *input_shape); y: n targets; total: the size of the whole batch, if this is only the part that
            begins at ``first_row``; the targets must then be checked already.
        """
        self._check_input(x)
        layers, loss = self._fuse(loss)
        self._begin_step(first_row)
        self._last_was_inference = False
        with running(), np.errstate(under="ignore"):
            value = float(self._forward_backward(layers, x, y, loss, total))
        self._parameters.clear_frozen()
        return value

    def train_step(self, x: Any, y: Any, loss: Loss, optimizer: Optimizer) -> float:
        """Train on one batch, for a loop of your own: the step that `fit` does. Returns the loss before the update.

        Args: x (n, *input_shape); y: n targets.
        Raises: NonFiniteError: as `fit`. TypeError, ValueError: for bad input, or if the optimizer has trained another
            model.
        """
        check_parts(optimizer, loss)
        self._check_head(loss)
        x, y = check_data(x, y, self, loss)
        optimizer.begin(self)
        state = self.named_state()
        good_state = [array.copy() for array in state.values()]
        with np.errstate(over="ignore", invalid="ignore"):  # either makes the loss NaN or infinite
            value = self.loss_and_gradients(x, y, loss)
        if not (math.isfinite(value) and are_finite(state)):
            refuse_step(self, value, x, good_state)
        try:
            with running():
                optimizer.step(self.params, self.grads, self.decay_size, self.trainable_ranges())
        except NonFiniteError as error:
            refuse_update(self, optimizer, error)
        return value

    def _forward_backward(
        self, layers: Sequence[Layer], x: Array, y: Array, loss: Loss, total: int | None = None
    ) -> Any:
        """Like `loss_and_gradients`, for the layers and loss that `_fuse` returned, in a step already begun.

        On the GPU, the loss is an array () there.
        """
        self.outputs = self._through(layers, x, training=True)
        value = loss.forward(self.outputs, y, total)
        backward_through(layers, loss.backward(), needs_input_grad=False)
        return value

    def _begin_step(self, first_row: int = 0, step: Any = None) -> None:
        """Count a training step, and tell the dropout layers, so that each step gets its own masks.

        Args: step: the step number for dropout; an array () on the GPU is read when the masks are drawn.
        """
        for layer in self._dropouts:
            layer.step, layer.first_row = self.step if step is None else step, first_row
        self.step += 1

    _check_head = heads.check_head
    _fuse = heads.fuse

    # -- training and using ------------------------------------------------------------------------

    fit = fit
    evaluate = inference.evaluate
    predict = inference.predict
    predict_proba = inference.predict_proba
    predict_classes = inference.predict_classes
    _first_non_finite = inference.first_non_finite

    # -- parameters ---------------------------------------------------------------------------------

    def named_params(self) -> dict[str, Array]:
        """Every parameter by its path, ``"2.W"``, as the view that training changes."""
        return self._parameters.named()

    def named_grads(self) -> dict[str, Array]:
        """The gradient of every parameter, by the parameter's path, as the view that backward writes."""
        return self._parameters.named("d")

    def named_state(self) -> dict[str, Array]:
        """Every array that is saved but not trained, by its path: ``"3.running_mean"``."""
        return {
            f"{path}.{name}": getattr(layer, name)
            for path, layer in self.walk()
            for name in layer.state_names
        }

    def named_weights(self) -> dict[str, Array]:
        """Parameters and state by their paths, layer by layer: gamma, beta, running_mean, running_var."""
        return {
            f"{path}.{name}": getattr(layer, name)
            for path, layer in self.walk()
            for name in (*layer.param_specs, *layer.state_names)
        }

    def trainable_ranges(self) -> list[tuple[int, int]]:
        """The (start, stop) ranges of ``params`` that train."""
        return self._parameters.trainable_ranges()

    def get_weights(self) -> list[Array]:
        """Copies of the parameters and the state, layer by layer: for Dense ``[W, b]``."""
        return [np.array(to_host(array)) for array in self.named_weights().values()]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Copy in the result of `get_weights`; raises ValueError, and changes nothing, if a shape differs."""
        architecture.assign_in_order(self.named_weights(), weights)

    def copy(self, dtype: FloatType | None = None, device: DeviceName | None = None) -> "Sequential":
        """An independent model with the same values, in another dtype or on another device if one is given."""
        target = self.device if device is None else get_device(device)
        with self.device.memory_errors(lambda: None, lambda: "no copy was made"):
            clone = copy.deepcopy(self)
        clone._move(self.dtype if dtype is None else check_dtype(dtype), target)
        return clone

    def to(self, device: DeviceName) -> "Sequential":
        """Move parameters, gradients and state, in place, and return the model. An optimizer follows in `fit`.

        Args: device: "cpu", "gpu" or "auto".
        Raises: DeviceError: if there is no GPU; nothing is changed then. RuntimeError: while `fit` is training it.
        """
        target = get_device(device)
        if target is not self.device and is_in_use(self):
            raise RuntimeError(
                f"fit is training this model on {self.device.name!r}, and it must stay there until fit ends; move a "
                f"copy instead: model.copy(device={device!r})"
            )
        self._move(self.dtype, target)
        return self

    def _replica(self) -> "Sequential":
        """A model that shares this one's parameters and state, with its own gradients, caches and buffers."""
        shared = {id(array): array for array in self.named_weights().values()}
        twin = object.__new__(type(self))
        twin.__dict__.update(
            self.__dict__, layers=copy.deepcopy(self.layers, shared), outputs=None, _input=None
        )
        twin._parameters = self._parameters.replica(twin.layers)
        twin._dropouts = [layer for _, layer in twin.walk() if isinstance(layer, Dropout)]
        return twin

    def _move(self, dtype: np.dtype[Any], device: Device) -> None:
        if (dtype, device) == (self.dtype, self.device):
            return
        # Do everything that can run out of memory first.
        with device.memory_errors(lambda: None, lambda: "the model stays where it was"):
            state = [
                (layer, name, device.asarray(getattr(layer, name).astype(dtype)))
                for _, layer in self.walk()
                for name in layer.state_names
            ]
            self._parameters.move(dtype, device)
        introduce(self)
        for layer, name, array in state:
            layer.bind(name, array)
        self.dtype, self.device = dtype, device
        self.forget()
        for _, layer in self.walk():
            layer.dtype, layer.device = dtype, device

    def forget(self) -> None:
        """Release the working memory of training steps; the next step allocates it again."""
        self.outputs = self._input = None
        for _, layer in self.walk():
            layer.forget()
        for layer in self._dropouts:
            if not isinstance(layer.step, int):
                layer.step = self.step  # instead of a training run's memory on the GPU

    def __copy__(self) -> "Sequential":
        return self.copy()  # two models that share layers but not vectors would not work

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_input": None, "outputs": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._parameters.bind()  # deepcopy and pickle turn views into separate arrays
        introduce(self)

    # -- showing and saving ---------------------------------------------------------------------------

    def multiply_adds(self) -> int:
        """Multiply-adds of one example's forward pass."""
        return sum(layer.multiply_adds() for _, layer in self.walk() if not layer.children)

    def describe(self) -> list[summary.LayerRow]:
        """A row for each layer: path, kind, output shape, parameters, multiply-adds."""
        return summary.rows(self.walk())

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Print the layers with shapes, parameters and multiply-adds, and the totals with their memory."""
        print_fn(summary.table(self.describe(), self.dtype, self.input_shape, self.params.size))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write layers, parameters, state and loss to a .safetensors file, for `load_model`.

        Raises: ModelFileError: if a layer's arguments can't be written as JSON.
        """
        storage.save(path, *architecture.contents(self))

    def __repr__(self) -> str:
        layers = ", ".join(map(repr, self.layers))
        return f"Sequential([{layers}], input_shape={self.input_shape}, seed={self.seed}, dtype={str(self.dtype)!r})"


def load_model(
    path: str | os.PathLike[str],
    custom_layers: Mapping[str, type[Layer]] | None = None,
    device: DeviceName = "cpu",
) -> Sequential:
    """Load a model that `Sequential.save` wrote, on any device.

    Nothing in the file is imported or evaluated: layers are created from tinynet's own classes and from those in
    ``custom_layers``, a mapping from class names to classes. The arrays are compared with what the layers declare
    before anything of their size is allocated.

    Raises: ModelFileError: if the file is damaged, is not a model file, can't be read, or holds an unknown layer;
        FileNotFoundError: if it does not exist; DeviceError, DeviceMemoryError: if the GPU can't hold the model.
    """
    target = get_device(device)
    description, arrays = storage.load(path)
    try:
        layers = architecture.make_layers(description, arrays, custom_layers or {})
        model = Sequential(layers, description["input_shape"], description["seed"], description["dtype"])
        architecture.restore(model, description)
        architecture.assign(model.named_weights(), arrays)
    except architecture.ERRORS as error:
        cause = f"{type(error).__name__}: {error}" if isinstance(error, LookupError) else error
        raise ModelFileError(f"{os.fspath(path)}: the model can't be made: {cause}") from error
    return model.to(target.name)
