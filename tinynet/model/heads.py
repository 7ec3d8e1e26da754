"""Last layer and loss: which pairs match, and which are trained as one."""

from collections.abc import Sequence
from typing import NamedTuple

from tinynet.layers import Dense, Layer, LogSoftmax, Softmax
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


class _Takes(NamedTuple):
    """What a loss takes, and library layers whose output is certainly something else."""

    what: str
    wrong_heads: tuple[type[Layer], ...]
    fix: str


_TAKES: dict[type[Loss], _Takes] = {
    CrossEntropy: _Takes(
        "probabilities",
        (Dense, LogSoftmax),
        "end the model with Softmax(), or use SoftmaxCrossEntropy() on logits",
    ),
    NegativeLogLikelihood: _Takes(
        "log-probabilities",
        (Dense, Softmax),
        "end the model with LogSoftmax(), or use CrossEntropy() on Softmax()",
    ),
    SoftmaxCrossEntropy: _Takes("logits", (Softmax,), "leave the Softmax() out, or use CrossEntropy()"),
}


def check_head(model: Model, loss: Loss) -> None:
    """Raises ValueError if the loss can't take the last layer's output, such as probabilities where it takes logits."""
    head, takes = model.layers[-1], _TAKES.get(type(loss))
    if takes is not None and type(head) in takes.wrong_heads:
        raise ValueError(
            f"loss: {type(loss).__name__} takes {takes.what}, but the last layer is {type(head).__name__}; {takes.fix}"
        )
