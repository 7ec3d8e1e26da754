"""Figures computed from a GPU run's results.json: step times, ratios, launch overhead, shares of the limits."""

from typing import Any, NamedTuple

import limit_gpu
from contenders import REFERENCE
from summary import Results, Spread, may_be_timed, spread


class Way(NamedTuple):
    """How a case is trained: the batch size, and whether TF32 is "off" or "on"."""

    case: str
    size: str
    tf32: str


def entries(results: Results, part: str, way: Way, name: str) -> list[dict[str, Any]]:
    """Return what the processes of a contender measured; nothing for one whose losses differ."""
    if not may_be_timed(results, way.case, name):
        return []
    runs = results[part].get(way.case, {}).get(name, [])
    found = [run["by_size"].get(way.size, {}).get(way.tf32) for run in runs if "by_size" in run]
    return [entry for entry in found if entry is not None]


def seconds(results: Results, way: Way, name: str, clock: str = "") -> Spread | None:
    """Return the seconds per step, over all epochs but the first of all processes.

    Args: clock: "device", "wall", or by default the device's if there is one.
    """
    good = [entry for entry in entries(results, "time", way, name) if "failed" not in entry]
    if not clock:
        clock = "device" if any("device" in entry for entry in good) else "wall"
    return spread([value for entry in good for value in entry.get(clock, [])])


def has_events(results: Results, way: Way, name: str) -> bool:
    """Return whether its time is measured by the device."""
    return seconds(results, way, name, "device") is not None


def kernels(results: Results, way: Way, name: str) -> float | None:
    """Return the seconds per step that kernels take."""
    found = spread(
        [entry["kernels"] for entry in entries(results, "kernels", way, name) if "kernels" in entry]
    )
    return None if found is None else found.median


def launch_overhead(results: Results, way: Way, name: str) -> float | None:
    """Return the share of a step, on the wall clock, in which no kernel runs: 1 - kernels / wall."""
    wall, busy = seconds(results, way, name, "wall"), kernels(results, way, name)
    return None if wall is None or busy is None else 1 - busy / wall.median


def floor(results: Results, way: Way) -> limit_gpu.Floor | None:
    """Return the least time of a step at the limits that this run measured."""
    if "bytes_per_second" not in results["limits"]:
        return None
    return limit_gpu.floor(results["cases"][way.case]["needs"][way.size], results["limits"], way.tf32)


def share_of_limit(results: Results, way: Way, name: str) -> float | None:
    """Return that least time as a share of the time that the step took."""
    least, found = floor(results, way), seconds(results, way, name)
    return None if least is None or found is None else least.seconds / found.median


def ways(results: Results, case: str) -> list[Way]:
    """Return the ways that were timed, in the order of the run."""
    found: dict[Way, None] = {}
    for runs in results["time"].get(case, {}).values():
        for run in runs:
            for size, by_tf32 in run.get("by_size", {}).items():
                found |= dict.fromkeys(Way(case, size, tf32) for tf32 in by_tf32)
    return list(found)


def best_peer(results: Results, way: Way) -> str | None:
    """Return the other contender with the lowest median."""
    times = {name: seconds(results, way, name) for name in results["contenders"] if name != REFERENCE}
    timed = {name: found.median for name, found in times.items() if found is not None}
    return min(timed, key=timed.__getitem__, default=None)


def ratio(results: Results, way: Way, name: str) -> float | None:
    """Return a contender's median divided by tinynet's: above 1, tinynet is ahead."""
    theirs, ours = seconds(results, way, name), seconds(results, way, REFERENCE)
    return None if theirs is None or ours is None else theirs.median / ours.median


def failure(results: Results, part: str, case: str, name: str) -> str | None:
    """Return the error of the first process, or of the first way within one, that failed."""
    for run in results[part].get(case, {}).get(name, []):
        if "failed" in run:
            return run["failed"]
        for by_tf32 in run.get("by_size", {}).values():
            for entry in by_tf32.values():
                if "failed" in entry:
                    return entry["failed"]
    return None
