"""Turn the results of run_gpu.py into a readable page, results.md.

python benchmarks/gpu/report_gpu.py benchmarks/results/2026-11-22-gpu     # rewrite it
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # what it shares with the CPU's benchmark

import report_losses
import summary
import summary_gpu
from cases import LOSS_STEPS
from cells import number, one_line, small, table
from contenders import REFERENCE
from summary import Results, Spread
from summary_gpu import Way

from tinynet.support import console

METHOD = """\
Every measurement runs in a fresh process, and contenders take turns (A B C A B C). All start from the same weights and
train in float32 on the same images, which are on the device before the first epoch, with the same batch size, loss,
optimizer, weight decay and label smoothing, and a constant learning rate. Augmentation is used only for the time to an
accuracy.

- **ms per step**: the time of an epoch of {steps} whole batches divided by {steps}, including the drawing of its order;
  the median over the {epochs} epochs after the first of each process, and the range. It is measured between two events
  on the device or, if a library has none (†), on the wall clock, from idle device to idle device. tinynet's epochs are
  those of `fit`: they also measure the training accuracy, and read the loss every 100 steps. The others never read it.
- **wall**: the same on the wall clock, from idle device to idle device.
- **kernels**: the total time of all kernels of a step, by PyTorch's profiler, in a separate process.
- **launch overhead**: 1 - kernels / wall: the share of a step in which no kernel runs, if none run concurrently.
- **share of the limit**: the least time of a step divided by ms per step. The least time is the larger of two: that of
  the step's multiply-adds at the speed of a large matrix product by cuBLAS, and that of its least bytes at the speed of
  a large copy on the device (bytes read and written), both measured in this run. Multiply-adds are those of forward and
  of both products of backward, without dx of the first layer. Least bytes are the images, the parameters and the
  optimizer's slots read and written once, and the inputs of the later layers with weights written and read once. What
  stays in the GPU's cache is not read from memory, and a convolution may need fewer multiply-adds (Winograd, Fourier),
  so more than 100% is possible.
- **TF32** off or on, by each library's own switch: `tinynet.engines.gpu.allow_tf32`;
  `torch.backends.cuda.matmul.allow_tf32` and `torch.backends.cudnn.allow_tf32`; `jax_default_matmul_precision`
  ("highest", "tensorfloat32").
