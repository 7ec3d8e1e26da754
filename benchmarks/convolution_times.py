"""The two methods of a Conv2D, by columns and by Fourier transforms: forward and backward times of both.

    python benchmarks/convolution_times.py                                        # convolutions of the recipes
    python benchmarks/convolution_times.py --images 64 --size 7 --channels 128 128 --kernel 3

Runs on one BLAS thread, as in training. Each figure is the median of interleaved runs, in milliseconds; the star marks
the method that Conv2D uses for that many images.
"""

import argparse
import statistics
import time

import numpy as np

import tinynet as tn
from tinynet.engines import cpu
from tinynet.support import console

# (size, c_in, c_out) with padding="same", as in the recipes
USUAL = [(28, 1, 32), (14, 32, 64), (7, 64, 128), (7, 128, 128), (3, 128, 128)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, help="side of the images")
    parser.add_argument("--channels", type=int, nargs=2, default=(128, 128), metavar=("IN", "OUT"))
    parser.add_argument("--kernel", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args(arguments)
    sizes = [(options.size, *options.channels)] if options.size else USUAL
    print(f"{options.images} images, kernel {options.kernel} x {options.kernel}; milliseconds")
    print(f"{'size':>4}{'in':>5}{'out':>5}   {'columns':^20}{'Fourier':^20}")
    print(f"{'':>14}   {'forward':>9}{'backward':>10} {'forward':>9}{'backward':>10}")
    with cpu.blas_threads(1):
        for size, c_in, c_out in sizes:
            print(line(size, c_in, c_out, options), flush=True)
    return 0


def line(size: int, c_in: int, c_out: int, options: argparse.Namespace) -> str:
    """Return a row of the table."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((c_in, size, size, options.images), dtype=np.float32).swapaxes(0, 3)
    dy = rng.standard_normal((c_out, size, size, options.images), dtype=np.float32).swapaxes(0, 3)
    layers = []
    for way in range(2):
        layer = tn.Conv2D(c_out, options.kernel, padding="same", use_bias=False)
        tn.Sequential([layer], input_shape=(size, size, c_in), seed=0)
        taken = layer.methods.index(layer.method(options.images)) == way
        layer.methods = layer.methods[way : way + 1]
        layers.append((layer, taken))
    times: list[tuple[list[float], list[float]]] = [([], []), ([], [])]
    for repeat in range(options.repeats + 2):
        for (layer, _), (forward, backward) in zip(layers, times, strict=True):
            started = time.perf_counter()
            layer.forward(x, training=True)
            middle = time.perf_counter()
            layer.backward(dy)
            if repeat >= 2:  # the first fill buffers and caches
                forward.append(middle - started)
                backward.append(time.perf_counter() - middle)
    cells = [
        f"{1e3 * statistics.median(forward):>9.2f}{1e3 * statistics.median(backward):>10.2f}{'*' if taken else ' '}"
        for (_, taken), (forward, backward) in zip(layers, times, strict=True)
    ]
    return f"{size:>4}{c_in:>5}{c_out:>5}   {''.join(cells)}"


if __name__ == "__main__":
    console.run(main)
