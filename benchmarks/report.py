"""Turn results.json into a readable page, results.md, and its plots.

python benchmarks/report.py benchmarks/results/2026-11-21     # rewrite both
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import charts
import report_losses
import summary
from cells import median, median_and_range, number, one_line, table
from children import STEERING
from contenders import CONTENDERS, LIMIT, OWN
from summary import Ratio, Results, Spread

from tinynet.support import console

METHOD = """\
Every measurement runs in a fresh process, and contenders take turns (A B C A B C). All start from the same weights and
train on the same images, with the same batch size, optimizer and hyper-parameters. tinynet gets bytes and scales each
batch, as its users do; the others get float32 images, scaled to 0..1 before the first epoch. tinynet computes the
training accuracy during training, the others compute no metrics. All libraries run on the CPU only. `tinynet` and
`tinynet-fast` are one library with two engines: NumPy, and loops that Numba compiles.

- **s/epoch**: the median over all epochs except the first of each process, and the range.
- **CPU s**: seconds of all cores together, per epoch; the median.
- **first step**, **first epoch**: seconds from the start of the process, including imports, building and compiling;
  the median. The process for the first step loads one batch, that for the first epoch loads all images.
- **peak MB**: the peak memory of a process until the end of its last epoch, including the images; the median.
- **installed MB**: the files of all required distributions, including their dependencies.
- **the limit**: the case's matrix products, forward and both backward, without the first layer's dx, and nothing else,
  run back to back by NumPy with its best number of BLAS threads.
  A library that divides its batches between threads may need less: BLAS is not the only way to use two cores.
- **first use**: Numba and torch.compile keep compiled code on disk. For each contender and case, the run begins with
  none. One process then compiles, and its seconds from its start to the end of its first step stand below the table;
  it counts for no other figure. All the others find the code compiled, as users do from the second time on. JAX's
  cache, which is off by default, stays off: each process compiles, and that is part of its first step.
- The images take 188 MB as float32 in the others' peak memory, and 47 MB as bytes in tinynet's: each library's training
  data, and 141 MB of the difference.
