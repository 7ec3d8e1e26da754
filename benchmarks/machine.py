"""What a report says about the machine and the software installed on it."""

import contextlib
import datetime
import importlib.metadata
import importlib.util
import platform
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tinynet.engines.cpu import cores


def describe() -> dict[str, Any]:
    """Return date, CPU, cores, operating system and Python."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "cpu": cpu_model(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "python": platform.python_version(),
    }


def cpu_model() -> str:
    """Return the processor's name, with the widest vector instructions that it reports."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    flags = set(flags[1].split()) if flags else set()
    widest = next((words for flag, words in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
    return ", ".join(filter(None, (name[1] if name else platform.machine(), widest)))


def closure(distributions: Iterable[str]) -> dict[str, str]:
    """Return the installed distributions that these need, including themselves: versions by name.

    Requirements whose markers do not apply here, those of extras, and those not installed are left out.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    waiting = list(distributions)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found[name] = distribution.version
        for text in distribution.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return dict(sorted(found.items()))


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the version of each distribution that is installed."""
    found = {}
    for name in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def installed_megabytes(distributions: Iterable[str]) -> float:
    """Return the total size of the files of these distributions, in MB of 10^6 bytes.

    For a package installed in place, as by ``pip install -e``, its source files are counted.
    """
    paths: set[Path] = set()
    for name in distributions:
        distribution = importlib.metadata.distribution(name)
        listed = {Path(str(distribution.locate_file(file))) for file in distribution.files or ()}
        paths |= listed or _package_files(name)
        if any(path.name.startswith("__editable__") for path in listed):
            paths |= _package_files(name)
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def _package_files(name: str) -> set[Path]:
    """Return the files of the package of that name, except compiled ones."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return set()
    return {
        path
        for folder in spec.submodule_search_locations
        for path in Path(folder).rglob("*")
        if "__pycache__" not in path.parts
    }
