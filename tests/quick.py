"""An answer in less than a minute: ``python -m tests.quick [pytest's options]``.

The tests that find most mistakes for their time: gradients of every layer and loss, optimizers, models, a training run,
the rules of the house. ``python -m pytest`` runs them all.
"""

import sys
import time

import pytest

PATHS = [
    "tests/layers/test_layer_gradients.py",
    "tests/layers/test_layers.py",
    "tests/test_losses.py",
    "tests/test_optimizers.py",
    "tests/test_house.py",
    "tests/test_reading_path.py",
    "tests/test_old_files.py",
    "tests/model",
    "tests/training/test_training.py",
]


def main(options: list[str]) -> int:
    started = time.perf_counter()
    status = pytest.main(["-q", "-n", "2", "--durations=3", *PATHS, *options])
    print(f"{time.perf_counter() - started:.0f} s")
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
