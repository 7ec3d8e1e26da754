"""One measurement of run_gpu.py in its own process; the JSON is in the last line of output.

    python benchmarks/worker_gpu.py --contender torch --case mlp_sgd --folder SCRATCH --task times --device gpu

The folder holds what `cases.save` and `cases.save_data` wrote, and the schedules, ``rates_CASE.npy``.
"""

import argparse
import dataclasses
import gc
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # what it shares with the CPU's benchmark

import cases
import contenders_gpu
import numpy as np
import worker

Make = Callable[..., Any]
"""Makes the contender's trainer: (batch_size=None, tf32="off", dtype="float32", images=None, **options)."""

PROFILED_EPOCHS = 2  # the first is not counted


def measure_losses(make: Make, options: argparse.Namespace) -> dict[str, Any]:
    """Return the losses of some steps, in float32, in float64 and, if requested, in float32 with TF32."""
    steps = tuple(step for step in cases.LOSS_STEPS if step <= options.steps)
    found = {}
    for name, dtype, tf32 in (
        ("float32", "float32", "off"),
        ("float64", "float64", "off"),
        ("tf32", "float32", "on"),
    ):
        if tf32 == "off" or "on" in options.tf32:
            trainer = make(dtype=dtype, tf32=tf32, without_dropout=True)
            batches = np.load(options.folder / f"batches_{trainer.case.batch_size}.npy")
            found[name] = trainer.step_losses(batches, steps)
    return found


def measure_times(make: Make, options: argparse.Namespace) -> dict[str, Any]:
    """Time steps, by epoch, batch size and TF32; the first epoch separately, as it compiles and captures."""

    def measure(trainer: Any) -> dict[str, Any]:
        clock, spans = trainer.clock(), []

        def on_epoch_end() -> bool:
            spans.append(clock.stop())
            clock.start()
            return False

        clock.start()
        trainer.train(1 + options.epochs, on_epoch_end)
        measured = {
            "wall": [span.wall / options.steps for span in spans[1:]],
            "first_epoch": spans[0].wall,
            **trainer.describe(),
        }
        if spans[0].device is not None:
            measured["device"] = [span.device / options.steps for span in spans[1:]]
        return measured

    return {"by_size": _each_way(measure, make, options)}


def measure_kernels(make: Make, options: argparse.Namespace) -> dict[str, Any]:
    """Measure the total seconds of a step's kernels with PyTorch's profiler, whichever library launched them."""
    return {"by_size": _each_way(lambda trainer: {"kernels": _profiled(trainer, options)}, make, options)}


def _profiled(trainer: Any, options: argparse.Namespace) -> float:
    os.environ |= {
        "TEARDOWN_CUPTI": "0",
        "DISABLE_CUPTI_LAZY_REINIT": "1",
    }  # as PyTorch sets them for CUDA graphs
    import torch
    from torch.profiler import ProfilerActivity, profile

    activity = ProfilerActivity.CUDA if trainer.on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity]):
        pass  # CUPTI sees a graph's kernels only if it was active before the graph
    profiler, epochs = profile(activities=[activity]), []

    def on_epoch_end() -> bool:
        trainer.wait()
        epochs.append(None)
        if len(epochs) == 1:
            profiler.start()
        if len(epochs) == PROFILED_EPOCHS:
            profiler.stop()
        return False

    trainer.train(PROFILED_EPOCHS, on_epoch_end)
    device = torch.autograd.DeviceType.CUDA if trainer.on_gpu else torch.autograd.DeviceType.CPU
    microseconds = sum(
        event.self_device_time_total if trainer.on_gpu else event.self_cpu_time_total
        for event in profiler.key_averages()
        if event.device_type == device and not getattr(event, "is_user_annotation", False)
    )
    if not microseconds:
        raise RuntimeError("the profiler recorded no kernel")
    return float(microseconds / 1e6 / ((PROFILED_EPOCHS - 1) * options.steps))


def _each_way(
    measure: Callable[[Any], dict[str, Any]], make: Make, options: argparse.Namespace
) -> dict[str, Any]:
    """Return what ``measure`` gives for each batch size and TF32, or {"failed": why}; the others continue."""
    found: dict[str, Any] = {}
    for size in options.batch_sizes:
        for tf32 in options.tf32:
            try:
                entry = measure(make(batch_size=size, tf32=tf32, images=size * options.steps))
            except Exception as error:  # for example out of memory, for the larger batch only
                entry = {"failed": f"{type(error).__name__}: {error}"}
            found.setdefault(str(size), {})[tf32] = entry
            gc.collect()
    return found


def measure_accuracy(make: Make, options: argparse.Namespace) -> dict[str, Any]:
    """Train as the recipe does, until all targets are met or its schedule ends."""
    trainer = make(tf32=options.tf32[0], schedule=True)
    options.epochs = trainer.case.epochs
    return worker.measure_time_to_accuracy(trainer, options)


TASKS = {
    "losses": measure_losses,
    "times": measure_times,
    "kernels": measure_kernels,
    "accuracy": measure_accuracy,
}


def maker(options: argparse.Namespace) -> Make:
    contender = contenders_gpu.CONTENDERS[options.contender]
    case, weights = cases.load(options.folder, options.case)
    module, _, name = contender.trainer.partition(":")
    trainer = getattr(importlib.import_module(module), name)

    def make(
        batch_size: int | None = None,
        tf32: str = "off",
        dtype: str = "float32",
        images: int | None = None,
        without_dropout: bool = False,
        schedule: bool = False,
    ) -> Any:
        chosen = case.without_dropout() if without_dropout else case
        if batch_size is not None:
            chosen = dataclasses.replace(chosen, batch_size=batch_size)
        settings = {**contender.options, "device": options.device, "tf32": tf32 == "on", "schedule": schedule}
        return trainer(
            chosen, weights, options.folder, seed=options.seed, images=images, dtype=dtype, options=settings
        )

    return make


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--contender", required=True, choices=list(contenders_gpu.CONTENDERS))
    parser.add_argument("--case", required=True)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--task", required=True, choices=[*TASKS, "limits"])
    parser.add_argument("--device", required=True, choices=["gpu", "cpu"])
    parser.add_argument(
        "--steps", type=int, default=100, help="steps of an epoch; the last step whose loss is compared"
    )
    parser.add_argument("--epochs", type=int, default=1, help="epochs to time")
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=[])
    parser.add_argument("--tf32", nargs="+", default=["off"], choices=["off", "on"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", type=float, nargs="*", default=[])
    options = parser.parse_args()
    if options.task == "limits":
        import limit_gpu

        result = limit_gpu.measure(options.device)
    else:
        result = TASKS[options.task](maker(options), options)
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
