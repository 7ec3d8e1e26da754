"""The recipes with compiled loops: NumPy's losses, and the same bits each time."""

import numpy as np
import pytest

import tinynet as tn
from tests.support.engine_runs import real_or_made_up, train

pytest.importorskip("numba")

# Images in a batch. Batch-norm has many rows in convolutional networks, whose images have many pixels.
SMALL = {"mlp_sgd": 16, "mlp_adam": 16, "mlp_bn": 16, "cnn": 4, "cnn_small": 2, "cnn_best": 2}


def test_every_recipe_is_tested():
    assert set(SMALL) == set(tn.recipes.RECIPES)


@pytest.mark.parametrize("name", SMALL)
def test_a_hundred_steps_in_float64_have_the_losses_of_numpy(name):
    """The schedules' whole course, so that the learning rates are as large as they get."""
    batch_size = SMALL[name]
    settings = {"batch_size": batch_size, "epochs": 1, "training_examples": 100 * batch_size}
    (model, numpy), (other, numba) = (
        train(engine, name, 100, dtype="float64", **settings) for engine in ("numpy", "numba")
    )
    assert len(set(numpy)) == 100
    np.testing.assert_allclose(numba, numpy, rtol=1e-10)
    for key, array in model.named_state().items():
        np.testing.assert_allclose(other.named_state()[key], array, rtol=1e-8, atol=1e-8, err_msg=key)


@pytest.mark.parametrize("name", SMALL)
def test_steps_in_float32_have_the_losses_of_numpy_to_its_precision(name):
    """With the batches and learning rates of the recipe.

    In cnn_best, a pixel that wins its pool by less than a rounding error is another one with another order of sums, and
    what follows grows tenfold in three steps: with one worker or two, NumPy differs from itself by 1e-5 in the first
    six steps, and by up to 3e-4 after ten, depending on the seed.
    """
    steps = 100 if name in ("mlp_sgd", "mlp_adam") else 10
    numpy, numba = (train(engine, name, steps, real_or_made_up)[1] for engine in ("numpy", "numba"))
    alike = 6 if name == "cnn_best" else steps
    np.testing.assert_allclose(numba[0], numpy[0], rtol=1e-5)
    np.testing.assert_allclose(numba[:alike], numpy[:alike], rtol=1e-4)
    np.testing.assert_allclose(numba, numpy, rtol=1e-3)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", SMALL)
def test_the_same_seed_gives_the_same_bits(name, workers):
    first, second = (
        train("numba", name, 3, workers=workers, batch_size=8)[0].named_weights() for _ in range(2)
    )
    assert all(np.isfinite(array).all() for array in first.values())
    for key, array in first.items():
        assert array.tobytes() == second[key].tobytes(), key
