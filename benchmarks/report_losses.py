"""The part of a report that compares losses before any times: the same training in every library."""

from typing import Any

import summary
from cases import LOSS_STEPS, TOLERANCES
from cells import one_line, small, table
from contenders import REFERENCE
from summary import Results

EQUIVALENCE = """\
Losses of steps {steps}, from the same weights on the same batches, without dropout. A contender agrees if its losses
are within {tolerances} (relative) of `tinynet`'s in float64 and in float32; at steps marked \\*, one of the two is
enough. At those steps, rounding alone moves float32 losses by more than a tenth of the tolerance away from the same
library's in float64 (the median over the contenders): networks with ReLU and max-pooling amplify a rounding error
whenever it decides a comparison, so two correct programs differ there. In most libraries float64 then agrees to the
last digits; Keras on JAX has some constants in float32 even then. PyTorch's Adam adds epsilon at another place in
the formula, so it is given the equivalent epsilon in the comparison{timed}.
"""


def section(
    results: Results, steps: tuple[int, ...] = LOSS_STEPS, timed: str = " and when it is timed"
) -> str:
    """Return all cases' losses. Args: steps: those compared; timed: which epsilon PyTorch has while it is timed."""
    tolerances = ", ".join(f"{value:.0e}".replace("e-0", "e-") for value in TOLERANCES[: len(steps)])
    lines = [
        "## Equivalence of training\n",
        EQUIVALENCE.format(steps=", ".join(map(str, steps)), tolerances=tolerances, timed=timed),
    ]
    for case, found in results["equivalence"].items():
        noise = summary.rounding(results, case)
        rows = [_row(name, entry) for name, entry in found.items()]
        if noise is not None:
            rows.insert(0, ["*float32 against own float64, median*", "", small(noise), "", ""])
        head = ["contender", "losses", "differences in float32", "differences in float64", ""]
        lines += [f"### `{case}`\n", table(head, rows, "lrrrl")]
    return "\n".join(lines)


def _row(name: str, entry: dict[str, Any]) -> list[str]:
    if "failed" in entry:
        return [f"`{name}`", "", "", "", f"FAILED: {one_line(entry['failed'])}"]
    losses = ", ".join(f"{value:.6f}" for value in entry["float32"])
    if "differences" not in entry:
        return [f"`{name}`", losses, "-", "-", "nothing to compare with"]
    marks = ["\\*" if noisy else "" for noisy in entry["decided_by_float64"]]
    single, double = small(entry["differences"]["float32"], marks), small(entry["differences"]["float64"])
    verdict = "reference" if name == REFERENCE else "agrees" if entry["agrees"] else "**DIFFERS, not timed**"
    return [f"`{name}`", losses, single, double, verdict]
