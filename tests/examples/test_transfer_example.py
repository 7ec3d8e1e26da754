"""The transfer-learning example, shortened, on the real images."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "transfer_learning.py"
QUICK = ("--epochs", 1, "--train-size", 1500, "--test-size", 300, "--steps", 20, "--repeats", 2)

pytestmark = pytest.mark.data


def run(*arguments):
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=1200,
        encoding="utf-8",
        check=False,
    )


@pytest.fixture(scope="module")
def short(fashion_mnist, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer") / "a"
    return run(*QUICK, "--labels", 20, 5, "--output", folder), folder


def test_it_prints_the_accuracies_of_every_method(short):
    done, _ = short
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"^classes 0 to 4: 1,500 images, epochs: 1, test accuracy 0\.\d{4}", done.stdout, re.MULTILINE
    )
    assert "on 300 images, mean (lowest-highest) of 2 draws of the labels" in done.stdout
    rows = re.findall(r"^ +(\d+)((?: +0\.\d{4} \(0\.\d{4}-0\.\d{4}\)){4})$", done.stdout, re.MULTILINE)
    assert [count for count, _ in rows] == ["5", "20"]
    for _, cells in rows:
        numbers = [float(number) for number in re.findall(r"0\.\d{4}", cells)]
        for mean, lowest, highest in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True):
            assert lowest - 1e-4 <= mean <= highest + 1e-4


def test_it_writes_the_picture(short):
    done, folder = short
    assert [path.name for path in folder.iterdir()] == ["transfer.png"]
    assert (folder / "transfer.png").read_bytes().startswith(b"\x89PNG")
    assert str(folder / "transfer.png") in done.stdout


def test_equal_seeds_give_equal_tables(short, tmp_path):
    again = run(*QUICK, "--labels", 5, "--output", tmp_path)
    row = re.search(r"^ +5 .*$", short[0].stdout, re.MULTILINE)[0]
    assert row in again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--labels", 0), "--labels: expected numbers from 1 to 6000"),
        (("--steps", 0), "--steps: expected a positive int"),
    ],
)
def test_bad_options_are_explained(arguments, message):
    done = run(*arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
