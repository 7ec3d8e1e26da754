"""Figures computed from results.json: whose losses agree, medians and ranges, the best peer, ratios."""

import statistics
from typing import Any, NamedTuple

from cases import TOLERANCES
from contenders import CONTENDERS, LIMIT, OWN, REFERENCE

Results = dict[str, Any]

# Where rounding alone moves float32 losses by more than this share of the tolerance, float32 can't distinguish a
# difference of libraries from one of rounding, and float64 decides.
ROUNDING_SHARE = 0.1


class Spread(NamedTuple):
    """The median and the range of some measurements."""

    median: float
    low: float
    high: float


def spread(values: list[float]) -> Spread | None:
    """Return the spread of the values, or None if there are none."""
    return Spread(statistics.median(values), min(values), max(values)) if values else None


# -- equivalence ------------------------------------------------------------------------------------------


def differences(losses: list[float], reference: list[float]) -> list[float]:
    """Return the relative differences, step by step."""
    return [abs(loss - other) / abs(other) for loss, other in zip(losses, reference, strict=True)]


def rounding(results: Results, case: str) -> list[float] | None:
    """Return how far float32 losses are from the same library's in float64, by step: the median over contenders.

    It is the median because, where rounding is amplified, one library's two losses may be close by luck. None without
    losses.
    """
    gaps = [
        differences(entry["float32"], entry["float64"])
        for entry in results["equivalence"].get(case, {}).values()
        if "float32" in entry and "float64" in entry
    ]
    return [statistics.median(step) for step in zip(*gaps, strict=True)] if gaps else None


def compare(results: Results, case: str, name: str) -> dict[str, Any]:
    """Compare a contender's losses with tinynet's: the differences in both dtypes, and whether they agree.

    The losses of both dtypes must be within the tolerances; at steps where float32 rounding is too large to judge by,
    those of one dtype suffice. NaN agrees with nothing.
    """
    found, reference = results["equivalence"][case][name], results["equivalence"][case].get(REFERENCE, {})
    noise = rounding(results, case)
    if noise is None or not all("float32" in entry and "float64" in entry for entry in (found, reference)):
        return {"agrees": False, "decided_by_float64": []}
    by_dtype = {dtype: differences(found[dtype], reference[dtype]) for dtype in ("float32", "float64")}
    tolerances = TOLERANCES[: len(noise)]  # a short run has fewer steps
    noisy = [level > ROUNDING_SHARE * tolerance for level, tolerance in zip(noise, tolerances, strict=True)]
    agrees = all(
        (any if noisy[step] else all)(gaps[step] <= tolerance for gaps in by_dtype.values())
        for step, tolerance in enumerate(tolerances)
    )
    return {"differences": by_dtype, "decided_by_float64": noisy, "agrees": agrees}


def may_be_timed(results: Results, case: str, name: str) -> bool:
    """Return whether losses agree, or were not compared in this run."""
    compared = results["equivalence"].get(case)
    if not compared or name in (REFERENCE, LIMIT):
        return True
    return name in compared and compare(results, case, name)["agrees"]


# -- times ------------------------------------------------------------------------------------------------


def runs(results: Results, part: str, case: str, name: str) -> list[dict[str, Any]]:
    """Return the processes that gave a result; none for a contender whose losses differ."""
    if not may_be_timed(results, case, name):
        return []
    return [run for run in results[part].get(case, {}).get(name, []) if "failed" not in run]


def failure(results: Results, case: str, name: str) -> str | None:
    """Return the error of the first process that failed; None if none did."""
    all_runs = [
        results.get("first_use", {}).get(case, {}).get(name, {}),
        *results["time"].get(case, {}).get(name, []),
        *results["first_step"].get(case, {}).get(name, []),
    ]
    return next((run["failed"] for run in all_runs if "failed" in run), None)


def limit(results: Results, case: str, key: str = "seconds") -> tuple[str, Spread] | None:
    """Return the fastest way of running the case's matrix products, and its seconds (or "cpu_seconds") per epoch."""
    ways: dict[str, dict[str, list[float]]] = {}
    for run in runs(results, "time", case, LIMIT):
        for way, measured in run["ways"].items():
            entry = ways.setdefault(way, {"seconds": [], "cpu_seconds": []})
            for name in entry:
                entry[name] += measured[name]
    if not ways:
        return None
    best = min(ways, key=lambda way: statistics.median(ways[way]["seconds"]))
    found = spread(ways[best][key])
    assert found is not None
    return best, found


def epoch_seconds(results: Results, case: str, name: str, key: str = "seconds") -> Spread | None:
    """Return the spread over all epochs but the first of all processes; ``key`` may be "cpu_seconds"."""
    if name == LIMIT:
        found = limit(results, case, key)
        return None if found is None else found[1]
    return spread([value for run in runs(results, "time", case, name) for value in run[key]])


def figure(results: Results, case: str, name: str, key: str) -> Spread | None:
    """One figure per process: "start_to_first_epoch", "start_to_first_step", "peak_memory_mb" or "accuracy"."""
    part = "first_step" if key == "start_to_first_step" else "time"
    return spread([run[key] for run in runs(results, part, case, name) if key in run])


def engines(results: Results) -> list[str]:
    """Return tinynet's engines in this run: NumPy and, where it is installed, Numba."""
    return [name for name in OWN if name == REFERENCE or name in results["contenders"]]


def peers(results: Results, keras_only: bool = False) -> list[str]:
    """Return the other libraries of this run."""
    known = [CONTENDERS[name] for name in results["contenders"]]
    return [c.name for c in known if c.is_peer and (c.is_keras or not keras_only)]


def best_peer(results: Results, case: str) -> str | None:
    """Return the peer with the lowest median seconds per epoch."""
    times = {name: epoch_seconds(results, case, name) for name in peers(results)}
    timed = {name: found.median for name, found in times.items() if found is not None}
    return min(timed, key=timed.__getitem__, default=None)


class Ratio(NamedTuple):
    """The best peer's figure divided by that of one of tinynet's engines: above 1, tinynet is ahead."""

    value: float
    peer: str


def ratio(
    results: Results, case: str, key: str, keras_only: bool = False, own: str = REFERENCE
) -> Ratio | None:
    """Return the ratio of "seconds", or of a key of `figure`; None if either is missing."""

    def median(name: str) -> float | None:
        find = epoch_seconds if key == "seconds" else figure
        found = find(results, case, name, key)
        return None if found is None else found.median

    ours = median(own)
    theirs = {name: value for name in peers(results, keras_only) if (value := median(name)) is not None}
    if ours is None or not theirs:
        return None
    peer = min(theirs, key=theirs.__getitem__)
    return Ratio(theirs[peer] / ours, peer)


def times_the_limit(results: Results, case: str, name: str) -> float | None:
    """Return a contender's median seconds per epoch as a multiple of the limit's."""
    ours, floor = epoch_seconds(results, case, name), limit(results, case)
    return None if ours is None or floor is None else ours.median / floor[1].median


def scaling_seconds(results: Results, family: str, name: str) -> dict[int, float]:
    """Return median seconds per 60,000 images, by width or batch size."""
    points = results["scaling"].get(family, {}).get(name, {})
    return {
        int(size): statistics.median(run["seconds"]) * 60_000 / run["images"]
        for size, run in points.items()
        if "failed" not in run
    }


def reached(results: Results, case: str, name: str, target: float) -> list[dict[str, float] | None]:
    """Return seconds and epoch at which each process reached a test accuracy; None if it did not."""
    done = runs(results, "accuracy", case, name)
    return [run["reached"].get(str(target)) for run in done]
