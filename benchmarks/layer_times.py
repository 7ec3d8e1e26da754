"""Where the time of a training step goes: each layer's forward and backward, the loss, and the optimizer.

    python benchmarks/layer_times.py --recipe mlp_bn [--batch-size N] [--threads N]

Each figure is the smallest of several medians: these machines are noisy, and noise only adds time. Layers are timed one
by one with their data in cache, so their sum may be less than the step's time.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from tinynet import recipes
from tinynet.engines import cpu
from tinynet.support import console


def microseconds(call: Callable[[], object], repeats: int = 30, rounds: int = 7) -> float:
    medians = []
    for _ in range(rounds):
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
        medians.append(statistics.median(times))
    return min(medians) * 1e6


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="mlp_bn", choices=list(recipes.RECIPES))
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--threads", type=int, help="BLAS threads; default: what fit would use")
    options = parser.parse_args(arguments)
    recipe = recipes.make(options.recipe, seed=0, batch_size=options.batch_size)
    model, optimizer, batch_size = recipe.model, recipe.optimizer, recipe.batch_size
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (batch_size, *model.input_shape), dtype=np.uint8)
    y = rng.integers(0, 10, batch_size)
    threads = options.threads or cpu.blas_threads_for(model.multiply_adds(), batch_size)

    def gradients() -> None:
        model.loss_and_gradients(x, y, recipe.loss)

    def update() -> None:
        optimizer.step(model.params, model.grads, model.decay_size, model.trainable_ranges())

    def step() -> None:
        gradients()
        update()

    with cpu.blas_threads(threads):
        print(f"{recipe.name}, batches of {batch_size}, {threads or 'all'} BLAS threads; microseconds")
        print(f"{'whole step':<24}{microseconds(step):>9.1f}")
        print(f"{'loss_and_gradients':<24}{microseconds(gradients):>9.1f}")
        print(f"{'optimizer.step':<24}{microseconds(update):>9.1f}")
        print(f"\n{'layer':<24}{'forward':>9}{'backward':>10}")
        inputs = x.astype(model.dtype)
        for index, layer in enumerate(model.layers):
            outputs = layer.forward(inputs, training=True)
            dy = rng.standard_normal(outputs.shape, dtype=np.float32)
            forward = microseconds(lambda layer=layer, inputs=inputs: layer.forward(inputs, training=True))
            backward = microseconds(lambda layer=layer, dy=dy: layer.backward(dy))
            print(f"{f'{index} {type(layer).__name__}':<24}{forward:>9.1f}{backward:>10.1f}")
            inputs = outputs
    return 0


if __name__ == "__main__":
    console.run(main)
