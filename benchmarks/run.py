"""tinynet against other libraries: the same networks, trained on the same images, each run in a fresh process.

    python benchmarks/run.py                                                       # everything: about two hours
    python benchmarks/run.py --cases mlp_sgd cnn --contenders tinynet torch --repeats 3
    python benchmarks/run.py --parts equivalence time                              # no scaling, no time to accuracy

There are four parts. "equivalence": the losses of steps 1, 10 and 100 from the same weights on the same batches; a
contender whose losses differ from tinynet's is not timed. "time": seconds per epoch, seconds from process start to the
first step and to the end of the first epoch, CPU seconds, memory and accuracy; contenders take turns, A B C A B C.
"accuracy": training seconds until the test accuracy reaches its targets, for tinynet's engines and the fastest peer.
"scaling": seconds per epoch against width and batch size. results.json is written after each process, results.md and
the plots after each part.

Contenders that are not installed are left out: pip install -e '.[fast]' installs tinynet's second engine, and
'.[bench-tensorflow]', '.[bench-jax]', '.[bench-torch]' and '.[bench-sklearn]' the peers, one each.
"""

import argparse
import datetime
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cases
import machine
import report
import summary
from cells import one_line
from children import Children
from contenders import CONTENDERS, LIMIT, OWN, REFERENCE, Contender

from tinynet.datasets import fashion_mnist
from tinynet.support import console
from tinynet.support.checks import check_positive_int

PARTS = ("equivalence", "time", "accuracy", "scaling")
RESULTS = Path(__file__).with_name("results")

SCALING_CONTENDERS = (
    *OWN,
    "keras-tensorflow",
    "keras-jax",
    "keras-jax-fast",
    "torch",
    "torch-1-thread",
    "sklearn",
)
SCALING_IMAGES = 15_000  # seconds are scaled up to 60,000
SCALING_EPOCHS = 3  # the first is not counted

TARGETS = (0.88, 0.90)
TARGETS_OF_IMAGES = (0.91, 0.92)  # for convolutional networks, in addition to those
MOST_EPOCHS = 30
MOST_EPOCHS_OF_IMAGES = 15


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=list(cases.CASES), choices=cases.CASES)
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--repeats", type=int, default=5, help="processes per figure (5)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs per process, the first not counted (3)")
    parser.add_argument(
        "--patience",
        type=float,
        default=math.inf,
        metavar="TIMES",
        help="measure epochs only once if the first process took so many times as long as the fastest one",
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="processes for each time to an accuracy, with a seed each (3)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder; default: benchmarks/results/DATE. Results already there are kept, except for the parts and "
        "cases measured now",
    )
    parser.add_argument("--inherit-env", action="store_true", help="keep OPENBLAS_* variables")
    parser.add_argument("--timeout", type=float, default=900, help="seconds per process (900)")
    parser.add_argument("--data-dir", help="folder of the Fashion-MNIST files")
    parser.add_argument("--train-size", type=int, help="train on fewer images, to try things out")
    options = parser.parse_args(arguments)
    for name in ("repeats", "epochs", "seeds"):
        check_positive_int(name, getattr(options, name))
    if options.epochs < 2:
        parser.error("--epochs: expected at least 2, as the first is not timed")
    return options


