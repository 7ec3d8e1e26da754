"""One measurement in its own process: run.py starts this, and reads the JSON in its last line of output.

    python benchmarks/worker.py --contender torch --case mlp_sgd --folder SCRATCH --task epochs --epochs 3

The folder holds what `cases.save` and `cases.save_data` wrote. Only what is needed to find the trainer is imported at
the top: imports count in the times from process start.
"""

import argparse
import contextlib
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import cases
import contenders
import limit
import numpy as np


class Clock:
    """Seconds and CPU seconds of each epoch; time between `stop` and `start` does not count."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.start()

    def start(self) -> None:
        self._started, self._started_cpu = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.seconds.append(time.perf_counter() - self._started)
        self.cpu_seconds.append(time.process_time() - self._started_cpu)


def measure_epochs(trainer: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Time epochs, the first one separately, as it includes loading, building and compiling; then measure accuracy."""
    result: dict[str, Any] = {}
    clock = Clock()

    def on_epoch_end() -> bool:
        clock.stop()
        if len(clock.seconds) == 1:
            result["first_epoch_at"] = time.monotonic()
        if len(clock.seconds) == options.epochs:  # while the library still has its training threads
            result["peak_memory_mb"] = peak_memory_mb()
            result["environment"] = environment(trainer)
        clock.start()
        return False

    trainer.train(options.epochs, on_epoch_end)
    result["seconds"], result["cpu_seconds"] = clock.seconds[1:], clock.cpu_seconds[1:]
    result["accuracy"] = trainer.accuracy()
    return result


def measure_first_step(trainer: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Train on one batch."""
    trainer.first_step()
    return {"first_step_at": time.monotonic()}


def measure_first_use(trainer: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Train on one batch with nothing compiled yet; then compile the rest of what an epoch needs."""
    result = measure_first_step(trainer, options)
    size, images = trainer.case.batch_size, len(np.load(options.folder / "y_train.npy", mmap_mode="r"))
    trainer.images = min(images, 3 * size + images % size)  # an epoch's last batch may be of another size
    trainer.train(1, lambda: False)
    return result


def measure_losses(trainer: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Return the losses of some steps, on batches that are the same for every contender."""
    batches = np.load(options.folder / f"batches_{trainer.case.batch_size}.npy")
    return {"losses": trainer.step_losses(batches, cases.LOSS_STEPS)}


def measure_time_to_accuracy(trainer: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Train until all targets are met; return training seconds and epoch of each. Testing does not count."""
    clock, accuracies = Clock(), []
    reached: dict[str, dict[str, float]] = {}

    def on_epoch_end() -> bool:
        trainer.wait()
        clock.stop()
        accuracies.append(trainer.accuracy())
        for target in options.targets:
            if accuracies[-1] >= target and str(target) not in reached:
                reached[str(target)] = {"seconds": sum(clock.seconds), "epoch": len(accuracies)}
        clock.start()
        return len(reached) == len(options.targets)

    trainer.train(options.epochs, on_epoch_end)
    return {"reached": reached, "accuracies": accuracies, "seconds": clock.seconds}


def measure_limit(case: cases.Case, options: argparse.Namespace) -> dict[str, Any]:
    """Time the case's matrix products by epoch; without process-start or memory figures, as it trains nothing."""
    images = options.images or len(np.load(options.folder / "y_train.npy", mmap_mode="r"))
    ways = limit.summarise(list(limit.measure(case, images, max(options.epochs - 1, 1))))
    return {**ways, "environment": environment(None)}


TASKS = {
    "epochs": measure_epochs,
    "first-step": measure_first_step,
    "first-use": measure_first_use,
    "losses": measure_losses,
    "accuracy": measure_time_to_accuracy,
}


def environment(trainer: Any) -> dict[str, Any]:
    """Return the BLAS libraries and thread pools of this process, and what the library reports."""
    from threadpoolctl import threadpool_info

    keys = ("user_api", "internal_api", "version", "num_threads", "architecture", "threading_layer")
    pools = [{key: pool[key] for key in keys if pool.get(key)} for pool in threadpool_info()]
    found: dict[str, Any] = {"pools": pools, **({} if trainer is None else trainer.describe())}
    with contextlib.suppress(OSError):  # Linux only
        status = Path("/proc/self/status").read_text(encoding="ascii")
        found["os_threads"] = int(status.partition("\nThreads:")[2].split()[0])
    return found


def peak_memory_mb() -> float:
    """Return the peak memory of this process, in MB of 10^6 bytes.

    On Linux it is read from /proc, as getrusage may report the parent's memory at the start of this process.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak * (1 if sys.platform == "darwin" else 1024) / 1e6
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(kilobytes) * 1024 / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--contender", required=True, choices=list(contenders.CONTENDERS))
    parser.add_argument("--case", required=True)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--task", required=True, choices=list(TASKS))
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument("--images", type=int, help="how many to train on; default: all")
    parser.add_argument("--targets", type=float, nargs="*", default=[])
    options = parser.parse_args()

    contender = contenders.CONTENDERS[options.contender]
    case, weights = cases.load(options.folder, options.case)
    if contender.name == contenders.LIMIT:
        result = measure_limit(case, options)
    else:
        if options.task == "losses":
            case = case.without_dropout()
        module, _, trainer_class = contender.trainer.partition(":")
        trainer = getattr(importlib.import_module(module), trainer_class)(
            case,
            weights,
            options.folder,
            seed=options.seed,
            images=options.images,
            dtype=options.dtype,
            options=contender.options,
        )
        result = TASKS[options.task](trainer, options)
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
