"""The error for NaN or infinity in training."""

REMEDY = "Try a smaller learning rate, clip_norm=1, or inputs scaled to 0..1"


class NonFiniteError(FloatingPointError):
    """Raised when a loss or a parameter becomes NaN or infinite; names the epoch, the batch and the first bad array.

    On the GPU, names the epoch and the range of batches in which it happened.
    """
