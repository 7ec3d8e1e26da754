"""All operations that have a loop."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from tinynet.engines.fast import (  # noqa: F401
    activations,
    batchnorm,
    depthwise,
    dropout,
    losses,
    optimizers,
    pooling,
    windows,
)
from tinynet.engines.fast.compile import LOOPS, cache_of
from tinynet.support.console import tell

__all__ = ["LOOPS", "try_out"]


def try_out() -> None:
    """Run one kernel, to see whether Numba works here."""
    kernel: Any = activations._rectify
    cache = cache_of(kernel)
    if cache and not any(Path(cache.cache_path or os.devnull).glob("activations._rectify-*.nbi")):
        tell("tinynet: Numba compiles the loops that this run needs, once; that takes some seconds")
    x = np.zeros(1, np.float32)
    kernel(x, x)
