"""The library's own errors."""

REMEDY = "Try a smaller learning rate, clip_norm=1, or inputs scaled to 0..1"


class NonFiniteError(FloatingPointError):
    """Raised when a loss or a parameter becomes NaN or infinite; names the epoch, the batch and the first bad array.

    On the GPU, names the epoch and the range of batches in which it happened.
    """


class NotComputedError(RuntimeError, AttributeError):
    """Raised when backward is called before the forward that keeps what it needs."""


class EngineError(RuntimeError):
    """Raised when an engine that was asked for by name can't be used; says why."""


class DeviceError(RuntimeError):
    """Raised when there is no usable GPU; says why."""


class DeviceMemoryError(MemoryError):
    """Raised when the GPU is out of memory; suggests what to try, such as a smaller batch."""


class ModelFileError(ValueError):
    """Raised when a model file or checkpoint can't be written or read; names the file and the cause."""
