"""The main example, shortened, on the real images; and the recipes it trains."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tinynet as tn
from tinynet import recipes
from tinynet.training.run import COLUMNS

ROOT = Path(__file__).parents[2]
SCRIPT, README = ROOT / "examples" / "train_fashion.py", ROOT / "README.md"
PICTURES = {"history", "samples", "confusion_matrix", "predictions", "probabilities", "model"}

pytestmark = pytest.mark.data


def run(*arguments, **settings):
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=1200,
        encoding="utf-8",
        check=False,
        **settings,
    )


@pytest.fixture(scope="module")
def one_epoch(fashion_mnist, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return run("--recipe", "mlp_adam", "--epochs", 1, "--output", folder), folder


class TestMainJob:
    def test_it_prints_what_it_does_and_how_well(self, one_epoch):
        done, _ = one_epoch
        assert done.returncode == 0, done.stderr
        text = done.stdout
        assert "55,000 training, 5,000 validation and 10,000 test images" in text
        assert "Total params: 101,770" in text
        assert float(re.search(r"^test accuracy: (0\.\d{4})$", text, re.MULTILINE)[1]) > 0.8
        assert "macro average" in text
        assert re.search(r"^#4: .+ \(\d+\.\d%\): (right|wrong)", text, re.MULTILINE)
        assert "it/s" not in done.stderr  # no bar without a terminal

    def test_the_first_five_probabilities_are_the_models(self, one_epoch, fashion_mnist):
        done, folder = one_epoch
        model = tn.load_model(folder / "model.safetensors")
        expected = model.predict(fashion_mnist[1][0][:5])
        for index, name in enumerate(tn.datasets.fashion_mnist.CLASS_NAMES):
            cells = re.search(
                rf"^{re.escape(name)} +(0\.\d{{4}}.*)$", done.stdout.split("test images:")[1], re.MULTILINE
            )
            np.testing.assert_allclose(
                [float(cell) for cell in cells[1].split()], expected[:, index], atol=6e-5
            )

    def test_it_names_what_it_wrote(self, one_epoch):
        done, folder = one_epoch
        written = {path.name for path in folder.iterdir()}
        assert written == {f"{name}.png" for name in PICTURES} | {
            "history.csv",
            "model.safetensors",
            "checkpoint.safetensors",
        }
        listed = done.stdout.rpartition("wrote to ")[2]
        assert all(name in listed for name in written)
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.glob("*.png"))

    def test_the_history_file_is_the_table(self, one_epoch):
        done, folder = one_epoch
        with open(folder / "history.csv", newline="") as file:
            (row,) = csv.DictReader(file)
        assert list(row) == ["epoch", *COLUMNS]
        assert f"{float(row['val_accuracy']):.4f}" in done.stdout

    def test_the_saved_model_is_the_trained_one(self, one_epoch, fashion_mnist):
        done, folder = one_epoch
        model = tn.load_model(folder / "model.safetensors")
        x_test, y_test = fashion_mnist[1]
        assert f"test accuracy: {model.evaluate(x_test, y_test)['accuracy']:.4f}" in done.stdout

    def test_all_recipes_end_with_a_table(self, fashion_mnist, tmp_path):
        command = "--recipe all --seed 1"
        assert f"python examples/train_fashion.py {command}\n" in README.read_text(encoding="utf-8")
        done = run(*command.split(), "--epochs", 1, "--train-size", 500, "--output", tmp_path)
        assert done.returncode == 0, done.stderr
        rows = done.stdout.rpartition("test accuracy\n")[2].splitlines()
        assert [row.split()[0] for row in rows] == list(recipes.RECIPES)
        assert {path.name for path in tmp_path.iterdir()} == set(recipes.RECIPES)
        # The recipe without validation, with augmentation, tested with mirror images.
        best = done.stdout.partition("cnn_best: ")[2]
        assert "500 training, 0 validation and" in best
        assert re.search(
            r"averaged over each test image and its mirror image; without that: "
            r"0\.\d{4}\ntest accuracy: 0\.\d{4}\n",
            best,
        )
        assert (tmp_path / "cnn_best" / "augmented.png").exists()
        assert not (tmp_path / "cnn" / "augmented.png").exists()

    def test_its_options_reach_the_training(self, fashion_mnist, tmp_path):
        done = run(
            *("--recipe", "mlp_sgd", "--epochs", 1, "--batch-size", 500, "--learning-rate", 0.125),
            *("--seed", 7, "--output", tmp_path / "a" / "b"),
        )
        assert done.returncode == 0, done.stderr
        assert "batches of 500, seed 7" in done.stdout
        assert "1.25e-01" in done.stdout
        assert tn.load_model(tmp_path / "a" / "b" / "model.safetensors").seed == 7

    def test_without_data_it_explains(self, tmp_path):
        environment = os.environ | {"TINYNET_OFFLINE": "1"}
        folders = tn.datasets.fashion_mnist.SYSTEM_FOLDERS
        if any(folder.exists() for folder in folders):
            pytest.skip("the data set is installed on this system")
        done = run("--data-dir", tmp_path, env=environment)
        assert done.returncode != 0
        assert "TINYNET_OFFLINE" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--epochs", 0], "epochs: expected a positive int"),
            (["--train-size", -5], "training_examples: expected a positive int, got -5"),
            (["--learning-rate", -1], "learning rate: expected"),
        ],
    )
    def test_bad_options_are_explained(self, fashion_mnist, tmp_path, arguments, message):
        done = run("--recipe", "mlp_adam", "--output", tmp_path, *arguments)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_gpu_that_is_not_there_is_explained(self, fashion_mnist, tmp_path):
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
        done = run("--recipe", "mlp_adam", "--device", "gpu", "--output", tmp_path, env=environment)
        assert done.returncode == 1
        assert done.stderr.startswith("train_fashion.py: device 'gpu': CuPy ")
        assert "Traceback" not in done.stderr

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to whole console groups")
    def test_ctrl_c_ends_at_a_batch_and_keeps_the_model(self, fashion_mnist, tmp_path):
        process = subprocess.Popen(
            [sys.executable, "-u", SCRIPT, "--recipe", "mlp_adam", "--epochs", "200", "--output", tmp_path],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            for line in process.stdout:
                if re.match(r" +1 +\d", line):
                    break
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=1200)
        finally:
            process.kill()
        assert process.returncode == 130, errors
        assert "interrupted" in output
        assert "to resume, use the same options and --resume" in output
        assert tn.load_model(tmp_path / "model.safetensors").predict(fashion_mnist[1][0][:1]).shape == (1, 10)

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to whole console groups")
    def test_resumed_it_ends_as_one_that_was_not_stopped(self, fashion_mnist, tmp_path):
        """After pressing Ctrl-C twice, wherever the second one comes."""
        arguments = [
            "--recipe",
            "mlp_adam",
            "--epochs",
            "40",
            "--train-size",
            "6000",
            "--output",
            str(tmp_path),
        ]
        process = subprocess.Popen(
            [sys.executable, "-u", SCRIPT, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            for line in process.stdout:
                if re.match(r" +2 +\d", line):
                    break
            process.send_signal(signal.SIGINT)
            time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=1200)
        finally:
            process.kill()
        assert process.returncode == 130, errors
        assert "Traceback" not in errors

        done = run(*arguments, "--resume")
        assert done.returncode == 0, done.stderr
        assert re.search(
            r"^trained \d+ epochs, \d+\.\d s since the run was resumed$", done.stdout, re.MULTILINE
        )
        # The second epoch is repeated if it was printed but not yet in the checkpoint.
        assert not re.search(
            r"^ +1 +\d\.", done.stdout.partition("epoch  ")[2].partition("\n\n")[0], re.MULTILINE
        )

        (x, y), _ = fashion_mnist
        recipe = recipes.make("mlp_adam", seed=0, epochs=40, training_examples=6000)
        history = recipe.model.fit(
            x[5_000:11_000],
            y[5_000:11_000],
            validation_data=(x[:5_000], y[:5_000]),
            callbacks=recipe.callbacks,
            verbose=0,
            **recipe.fit_arguments(),
        )
        resumed = tn.load_model(tmp_path / "model.safetensors")
        np.testing.assert_array_equal(resumed.params, recipe.model.params)
        with open(tmp_path / "history.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        for name in ("loss", "val_accuracy"):
            assert [float(row[name]) for row in rows] == history.history[name]

    def test_there_is_nothing_to_resume_in_an_empty_folder(self, fashion_mnist, tmp_path):
        done = run("--recipe", "mlp_adam", "--output", tmp_path, "--resume")
        assert done.returncode == 1
        assert "there is no such checkpoint; leave resume out to start a new run" in done.stderr
        assert "Traceback" not in done.stderr


class TestRecipes:
    @pytest.mark.parametrize(
        ("name", "params", "batch_size"),
        [
            ("mlp_sgd", 266_610, 32),
            ("mlp_adam", 101_770, 32),
            ("mlp_bn", 571_018, 64),
            ("cnn", 225_034, 64),
            ("cnn_small", 93_994, 64),
            ("cnn_best", 392_690, 128),
        ],
    )
    def test_they_are_the_networks_that_their_names_promise(self, name, params, batch_size):
        recipe = recipes.make(name, seed=0)
        rows = recipe.model.describe()
        assert (recipe.name, recipe.batch_size) == (name, batch_size)
        assert sum(row.params for row in rows) == params

    def test_settings_that_are_none_stay_the_recipes(self):
        recipe = recipes.make("mlp_sgd", epochs=None, batch_size=7)
        assert (recipe.epochs, recipe.batch_size) == (30, 7)

    def test_the_small_one_is_small_and_sees_each_image_as_it_is(self):
        recipe = recipes.make("cnn_small", seed=0)
        assert recipe.model.params.size < 100_000
        assert recipe.augment is None
        assert not recipe.average_flips

    def test_pooling_before_relu_is_the_same_function(self):
        """The order of layers in the cnn recipe against the usual order."""
        ours = recipes.make("cnn", seed=0).model
        order = [0, 1, 2, 4, 3, 5, 7, 6, *range(8, len(ours.layers))]
        kinds = [ours.layers[index] for index in order]
        usual = tn.Sequential([type(layer).from_config(layer.config()) for layer in kinds], (28, 28), seed=0)
        for theirs, mine in zip(usual.layers, kinds, strict=True):
            for name in mine.param_specs:
                setattr(theirs, name, getattr(mine, name))
        rng = np.random.default_rng(0)
        x, y = rng.integers(0, 256, (8, 28, 28), dtype=np.uint8), rng.integers(0, 10, 8)
        losses = [model.loss_and_gradients(x, y, tn.CrossEntropy()) for model in (ours, usual)]
        assert losses[0] == losses[1]
        np.testing.assert_allclose(ours.grads, usual.grads, rtol=1e-5, atol=1e-7)

    def test_an_unknown_recipe_is_refused(self):
        with pytest.raises(ValueError, match="unknown recipe 'cnn9'; known: mlp_sgd"):
            recipes.make("cnn9")

    @pytest.mark.parametrize("name", recipes.RECIPES)
    def test_two_thousand_images_are_enough_to_learn_something(self, name, fashion_mnist):
        (x, y), (x_test, y_test) = fashion_mnist
        recipe = recipes.make(name, seed=0, epochs=5, training_examples=2000)
        recipe.model.fit(
            x[:2000],
            y[:2000],
            validation_data=(x[2000:3000], y[2000:3000]),
            callbacks=recipe.callbacks,
            verbose=0,
            **recipe.fit_arguments(),
        )
        assert recipe.model.evaluate(x_test[:2000], y_test[:2000])["accuracy"] > {"mlp_sgd": 0.6}.get(
            name, 0.75
        )
