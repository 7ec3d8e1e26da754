"""Check what a wheel holds: every file of the package that git tracks, its licence and metadata, and nothing else."""

import subprocess
import sys
import zipfile
from email.parser import Parser

DEPENDENCIES = {
    "numpy",
    "requests",
    "matplotlib",
    "pillow",
    "tqdm",
    "safetensors",
    "threadpoolctl",
    "platformdirs",
}


def main(path: str) -> None:
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        info = next(name.partition("/")[0] for name in names if ".dist-info/" in name)
        metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "tinynet"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    package = {name for name in names if not name.startswith(info)}
    expect("files of the package", set(tracked), package)
    assert "tinynet/py.typed" in package
    assert f"{info}/licenses/LICENSE" in names, sorted(names)
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    expect("dependencies", DEPENDENCIES, {line.split(">")[0].strip() for line in required})
    expect("name", {"tinynet"}, {metadata["Name"]})
    expect("Python", {">=3.11"}, {metadata["Requires-Python"]})
    assert "test" in metadata.get_all("Provides-Extra", [])
    print(f"{path.rpartition('/')[2]}: {len(package)} files, as expected")


def expect(what: str, expected: set[str], found: set[str]) -> None:
    if expected != found:
        sys.exit(f"{what}: missing {sorted(expected - found)}, unexpected {sorted(found - expected)}")


if __name__ == "__main__":
    main(sys.argv[1])