"""


def write(results: Results, folder: Path) -> None:
    """Write results.md and the plots for what has been measured so far."""
    pictures = charts.draw(results, folder)
    (folder / "results.md").write_text(page(results, pictures), encoding="utf-8")


def page(results: Results, pictures: Iterable[str] = ()) -> str:
    """Return the whole report, in Markdown."""
    pictures = set(pictures)
    parts = [_header(results), _contenders(results), "## Method\n\n" + METHOD, _cases(results)]
    if results["equivalence"]:
        parts.append(report_losses.section(results))
    if results["time"]:
        parts.append(_ratios(results))
        parts.append("## Times\n")
        if "epochs.png" in pictures:
            parts.append("![Seconds per epoch of every contender in every case](epochs.png)\n")
        parts += [_times(results, case) for case in results["time"]]
    if results["accuracy"]:
        parts.append(_accuracy(results))
    if results["scaling"]:
        parts.append(_scaling(results, "scaling.png" in pictures))
    return "\n".join(parts)


# -- sections -----------------------------------------------------------------------------------------------


def _header(results: Results) -> str:
    machine, settings = results["machine"], results["settings"]
    kept = "kept" if settings["inherit_environment"] else "removed, so that each library chooses its kernels"
    lines = [
        "# tinynet and others\n",
        f"{machine['date']}: {machine['cores']} cores of {machine['cpu']}; {machine['system']}; "
        f"Python {machine['python']}. {settings['images']:,} training images, {settings['repeats']} processes per "
        f"figure, {settings['epochs']} epochs in each. `OPENBLAS_*` variables {kept}. "
        f"{_settings(settings['environment'])}\n",
    ]
    lines += [f"- `{name}` was left out: {why}" for name, why in results["left_out"].items()]
    return "\n".join(lines) + "\n"


def _settings(variables: dict[str, str]) -> str:
    """Return the environment variables of the processes that control kernels or threads."""
    if not variables:
        return (
            "No variable is set with one of the prefixes "
            + ", ".join(f"`{prefix}`" for prefix in STEERING)
            + "."
        )
    return f"Set: {', '.join(f'`{key}={value}`' for key, value in sorted(variables.items()))}."


def _contenders(results: Results) -> str:
    rows = []
    order = list(CONTENDERS)  # rather than the order in which contenders were measured
    for name, about in sorted(results["contenders"].items(), key=lambda item: order.index(item[0])):
        versions = ", ".join(f"{key} {version}" for key, version in about["versions"].items())
        rows.append([f"`{name}`", about["fast_path"], versions, *_environment(results, name)])
    return "## Contenders\n\n" + table(["", "how", "versions", "BLAS and kernels", "threads"], rows, "lllll")


def _environment(results: Results, name: str) -> tuple[str, str]:
    """Return kernels and threads during training: what the library reports, and what its process has loaded."""
    found = [
        (case, run["environment"])
        for case in results["time"]
        for run in summary.runs(results, "time", case, name)[:1]
    ]
    if not found:
        return "-", "-"
    last = found[-1][1]
    kernels = [last[key] for key in ("engine", "kernels") if key in last]
    if (
        "kernels" not in last
    ):  # otherwise other loaded BLAS libraries, such as NumPy's, are not what it computes with
        kernels += sorted({_pool(pool) for pool in last["pools"] if pool["user_api"] == "blas"})
    threads = {case: _threads(environment) for case, environment in found}
    if len(set(threads.values())) == 1:
        return ", ".join(kernels), next(iter(threads.values()))
    return ", ".join(kernels), "; ".join(f"`{case}`: {words}" for case, words in threads.items())


def _pool(pool: dict[str, Any]) -> str:
    return " ".join(str(pool[key]) for key in ("internal_api", "version", "architecture") if key in pool)


def _threads(environment: dict[str, Any]) -> str:
    words = [environment["threads"]] if "threads" in environment else []
    if "os_threads" in environment:
        words.append(f"{environment['os_threads']} in the process")
    if "kernels" not in environment:
        counts = sorted({pool["num_threads"] for pool in environment["pools"] if pool["user_api"] == "blas"})
        words += [f"{'/'.join(map(str, counts))} BLAS"] if counts else []
    return ", ".join(words) or "-"


def _cases(results: Results) -> str:
    rows = [
        [f"`{name}`", case["title"], case["training"], f"{case['params']:,}", f"{case['multiply_adds']:,}"]
        for name, case in results["cases"].items()
    ]
    head = ["case", "network", "training", "parameters", "multiply-adds, one image forward"]
    return "## Cases\n\nConstant learning rates, no weight decay, no schedule.\n\n" + table(
        head, rows, "lllrr"
    )


def _times(results: Results, case: str) -> str:
    names = [name for name in results["time"][case] if name != LIMIT]
    for name in results["equivalence"].get(case, {}):  # contenders whose losses differ get a row that says so
        if name not in names and name in results["contenders"]:
            names.append(name)
    own = {name: summary.epoch_seconds(results, case, name) for name in summary.engines(results)}

    def order(name: str) -> float:
        found = summary.epoch_seconds(results, case, name)
        return float("inf") if found is None else found.median

    rows = []
    for name in sorted(names, key=order):
        seconds = summary.epoch_seconds(results, case, name)
        first = f"**`{name}`**" if name in OWN else f"`{name}`"
        failed = summary.failure(results, case, name)
        if failed is not None:
            first += f", FAILED: {one_line(failed)}"
        elif not summary.may_be_timed(results, case, name):
            broken = "failed" in results["equivalence"][case].get(name, {})
            first += (
                ", not timed: comparing its losses failed" if broken else ", not timed: its losses differ"
            )
        elif 0 < (processes := len(results["time"][case].get(name, []))) < results["settings"]["repeats"]:
            first += f" ({processes} process{'es' if processes > 1 else ''})"
        elif not processes:
            first += ", compared but not timed"
        rows.append(
            [
                first,
                median_and_range(seconds),
                *_times_own(seconds, own),
                number(summary.times_the_limit(results, case, name)),
                median(summary.epoch_seconds(results, case, name, "cpu_seconds")),
                *(
                    median(summary.figure(results, case, name, key))
                    for key in ("start_to_first_step", "start_to_first_epoch", "peak_memory_mb")
                ),
                number(results["contenders"][name]["installed_mb"]),
                _accuracy_cell(summary.figure(results, case, name, "accuracy")),
            ]
        )
    found = summary.limit(results, case)
    if found is not None:
        cpu = summary.epoch_seconds(results, case, LIMIT, "cpu_seconds")
        blank = ["", "", "", "", ""]
        multiples = _times_own(found[1], own)
        rows.append(
            [f"the limit ({found[0]})", median_and_range(found[1]), *multiples, "1", median(cpu), *blank]
        )
    epochs = results["settings"]["epochs"]
    head = [
        "contender",
        "s/epoch",
        *(f"times {name}" for name in own),
        "times the limit",
        "CPU s",
        "first step",
    ]
    head += ["first epoch", "peak MB", "installed MB", f"test accuracy after {epochs} epochs"]
    return f"### `{case}`\n\n" + table(head, rows) + _first_uses(results, case)


def _times_own(seconds: Spread | None, own: dict[str, Spread | None]) -> list[str]:
    """Return seconds as multiples of those of each of tinynet's engines."""
    return [number(seconds.median / ours.median if seconds and ours else None) for ours in own.values()]


