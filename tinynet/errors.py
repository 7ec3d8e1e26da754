"""The error of a training run that its numbers have ended."""

REMEDY = "Try a smaller learning rate, clip_norm=1, or inputs scaled to 0..1"


class NonFiniteError(FloatingPointError):
    """A loss or a parameter that became NaN or infinite: with the epoch, the batch and the first bad array.

    On the GPU with the epoch and the batches among which it happened.
    """
