"""tinynet on a GPU against PyTorch and JAX: the same networks from the same weights on the same images.

    python benchmarks/gpu/run_gpu.py                                          # everything
    python benchmarks/gpu/run_gpu.py --synthetic                              # without the Fashion-MNIST files
    python benchmarks/gpu/run_gpu.py --cases mlp_sgd cnn --seconds-limit 540  # in pieces: adds to the day's results
    python benchmarks/gpu/run_gpu.py --device cpu --synthetic --steps 3       # a rehearsal, without a GPU

Needs CuPy, and measures PyTorch and JAX if installed. The parts are: "limits", how fast this GPU copies and multiplies;
"equivalence", the losses of steps 1, 10 and 100 from the same weights on the same batches, without dropout and TF32: a
contender whose losses differ from tinynet's is not timed; "time", milliseconds per step, by device events; "kernels",
how much of a step kernels take, by PyTorch's profiler; "accuracy", seconds until the test accuracy reaches its targets,
for tinynet and the fastest peer. Each measurement runs in a fresh process, and contenders take turns. results.json and
results.md are written after each case. A rehearsal shows that everything runs: its figures say nothing about any GPU.
"""

import argparse
import dataclasses
import datetime
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # what it shares with the CPU's benchmark

import cases
import limit_gpu
import machine
import machine_gpu
import numpy as np
import report_gpu
import summary
import summary_gpu
from budget import Budget
from children import Children
from contenders import REFERENCE, Contender
from contenders_gpu import CONTENDERS

from tinynet.datasets import fashion_mnist
from tinynet.engines.gpu.cublas import CublasError
from tinynet.files.atomic import write_bytes
from tinynet.support import console
from tinynet.support.checks import check_positive_int
from tinynet.support.errors import DeviceError
from tinynet.version import __version__

PARTS = ("limits", "equivalence", "time", "kernels", "accuracy")
RESULTS = Path(__file__).parents[1] / "results"
WORKER = Path(__file__).with_name("worker_gpu.py")
COMPANIONS = {  # distributions whose versions matter too
    "torch": ("triton", "nvidia-cudnn-cu13", "nvidia-cublas"),
    "jax": ("jaxlib", "jax-cuda13-plugin", "nvidia-cudnn-cu13", "nvidia-cublas"),
}
EPOCHS = 4  # timed in each process
TARGETS = (0.90, 0.94)
TARGETS_OF_MLPS = (0.90,)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="gpu", choices=["gpu", "cpu"], help="cpu: a rehearsal")
    parser.add_argument("--cases", nargs="+", default=list(cases.GPU_CASES), choices=cases.GPU_CASES)
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument(
        "--batch-sizes", nargs="+", default=["own", "512"], metavar="SIZE", help='"own" is the recipe\'s'
    )
    parser.add_argument("--tf32", nargs="+", default=["off", "on"], choices=["off", "on"])
    parser.add_argument("--repeats", type=int, default=3, help="processes per figure (3)")
    parser.add_argument(
        "--steps",
        type=int,
        default=500,
        help="steps of a timed epoch; the last step whose loss is compared (500)",
    )
    parser.add_argument(
        "--seconds-limit",
        type=float,
        default=math.inf,
        help="seconds for the whole run; what no longer fits is left out and named in the report",
    )
    parser.add_argument("--timeout", type=float, default=600, help="seconds per process (600)")
    parser.add_argument(
        "--output",
        type=Path,
        help="folder; default: benchmarks/results/DATE-gpu. Results already there are kept, except for the parts and "
        "cases measured now",
    )
    parser.add_argument("--data-dir", help="folder of the Fashion-MNIST files")
    parser.add_argument(
        "--synthetic", action="store_true", help="made-up images of the same shape; no time to an accuracy"
    )
    options = parser.parse_args(arguments)
    for name in ("repeats", "steps"):
        check_positive_int(name, getattr(options, name))
    for size in options.batch_sizes:
        if size != "own" and not (size.isdecimal() and int(size)):
            parser.error(f"--batch-sizes: expected positive numbers or own, got {size!r}")
    if options.seconds_limit <= 0:
        parser.error(f"--seconds-limit: expected more than 0, got {options.seconds_limit:g}")
    return options


