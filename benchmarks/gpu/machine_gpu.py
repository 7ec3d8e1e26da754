"""What a report says about a GPU."""

import subprocess

from tinynet.engines import devices
from tinynet.engines.gpu.info import gpu_info


def describe(device: str) -> dict[str, str]:
    """Return what tinynet knows about the GPU, and the driver version; for "cpu", that there is none.

    Raises: DeviceError: without CuPy or without a GPU. CublasError: without cuBLAS.
    """
    if device == "cpu":
        return {"name": "no GPU: a rehearsal on the CPU"}
    devices.get_device("gpu")
    return gpu_info() | {"driver": driver()}


def driver() -> str:
    """Return the version of NVIDIA's driver, as reported by nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown: nvidia-smi does not report it"
    return done.stdout.partition("\n")[0].strip()
