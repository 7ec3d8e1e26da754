"""The command line: python -m tinynet download | trace | gradcheck | exercise | info."""

import argparse
import platform
import sys
from itertools import zip_longest
from pathlib import Path

from tinynet.study import exercises, gradcheck_command, trace_command
from tinynet.support import console
from tinynet.version import __version__


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status is 0, or 1 after an error, which is explained on standard error."""
    parser = argparse.ArgumentParser(prog="python -m tinynet", description="tinynet's command line")
    parser.add_argument("--version", action="version", version=f"tinynet {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    download = commands.add_parser("download", help="download and check Fashion-MNIST")
    download.add_argument(
        "--data-dir", type=Path, help="where to put the files; default: the user's cache folder"
    )
    download.set_defaults(run=_download)
    info = commands.add_parser("info", help="versions, BLAS library, kernels and threads, GPU")
    info.set_defaults(run=_info)
    for module in (trace_command, gradcheck_command, exercises):
        module.add_command(commands)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status


def _download(options: argparse.Namespace) -> int:
    from tinynet.datasets import fashion_mnist

    try:
        (x_train, _), (x_test, _) = fashion_mnist.load(options.data_dir, archive=True)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Fashion-MNIST is ready: {len(x_train):,} training images and {len(x_test):,} test images")
    return 0


def _info(options: argparse.Namespace) -> int:
    import os

    import numpy as np

    from tinynet import engines
    from tinynet.engines import cpu
    from tinynet.engines.gpu.info import describe, gpu_info

    print(f"tinynet  {__version__}")
    print(
        f"python   {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    )
    print(f"numpy    {np.__version__}")
    for pool in cpu.blas_info():
        print(
            f"blas     {pool['internal_api']} {pool['version']}, {pool.get('architecture', 'unknown')} kernels, "
            f"{pool['num_threads']} threads"
        )
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        if name in os.environ:
            print(
                f"         {name}={os.environ[name]} is set, which may make BLAS use other kernels or threads"
            )
    print(f"engine   {engines.current()}{engines.about_numba()}")
    for heading, line in zip_longest(["gpu"], describe(gpu_info()), fillvalue=""):
        print(f"{heading:<8} {line}")
    return 0


if __name__ == "__main__":
    console.run(main)
