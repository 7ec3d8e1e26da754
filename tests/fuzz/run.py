"""Fuzz everything that reads files, each target in a process of its own.

    python -m pip install -e '.[fuzz]'
    python -m tests.fuzz.run --seconds 60
    python -m tests.fuzz.run model description --seconds 3600 --keep

It begins with the files of tests/fuzz/corpus; --keep adds to them what reached new code. An input that ends a target
with anything but the documented error is written to --failures: put it into the corpus of its target, where the tests
read it from then on, and fix the library.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
MEMORY = 50_000  # kB that a target may take
MEMORY_DISK = "/dev/shm" if os.path.isdir("/dev/shm") else None  # each run writes a file
NAMES = ("idx", "gzip", "model", "description", "checkpoint", "resume")


def main() -> int:
    options = parse()
    if options.child:
        fuzz(options)
        return 0
    options.failures.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.targets or NAMES:
        print(f"fuzzing {name} for {options.seconds} s", flush=True)
        command = [sys.executable, "-m", "tests.fuzz.run", name, "--child", "--seconds", str(options.seconds)]
        command += ["--failures", str(options.failures.resolve()), *(["--keep"] if options.keep else [])]
        root = CORPUS.parents[2]
        # The fuzzer ends its process without cleaning up, so its temporary files have a folder of ours.
        with tempfile.TemporaryDirectory(prefix="tinynet-fuzz-", dir=MEMORY_DISK) as folder:
            environment = os.environ | {"TMPDIR": folder}
            done = subprocess.run(
                command, cwd=root, env=environment, stderr=subprocess.PIPE, text=True, check=False
            )
        lines = done.stderr.splitlines()
        print(next((line for line in reversed(lines) if line.startswith("Done")), ""))
        if done.returncode != 0:
            print("\n".join(lines[-60:]))
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}; the inputs are in {options.failures}")
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fuzz everything that reads files.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target; default: %(default)s")
    parser.add_argument("--keep", action="store_true", help="add to the corpus what reached new code")
    parser.add_argument("--failures", type=Path, default=Path("runs/fuzz"), help="default: %(default)s")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.targets) - set(NAMES)
    if unknown:
        parser.error(f"unknown targets: {', '.join(sorted(unknown))}; known: {', '.join(NAMES)}")
    return options


def fuzz(options: argparse.Namespace) -> None:
    """Fuzz one target; the fuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["tinynet", "gzip"]):
        from tests.fuzz.targets import TARGETS

    (name,) = options.targets
    new = Path(tempfile.mkdtemp())  # what reaches new code goes to the first folder
    folders = [CORPUS / name] if options.keep else [new, CORPUS / name]
    arguments = [
        # atheris itself keeps some kilobytes a run, so memory in all may grow; `modest` watches that of each.
        *(f"-max_total_time={options.seconds}", "-timeout=5", "-rss_limit_mb=0", "-max_len=4096"),
        *(f"-artifact_prefix={options.failures}/{name}-", "-print_final_stats=1", *map(str, folders)),
    ]
    atheris.Setup([sys.argv[0], *arguments], modest(TARGETS[name]))
    atheris.Fuzz()


def modest(target):
    """The target, where it takes less than 50 MB; it fails where it takes more."""
    import resource

    def call(data: bytes) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        target(data)
        taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if taken > MEMORY:
            raise MemoryError(f"expected to take less than {MEMORY:,} kB, took {taken:,} kB")

    return call


if __name__ == "__main__":
    sys.exit(main())
