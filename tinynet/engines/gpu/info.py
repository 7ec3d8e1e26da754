"""Information about the GPU, for `python -m tinynet info` and for measurement results."""

from tinynet.engines.gpu import cublas
from tinynet.engines.gpu.device import find_cupy
from tinynet.support.errors import DeviceError


def gpu_info() -> dict[str, str]:
    """The GPU's name, memory, versions and settings; or, under "none", why there is none.

    "problem" says why a GPU that was found can't be used yet.
    """
    try:
        cp = find_cupy()
    except DeviceError as error:
        reason, _, _ = str(error).partition(";")
        return {"none": reason.removeprefix("device 'gpu': ")}
    runtime = cp.cuda.runtime
    device = cp.cuda.Device()
    free, total = device.mem_info
    info = {
        "name": runtime.getDeviceProperties(device.id)["name"].decode(),
        "device": f"{device.id} of {runtime.getDeviceCount()}",
        "memory": f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free",
        "compute capability": ".".join([device.compute_capability[:-1], device.compute_capability[-1]]),
        "cupy": cp.__version__,
        "CUDA runtime": _version(runtime.runtimeGetVersion()),
        "CUDA driver": _version(runtime.driverGetVersion()),
        "TF32": "allowed" if cublas.tf32_allowed() else "not allowed",
    }
    try:
        cublas.Gemm(cp)
    except cublas.CublasError as error:
        info["problem"] = str(error)
    return info


def _version(number: int) -> str:
    """12090 -> "12.9"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def describe(info: dict[str, str]) -> list[str]:
    """Lines for a terminal."""
    if "none" in info:
        return [f"none: {info['none']}"]
    lines = [
        f"{info['name']}, device {info['device']}, {info['memory']}, compute capability {info['compute capability']}",
        f"CuPy {info['cupy']} with CUDA {info['CUDA runtime']}, driver for CUDA {info['CUDA driver']}",
        f"TF32 {info['TF32']}",
    ]
    if "problem" in info:
        lines.append(f"can't be used: {info['problem']}")
    return lines
