"""python -m tinynet gradcheck."""

import re

import numpy as np
import pytest
from matplotlib.image import imread

import tinynet as tn
from tinynet import datasets
from tinynet.__main__ import main


@pytest.fixture
def data(fashion_mnist, monkeypatch):
    """The real images, loaded once for all tests."""
    monkeypatch.setattr(datasets.fashion_mnist, "load", lambda *_, **__: fashion_mnist)
    return fashion_mnist


def check(*arguments):
    return main(["gradcheck", *map(str, arguments)])


def rows(text):
    """The table's rows: {name: (compared, crossed, verdict)}."""
    found = re.findall(
        r"^(\S+) +\([\d, ]+\) +([\d,]+) +([\d,]+) +\S+ +\S+ +(?:fine|suspicious|wrong|not compared) +(\w+)",
        text,
        re.M,
    )
    return {
        name: (int(compared.replace(",", "")), int(crossed), verdict)
        for name, compared, crossed, verdict in found
    }


@pytest.mark.data
def test_the_default_is_fine(fashion_mnist, capsys):
    assert check() == 0
    text = capsys.readouterr().out
    assert text.startswith("mlp_adam: 784-128-10")
    assert set(rows(text)) == {"2.W", "2.b", "4.W", "4.b", "x"}
    assert {compared + crossed for compared, crossed, _ in rows(text).values()} == {10, 20}
    assert "Fine: for " in text


@pytest.mark.data
@pytest.mark.parametrize("name", tn.recipes.RECIPES)
def test_every_recipe_is_fine(name, data, capsys):
    assert check("--recipe", name, "--elements", 2, "--batch-size", 4) == 0
    found = rows(capsys.readouterr().out)
    assert set(found) == {*tn.recipes.make(name, seed=0).model.named_params(), "x"}
    for compared, crossed, verdict in found.values():
        assert compared + crossed == 2
        assert verdict == "ok"


@pytest.mark.data
def test_a_wrong_backward_is_told(data, capsys, monkeypatch):
    right = tn.Dense.backward

    def wrong(self, dy):
        dx = right(self, dy)
        self.dW *= -1
        return dx

    monkeypatch.setattr(tn.Dense, "backward", wrong)
    assert check() == 1
    text = capsys.readouterr().out
    assert {name: row[2] for name, row in rows(text).items()} == {
        "2.W": "WRONG",
        "4.W": "WRONG",
        "2.b": "ok",
        "4.b": "ok",
        "x": "ok",
    }
    assert "Wrong: 2.W, 4.W." in text
    assert "Start with 4.W" in text


def save(path, *layers, input_shape=(28, 28), loss=None, steps=0, x=None):
    """A small saved model, after ``steps`` steps of training."""
    model = tn.Sequential([*layers], input_shape=input_shape, seed=0)
    if steps:
        rng = np.random.default_rng(0)
        x = rng.integers(0, 256, (16, *input_shape), dtype=np.uint8) if x is None else x
        y = rng.integers(0, model.output_shape[0], 16)
        y = y if loss.is_classification else rng.standard_normal((16, *model.output_shape))
        model.fit(x, y, optimizer=tn.SGD(0.01), loss=loss, batch_size=8, steps_per_epoch=steps, verbose=0)
    model.save(path)
    return path


def small(*head):
    return tn.Rescale(1 / 255), tn.AveragePool2D(7), tn.Flatten(), tn.Dense(10), *head


@pytest.mark.data
@pytest.mark.parametrize("head", [(), (tn.Softmax,), (tn.LogSoftmax,)])
def test_a_saved_model_that_is_small_is_compared_in_every_element(head, data, tmp_path, capsys):
    path = save(tmp_path / "m.safetensors", *small(*(kind() for kind in head)), input_shape=(28, 28, 1))
    assert check("--model", path, "--batch-size", 1) == 0
    text = capsys.readouterr().out
    assert {name: row[0] for name, row in rows(text).items()} == {"3.W": 160, "3.b": 10, "x": 28 * 28}
    assert "every element of each tensor" in text


@pytest.mark.data
def test_a_model_fitted_on_floats_sees_floats(data, tmp_path, monkeypatch, capsys):
    seen = []
    forward = tn.Flatten.forward
    monkeypatch.setattr(
        tn.Flatten,
        "forward",
        lambda self, x, training=False: seen.append(x.max()) or forward(self, x, training),
    )
    x = np.random.default_rng(1).random((16, 28, 28))
    layers = tn.Flatten(), tn.Dense(10), tn.Softmax()
    path = save(tmp_path / "m", *layers, loss=tn.CrossEntropy(label_smoothing=0.1), steps=2, x=x)
    seen.clear()
    assert check("--model", path, "--elements", 2) == 0
    assert 0.5 < max(seen) <= 1 + 1e-5