class Benchmark:
    """A run: its measurements, planned and done."""

    def __init__(self, options: argparse.Namespace, folder: Path, scratch: Path) -> None:
        self.options, self.folder = options, folder
        self.children = Children(scratch, options.inherit_env, options.timeout)
        self.contenders: list[Contender] = []
        self.cases: dict[str, cases.Case] = {}
        self.results: dict[str, Any] = {
            "machine": machine.describe(),
            "settings": {
                "repeats": options.repeats,
                "epochs": options.epochs,
                "inherit_environment": options.inherit_env,
                "environment": self.children.settings(),
                "scaling_images": SCALING_IMAGES,
                "targets": [*TARGETS, *TARGETS_OF_IMAGES],
            },
            "left_out": {},
            "contenders": {},
            "cases": {},
            "equivalence": {},
            "time": {},
            "first_step": {},
            "first_use": {},
            "accuracy": {},
            "scaling": {},
        }
        self.go_on()

    def go_on(self) -> None:
        """Continue from an earlier run's results in the folder; raise SystemExit if its settings were different."""
        path = self.folder / "results.json"
        if not path.exists():
            return
        earlier = json.loads(path.read_text(encoding="utf-8"))
        for part, same in (
            ("machine", ("cpu", "cores", "python")),
            ("settings", tuple(self.results["settings"])),
        ):
            for key in same:
                found, expected = earlier[part].get(key), self.results[part][key]
                if found != expected:
                    raise SystemExit(
                        f"{path} was measured with {key}={found!r}, but this run has {expected!r}; "
                        "use another --output"
                    )
        self.results |= earlier

    def prepare(self) -> None:
        """Find the contenders, and write images, weights and batch orders for the processes."""
        options, scratch = self.options, self.children.folder
        for name in options.contenders:
            contender = CONTENDERS[name]
            lacking = contender.missing()
            if lacking is None:
                self.contenders.append(contender)
                needed = machine.closure(contender.installed())
                self.results["contenders"][name] = {
                    "title": contender.title,
                    "fast_path": contender.fast_path,
                    "versions": {key: needed[key] for key in _interesting(contender, needed)},
                    "installed_mb": machine.installed_megabytes(needed),
                }
            else:
                self.results["left_out"][name] = lacking
                print(f"{name} was left out: {lacking}", flush=True)
        (x_train, y_train), (x_test, y_test) = fashion_mnist.load(options.data_dir, archive=True)
        size = min(options.train_size or len(x_train), len(x_train))
        if self.results["settings"].setdefault("images", size) != size:
            raise SystemExit(f"{self.folder}: holds results of another --train-size; use another --output")
        for name in options.cases:
            case, weights = cases.make(name)
            self.cases[name] = case
            targets = (*TARGETS, *(TARGETS_OF_IMAGES if "Conv2D" in case.kinds() else ()))
            self.results["cases"][name] = {
                "title": case.title,
                "training": case.describe_training(),
                "params": case.params,
                "multiply_adds": case.multiply_adds,
                "targets": targets,
            }
            cases.save(scratch, case, weights)
        data = {"x_train": x_train[:size], "y_train": y_train[:size], "x_test": x_test, "y_test": y_test}
        cases.save_data(scratch, data, {case.batch_size for case in self.cases.values()})

    def child(self, contender: Contender, case: str, task: str, **options: Any) -> dict[str, Any]:
        """Run one measurement and print a line of progress."""
        started = time.monotonic()
        result = self.children.run(contender.name, case, task, **options)
        state = "FAILED: " + one_line(result["failed"]) if "failed" in result else "done"
        print(
            f"{task:<11}{case:<11}{contender.name:<24}{time.monotonic() - started:7.1f} s  {state}",
            flush=True,
        )
        return result

    def able(self, case: str) -> list[Contender]:
        """Return the contenders that can express the case and whose losses, if compared, agree."""
        return [
            contender
            for contender in self.contenders
            if contender.can_express(self.cases[case].kinds())
            and summary.may_be_timed(self.results, case, contender.name)
        ]

    # -- parts --------------------------------------------------------------------------------------

    def equivalence(self) -> None:
        for case in self.cases:
            kinds = self.cases[case].kinds()
            trainers = [c for c in self.contenders if c.name != LIMIT and c.can_express(kinds)]
            if all(contender.name != REFERENCE for contender in trainers):
                trainers.insert(0, CONTENDERS[REFERENCE])
            trainers.sort(
                key=lambda contender: contender.name != REFERENCE
            )  # first: the others are compared to it
            found = self.results["equivalence"].setdefault(case, {})
            for contender in trainers:
                entry: dict[str, Any] = {}
                for dtype in ("float32", "float64"):
                    result = self.child(contender, case, "losses", dtype=dtype)
                    entry |= {dtype: result["losses"]} if "losses" in result else result
                found[contender.name] = entry
                self.write()
            for name, entry in found.items():  # all of them, as the median of their rounding is used
                entry |= summary.compare(self.results, case, name)
                if not entry["agrees"]:
                    print(f"{case}: the losses of {name} differ from tinynet's; it is not timed", flush=True)

    def time(self) -> None:
        for case in self.cases:
            able = self.able(case)
            uses = self.results["first_use"][case] = {}
            for contender in able:
                if contender.compiler:
                    uses[contender.name] = self.child(contender, case, "first-use")
                    self.write()
            broken = {name for name, use in uses.items() if "failed" in use}
            for task, key in (("epochs", "time"), ("first-step", "first_step")):
                runs = self.results[key][case] = {contender.name: [] for contender in able}
                for repeat in range(self.options.repeats):
                    for contender in able:
                        if task == "first-step" and contender.name == LIMIT:
                            continue
                        if contender.name in broken or any("failed" in run for run in runs[contender.name]):
                            continue
                        if repeat and task == "epochs" and self.is_slow(case, contender.name):
                            continue
                        result = self.child(contender, case, task, epochs=self.options.epochs, seed=repeat)
                        runs[contender.name].append(result)
                        self.write()

    def is_slow(self, case: str, name: str) -> bool:
        """Return whether a peer is too slow to be measured more than once."""
        if not CONTENDERS[name].is_peer:
            return False
        fastest = summary.epoch_seconds(
            self.results, case, summary.best_peer(self.results, case) or REFERENCE
        )
        found = summary.epoch_seconds(self.results, case, name)
        return bool(fastest and found and found.median > self.options.patience * fastest.median)

    def accuracy(self) -> None:
        """Measure tinynet's engines and the fastest peer of this run; without times, all chosen contenders."""
        for case in self.cases:
            able = [contender for contender in self.able(case) if contender.name != LIMIT]
            best = summary.best_peer(self.results, case)
            if best is not None:
                able = [contender for contender in able if not contender.is_peer or contender.name == best]
            targets = self.results["cases"][case]["targets"]
            epochs = MOST_EPOCHS_OF_IMAGES if "Conv2D" in self.cases[case].kinds() else MOST_EPOCHS
            runs = self.results["accuracy"][case] = {contender.name: [] for contender in able}
            for seed in range(self.options.seeds):
                for contender in able:
                    settings = {"epochs": epochs, "targets": targets, "seed": seed}
                    runs[contender.name].append(self.child(contender, case, "accuracy", **settings))
                    self.write()

    def scaling(self) -> None:
        """Run one process per point, on networks with one hidden layer, which are mlp_adam in other sizes."""
        images = min(SCALING_IMAGES, self.results["settings"]["images"])
        chosen = [contender for contender in self.contenders if contender.name in SCALING_CONTENDERS]
        chosen = [c for c in chosen if summary.may_be_timed(self.results, "mlp_adam", c.name)]
        for family, sizes in (("width", cases.WIDTHS), ("batch", cases.BATCH_SIZES)):
            points = self.results["scaling"][family] = {contender.name: {} for contender in chosen}
            for size in sizes:
                case, weights = cases.make(f"{family}_{size}")
                cases.save(self.children.folder, case, weights)
                for contender in chosen:
                    settings = {"epochs": SCALING_EPOCHS, "images": images}
                    result = self.child(contender, case.name, "epochs", **settings)
                    if "seconds" in result:
                        result["images"] = images
                    points[contender.name][str(size)] = result
                    self.write()

    def write(self) -> None:
        """Write results.json so far; it is complete whenever the run is ended."""
        path = self.folder / "results.json"
        written = path.with_suffix(".part")
        written.write_text(json.dumps(self.results, indent=1) + "\n", encoding="utf-8")
        written.replace(path)

    def run(self) -> None:
        self.prepare()
        for part in PARTS:
            if part in self.options.parts:
                getattr(self, part)()
                self.write()
                report.write(self.results, self.folder)


