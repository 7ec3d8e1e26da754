"""The measured limits of a GPU: how fast it copies memory and multiplies matrices; and how much of both a step needs.

A step's multiply-adds are those of `limit.multiply_adds`: forward, and both products of backward, without dx of the
first layer with weights. Its least bytes are: the batch's images, once, as bytes; the parameters and the optimizer's
slots, read and written once; and the input of each layer with weights except the first, written in forward and read in
backward. A GPU's cache may save some of those bytes, and Winograd convolutions some of those multiply-adds, so more
than 100% of a limit is possible.
"""

import math
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import limit
import numpy as np
from cases import Case, walk
from clocks import WallClock, cupy_clock

from tinynet.engines import devices
from tinynet.engines.operation import matmul

COPIED_BYTES = {"gpu": 2 << 30, "cpu": 32 << 20}
MATRIX_SIZE = {"gpu": 8192, "cpu": 512}
REPEATS, CALLS = 7, 5  # number of measurements, the first of which is left out, and calls in each
_FLOAT = 4  # bytes


class Floor(NamedTuple):
    """The least time of a step."""

    seconds: float
    bound: str  # "matrix" or "memory"


def least_bytes(case: Case, n: int) -> int:
    """Return the bytes that a training step on n examples moves, counted as in the module's docstring."""
    slots = {"SGD": 0, "Adam": 2}[case.optimizer["name"]]
    inputs = [math.prod(layer["input_shape"]) for layer in walk(case.layers) if has_weights(layer)]
    return (
        n * math.prod(case.input_shape)
        + 2 * (1 + slots) * _FLOAT * case.params
        + 2 * _FLOAT * n * sum(inputs[1:])
    )


def has_weights(layer: dict[str, Any]) -> bool:
    return layer["kind"] in ("Dense", "Conv2D")


def floor(needs: dict[str, float], limits: dict[str, Any], tf32: str) -> Floor:
    """Return the larger of two times: of the multiply-adds at the matrix limit, and of the bytes at the memory limit.

    Args: needs: "multiply_adds" and "bytes" of a step; limits: what `measure` returns; tf32: "off" or "on".
    """
    matrix = needs["multiply_adds"] / statistics.median(limits["multiply_adds_per_second"][tf32])
    memory = needs["bytes"] / statistics.median(limits["bytes_per_second"])
    return Floor(matrix, "matrix") if matrix > memory else Floor(memory, "memory")


def needs(case: Case, n: int) -> dict[str, float]:
    """Return what a step on n examples needs."""
    return {"multiply_adds": limit.multiply_adds(case, n), "bytes": least_bytes(case, n)}


def measure(name: str) -> dict[str, Any]:
    """Measure bytes and multiply-adds per second on the device of that name, "gpu" or "cpu".

    The matrix products are tinynet's own, by cuBLAS; without a GPU they are NumPy's, and TF32 has no effect.
    """
    device = devices.get_device(name)
    rng = np.random.default_rng(0)
    size = MATRIX_SIZE[name]
    a, b = (device.asarray(rng.standard_normal((size, size), np.float32)) for _ in range(2))
    source = device.empty(COPIED_BYTES[name] // _FLOAT, np.float32)
    source.fill(1)
    target, out = device.empty(source.shape, np.float32), device.empty(a.shape, np.float32)
    with device.running():
        clock = WallClock(lambda: None) if name == "cpu" else cupy_clock(device.cupy)  # type: ignore[attr-defined]
        copies = _seconds(clock, lambda: np.copyto(target, source))
        products = {}
        for tf32 in ("off", "on"):
            if name == "gpu":
                from contender_tinynet_gpu import allow_tf32

                allow_tf32(tf32 == "on")
            products[tf32] = _seconds(clock, lambda: matmul(a, b, out=out))
    return {
        "bytes_per_second": [2 * source.nbytes / seconds for seconds in copies],
        "multiply_adds_per_second": {
            tf32: [size**3 / each for each in seconds] for tf32, seconds in products.items()
        },
        "copied_bytes": source.nbytes,
        "matrix_size": size,
    }


def _seconds(clock: WallClock, call: Callable[[], Any]) -> list[float]:
    """Return the seconds of one call, measured several times."""
    found = []
    for _ in range(REPEATS):
        clock.start()
        for _ in range(CALLS):
            call()
        span = clock.stop()
        found.append((span.wall if span.device is None else span.device) / CALLS)
    return found[1:]
