"""Last layer and loss: which pairs match, and which are trained as one."""

from collections.abc import Sequence

from tinynet.layers import Layer, LogSoftmax, Softmax
from tinynet.layers.base import AS_ITS_INPUT
from tinynet.losses import CrossEntropy, Loss, NegativeLogLikelihood, SoftmaxCrossEntropy
from tinynet.protocols import Model


def fuse(model: Model, loss: Loss) -> tuple[Sequence[Layer], Loss]:
    """Return the layers to run and the loss of their output: a CrossEntropy absorbs a final Softmax.

    Together they are one function of the logits, with the same gradient, but finite where a probability rounds to 0.
    """
    if (
        type(loss) is CrossEntropy and type(model.layers[-1]) is Softmax
    ):  # a subclass may compute something else
        return model.layers[:-1], loss.on_logits()
    return model.layers, loss


def loss_for(head: Layer) -> Loss:
    """Return a class-label loss for the last layer's output; all layers but the two softmax layers give logits."""
    if isinstance(head, Softmax):
        return CrossEntropy()
    return NegativeLogLikelihood() if isinstance(head, LogSoftmax) else SoftmaxCrossEntropy()


_FITS = {
    "probabilities": {"probabilities"},
    "log-probabilities": {"log-probabilities"},
    "logits": {"logits", "real numbers", "log-probabilities"},
}
"""What a loss takes, and what of that a layer may give."""

_FIXES = {
    "probabilities": "end the model with Softmax(){place}, or use SoftmaxCrossEntropy() on logits",
    "log-probabilities": "end the model with LogSoftmax(){place}, or use CrossEntropy() on Softmax()",
    "logits": "leave the {head}() out, or use CrossEntropy() on Softmax()",
}


def check_head(model: Model, loss: Loss) -> None:
    """Raises ValueError if the loss can't take the last layer's output, such as probabilities where it takes logits."""
    takes = _said(loss, "takes")
    for layer in reversed(model.layers):
        gives = _said(layer, "gives")
        if gives != AS_ITS_INPUT:
            break
    if takes in _FITS and gives not in _FITS[takes] | {None, AS_ITS_INPUT}:
        last, head = type(model.layers[-1]).__name__, type(layer).__name__
        place = "" if gives == "real numbers" else f" in place of {head}()"
        raise ValueError(
            f"loss: {type(loss).__name__} takes {takes}, but the last layer is {last}, which gives {gives}; "
            f"{_FIXES[takes].format(head=head, place=place)}"
        )


def _said(part: Layer | Loss, name: str) -> str | None:
    """What the class says of itself; a subclass may compute something else."""
    said: str | None = vars(type(part)).get(name)
    return said
