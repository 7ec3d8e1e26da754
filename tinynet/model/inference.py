"""Using a model: evaluate, predict, and find where numbers stop being finite. Nothing here changes the model."""

import copy
import warnings
from typing import Any

import numpy as np

from tinynet.engines.choice import running
from tinynet.engines.devices import to_host
from tinynet.layers import LogSoftmax, Softmax
from tinynet.layers.activations import softmax
from tinynet.losses import Loss
from tinynet.metrics import record
from tinynet.protocols import Model
from tinynet.support.checks import check_positive_int
from tinynet.support.types import Array
from tinynet.training import inputs
from tinynet.training.batches import ArrayBatches, Batches, batch_dtype
from tinynet.training.iterables import IterableBatches

_EXAMPLES = 256  # to look at, spread over all
_SUSPICIOUS = 50  # times larger or smaller than what the model was fitted on


def evaluate(
    model: Model,
    x: Any,
    y: Any = None,
    batch_size: int = 256,
    loss: Loss | None = None,
    steps: int | None = None,
) -> dict[str, float]:
    """``{"loss": ..., "accuracy": ...}`` (no accuracy for regression).

    Args: x, y: as in `fit`; loss: None means the loss that the model was fitted with, which is saved with it;
        steps: how many batches to take of an iterable; None means its length or, without one, all.
    Raises: ValueError: for bad input, or if no loss is known.
    """
    loss = model.loss if loss is None else loss
    if loss is None:
        raise ValueError(
            "this model has not been fitted yet, so evaluate needs a loss, for example loss=CrossEntropy()"
        )
    if not isinstance(loss, Loss):
        raise TypeError(f"loss: expected an object such as CrossEntropy(), got {loss!r}")
    batch_size = check_positive_int("batch_size", batch_size)
    batches: Batches
    if y is None:
        steps = None if steps is None else check_positive_int("steps", steps)
        batches = IterableBatches(x, model, loss, steps=steps, to_the_end=True)
    elif steps is not None:
        raise ValueError("steps: only an iterable of batches takes it; give fewer rows of the arrays instead")
    else:
        x, y = inputs.check_data(x, y, model, loss)
        _warn_of_scale(model, x)
        batches = ArrayBatches(x, y, batch_size, model.dtype, shuffle=False)
    layers, loss = model._fuse(copy.copy(loss))
    device = model.device
    advice = f"try batch_size={max(1, batch_size // 2)}"
    with running(), np.errstate(under="ignore"), device.memory_errors(model.forget, lambda: advice):
        meter = device.zeros(4, np.float64)
        for x_batch, y_batch in batches.epoch(0):
            outputs = model.run(layers, device.asarray(x_batch), training=False)
            targets = device.asarray(y_batch)
            value = loss.forward(outputs, targets, len(targets))
            record(meter, value, outputs, targets if loss.is_classification else None)
    total, correct, count, _ = to_host(meter).tolist()
    scores = {"loss": total / count}
    return scores | {"accuracy": correct / count} if loss.is_classification else scores


def predict(model: Model, x: Any, batch_size: int = 256) -> Array:
    """The last layer's outputs (n, ...) for x (n, *input_shape). Thread-safe.

    Raises: ValueError: for bad input.
    """
    x = inputs.check_inputs(x, model.input_shape, model.dtype, device=model.device)
    _warn_of_scale(model, x)
    batch_size = check_positive_int("batch_size", batch_size)
    device = model.device
    advice = f"try batch_size={max(1, batch_size // 2)}"
    with running(), np.errstate(under="ignore"), device.memory_errors(model.forget, lambda: advice):
        outputs, dtype = device.empty((len(x), *model.output_shape), model.dtype), batch_dtype(x, model.dtype)
        for start in range(0, len(x), batch_size):
            part = slice(start, start + batch_size)
            x_batch = device.asarray(x[part].astype(dtype, copy=False))
            outputs[part] = model.run(model.layers, x_batch, training=False)
    return to_host(outputs)


def predict_proba(model: Model, x: Any, batch_size: int = 256, average_flips: bool = False) -> Array:
    """Class probabilities (n, classes), whatever the last layer is.

    Outputs of a `Softmax` are probabilities already, those of a `LogSoftmax` are exponentiated, and all others are
    taken as logits.
    ``average_flips``: average the probabilities for each image and its mirror image.
    Raises: ValueError: for bad input, or if the model was fitted for regression.
    """
    _check_classifier(model, "predict_proba")
    if average_flips:
        x = inputs.check_inputs(x, model.input_shape, model.dtype, device=model.device)
        if x.ndim < 3:
            raise ValueError(f"average_flips needs images (n, height, width, ...), got shape {x.shape}")
        mean = predict_proba(model, x, batch_size)
        mean += predict_proba(model, x[:, :, ::-1], batch_size)
        mean /= 2
        return mean
    outputs = predict(model, x, batch_size)
    if isinstance(model.layers[-1], Softmax):
        return outputs
    with np.errstate(under="ignore"):
        return np.exp(outputs) if isinstance(model.layers[-1], LogSoftmax) else softmax(outputs)


def predict_classes(model: Model, x: Any, batch_size: int = 256) -> Array:
    """The most probable class (n,) of each example; raises ValueError as `predict_proba` does."""
    _check_classifier(model, "predict_classes")
    classes: Array = predict(model, x, batch_size).argmax(axis=1)
    return classes


@np.errstate(all="ignore")
def first_non_finite(model: Model, x: Array) -> str:
    """The name of the first array that becomes NaN or infinite when training on a batch."""
    for path, array in model.named_params().items():
        if not np.isfinite(array).all():
            return f"parameter {path}"
    outputs = model.device.asarray(x).astype(model.dtype)
    if not np.isfinite(outputs).all():
        return "the batch x"
    try:
        layers = copy.deepcopy(model.layers)  # as training mode may change a layer's state
    except Exception as error:  # a layer that holds a lock, for example
        return f"not known, as the layers can't be copied ({error})"
    for index, layer in enumerate(layers):
        try:
            outputs = layer.forward(outputs, training=True)
        except Exception as error:  # a copy that does not work must not hide the finding
            return f"not known, as layer {index} can't be run again ({error})"
        if not np.isfinite(outputs).all():
            return f"the output of layer {index} ({type(layer).__name__})"
    return "the loss itself"


def _check_classifier(model: Model, what: str) -> None:
    if len(model.output_shape) != 1 or (model.loss is not None and not model.loss.is_classification):
        raise ValueError(
            f"{what} needs a classifier: outputs (batch, classes) and a classification loss; this model has "
            f"outputs of shape {model.output_shape} and loss {model.loss}"
        )


def _warn_of_scale(model: Model, x: Array) -> None:
    """Warn if the inputs are scaled otherwise than those that the model was fitted on."""
    message = ""
    if model.fitted_on_bytes and inputs.looks_like_unit_range(x):
        message = (
            "the model was fitted on integers such as bytes from 0 to 255 and now gets floats from 0 to 1; "
            "if you divided by 255, pass the original values"
        )
    elif model.fitted_magnitude:
        now = inputs.magnitude(x[:: -(-len(x) // _EXAMPLES)])
        smaller = model.fitted_magnitude / now if now and len(x) > 1 else 1  # a single example may be small
        ratio = max(now / model.fitted_magnitude, smaller)
        if ratio >= _SUSPICIOUS:
            message = (
                f"the model was fitted on inputs of a magnitude up to {model.fitted_magnitude:.3g} and now gets "
                f"{now:.3g}; scale them as those were"
            )
    if message:
        warnings.warn(message, stacklevel=3)