@pytest.mark.data
def test_options_reach_the_check(data, capsys):
    assert check("--elements", 4, "--seed", 3, "--epsilon", 1e-5, "--batch-size", 2) == 0
    first = capsys.readouterr().out
    assert "epsilon 1e-05" in first
    assert "2 images; up to 4 elements" in first
    assert {row[0] + row[1] for row in rows(first).values()} == {4}
    assert check("--elements", 4, "--seed", 3, "--epsilon", 1e-5, "--batch-size", 2) == 0
    assert capsys.readouterr().out == first
    check("--elements", 4, "--seed", 4, "--epsilon", 1e-5, "--batch-size", 2)
    assert capsys.readouterr().out != first


@pytest.mark.data
def test_sweep_prints_and_draws_the_v(data, tmp_path, capsys):
    path = tmp_path / "v.png"
    assert check("--elements", 4, "--sweep", path) == 0
    text = capsys.readouterr().out
    (line,) = re.findall(r"^all +(.*)$", text, re.M)
    errors = list(map(float, line.split()))  # with steps 1e-1 to 1e-12
    assert len(errors) == 12
    assert errors[5] < errors[0]
    assert errors[5] < errors[11]
    assert f"wrote {path}" in text
    assert imread(path)[..., :3].std() > 0.02


@pytest.mark.data
def test_sweep_has_a_file_of_its_own_choice(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check("--elements", 1, "--batch-size", 2, "--sweep") == 0
    assert (tmp_path / "gradcheck_sweep.png").stat().st_size > 10_000


@pytest.mark.data
class TestErrors:
    """Each error is explained in one line on standard error; the status is 1."""

    def fails(self, capsys, *arguments):
        assert check(*arguments) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert len(captured.err.splitlines()) == 1
        return captured.err

    def test_no_such_model(self, data, tmp_path, capsys):
        error = self.fails(capsys, "--model", tmp_path / "nowhere")
        assert "nowhere: No such file" in error

    def test_no_model(self, data, tmp_path, capsys):
        (tmp_path / "m").write_bytes(b"something else")
        assert "is not a tinynet model" in self.fails(capsys, "--model", tmp_path / "m")

    def test_a_model_of_something_else(self, data, tmp_path, capsys):
        path = save(tmp_path / "m", tn.Dense(3), input_shape=(5,))
        assert "takes inputs of shape (5,)" in self.fails(capsys, "--model", path)

    def test_a_model_of_fewer_classes(self, data, tmp_path, capsys):
        path = save(tmp_path / "m", tn.Flatten(), tn.Dense(3))
        assert "class numbers from 0 to 2" in self.fails(capsys, "--model", path)

    def test_a_regression(self, data, tmp_path, capsys):
        path = save(tmp_path / "m", tn.Flatten(), tn.Dense(3), loss=tn.MeanSquaredError(), steps=1)
        assert "was fitted with MeanSquaredError()" in self.fails(capsys, "--model", path)

    def test_more_images_than_there_are(self, data, capsys):
        assert "at most 60,000" in self.fails(capsys, "--batch-size", 60_001)

    def test_no_folder_for_the_picture(self, data, tmp_path, capsys):
        assert "does not exist" in self.fails(capsys, "--sweep", tmp_path / "missing" / "v.png")


def test_no_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TINYNET_OFFLINE", "1")
    monkeypatch.setattr(datasets.fashion_mnist, "SYSTEM_FOLDERS", ())
    assert check("--data-dir", tmp_path) == 1
    assert "TINYNET_OFFLINE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "nothing"], "invalid choice: 'nothing'"),
        (["--recipe", "cnn", "--model", "m"], "not allowed with argument"),
        (["--elements", "0"], "expected a whole number of at least 1, got '0'"),
        (["--batch-size", "two"], "expected a whole number of at least 1, got 'two'"),
        (["--epsilon", "0"], "expected a number above 0, got '0'"),
        (["--epsilon", "nan"], "expected a number above 0, got 'nan'"),
        (["--seed", "-1"], "expected a whole number of at least 0, got '-1'"),
        (["--sweep", "v.gif"], "expected a path that ends in .png, .svg or .pdf"),
    ],
)
def test_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        check(*arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
