"""The limit: a case's own matrix products and nothing else, back to back in NumPy.

For a Dense layer, these are the forward product (n, in) (in, out), dW = x^T dy and dx = dy W^T; for a convolution, the
same three on its columns of pixels, (c_out, kh kw c_in) (kh kw c_in, places n). The dx of the first layer with weights
is left out. Operands and results are allocated in advance and stay the same: what a library adds to this is gathering
batches, building columns, activations, losses and the optimizer. A library that needs fewer products (Winograd or
Fourier convolutions), or divides a batch between threads better than BLAS does, may be faster than the limit.
"""

import itertools
import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from cases import Case, walk

Product = tuple[int, int, int]
"""(m, k, n): an (m, k) matrix times a (k, n) matrix."""


class LayerProducts(NamedTuple):
    """The products of one layer for one batch."""

    forward: Product
    dW: Product
    dx: Product | None
    is_convolution: bool = False
    rows: int = 1  # of a convolution's output, into which its products may be split

    def all(self) -> dict[str, Product]:
        """Return the existing products by name."""
        products = {"forward": self.forward, "dW": self.dW, "dx": self.dx}
        return {name: product for name, product in products.items() if product is not None}


def layer_products(case: Case, n: int) -> list[LayerProducts]:
    """Return the products of a training step on n examples, layer by layer."""
    layers: list[LayerProducts] = []
    for layer in walk(case.layers):
        config, in_shape, out_shape = layer["config"], layer["input_shape"], layer["output_shape"]
        if layer["kind"] == "Dense":
            inputs, units = in_shape[0], config["units"]
            dx = (n, units, inputs) if layers else None
            layers.append(LayerProducts((n, inputs, units), (inputs, n, units), dx))
        elif layer["kind"] == "Conv2D":
            size = config["kernel_size"]
            area = size * size if isinstance(size, int) else math.prod(size)
            height, width, filters = out_shape
            taps, places = area * in_shape[2], height * width * n
            dx = (taps, filters, places) if layers else None
            layers.append(LayerProducts((filters, taps, places), (filters, places, taps), dx, True, height))
    return layers


def multiply_adds(case: Case, n: int) -> int:
    """Return the multiply-adds of one step's products, forward and backward."""
    return sum(math.prod(product) for layer in layer_products(case, n) for product in layer.all().values())


class Step:
    """The products of a step on n examples, ready to run.

    Args: by_rows: split convolutions by the rows of their output, whose columns stay in cache.
    """

    def __init__(self, case: Case, n: int, by_rows: bool) -> None:
        rng = np.random.default_rng(0)
        self.calls: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for layer in layer_products(case, n):
            pieces = layer.rows if by_rows else 1
            for name, (m, k, n_columns) in layer.all().items():
                if layer.is_convolution:  # its long axis, places, is the one that dW sums over
                    k, n_columns = (k // pieces, n_columns) if name == "dW" else (k, n_columns // pieces)
                a, b = _operands(rng, (m, k, n_columns), name, layer.is_convolution)
                self.calls += [(a, b, np.empty((m, n_columns), np.float32))] * pieces

    def run(self) -> None:
        for a, b, out in self.calls:
            np.matmul(a, b, out=out)


def _operands(
    rng: np.random.Generator, product: Product, name: str, is_convolution: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the two matrices, each with the memory layout that it has in a library."""
    m, k, n = product
    transposed_a = name == ("forward" if is_convolution else "dW")  # W^T columns; x^T dy
    transposed_b = name == ("dW" if is_convolution else "dx")  # dy columns^T; dy W^T
    a = rng.standard_normal((k, m) if transposed_a else (m, k), np.float32)
    b = rng.standard_normal((n, k) if transposed_b else (k, n), np.float32)
    return (a.T if transposed_a else a), (b.T if transposed_b else b)


def measure(case: Case, images: int, epochs: int) -> Iterator[tuple[str, float, float]]:
    """Yield (way, seconds, CPU seconds) of the products of an epoch, for each way to run them.

    The ways are one BLAS thread or all and, for convolutions, in one piece or row by row; they alternate.
    """
    from threadpoolctl import threadpool_limits

    full, rest = divmod(images, case.batch_size)
    steps = {
        by_rows: (Step(case, case.batch_size, by_rows), Step(case, rest, by_rows) if rest else None)
        for by_rows in ((False, True) if "Conv2D" in case.kinds() else (False,))
    }
    for _ in range(epochs):
        for threads, (by_rows, (step, last)) in itertools.product((1, None), steps.items()):
            with threadpool_limits(threads, user_api="blas"):
                step.run()  # wakes threads and fills caches
                started, started_cpu = time.perf_counter(), time.process_time()
                for _ in range(full):
                    step.run()
                if last is not None:
                    last.run()
                seconds, cpu = time.perf_counter() - started, time.process_time() - started_cpu
            way = "all BLAS threads" if threads is None else "1 BLAS thread"
            yield way + (", row by row" if by_rows else ""), seconds, cpu


def summarise(measured: list[tuple[str, float, float]]) -> dict[str, Any]:
    """Return the report of a process: for each way its seconds and CPU seconds, one entry per epoch."""
    ways: dict[str, dict[str, list[float]]] = {}
    for way, seconds, cpu in measured:
        entry = ways.setdefault(way, {"seconds": [], "cpu_seconds": []})
        entry["seconds"].append(seconds)
        entry["cpu_seconds"].append(cpu)
    return {"ways": ways}