class GpuBenchmark:
    """A run: its measurements, planned and done."""

    def __init__(self, options: argparse.Namespace, folder: Path, scratch: Path, gpu: dict[str, str]) -> None:
        self.options, self.folder = options, folder
        self.budget = Budget(options.seconds_limit)
        self.children = Children(
            scratch, timeout=options.timeout, worker=WORKER, cpu_only=options.device == "cpu"
        )
        self.contenders: list[Contender] = []
        self.cases: dict[str, cases.Case] = {}
        self.results: dict[str, Any] = {
            "machine": machine.describe() | {"gpu": gpu},
            "settings": {
                "device": options.device,
                "synthetic": options.synthetic,
                "steps": options.steps,
                "epochs": EPOCHS,
                "tf32": options.tf32,
                "environment": self.children.settings(),
            },
            "repeats": options.repeats,
            "left_out": {},
            "contenders": {},
            "cases": {},
            "limits": {},
            "equivalence": {},
            "time": {},
            "kernels": {},
            "accuracy": {},
        }
        self.go_on()

    def go_on(self) -> None:
        """Continue from an earlier run's results in the folder; raise SystemExit if its settings were different."""
        path = self.folder / "results.json"
        if not path.exists():
            return
        earlier = json.loads(path.read_text(encoding="utf-8"))

        def settled(results: dict[str, Any]) -> dict[str, Any]:
            about = results["machine"]
            return {"GPU": about["gpu"]["name"], "Python": about["python"], **results["settings"]}

        for key, expected in settled(self.results).items():
            found = settled(earlier).get(key)
            if found != expected:
                raise SystemExit(
                    f"{path} was measured with {key}={found!r}, but this run has {expected!r}; "
                    "use another --output"
                )
        self.results = earlier | {"repeats": max(earlier["repeats"], self.options.repeats)}

    def prepare(self) -> None:
        """Find the contenders, and write images, weights, schedules and batch orders for the processes."""
        options, scratch = self.options, self.children.folder
        for name in options.contenders:
            contender = CONTENDERS[name]
            lacking = contender.missing()
            if lacking is None:
                self.contenders.append(contender)
                self.results["left_out"].pop(name, None)
                self.results["contenders"][name] = {
                    "title": contender.title,
                    "fast_path": contender.fast_path,
                    "versions": versions(contender),
                }
            else:
                self.leave_out(name, lacking)
        for name in options.cases:
            case, weights, rates = cases.make_as_recipe(name)
            self.cases[name] = case
            self.results["cases"][name] = {
                "title": case.title,
                "training": case.describe_training(),
                "params": case.params,
                "multiply_adds": case.multiply_adds,
                "batch_size": case.batch_size,
                "needs": {str(size): limit_gpu.needs(case, size) for size in self.sizes(case)},
                "targets": TARGETS if "Conv2D" in case.kinds() else TARGETS_OF_MLPS,
            }
            cases.save(scratch, case, weights)
            np.save(scratch / f"rates_{name}.npy", rates)
        data = synthetic() if options.synthetic else fashion_images(options.data_dir)
        cases.save_data(scratch, data, {case.batch_size for case in self.cases.values()})

    def sizes(self, case: cases.Case) -> list[int]:
        """Return the batch sizes to time a case with."""
        chosen = (case.batch_size if size == "own" else int(size) for size in self.options.batch_sizes)
        return list(dict.fromkeys(chosen))

    def leave_out(self, what: str, why: str) -> None:
        self.results["left_out"][what] = why
        print(f"{what} was left out: {why}", flush=True)

    def child(self, contender: Contender, case: str, task: str, **settings: Any) -> dict[str, Any] | None:
        """Run one measurement and print a line of progress; return None if it no longer fits into the run's time."""
        what = f"{task} of {case}, {contender.name}"
        if not self.budget.allows(task, case, contender.name):
            self.leave_out(what, f"it no longer fits into the run's {self.budget.limit:g} seconds")
            return None
        settings = {"device": self.options.device, "tf32": self.options.tf32} | settings
        children = dataclasses.replace(self.children, timeout=self.budget.at_most(self.options.timeout))
        with self.budget.spending(task, case, contender.name) as spent:
            result = children.run(contender.name, case, task, **settings)
        if "failed" in result and self.budget.over():
            self.leave_out(what, f"the run's {self.budget.limit:g} seconds were over before it ended")
            return None
        self.results["left_out"].pop(what, None)  # if an earlier run left it out
        state = "FAILED: " + result["failed"].splitlines()[-1] if "failed" in result else "done"
        print(f"{task:<9}{case:<10}{contender.name:<20}{spent():7.1f} s  {state}", flush=True)
        return result

    def able(self, case: str) -> list[Contender]:
        """Return the contenders whose losses, if compared, agree."""
        return [each for each in self.contenders if summary.may_be_timed(self.results, case, each.name)]

    # -- parts --------------------------------------------------------------------------------------

    def limits(self) -> None:
        found = self.child(CONTENDERS[REFERENCE], next(iter(self.cases)), "limits")
        if found is not None:
            self.results["limits"] = found

    def equivalence(self, case: str) -> None:
        trainers = sorted(self.contenders, key=lambda contender: contender.name != REFERENCE)
        found = self.results["equivalence"].setdefault(case, {})
        if all(contender.name != REFERENCE for contender in trainers) and REFERENCE not in found:
            trainers.insert(0, CONTENDERS[REFERENCE])
        for contender in trainers:
            entry = self.child(contender, case, "losses", steps=min(self.options.steps, cases.LOSS_STEPS[-1]))
            if entry is not None:
                found[contender.name] = entry
        for name, entry in found.items():  # all of them, as the median of their rounding is used
            entry |= summary.compare(self.results, case, name)
            if not entry["agrees"] and "failed" not in entry:
                print(f"{case}: the losses of {name} differ from tinynet's; it is not timed", flush=True)
        if not found:
            del self.results["equivalence"][case]

    def time(self, case: str) -> None:
        sizes = {"batch_sizes": self.sizes(self.cases[case]), "steps": self.options.steps}
        self.take_turns("times", "time", case, self.able(case), self.options.repeats, epochs=EPOCHS, **sizes)

    def kernels(self, case: str) -> None:
        sizes = {"batch_sizes": self.sizes(self.cases[case]), "steps": self.options.steps}
        self.take_turns("kernels", "kernels", case, self.able(case), 1, **sizes)

    def accuracy(self, case: str) -> None:
        """Measure tinynet and the fastest peer at the recipe's batch size; without times, all chosen contenders."""
        way = summary_gpu.Way(case, str(self.cases[case].batch_size), self.options.tf32[0])
        best = summary_gpu.best_peer(self.results, way)
        able = [each for each in self.able(case) if best is None or each.name in (REFERENCE, best)]
        targets = self.results["cases"][case]["targets"]
        self.take_turns("accuracy", "accuracy", case, able, self.options.repeats, targets=targets)

    def take_turns(
        self, task: str, part: str, case: str, able: list[Contender], repeats: int, **settings: Any
    ) -> None:
        """Measure A B C A B C, replacing an earlier run's results; skip contenders that failed or ran out of time."""
        runs: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in able}
        for repeat in range(repeats):
            for contender in able:
                done = runs[contender.name]
                if len(done) < repeat or any("failed" in run for run in done):
                    continue
                found = self.child(contender, case, task, seed=repeat, **settings)
                if found is not None:
                    done.append(found)
                    self.results[part].setdefault(case, {})[contender.name] = done

    def write(self) -> None:
        """Write results.json and results.md so far, each of them complete."""
        data = json.dumps(self.results, indent=1) + "\n"
        write_bytes(self.folder / "results.json", data.encode())
        write_bytes(self.folder / "results.md", report_gpu.page(self.results).encode())

    def run(self) -> None:
        self.prepare()
        if "limits" in self.options.parts:
            self.limits()
        self.write()
        rounds = [("equivalence", "time", "kernels"), ("accuracy",)]
        if self.options.synthetic and "accuracy" in self.options.parts:
            self.leave_out("the time to an accuracy", "the images are made up")
            rounds.pop()
        for parts in rounds:
            for case in self.cases:
                for part in parts:
                    if part in self.options.parts:
                        getattr(self, part)(case)
                        self.write()


