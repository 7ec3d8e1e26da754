"""Each scenario has the fault that it claims, and its page shows the fault where it says."""

import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import tinynet as tn
from tests.support.browser import opened
from tinynet.__main__ import main
from tinynet.study import network, trace_command
from tinynet.study.scenarios import scenario
from tinynet.study.scenarios.catalogue import SCENARIOS

NAMES = (
    *("dead-relu", "vanishing", "exploding", "learning-rate-too-high"),
    *("unscaled-input", "no-shuffle", "zero-init", "wrong-gradient"),
)


def test_all_are_there():
    assert set(SCENARIOS) == set(NAMES)


@pytest.fixture(scope="module")
def outcomes(fashion_mnist):
    """name -> the outcome on real images, trained on first use."""
    (x, y), _ = fashion_mnist
    known = {}

    def outcome(name):
        if name not in known:
            known[name] = scenario.run(SCENARIOS[name], x, y)
        return known[name]

    return outcome


def dense(outcome):
    return [layer for layer in outcome.step.layers if isinstance(layer.layer, tn.Dense)]


def norm_of_dW(layer):
    return float(np.linalg.norm(layer.parameters["W"].gradient))


@pytest.mark.data
@pytest.mark.parametrize("name", NAMES)
def test_the_healthy_twin_learns(name, outcomes):
    losses = outcomes(name).healthy_losses
    assert losses[0] < 3.5
    assert np.mean(losses[-5:]) < losses[0] - 0.4


@pytest.mark.data
def test_dead_relu(outcomes):
    outcome = outcomes("dead-relu")
    relu, first = outcome.step.layers[3], outcome.step.layers[2]
    assert relu.dead_units >= 96
    assert not first.parameters["W"].gradient[:, :96].any()
    assert not first.parameters["W"].update[:, :96].any()
    assert outcome.losses[-1] < outcome.losses[0]


@pytest.mark.data
def test_vanishing(outcomes):
    layers = dense(outcomes("vanishing"))
    assert norm_of_dW(layers[-1]) > 1000 * norm_of_dW(layers[0]) > 0


@pytest.mark.data
def test_exploding(outcomes):
    outcome = outcomes("exploding")
    spread = [float(layer.y.std()) for layer in outcome.step.layers if layer.kind == "ReLU"]
    assert spread == sorted(spread)
    assert spread[-1] > 100 * spread[0]
    assert outcome.losses[0] > 100 * math.log(10)
    assert norm_of_dW(dense(outcome)[0]) > 100


@pytest.mark.data
def test_learning_rate_too_high(outcomes):
    outcome = outcomes("learning-rate-too-high")
    assert outcome.step.loss_before > 3 * outcome.losses[0]  # after a single step
    assert abs(outcome.step.predicted_change) > 10 * abs(outcome.step.change)
    assert dense(outcome)[0].parameters["W"].ratio > 0.1
    assert np.mean(outcome.losses[-10:]) > 2 * np.mean(outcome.healthy_losses[-10:])


@pytest.mark.data
def test_unscaled_input(outcomes):
    outcome = outcomes("unscaled-input")
    assert outcome.step.loss_before == pytest.approx(outcome.losses[0])
    assert outcome.losses[0] > 20 * math.log(10)
    assert outcome.step.layers[1].y.max() == 255
    assert outcome.step.predicted_change < 0 < outcome.step.change


@pytest.mark.data
def test_no_shuffle(outcomes):
    outcome = outcomes("no-shuffle")
    assert len(set(outcome.step.y.tolist())) == 1
    label = int(outcome.step.y[0])
    guesses = outcome.step.loss.probabilities.argmax(1)
    assert np.mean(guesses == label - 1) > 0.9  # the class that came before
    assert min(outcome.losses) < 0.05
    assert outcome.step.loss_before > 3


@pytest.mark.data
def test_zero_init(outcomes):
    outcome = outcomes("zero-init")
    first, last = dense(outcome)
    assert norm_of_dW(first) == norm_of_dW(last) == 0
    assert last.parameters["b"].gradient.any()
    assert outcome.step.loss_before == pytest.approx(math.log(10), abs=0.05)


@pytest.mark.data
def test_wrong_gradient(outcomes):
    outcome = outcomes("wrong-gradient")
    step = outcome.step
    assert not np.array_equal(step.layers[3].dx, step.layers[3].dy * (step.layers[3].y > 0))
    assert outcome.losses[-1] < 0.5 * outcome.losses[0]  # it hides
    with pytest.raises(AssertionError, match="2.W"):
        tn.study.gradcheck(step.model, step.x, step.y, tn.CrossEntropy(), max_elements=30).check()