def _first_uses(results: Results, case: str) -> str:
    """Return the line below the table: seconds to the first step where nothing was compiled yet."""
    found = results.get("first_use", {}).get(case, {})
    words = [
        f"`{name}` {number(run['start_to_first_step'])}" for name, run in found.items() if "failed" not in run
    ]
    return (
        f"\nFirst use, seconds to the first step with nothing compiled yet: {', '.join(words)}.\n"
        if words
        else ""
    )


def _accuracy_cell(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    low, high = f"{spread.low:.4f}", f"{spread.high:.4f}"
    return low if low == high else f"{low} to {high}"


def _ratios(results: Results) -> str:
    """Return the summary: the best peer's figure divided by that of each of tinynet's engines."""
    columns = {
        "s/epoch": ("seconds", False),
        "first epoch, best Keras": ("start_to_first_epoch", True),
        "first step, best Keras": ("start_to_first_step", True),
        "peak memory, leanest": ("peak_memory_mb", False),
    }
    engines, rows = summary.engines(results), []
    for case in results["time"]:
        cells = [
            _ratio_cell([summary.ratio(results, case, key, keras_only, own) for own in engines])
            for key, keras_only in columns.values()
        ]
        multiples = [number(summary.times_the_limit(results, case, own)) for own in engines]
        rows.append([f"`{case}`", *cells, " / ".join(multiples)])
    text = "The best peer's median over tinynet's: above 1, tinynet is ahead; below 1, it is behind."
    if len(engines) > 1:
        text += (
            f" Of two figures, the first is for {' and the second for '.join(f'`{own}`' for own in engines)}."
        )
    return "## Summary\n\n" + text + "\n\n" + table(["case", *columns, "tinynet, times the limit"], rows)


def _ratio_cell(ratios: list[Ratio | None]) -> str:
    """Return the ratios of tinynet's engines side by side; all are to the same peer."""
    peer = next((found.peer for found in ratios if found is not None), None)
    if peer is None:
        return "-"
    return " / ".join("-" if found is None else f"{found.value:.2f}" for found in ratios) + f" (`{peer}`)"


def _accuracy(results: Results) -> str:
    lines = [
        "## Time to accuracy\n",
        "Training seconds until the test accuracy first reached the target at the end of an epoch, including loading "
        "and compiling what is not kept on disk, excluding testing and imports; the median of processes with different "
        "seeds. For tinynet's engines and the peer with the fastest epochs. A dash means not reached; failed "
        "processes count as not reached.\n",
    ]
    rows = []
    targets = results["settings"]["targets"]
    for case, by_name in results["accuracy"].items():
        for name in by_name:
            ours = results["cases"][case]["targets"]
            cells = [
                _reached_cell(summary.reached(results, case, name, target)) if target in ours else ""
                for target in targets
            ]
            rows.append([f"`{case}`, `{name}`", *cells])
    return "\n".join(lines) + "\n" + table(["", *(f"{target:.0%}" for target in targets)], rows)


def _reached_cell(runs: list[dict[str, float] | None]) -> str:
    seconds = [run["seconds"] for run in runs if run is not None]
    if not seconds:
        return "-"
    epochs = sorted({int(run["epoch"]) for run in runs if run is not None})
    span = f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
    count = "" if len(seconds) == len(runs) else f", {len(seconds)} of {len(runs)} runs"
    middle = summary.spread(seconds)
    return f"{median(middle)} s (epoch {span}{count})"


def _scaling(results: Results, has_picture: bool) -> str:
    images = results["settings"]["scaling_images"]
    lines = [
        "## Scaling\n",
        f"784-width-10 with batches of 64, and 784-256-10; ReLU, Adam. Seconds per 60,000 images, from epochs of "
        f"{min(images, results['settings']['images']):,} images, without the first; one process per point. The "
        "fixed costs of an epoch therefore count more than once. The fastest contenders of each library, and Keras "
        "with its defaults.\n",
    ]
    if has_picture:
        lines.append("![Seconds per epoch against hidden width and against batch size](scaling.png)\n")
    for family, title in (("width", "hidden width"), ("batch", "batch size")):
        points = {
            name: summary.scaling_seconds(results, family, name)
            for name in results["scaling"].get(family, {})
        }
        sizes = sorted({size for seconds in points.values() for size in seconds})
        rows = [
            [f"`{name}`", *(number(seconds.get(size)) for size in sizes)] for name, seconds in points.items()
        ]
        if rows:
            lines.append(table([title, *map(str, sizes)], rows))
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python benchmarks/report.py FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    write(json.loads((folder / "results.json").read_text(encoding="utf-8")), folder)
    return 0


if __name__ == "__main__":
    console.run(lambda: main(sys.argv[1:]))