def versions(contender: Contender) -> dict[str, str]:
    """Return the versions of the library and what it computes with; tinynet may run from a checkout, not installed."""
    own = {"tinynet": __version__} if contender.name == REFERENCE else {}
    needed = contender.installed()
    return own | machine.versions([*needed, *(name for each in needed for name in COMPANIONS.get(each, ()))])


def synthetic() -> dict[str, np.ndarray]:
    """Return made-up images with Fashion-MNIST's shapes: a picture for each class, with noise added."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 128, (cases.CLASSES, 28, 28), dtype=np.uint8)
    data = {}
    for part, count in (("train", cases.TRAINING_IMAGES), ("test", 10_000)):
        labels = rng.integers(0, cases.CLASSES, count, dtype=np.uint8)
        noise = rng.integers(0, 128, (count, 28, 28), dtype=np.uint8)
        data |= {f"x_{part}": pictures[labels] + noise, f"y_{part}": labels}
    return data


def fashion_images(data_dir: str | None) -> dict[str, np.ndarray]:
    """Load Fashion-MNIST; raise SystemExit if no folder is given and platformdirs, which finds it, is missing."""
    try:
        (x_train, y_train), (x_test, y_test) = fashion_mnist.load(data_dir, archive=True)
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"{error}; use --data-dir, the folder of the Fashion-MNIST files, or --synthetic"
        ) from None
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def output_folder(chosen: Path | None) -> Path:
    """Create and return the folder of the results."""
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    folder = RESULTS / f"{today}-gpu" if chosen is None else chosen
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    started = time.monotonic()
    try:
        gpu = machine_gpu.describe(options.device)
    except (DeviceError, CublasError) as error:
        print(error, file=sys.stderr)
        return 1
    folder = output_folder(options.output)
    with tempfile.TemporaryDirectory(prefix="tinynet-benchmark-") as scratch:
        benchmark = GpuBenchmark(options, folder, Path(scratch), gpu)
        try:
            benchmark.run()
        except KeyboardInterrupt:
            print("interrupted; what was measured is in the report", file=sys.stderr)
            benchmark.write()
            return 130
    print(
        f"wrote {folder / 'results.md'}, and results.json next to it, in {time.monotonic() - started:.0f} s"
    )
    return 0


if __name__ == "__main__":
    console.run(main)
