"""The error of a training run that its numbers have ended."""

REMEDY = "Try a smaller learning rate, clip_norm=1, or inputs scaled to 0..1"


class NonFiniteError(FloatingPointError):
    """A loss or a parameter that became NaN or infinite: with the epoch, the batch and the first bad array.

    On the GPU with the epoch and the batches among which it happened.
    """


class DeviceError(RuntimeError):
    """There is no GPU that could be used, with the reason."""


class DeviceMemoryError(MemoryError):
    """The GPU's memory does not suffice, with a batch size to try."""


class ModelFileError(ValueError):
    """A model file or checkpoint that can't be written or read, with the file's name and the cause."""
