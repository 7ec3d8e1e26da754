"""Asking for a GPU that is not available: each reason has its message, and nothing else happens."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ABSENT = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "cupy":
            raise ModuleNotFoundError("No module named 'cupy'", name="cupy")

sys.meta_path.insert(0, Blocker())
"""

SCRIPT = """
import numpy as np
import tinynet as tn
from tinynet.engines import devices

messages = set()

def check(holds):  # an assertion under python -O too
    if not holds:
        raise AssertionError

def refused(work):
    try:
        work()
    except tn.DeviceError as error:
        messages.add(str(error))
    else:
        raise SystemExit("there was no error")

refused(lambda: devices.get_device("gpu"))
refused(lambda: devices.get_device("gpu"))  # asked again, it looks again
check(devices.get_device("auto") is devices.CPU)
check(devices.get_device("cpu") is devices.CPU)

layers = [tn.Flatten(), tn.Dense(3), tn.BatchNorm(), tn.ReLU(), tn.Dense(2)]
before = [dict(vars(layer)) for layer in layers]
refused(lambda: tn.Sequential(layers, input_shape=(2, 2), seed=0, device="gpu"))
check([dict(vars(layer)) for layer in layers] == before)
model = tn.Sequential(layers, input_shape=(2, 2), seed=0, device="auto")
check(model.device is devices.CPU)

weights = model.get_weights()
refused(lambda: model.to("gpu"))
refused(lambda: model.copy(device="gpu"))
check(model.device is devices.CPU)
check(all(layer.device is devices.CPU for layer in layers))
for old, new in zip(weights, model.get_weights(), strict=True):
    np.testing.assert_array_equal(old, new)
x = np.random.default_rng(0).random((8, 2, 2), np.float32)
model.fit(x, np.arange(8) % 2, optimizer=tn.SGD(), loss=tn.SoftmaxCrossEntropy(), verbose=0)

model.save("model.safetensors")
refused(lambda: tn.load_model("model.safetensors", device="gpu"))
loaded = tn.load_model("model.safetensors", device="auto")
np.testing.assert_array_equal(loaded.predict(x), model.predict(x))

(message,) = messages
print(message)
"""


def message_of(tmp_path, before="", package=None):
    """What the errors say in a Python of its own, after the code ``before`` and with that package cupy."""
    path = [str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])]
    if package is not None:
        (tmp_path / "cupy").mkdir()
        for name, text in package.items():
            (tmp_path / "cupy" / name).write_text(text)
        path.insert(0, str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", before + SCRIPT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_without_cupy_the_message_tells_how_to_install_it(tmp_path):
    assert message_of(tmp_path, ABSENT) == (
        "device 'gpu': CuPy is not installed; install it with python -m pip install cupy-cuda12x for CUDA 12, or "
        "cupy-cuda13x for CUDA 13, or use device='cpu'"
    )


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        (
            {"__init__.py": "raise ImportError('libcudart.so.12: cannot open shared object file')"},
            "ImportError: libcudart.so.12: cannot open shared object file",
        ),
        (
            {"__init__.py": "import a_module_it_needs"},
            "ModuleNotFoundError: No module named 'a_module_it_needs'",
        ),
        ({"__init__.py": "import cupy.gone"}, "ModuleNotFoundError: No module named 'cupy.gone'"),
        ({}, "AttributeError: module 'cupy' has no attribute '__version__'"),
    ],
    ids=["a library is missing", "a dependency is missing", "a part is missing", "only its folder is left"],
)
def test_a_broken_cupy_is_not_taken_for_none(tmp_path, package, reason):
    if not package and importlib.util.find_spec("cupy"):
        pytest.skip("CuPy is installed, and a folder without files gives way to it")
    assert message_of(tmp_path, package=package) == (
        f"device 'gpu': CuPy is installed but can't be imported: {reason}; fix the cause or reinstall CuPy, "
        "or use device='cpu'"
    )


CUPY = """
from types import SimpleNamespace

__version__ = "14.2.0"

def getDeviceCount():
    {}

cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=getDeviceCount))
"""


@pytest.mark.parametrize(
    ("count", "reason"),
    [
        ("return 0", "CUDA reports no device"),
        ("raise RuntimeError('cudaErrorNoDevice: none')", "CUDA reports: cudaErrorNoDevice: none"),
    ],
)
def test_no_device_is_reported_as_cuda_tells_it(tmp_path, count, reason):
    assert message_of(tmp_path, package={"__init__.py": CUPY.format(count)}) == (
        f"device 'gpu': CuPy 14.2.0 is installed but finds no GPU: {reason}; install or repair NVIDIA's driver "
        "(nvidia-smi shows what it sees), or use device='cpu'"
    )


def test_the_real_cupy_without_a_device(tmp_path):
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed", exc_type=ImportError)
    try:
        count, told = cupy.cuda.runtime.getDeviceCount(), "no device"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        count, told = 0, str(error)
    if count:
        pytest.skip("there is a GPU")
    message = message_of(tmp_path)
    assert message.startswith(
        f"device 'gpu': CuPy {cupy.__version__} is installed but finds no GPU: CUDA reports"
    )
    assert told in message
    assert message.endswith("(nvidia-smi shows what it sees), or use device='cpu'")


@pytest.mark.parametrize("name", ["cuda", "GPU", "", None, 0])
def test_other_names_are_refused(name):
    from tinynet.engines import devices

    with pytest.raises(ValueError, match=f"device: expected 'cpu', 'gpu' or 'auto', got {name!r}"):
        devices.get_device(name)
