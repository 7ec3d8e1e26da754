"""python -m tinynet."""

import subprocess
import sys

import pytest

import tinynet as tn
from tinynet.__main__ import main


def test_info_tells_versions_kernels_and_threads(capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert "tinynet" in text
    assert "numpy" in text


def test_info_tells_of_settings_that_pin_blas(capsys, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    main(["info"])
    assert "OPENBLAS_CORETYPE=Haswell is set" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"tinynet {tn.__version__}\n"


@pytest.mark.data
def test_download(fashion_mnist, capsys):
    assert main(["download"]) == 0
    assert "60,000 training images and 10,000 test images" in capsys.readouterr().out


def test_download_that_fails_explains_itself(tmp_path, monkeypatch, capsys):
    from tinynet.datasets import fashion_mnist

    monkeypatch.setenv("TINYNET_OFFLINE", "1")
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDERS", ())
    assert main(["download", "--data-dir", str(tmp_path)]) == 1
    assert "TINYNET_OFFLINE" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["no-such-command"]])
def test_usage(arguments):
    done = subprocess.run(
        [sys.executable, "-m", "tinynet", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "usage: python -m tinynet" in done.stderr
