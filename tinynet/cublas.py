"""The old location of `tinynet.engines.gpu.allow_tf32`."""

import warnings


def allow_tf32(allowed: bool) -> None:
    """See `tinynet.engines.gpu.allow_tf32`."""
    from tinynet.engines import gpu

    warnings.warn(
        "tinynet.cublas.allow_tf32 is now tinynet.engines.gpu.allow_tf32; the old name will be removed",
        DeprecationWarning,
        stacklevel=2,
    )
    gpu.allow_tf32(allowed)
