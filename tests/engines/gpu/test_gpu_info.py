"""What is reported about the GPU, or about its absence."""

from types import SimpleNamespace

import pytest

from tinynet.__main__ import main
from tinynet.engines.gpu import cublas, info
from tinynet.engines.gpu.device import find_cupy
from tinynet.engines.gpu.info import describe, gpu_info
from tinynet.support.errors import DeviceError


class Runtime:
    """A GPU as cupy.cuda.runtime reports it."""

    def getDeviceCount(self):
        return 2

    def getDeviceProperties(self, device):
        return {"name": {0: b"NVIDIA H200", 1: b"another"}[device]}

    def runtimeGetVersion(self):
        return 12090

    def driverGetVersion(self):
        return 13010


@pytest.fixture
def device(monkeypatch):
    def current():
        return SimpleNamespace(id=0, mem_info=(100 << 30, 139 << 30), compute_capability="90")

    cupy = SimpleNamespace(__version__="14.2.0", cuda=SimpleNamespace(runtime=Runtime(), Device=current))
    monkeypatch.setattr(info, "find_cupy", lambda: cupy)


def test_a_gpu_is_described(device, monkeypatch, capsys):
    monkeypatch.setattr(cublas, "Gemm", lambda cupy: None)
    assert main(["info"]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "gpu      NVIDIA H200, device 0 of 2, 100.0 of 139.0 GiB free, compute capability 9.0",
        "         CuPy 14.2.0 with CUDA 12.9, driver for CUDA 13.1",
        "         TF32 not allowed",
    ]
    cublas.allow_tf32(True)
    try:
        assert gpu_info()["TF32"] == "allowed"
    finally:
        cublas.allow_tf32(False)


def test_a_gpu_without_cublas_is_described_with_the_problem(device, capsys):
    assert main(["info"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("         can't be used: cuBLAS: could not load the library")


def test_no_gpu_has_its_reason(monkeypatch, capsys):
    def none():
        raise DeviceError("device 'gpu': CuPy is not installed; a fix")

    monkeypatch.setattr(info, "find_cupy", none)
    assert gpu_info() == {"none": "CuPy is not installed"}
    assert main(["info"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "gpu      none: CuPy is not installed"


def test_here():
    """On whatever this machine has; on one with a GPU, with the real CuPy."""
    info = gpu_info()
    lines = describe(info)
    if "none" in info:
        with pytest.raises(DeviceError, match="^device 'gpu': "):
            find_cupy()
        assert len(lines) == 1
    else:
        assert info["name"] in lines[0]
        assert float(info["compute capability"]) >= 3
