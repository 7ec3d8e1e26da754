"""Training is not much slower than its own matrix products, timed in the same process; a guard, not a benchmark.

The bounds are three to four times what was measured, so that only a real slowdown fails, not a busy machine.
"""

import time

import numpy as np
import pytest

import tinynet as tn
from tinynet import recipes
from tinynet.engines import cpu

ROUNDS = 50  # at most: the fastest counts, as noise only adds


def products(model, n):
    """(a, b, out) of a step's products: forward, dW and dx, except for the dx of the first layer with weights."""
    rng, found = np.random.default_rng(0), []
    for layer in model.layers:
        if isinstance(layer, (tn.Dense, tn.Conv2D)):
            k, units = layer.W.size // layer.W.shape[-1], layer.W.shape[-1]
            rows = n * int(np.prod(layer.output_shape[:-1]))  # windows count as rows
            shapes = [((rows, k), (k, units)), ((k, rows), (rows, units)), ((rows, units), (units, k))]
            for a, b in shapes[: 3 if found else 2]:
                operands = [rng.standard_normal(shape, dtype=np.float32) for shape in (a, b)]
                found.append((*operands, np.empty((a[0], b[1]), np.float32)))
    return found


@pytest.mark.parametrize(
    ("recipe", "steps", "bound"), [("mlp_adam", 60, 9), ("mlp_sgd", 40, 8), ("cnn", 4, 10)]
)
def test_a_step_takes_a_few_times_as_long_as_its_products(recipe, steps, bound):
    recipe = recipes.make(recipe, seed=0)
    model, batch_size = recipe.model, recipe.batch_size
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (steps * batch_size, 28, 28), dtype=np.uint8)
    y = rng.integers(0, 10, len(x))
    step = products(model, batch_size)
    assert (
        sum(a.shape[0] * a.shape[1] * b.shape[1] for a, b, _ in step) > 2 * batch_size * model.multiply_adds()
    )

    training, plain = [], []
    for _ in range(ROUNDS):
        history = model.fit(x, y, **recipe.fit_arguments() | {"epochs": 1}, verbose=0)
        training.append(history.history["seconds"][0])
        with cpu.blas_threads(cpu.blas_threads_for(model.multiply_adds(), batch_size)):
            started = time.perf_counter()
            for _ in range(steps):
                for a, b, out in step:
                    np.matmul(a, b, out=out)
            plain.append(time.perf_counter() - started)
        if min(training) < bound * min(plain):
            break
    ratio = min(training) / min(plain)
    print(f"{recipe.name}: {1e6 * min(training) / steps:.0f} us a step, {ratio:.2f} times its products")
    assert ratio < bound
