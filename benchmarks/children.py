"""Run worker.py, or worker_gpu.py, in a fresh process for every measurement, and return its result."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("worker.py")
STEERING = (
    *("OPENBLAS_", "OMP_", "GOMP_", "MKL_", "GOTO_", "BLIS_", "VECLIB_", "NPY_", "KMP_", "ONEDNN_", "DNNL_"),
    *(
        "XLA_",
        "JAX_",
        "TF_ENABLE_",
        "TF_NUM_",
        "TF_XLA_",
        "TORCH",
        "ATEN_",
        "KERAS_",
        "NUMBA_",
        "MALLOC_",
        "LD_PRELOAD",
    ),
)
CPU_ONLY = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
COMPILED = ("NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")  # where compiled code is kept
LAST_LINES = 8  # of the standard error of a failed process


@dataclass(frozen=True)
class Children:
    """How the processes of a run are started.

    Args:
        folder: the scratch folder.
        inherit_environment: keep ``OPENBLAS_*`` variables, which are otherwise removed, so that each library chooses
            its own kernels.
        timeout: seconds after which a process is ended.
        worker: the program.
        cpu_only: hide any GPUs of the machine.
    """

    folder: Path
    inherit_environment: bool = False
    timeout: float = 900.0
    worker: Path = WORKER
    cpu_only: bool = True

    def environment(self) -> dict[str, str]:
        """Return the environment of the processes; by default with the CPU only, whatever else the machine has."""
        kept = {
            key: value
            for key, value in os.environ.items()
            if self.inherit_environment or not key.startswith("OPENBLAS_")
        }
        return {**kept, **(CPU_ONLY if self.cpu_only else {})}

    def settings(self) -> dict[str, str]:
        """Return the variables among these that control kernels or threads."""
        return {
            key: value
            for key, value in self.environment().items()
            if key.startswith(STEERING) and key not in (*CPU_ONLY, *COMPILED)
        }

    def run(self, contender: str, case: str, task: str, **options: Any) -> dict[str, Any]:
        """Return the worker's result, with times from process start; or {"failed": the end of its error output}.

        Compiled code belongs to the run, in a folder for each contender and case; the task "first-use" empties it.
        Args: options: the worker's, with "_" for "-"; None is left out.
        """
        compiled = self.folder / "compiled" / contender / case
        if task == "first-use":
            shutil.rmtree(compiled, ignore_errors=True)
        command = [sys.executable, str(self.worker), "--contender", contender, "--case", case, "--task", task]
        command += ["--folder", str(self.folder), *_as_arguments(options)]
        started = time.monotonic()  # a system-wide clock: the worker reads the same one
        try:
            done = subprocess.run(
                command,
                env={**self.environment(), **dict.fromkeys(COMPILED, str(compiled))},
                capture_output=True,
                text=True,
                timeout=self.timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"not finished after {self.timeout:g} seconds"}
        if done.returncode:
            return {"failed": _last_words(done.stderr) or f"exit status {done.returncode}"}
        try:
            result = json.loads(done.stdout.rstrip().rpartition("\n")[2])
        except json.JSONDecodeError:
            return {"failed": f"no result in its output: {_last_words(done.stdout)}"}
        for event in ("first_step", "first_epoch"):
            if f"{event}_at" in result:
                result[f"start_to_{event}"] = result.pop(f"{event}_at") - started
        return result


def _as_arguments(options: dict[str, Any]) -> list[str]:
    arguments = []
    for name, value in options.items():
        if value is not None:
            values: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value]
            arguments += [f"--{name.replace('_', '-')}", *map(str, values)]
    return arguments


def _last_words(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-LAST_LINES:])
