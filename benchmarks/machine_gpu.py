"""What a report has to say of a GPU."""

import platform
import subprocess
from typing import Any


def describe(cupy: Any) -> dict[str, Any]:
    """Name, memory, compute capability, driver and CUDA versions of the current device."""
    runtime = cupy.cuda.runtime
    number = runtime.getDevice()
    properties = runtime.getDeviceProperties(number)
    name = properties["name"]
    return {
        "name": name.decode() if isinstance(name, bytes) else name,
        "memory_gb": properties["totalGlobalMem"] / 1e9,
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": properties["multiProcessorCount"],
        "driver": driver(),
        "driver_cuda": _version(runtime.driverGetVersion()),
        "runtime_cuda": _version(runtime.runtimeGetVersion()),
        "cupy": cupy.__version__,
    }


def rehearsal() -> dict[str, Any]:
    """In place of a GPU."""
    return {"name": f"no GPU: a rehearsal on the CPU ({platform.machine()})"}


def driver() -> str:
    """The version of NVIDIA's driver, from nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown (nvidia-smi does not tell)"
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else "unknown"


def _version(number: int) -> str:
    """CUDA's 13020 as "13.2"."""
    return f"{number // 1000}.{number % 1000 // 10}"