def _interesting(contender: Contender, needed: dict[str, str]) -> list[str]:
    """Return the distributions whose versions matter to a reader: the library, its engine, NumPy."""
    return [name for name in (*contender.installed(), "jaxlib", "numpy") if name in needed]


def output_folder(chosen: Path | None) -> Path:
    """Create and return the folder of the results; by default a new one named after the day."""
    if chosen is not None:
        chosen.mkdir(parents=True, exist_ok=True)
        return chosen
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    names = (today, *(f"{today}-{number}" for number in range(2, 1000)))
    folder = next(RESULTS / name for name in names if not (RESULTS / name).exists())
    folder.mkdir(parents=True)
    return folder


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    folder = output_folder(options.output)
    with tempfile.TemporaryDirectory(prefix="tinynet-benchmark-") as scratch:
        benchmark = Benchmark(options, folder, Path(scratch))
        try:
            benchmark.run()
        except KeyboardInterrupt:
            if "images" not in benchmark.results["settings"]:
                print("interrupted before anything was measured", file=sys.stderr)
                return 130
            print("interrupted; what was measured is in the report", file=sys.stderr)
            benchmark.write()
            report.write(benchmark.results, folder)
            return 130
    print(f"wrote {folder / 'results.md'}, with results.json and plots next to it")
    return 0


if __name__ == "__main__":
    console.run(main)
