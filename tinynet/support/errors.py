"""The error for NaN or infinity in training."""

REMEDY = "Try a smaller learning rate, clip_norm=1, or inputs scaled to 0..1"


class NonFiniteError(FloatingPointError):
    """Raised when a loss or a parameter becomes NaN or infinite; names the epoch, the batch and the first bad array.

    On the GPU, names the epoch and the range of batches in which it happened.
    """


class DeviceError(RuntimeError):
    """There is no GPU that could be used, with the reason."""


class DeviceMemoryError(MemoryError):
    """The GPU's memory does not suffice, with a batch size to try."""


class ModelFileError(ValueError):
    """A model file or checkpoint that can't be written or read, with the file's name and the cause."""