@pytest.mark.data
@pytest.mark.browser
@pytest.mark.parametrize("name", NAMES)
def test_the_page_links_to_what_it_speaks_of(name, outcomes, chromium, tmp_path):
    path = tmp_path / "page.html"
    scenario.write_page(outcomes(name), path)
    with opened(chromium, path) as page:
        links = page.locator(".look a")
        assert page.locator(".look li").count() >= 4
        for href in links.evaluate_all("links => links.map(link => link.getAttribute('href'))"):
            assert page.locator(href).count() == 1
        points = page.locator(".curves polyline")
        assert points.count() == 2
        for shape in points.evaluate_all("lines => lines.map(line => line.getAttribute('points'))"):
            assert "nan" not in shape.lower()
            assert "inf" not in shape.lower()


# -- the command -----------------------------------------------------------------------------------------


@pytest.mark.data
def test_the_command_writes_the_page_of_a_recipe(fashion_mnist, tmp_path, capsys):
    path = tmp_path / "trace.html"
    assert main(["trace", "--recipe", "mlp_sgd", "--batch-size", "8", "--output", str(path), "--text"]) == 0
    printed = capsys.readouterr().out
    assert "backward 2  Dense(units=300)" in printed
    assert f"wrote {path}" in printed
    text = path.read_text(encoding="utf-8")
    assert "One step on 8 images of Fashion-MNIST" in text
    assert '"classNames":["T-shirt/top"' in text


@pytest.mark.data
def test_the_command_takes_a_saved_model(fashion_mnist, tmp_path, capsys):
    (x, y), _ = fashion_mnist
    model = tn.Sequential([tn.Rescale(1 / 255), tn.Flatten(), tn.Dense(10)], (28, 28), seed=0)
    model.fit(x[:64], y[:64], optimizer=tn.SGD(), loss=tn.SoftmaxCrossEntropy(), verbose=0)
    model.save(tmp_path / "m.safetensors")
    path = tmp_path / "trace.html"
    assert main(["trace", "--model", str(tmp_path / "m.safetensors"), "--output", str(path)]) == 0
    assert "m.safetensors: Rescale → Flatten → Dense" in path.read_text(encoding="utf-8")


@pytest.mark.data
def test_a_saved_model_gets_images_as_it_was_fitted_on_them(fashion_mnist, tmp_path):
    """The model was fitted on scaled images with a channel axis, so the trace's x has both too."""
    (x, y), _ = fashion_mnist
    model = tn.Sequential([tn.Flatten(), tn.Dense(10)], (28, 28, 1), seed=0)
    model.fit(x[:64, ..., None] / 255, y[:64], optimizer=tn.SGD(), loss=tn.SoftmaxCrossEntropy(), verbose=0)
    model.save(tmp_path / "m.safetensors")
    options = trace_command.prepare(None, tmp_path / "m.safetensors", 0)
    given = network.inputs_of(options[0], x[:5], "")
    assert given.shape == (5, 28, 28, 1)
    assert given.max() <= 1
    path = tmp_path / "t.html"
    assert main(["trace", "--model", str(tmp_path / "m.safetensors"), "--output", str(path)]) == 0


@pytest.mark.data
def test_a_saved_model_of_regression_is_refused(fashion_mnist, tmp_path, capsys):
    model = tn.Sequential([tn.Dense(1)], (3,), seed=0)
    model.fit(np.ones((4, 3)), np.ones(4), optimizer=tn.SGD(), loss=tn.MeanSquaredError(), verbose=0)
    model.save(tmp_path / "m.safetensors")
    assert (
        main(["trace", "--model", str(tmp_path / "m.safetensors"), "--output", str(tmp_path / "t.html")]) == 1
    )
    error = capsys.readouterr().err
    assert "expected a model of classes, as Fashion-MNIST has" in error
    assert "Use Python instead: tn.study.trace" in error


@pytest.mark.data
def test_the_command_writes_a_scenario(fashion_mnist, tmp_path):
    path = tmp_path / "zero.html"
    assert main(["trace", "--scenario", "zero-init", "--output", str(path)]) == 0
    text = path.read_text(encoding="utf-8")
    assert "Weights that start at zero" in text
    assert re.search(r"<h2>What to look at</h2>", text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "missing.safetensors"], "missing.safetensors"),
        (["--batch-size", "0"], "--batch-size"),
        (["--seed", "-1"], "seed"),
        (["--output", "no-such-folder/page.html"], "no-such-folder"),
    ],
)
@pytest.mark.data
def test_the_command_explains_errors(arguments, words, fashion_mnist, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["trace", *arguments]) == 1
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_scenario_sets_its_batch_itself(capsys):
    assert main(["trace", "--scenario", "zero-init", "--batch-size", "7"]) == 2
    assert "--scenario: expected without --batch-size" in capsys.readouterr().err


@pytest.mark.data
def test_text_on_a_terminal_that_knows_only_ascii(fashion_mnist, tmp_path):
    command = [
        sys.executable,
        "-m",
        "tinynet",
        "trace",
        "--batch-size",
        "2",
        "--text",
        "--output",
        str(tmp_path / "t.html"),
    ]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "backward 2  Dense" in done.stdout


def test_recipe_and_scenario_exclude_each_other(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["trace", "--recipe", "cnn", "--scenario", "vanishing"])
    assert exit_.value.code == 2
    assert "not allowed with" in capsys.readouterr().err