"""


def page(results: Results) -> str:
    """Return the whole report, in Markdown."""
    parts = [_header(results), _contenders(results), _limits(results)]
    if results["time"]:
        parts.append(_ratios(results))
    parts += ["## Method\n\n" + METHOD.format(**results["settings"]), _cases(results)]
    if results["equivalence"]:
        steps = tuple(step for step in LOSS_STEPS if step <= results["settings"]["steps"])
        parts += [
            report_losses.section(results, steps, "; when timed, it keeps its own"),
            _with_tf32(results),
        ]
    if results["time"]:
        parts.append("## Times\n")
        parts += [_times(results, way) for case in results["time"] for way in summary_gpu.ways(results, case)]
    parts.append(_failures(results))
    if results["accuracy"]:
        parts.append(_accuracy(results))
    return "\n".join(parts)


def milliseconds(spread: Spread | None) -> str:
    """Format the median and the range."""
    if spread is None:
        return "-"
    return f"{_ms(spread.median)} ({_ms(spread.low)} to {_ms(spread.high)})"


def _ms(seconds: float | None) -> str:
    """Format with four significant digits, as a captured step may take hundredths of a millisecond."""
    return "-" if seconds is None else f"{seconds * 1000:.4g}"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}" if share >= 0.095 else f"{share:.1%}"


# -- sections -----------------------------------------------------------------------------------------------


def _header(results: Results) -> str:
    about, settings, gpu = results["machine"], results["settings"], results["machine"]["gpu"]
    lines = ["# tinynet and others on a GPU\n"]
    if settings["device"] == "cpu":
        lines.append("**A rehearsal on the CPU: these figures say nothing about any GPU.**\n")
    else:
        lines.append(
            f"{gpu['name']}, {gpu['memory']}, compute capability {gpu['compute capability']}; driver {gpu['driver']} "
            f"(for CUDA {gpu['CUDA driver']}), CuPy {gpu['cupy']} with CUDA {gpu['CUDA runtime']}.\n"
        )
    images = "made-up images" if settings["synthetic"] else "Fashion-MNIST"
    lines.append(
        f"{about['date']}: {about['cores']} cores of {about['cpu']}; {about['system']}; Python {about['python']}. "
        f"{images}; {results['repeats']} processes per figure. TF32: {', '.join(settings['tf32'])}.\n"
    )
    if settings["environment"]:
        lines.append(
            f"Set: {', '.join(f'`{key}={value}`' for key, value in settings['environment'].items())}.\n"
        )
    lines += [f"- {what} was left out: {one_line(why)}" for what, why in results["left_out"].items()]
    return "\n".join(lines) + "\n"


def _contenders(results: Results) -> str:
    rows = []
    for name, about in results["contenders"].items():
        versions = ", ".join(f"{key} {version}" for key, version in about["versions"].items())
        rows.append([f"`{name}`", about["fast_path"], versions, _own_words(results, name)])
    return "## Contenders\n\n" + table(["", "how", "versions", "as reported by the library"], rows, "llll")


def _own_words(results: Results, name: str) -> str:
    """Return what the library reported while it was timed: the state of TF32, the memory layout of images."""
    words: dict[str, None] = {}
    for case in results["time"]:
        for way in summary_gpu.ways(results, case):
            for entry in summary_gpu.entries(results, "time", way, name):
                if "tf32" in entry:
                    words[f"TF32 {way.tf32}: {entry['tf32']}"] = None
                if "layout" in entry:
                    words[f"`{case}`, {way.size}, TF32 {way.tf32}: {entry['layout']}"] = None
    return "; ".join(words) or "-"


def _limits(results: Results) -> str:
    found = results["limits"]
    if "bytes_per_second" not in found:
        return (
            "## The limits\n\n" + (one_line(found["failed"]) if "failed" in found else "Not measured.") + "\n"
        )
    copied, size = found["copied_bytes"] / 1e9, found["matrix_size"]
    rows = [
        [
            f"copy of {copied:.1f} GB on the device, bytes read and written",
            _rate(found["bytes_per_second"], 1e9, "GB/s"),
        ]
    ]
    for tf32, rates in found["multiply_adds_per_second"].items():
        rows.append(
            [f"{size} x {size} matrices, TF32 {tf32}", _rate([2 * rate for rate in rates], 1e12, "TFLOP/s")]
        )
    return "## The limits\n\n" + table(["of this device, measured in this run", "median (range)"], rows)


def _rate(rates: list[float], unit: float, name: str) -> str:
    low, middle, high = (number(value / unit) for value in (min(rates), statistics.median(rates), max(rates)))
    return f"{middle} {name} ({low} to {high})"


def _ratios(results: Results) -> str:
    """Return the summary: the peers' times divided by tinynet's."""
    rows = []
    for case in results["time"]:
        for way in summary_gpu.ways(results, case):
            best = summary_gpu.best_peer(results, way)
            eager = summary_gpu.ratio(results, way, "torch")
            ratio = None if best is None else summary_gpu.ratio(results, way, best)
            rows.append(
                [
                    f"`{case}`",
                    way.size,
                    way.tf32,
                    milliseconds(summary_gpu.seconds(results, way, REFERENCE)),
                    number(eager),
                    "-" if ratio is None else f"{number(ratio)} (`{best}`)",
                    percent(summary_gpu.share_of_limit(results, way, REFERENCE)),
                ]
            )
    text = "Medians over tinynet's: above 1, tinynet is ahead; below 1, it is behind.\n\n"
    head = [
        "case",
        "batch",
        "TF32",
        "tinynet, ms per step",
        "PyTorch eager",
        "best peer",
        "tinynet, share of the limit",
    ]
    return "## Summary\n\n" + text + table(head, rows, "lrlrrrr")


def _cases(results: Results) -> str:
    rows = []
    for name, case in results["cases"].items():
        cells = [f"`{name}`", case["title"], case["training"], f"{case['params']:,}"]
        needs = [
            f"{size}: {need['multiply_adds'] / 1e6:,.0f} M, {need['bytes'] / 1e6:,.1f} MB"
            for size, need in case["needs"].items()
        ]
        rows.append([*cells, "; ".join(needs)])
    head = [
        "case",
        "network",
        "training",
        "parameters",
        "multiply-adds and least bytes of a step, by batch size",
    ]
    return "## Cases\n\n" + table(head, rows, "lllrl")


def _with_tf32(results: Results) -> str:
    rows = []
    for case, found in results["equivalence"].items():
        for name, entry in found.items():
            if "tf32" in entry and "float32" in entry:
                gap = summary.differences(entry["tf32"], entry["float32"])
                rows.append(
                    [f"`{case}`, `{name}`", ", ".join(f"{value:.6f}" for value in entry["tf32"]), small(gap)]
                )
    if not rows:
        return ""
    text = "The same steps with TF32, and how far each library's losses are from its own without TF32.\n\n"
    return "### With TF32\n\n" + text + table(["", "losses", "differences"], rows)


def _times(results: Results, way: Way) -> str:
    def order(name: str) -> float:
        found = summary_gpu.seconds(results, way, name)
        return float("inf") if found is None else found.median

    rows = []
    for name in sorted(results["time"][way.case], key=order):
        found = summary_gpu.seconds(results, way, name)
        if found is None:
            continue
        mark = "" if summary_gpu.has_events(results, way, name) else " †"
        wall = summary_gpu.seconds(results, way, name, "wall")
        rows.append(
            [
                f"**`{name}`**" if name == REFERENCE else f"`{name}`",
                milliseconds(found) + mark,
                number(summary_gpu.ratio(results, way, name)),
                _ms(None if wall is None else wall.median),
                _ms(summary_gpu.kernels(results, way, name)),
                percent(summary_gpu.launch_overhead(results, way, name)),
                percent(summary_gpu.share_of_limit(results, way, name)),
            ]
        )
    least = summary_gpu.floor(results, way)
    text = "" if least is None else f"At least {_ms(least.seconds)} ms, by the {least.bound} limit.\n\n"
    head = [
        "contender",
        "ms per step",
        "times tinynet",
        "wall",
        "kernels",
        "launch overhead",
        "share of the limit",
    ]
    title = f"### `{way.case}`, batches of {way.size}, TF32 {way.tf32}\n\n"
    return title + text + table(head, rows) + _graph_gain(results, way)


def _graph_gain(results: Results, way: Way) -> str:
    """Return how much eager PyTorch spends on launching: its step against the same kernels replayed as one graph."""
    eager, graph = (summary_gpu.seconds(results, way, name) for name in ("torch", "torch-graph"))
    if eager is None or graph is None or results["settings"]["device"] == "cpu":  # which has no graphs
        return ""
    share = graph.median / eager.median
    return f"\nPyTorch's step as a CUDA graph takes {percent(share)} of its eager step's time; the rest is launching.\n"


def _failures(results: Results) -> str:
    """Return what could not be measured, and why."""
    lines = []
    for part in ("time", "kernels", "accuracy"):
        for case, by_name in results[part].items():
            for name in by_name:
                why = summary_gpu.failure(results, part, case, name)
                if why is not None:
                    lines.append(f"- {part} of `{case}`, `{name}`: {one_line(why)}")
    for case, by_name in results["equivalence"].items():
        lines += [
            f"- `{case}`, `{name}`: its losses differ or could not be compared, so it is not timed"
            for name, entry in by_name.items()
            if name != REFERENCE and not entry["agrees"]
        ]
    return "## Not measured\n\n" + "\n".join(lines) + "\n" if lines else ""


def _accuracy(results: Results) -> str:
    text = (
        "Training seconds until the test accuracy first reached the target at the end of an epoch, including loading, "
        "compiling and capturing, excluding testing and imports; the median of processes with different seeds, and "
        "the range. Training uses the recipe's schedule, batch size, augmentation and regularisation and all 60,000 "
        "images, for tinynet and the peer with the fastest steps, "
        f"TF32 {results['settings']['tf32'][0]}. A dash means not reached.\n\n"
    )
    targets = sorted({target for case in results["cases"].values() for target in case["targets"]})
    rows = []
    for case, by_name in results["accuracy"].items():
        for name, runs in by_name.items():
            done = [run for run in runs if "failed" not in run]
            cells = [_reached(done, target, results["cases"][case]["targets"]) for target in targets]
            best = [f"{max(run['accuracies']):.4f}" for run in done if run["accuracies"]]
            rows.append([f"`{case}`, `{name}`", *cells, ", ".join(best) or "-"])
    head = ["", *(f"{target:.0%}" for target in targets), "best accuracy of each process"]
    return "## Time to accuracy\n\n" + text + table(head, rows)


def _reached(runs: list[dict[str, Any]], target: float, wanted: list[float]) -> str:
    if target not in wanted:
        return ""
    found = [run["reached"][str(target)] for run in runs if str(target) in run["reached"]]
    middle = summary.spread([each["seconds"] for each in found])
    if middle is None:
        return "-"
    epochs = sorted({int(each["epoch"]) for each in found})
    span = f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
    count = "" if len(found) == len(runs) else f", {len(found)} of {len(runs)} runs"
    return f"{number(middle.median)} s ({number(middle.low)} to {number(middle.high)}; epoch {span}{count})"


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python benchmarks/gpu/report_gpu.py FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    (folder / "results.md").write_text(page(results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    console.run(lambda: main(sys.argv[1:]))
