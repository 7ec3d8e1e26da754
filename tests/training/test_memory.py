"""What a training step allocates, and in which precision."""

import gc
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import tinynet as tn
from tinynet import recipes
from tinynet.engines import cpu

DENSE = ("mlp_sgd", "mlp_adam", "mlp_bn")  # the others are in test_memory_cnn.py


@pytest.fixture(autouse=True)
def one_blas_thread():
    """As in `fit`."""
    with cpu.blas_threads(1):
        yield


def batch_for(recipe, size=None):
    rng = np.random.default_rng(0)
    size = recipe.batch_size if size is None else size
    return rng.integers(0, 256, (size, 28, 28), dtype=np.uint8), rng.integers(0, 10, size)


def step(recipe, x, y):
    model = recipe.model
    model.loss_and_gradients(x, y, recipe.loss)
    recipe.optimizer.step(model.params, model.grads, model.decay_size, model.trainable_ranges())


@pytest.mark.parametrize("name", DENSE)
def test_a_step_allocates_little_beyond_its_buffers(name):
    recipe = recipes.make(name, seed=0)
    x, y = batch_for(recipe)
    tracemalloc.start()
    try:
        for _ in range(3):
            step(recipe, x, y)
        peaks = []
        for _ in range(300):  # past the optimizer's flush of denormals, which comes every 256 steps
            gc.collect(0)
            tracemalloc.reset_peak()
            start = tracemalloc.get_traced_memory()[0]
            step(recipe, x, y)
            peaks.append(tracemalloc.get_traced_memory()[1] - start)
    finally:
        tracemalloc.stop()
    assert max(peaks) < 256 * 1024


@pytest.mark.parametrize("name", DENSE)
def test_memory_does_not_grow_with_the_steps(name):
    recipe = recipes.make(name, seed=0)
    batches = [batch_for(recipe), batch_for(recipe, 5)]  # a last batch that is smaller
    tracemalloc.start()
    try:
        for _ in range(3):
            for batch in batches:
                step(recipe, *batch)
        start = tracemalloc.get_traced_memory()[0]
        for _ in range(50):
            for batch in batches:
                step(recipe, *batch)
        grown = tracemalloc.get_traced_memory()[0] - start
    finally:
        tracemalloc.stop()
    assert grown < 16 * 1024


MEMORY_MAPPED = """
import sys, tracemalloc
import numpy as np, tinynet as tn
x = np.load(sys.argv[1], mmap_mode="r")
model = tn.Sequential([tn.Dense(2), tn.Dense(1000)], (1000,), seed=0)
given = {"optimizer": tn.SGD(1e-9), "loss": tn.MeanSquaredError(), "verbose": 0, "steps_per_epoch": 5}
tracemalloc.start()
model.fit(x, x, validation_data=(x[:99], x[:99]), **given)
model.evaluate(x, x)
print(tracemalloc.get_traced_memory()[1])
"""


@pytest.mark.parametrize("dtype", ["float64", "float16", ">f4"])
def test_a_memory_mapped_file_is_never_in_memory_as_a_whole(dtype, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((30_000, 1000), dtype))
    command = [sys.executable, "-c", MEMORY_MAPPED, str(tmp_path / "x.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40e6  # in float32 it has 120 MB


class Watched:
    """A NumPy function that fails if it makes a float64 array above 1 KB; its methods (reduce) are watched too."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *args, **kwargs):
        result = self.function(*args, **kwargs)
        if isinstance(result, np.ndarray) and result.dtype == np.float64:
            assert result.nbytes <= 1024, f"{self.function} made float64 {result.shape}"
        return result

    def __getattr__(self, name):
        return Watched(getattr(self.function, name))


WATCHED = [
    *("empty", "zeros", "ones", "full", "array", "asarray", "ascontiguousarray", "empty_like", "zeros_like"),
    *("where", "einsum", "take", "matmul", "multiply", "add", "subtract", "divide", "maximum", "exp", "log"),
    *("tanh", "sqrt", "square", "abs", "isfinite"),
]


def test_the_watch_sees_what_it_is_for(monkeypatch):
    for name in WATCHED:
        monkeypatch.setattr(np, name, Watched(getattr(np, name)))
    for make in (
        lambda: np.empty(200),
        lambda: np.multiply(np.float64(2), [1.0] * 200),
        lambda: np.exp([0] * 200),
    ):
        with pytest.raises(AssertionError, match="made float64"):
            make()
    with pytest.raises(AssertionError, match="made float64"):
        np.add.reduce(np.arange(400.0).reshape(2, 200), axis=0)


@pytest.mark.parametrize("name", DENSE)
def test_a_float32_model_makes_no_float64_array_of_size(name, monkeypatch):
    """NumPy makes none in between, and layers, loss and optimizer neither keep nor return any float64."""
    x, y = batch_for(recipes.make(name, seed=0), 300)
    for function in WATCHED:
        monkeypatch.setattr(np, function, Watched(getattr(np, function)))
    recipe = recipes.make(name, seed=0)
    seen = []

    for _, layer in recipe.model.walk():
        for method in ("forward", "backward"):
            original = getattr(layer, method)

            def recorded(*args, _original=original, **kwargs):
                result = _original(*args, **kwargs)
                seen.append(result)
                return result

            layer.__dict__[method] = recorded
    recipe.model.fit(x, y, validation_data=(x, y), verbose=0, **(recipe.fit_arguments() | {"epochs": 1}))
    recipe.model.predict_proba(x)
    arrays = [array for array in seen if array is not None]
    for _, layer in recipe.model.walk():
        arrays += [value for value in vars(layer).values() if isinstance(value, np.ndarray)]
        arrays += layer._buffers.values()
    arrays += recipe.optimizer.slots.values()
    arrays += [recipe.optimizer._scratch, recipe.model.params, recipe.model.grads, recipe.model.outputs]
    assert len(arrays) > 20
    assert {array.dtype for array in arrays} <= {np.dtype(np.float32), np.dtype(bool)}


def test_import_is_light():
    """matplotlib, requests, tqdm and the like are imported on first use; tests/test_house.py has the time it takes."""
    code = (
        "import sys, numpy, tinynet; "
        "heavy = {'matplotlib', 'requests', 'tqdm', 'safetensors', 'threadpoolctl', 'platformdirs', 'IPython'}; "
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_float64_targets_of_a_float32_model_are_cast_once():
    model = tn.Sequential([tn.Dense(10)], input_shape=(4,), seed=0)
    x, y = np.ones((64, 4)), np.ones((64, 10))
    seen = []

    class Look(tn.MeanSquaredError):
        def forward(self, outputs, targets, total=None):
            seen.append(targets.dtype)
            return super().forward(outputs, targets, total)

    model.fit(x, y, optimizer=tn.SGD(), loss=Look(), verbose=0)
    assert set(seen) == {np.dtype(np.float32)}


def test_float64_is_kept_where_it_is_asked_for():
    model = tn.Sequential(
        [tn.Dense(200), tn.BatchNorm(), tn.Tanh()], input_shape=(3,), seed=0, dtype="float64"
    )
    assert model.predict(np.ones((4, 3), np.float32)).dtype == np.float64
