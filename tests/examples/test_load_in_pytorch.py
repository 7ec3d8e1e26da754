"""load_in_pytorch.py: the same predictions from the same file; and how to install PyTorch if it is missing."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinynet as tn
from tests.files.test_storage import LAYERS
from tests.support.loopback import child_environment

SCRIPT = Path(__file__).parents[2] / "examples" / "load_in_pytorch.py"


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=1200,
        encoding="utf-8",
        check=False,
        env=child_environment(**environment),
    )


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("load_in_pytorch", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def saved(layers, input_shape, path, dtype="float32"):
    """Save a model with a different value in every parameter and state."""
    model = tn.Sequential(layers, input_shape, seed=0, dtype=dtype)
    rng = np.random.default_rng(1)
    for array in model.named_weights().values():
        array[...] = rng.uniform(0.5, 1.5, array.shape) * rng.choice([-1, 1], array.shape)
    for _, layer in model.walk():
        for name in layer.state_names:
            getattr(layer, name)[...] = np.abs(getattr(layer, name))
    model.save(path)
    return model


def assert_same_predictions(script, model, path):
    import torch

    x = np.random.default_rng(2).standard_normal((5, *model.input_shape)).astype(model.dtype)
    with torch.no_grad():
        found = script.in_pytorch(path)(torch.from_numpy(x)).numpy()
    assert found.dtype == model.dtype
    expected = model.predict(x)
    tolerance = 1e-12 if model.dtype == np.float64 else 1e-5
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_layer(script, name, dtype, tmp_path):
    make, input_shape = LAYERS[name]
    assert_same_predictions(script, saved([make()], input_shape, tmp_path / "m", dtype), tmp_path / "m")


@pytest.mark.parametrize("strides", [1, 2, (1, 3)])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("size", [2, 3, (3, 2)])
def test_windows_of_every_kind(script, size, padding, strides, tmp_path):
    """If padding is uneven, PyTorch's own padding would put the extra pixel on the other side."""
    layers = [
        lambda: tn.Conv2D(3, size, strides, padding),
        lambda: tn.DepthwiseConv2D(size, strides, padding, depth_multiplier=2),
        lambda: tn.MaxPool2D(size, strides, padding),
        lambda: tn.AveragePool2D(size, strides, padding),
    ]
    for make in layers:
        model = saved([make(), tn.Flatten(), tn.Dense(2)], (6, 5, 2), tmp_path / "m")
        assert_same_predictions(script, model, tmp_path / "m")


def test_a_network(script, tmp_path):
    layers = [
        *(tn.Rescale(1 / 255), tn.Reshape((8, 6, 1))),
        *(tn.Conv2D(4, 3, padding="same"), tn.BatchNorm(), tn.ReLU(), tn.MaxPool2D()),
        tn.Residual(tn.Conv2D(6, 3, 2, "same"), tn.BatchNorm(), projection=tn.Conv2D(6, 1, 2)),
        *(tn.Flatten(), tn.Dropout(0.5), tn.Dense(3), tn.Softmax()),
    ]
    assert_same_predictions(script, saved(layers, (8, 6), tmp_path / "m"), tmp_path / "m")


def test_a_layer_of_ones_own_is_named(script, tmp_path):
    class Mine(tn.Layer):
        def forward(self, x, training=False):
            return x

    tn.Sequential([tn.ReLU(), Mine()], input_shape=(3,)).save(tmp_path / "m")
    with pytest.raises(ValueError, match="layer 1, 'Mine', is not known to this program: add it to `make`"):
        script.in_pytorch(tmp_path / "m")


def test_the_program(script, tmp_path):
    saved([tn.Dense(4), tn.Softmax()], (3,), tmp_path / "m")
    done = run("--model", tmp_path / "m", "--examples", 50)
    assert done.returncode == 0, done.stderr
    assert "50 examples: largest difference" in done.stdout
    assert "the same class for 50 of 50" in done.stdout
    done = run("--model", tmp_path / "nowhere")
    assert done.returncode == 1
    assert "load_in_pytorch.py:" in done.stderr
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_pytorch_it_says_how_to_get_it(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('there is none here')")
    path = f"{tmp_path}:{SCRIPT.parents[1]}" if sys.platform != "win32" else f"{tmp_path};{SCRIPT.parents[1]}"
    done = run("--help", PYTHONPATH=path)
    assert done.returncode == 1
    assert "PyTorch is not installed; python -m pip install torch" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.filterwarnings("default")  # Keras's own
def test_keras_takes_the_arrays_as_they_are(tmp_path, monkeypatch):
    """What the program's docstring says about Keras."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    import safetensors.numpy

    layers = [tn.Conv2D(3, 3, padding="same"), tn.ReLU(), tn.Flatten(), tn.Dense(2)]
    model = saved(layers, (6, 5, 2), tmp_path / "m")
    arrays = safetensors.numpy.load_file(tmp_path / "m")
    conv, dense = keras.layers.Conv2D(3, 3, padding="same", activation="relu"), keras.layers.Dense(2)
    theirs = keras.Sequential([keras.Input((6, 5, 2)), conv, keras.layers.Flatten(), dense])
    conv.set_weights([arrays["0.W"], arrays["0.b"]])
    dense.set_weights([arrays["3.W"], arrays["3.b"]])
    x = np.random.default_rng(2).standard_normal((4, 6, 5, 2)).astype(np.float32)
    np.testing.assert_allclose(theirs.predict(x, verbose=0), model.predict(x), rtol=1e-4, atol=1e-4)
