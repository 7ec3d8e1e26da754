"""The pruning example, shortened, on the real images."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinynet as tn

SCRIPT = Path(__file__).parents[2] / "examples" / "prune_fashion.py"
QUICK = ("--epochs", 1, "--train-size", 1000, "--test-size", 300, "--timings", 1)
ROW = r"^(\D+?) +(\d+)% +([\d,]+) +([\d,]+) +([\d,.]+) +(0\.\d{4})$"

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


def rows(done):
    found = re.findall(ROW, done.stdout, re.MULTILINE)
    return [
        (name, int(level), *(int(cell.replace(",", "")) for cell in cells[:2]))
        for name, level, *cells in found
    ]


def test_every_level_is_a_row(fashion_mnist, tmp_path):
    done = run(*QUICK, "--sparsities", 0.9, 0.5, "--shares", 0.5, "--output", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    whole, half, most, units = rows(done)
    assert [row[:2] for row in (whole, half, most, units)] == [
        ("unpruned", 0),
        ("single weights zeroed", 50),
        ("single weights zeroed", 90),
        ("whole units removed", 50),
    ]
    assert whole[2] > half[2] > most[2] > 0.1 * whole[2]
    assert half[3] == most[3] == whole[3] > 2 * units[3]  # multiply-adds
    assert (tmp_path / "a" / "pruning.png").read_bytes().startswith(b"\x89PNG")


def test_it_takes_a_model(fashion_mnist, tmp_path):
    layers = [tn.Flatten(), tn.Dense(20), tn.ReLU(), tn.Dense(10), tn.LogSoftmax()]
    model = tn.Sequential(layers, input_shape=(28, 28), seed=0)
    x, y = fashion_mnist[0]
    model.fit(
        x[:500], y[:500], optimizer=tn.Adam(), loss=tn.NegativeLogLikelihood(), verbose=0, batch_size=100
    )
    model.save(tmp_path / "m.safetensors")
    done = run(
        *(
            *QUICK,
            "--model",
            tmp_path / "m.safetensors",
            "--sparsities",
            "--shares",
            0.5,
            "--output",
            tmp_path,
        )
    )
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'm.safetensors'}: 15,910 parameters, test accuracy 0." in done.stdout
    whole, units = rows(done)
    assert (whole[3], units[3]) == (784 * 20 + 200, 784 * 10 + 100)
    assert units[2] <= 784 * 10 + 10 + 100 + 10
    np.testing.assert_array_equal(tn.load_model(tmp_path / "m.safetensors").params, model.params)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--timings", 0), "--timings: expected a positive int"),
        (("--sparsities", 1.5), "--sparsities, --shares: expected numbers of at least 0"),
        (("--model", "nowhere.safetensors"), "nowhere.safetensors"),
    ],
)
def test_bad_options_are_explained(fashion_mnist, tmp_path, arguments, message):
    done = run(*QUICK, "--output", tmp_path, *arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
