"""predict_image.py: pictures in, classes out; problems are reported, and the other pictures are still processed."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image, ImageOps

import tinynet as tn
from tinynet import recipes
from tinynet.datasets import from_image_file
from tinynet.datasets.fashion_mnist import CLASS_NAMES

SCRIPT = Path(__file__).parents[2] / "examples" / "predict_image.py"
LINE = re.compile(
    r"^(?P<path>.+): (?P<name>[^:]+) \((?P<share>[\d.]+)%\), then (?P<second>.+) \((?P<rest>[\d.]+)%\)$"
)


def run(*arguments, **settings):
    """Run the script in its own process, which finds tinynet wherever it is started."""
    return subprocess.run(
        [sys.executable, "-W", "error", SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=1200,
        encoding="utf-8",
        check=False,
        env=os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])},
        **settings,
    )


@pytest.fixture(scope="module")
def script():
    """The script as a module, for tests that don't need a process."""
    spec = importlib.util.spec_from_file_location("predict_image", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained(fashion_mnist):
    """A small model that recognises clothes quite well."""
    (x, y), _ = fashion_mnist
    recipe = recipes.make("mlp_adam", seed=0, epochs=2, training_examples=20_000)
    recipe.model.fit(x[:20_000], y[:20_000], verbose=0, **recipe.fit_arguments())
    return recipe.model


@pytest.fixture(scope="module")
def model_file(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    trained.save(path)
    return path


def untrained(input_shape=(28, 28), classes=10, fitted=True):
    layers = [tn.Rescale(1 / 255), tn.Flatten(), tn.Dense(classes), tn.Softmax()]
    model = tn.Sequential(layers, input_shape, seed=0)
    if fitted:
        x = np.full((2, *input_shape), 9, np.uint8)
        model.fit(x, np.array([0, 1]), optimizer=tn.SGD(0.0), loss=tn.CrossEntropy(), verbose=0)
    return model


@pytest.fixture
def any_model(tmp_path):
    """A model that has learned nothing, for tests without the data set."""
    path = tmp_path / "untrained.safetensors"
    untrained().save(path)
    return path


@pytest.fixture
def shirt(tmp_path):
    """A picture of a shirt, more or less."""
    picture = Image.new("RGB", (300, 400), "white")
    for box in ((20, 40, 280, 120), (80, 40, 220, 380)):
        picture.paste((30, 60, 150), box)
    path = tmp_path / "shirt.png"
    picture.save(path)
    return path


def in_a_shop(image, number):
    """Return an image of the data set as an ordinary picture, of one of four kinds."""
    side, (width, height) = 280, (400, 300)
    thing = Image.fromarray(255 - image).resize((side, side), Image.Resampling.BICUBIC)
    picture = Image.new("L", (width, height), 255)
    picture.paste(thing, ((width - side) // 2, (height - side) // 2))
    return [
        lambda: picture,
        lambda: ImageOps.invert(picture),
        lambda: ImageOps.colorize(picture, (90, 0, 0), (255, 255, 255)),
        lambda: ImageOps.colorize(picture, (0, 0, 0), (235, 235, 235)).transpose(Image.Transpose.ROTATE_90),
    ][number]()


@pytest.mark.data
class TestRealImages:
    def test_main_path(self, model_file, trained, fashion_mnist, tmp_path):
        """Every kind of picture in one call: what is printed and plotted is what the model predicts."""
        sideways = Image.Exif()
        sideways[0x0112] = 6
        settings = [("png", {}), ("jpg", {}), ("jpeg", {"quality": 90}), ("png", {"exif": sideways})]
        files = []
        for number, (suffix, how) in enumerate(settings):
            files.append(tmp_path / f"picture {number}.{suffix}")
            in_a_shop(fashion_mnist[1][0][number], number).save(files[-1], **how)
        done = run(*files, "--model", model_file, "--output", tmp_path / "out" / "deep")
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == 2 * len(files)
        for path, told, place in zip(files, lines[::2], lines[1::2], strict=True):
            chances = trained.predict_proba(from_image_file(path)[None])[0]
            first, second = np.argsort(chances)[:-3:-1]
            match = LINE.match(told)
            assert (match["path"], match["name"], match["second"]) == (
                str(path),
                CLASS_NAMES[first],
                CLASS_NAMES[second],
            )
            assert float(match["share"]) == pytest.approx(100 * chances[first], abs=0.06)
            assert float(match["rest"]) == pytest.approx(100 * chances[second], abs=0.06)
            target = tmp_path / "out" / "deep" / f"{path.stem}_probabilities.png"
            assert place == f"  {target}"
            assert imread(target).shape[1] > 600
        assert len(list((tmp_path / "out" / "deep").iterdir())) == len(files)

    @pytest.mark.parametrize("number", range(4))
    def test_a_picture_of_a_test_image_is_recognized_like_it(self, number, trained, fashion_mnist, tmp_path):
        images, labels = fashion_mnist[1][0][:120], fashion_mnist[1][1][:120]
        sideways = Image.Exif()
        sideways[0x0112] = 6 if number == 3 else 1
        converted = []
        for image in images:
            in_a_shop(image, number).save(tmp_path / "picture.png", exif=sideways)
            converted.append(from_image_file(tmp_path / "picture.png"))
        found, direct = trained.predict_classes(np.stack(converted)), trained.predict_classes(images)
        assert (found == direct).mean() > 0.88
        assert (found == labels).mean() > (direct == labels).mean() - 0.1

    def test_an_image_of_the_data_set_is_predicted_as_it_is(
        self, script, model_file, trained, fashion_mnist, tmp_path, capsys
    ):
        files = [tmp_path / f"{index}.png" for index in range(10)]
        for path, image in zip(files, fashion_mnist[1][0], strict=False):
            Image.fromarray(image).save(path)
        assert script.main([*map(str, files), "--model", str(model_file), "--output", str(tmp_path)]) == 0
        told = capsys.readouterr().out.splitlines()[::2]
        expected = [CLASS_NAMES[label] for label in trained.predict_classes(fashion_mnist[1][0][:10])]
        assert [LINE.match(line)["name"] for line in told] == expected


class TestScript:
    def test_its_defaults_are_what_the_main_job_writes(self, shirt, any_model, tmp_path):
        folder = tmp_path / "elsewhere" / "runs" / "mlp_bn"
        folder.mkdir(parents=True)
        shutil.copy(any_model, folder / "model.safetensors")
        done = run(shirt, cwd=tmp_path / "elsewhere")
        assert done.returncode == 0, done.stderr
        assert LINE.match(done.stdout.splitlines()[0])
        written = [path.name for path in (tmp_path / "elsewhere" / "runs" / "predictions").iterdir()]
        assert written == ["shirt_probabilities.png"]

    def test_a_bad_file_is_told_and_the_good_ones_are_done(self, shirt, any_model, tmp_path):
        text = tmp_path / "text.png"
        text.write_text("a shirt, blue")
        missing = tmp_path / "missing.jpg"
        done = run(missing, shirt, text, tmp_path, "--model", any_model, "--output", tmp_path / "out")
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        problems = done.stderr.splitlines()
        assert len(problems) == 3
        assert problems[0] == f"predict_image.py: {missing}: No such file or directory"
        assert problems[1].startswith(
            f"predict_image.py: {text}: expected a picture, such as a PNG or JPEG file, got another"
        )
        assert problems[2].startswith(f"predict_image.py: {tmp_path}: ")
        assert done.stdout.startswith(f"{shirt}: ")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["shirt_probabilities.png"]

    def test_two_pictures_of_one_name_get_a_picture_each(self, script, shirt, any_model, tmp_path, capsys):
        (tmp_path / "other").mkdir()
        other = tmp_path / "other" / "shirt.jpg"
        Image.open(shirt).save(other)
        for _ in range(2):  # a second call overwrites the first one's files
            arguments = [shirt, other, shirt, "--model", any_model, "--output", tmp_path / "out"]
            assert script.main([*map(str, arguments)]) == 0
            assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
                "shirt_probabilities.png",
                "shirt_probabilities2.png",
                "shirt_probabilities3.png",
            ]
        assert capsys.readouterr().out.count("shirt_probabilities3.png") == 2

    def test_models_of_images_with_a_channel(self, script, shirt, tmp_path, capsys):
        path = tmp_path / "model.safetensors"
        model = untrained((28, 28, 1))
        model.save(path)
        assert script.main([str(shirt), "--model", str(path), "--output", str(tmp_path / "out")]) == 0
        chances = model.predict_proba(from_image_file(shirt)[None, :, :, None])[0]
        out, err = capsys.readouterr()
        assert float(LINE.match(out.splitlines()[0])["share"]) == pytest.approx(100 * chances.max(), abs=0.06)
        assert not err

    def test_a_model_that_was_not_fitted_on_bytes_is_doubted(self, script, shirt, tmp_path, capsys):
        path = tmp_path / "model.safetensors"
        untrained(fitted=False).save(path)
        assert script.main([str(shirt), "--model", str(path), "--output", str(tmp_path / "out")]) == 0
        assert f"{path}: this model was not fitted on an array of bytes" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("input_shape", "classes"), [((28, 28, 3), 10), ((784,), 10), ((32, 32), 10), ((28, 28), 3)]
    )
    def test_models_of_something_else_are_refused(self, script, input_shape, classes, shirt, tmp_path):
        path = tmp_path / "model.safetensors"
        untrained(input_shape, classes).save(path)
        with pytest.raises(
            ValueError, match=r"expected a model from images \(28, 28\) to 10 classes, got"
        ) as error:
            script.main([str(shirt), "--model", str(path), "--output", str(tmp_path / "out")])
        assert str(error.value).startswith(f"{path}: ")
        assert f"got one from {input_shape} to ({classes},)" in str(error.value)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "there is no such model; train one with python examples/train_fashion.py"),
            (b"", "is not a tinynet model"),
            (b"\x10\0\0\0\0\0\0\0 but no model at all", "is damaged or not a tinynet model"),
        ],
    )
    def test_bad_model_files_are_explained(self, content, message, shirt, tmp_path):
        path = tmp_path / "model.safetensors"
        if content is not None:
            path.write_bytes(content)
        done = run(shirt, "--model", path, "--output", tmp_path / "out")
        assert done.returncode == 1
        assert not done.stdout
        assert done.stderr.startswith(f"predict_image.py: {path}: {message}")
        assert "Traceback" not in done.stderr

    def test_an_output_that_is_a_file_is_explained(self, shirt, any_model, tmp_path):
        done = run(shirt, "--model", any_model, "--output", shirt)
        assert done.returncode == 1
        assert done.stderr.startswith("predict_image.py: ")
        assert str(shirt) in done.stderr
        assert "Traceback" not in done.stderr

    def test_without_a_picture_it_says_how_it_is_used(self):
        done = run()
        assert done.returncode == 2
        assert "IMAGE" in done.stderr

    @pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="there names are text")
    def test_names_that_are_no_text_can_be_told(self, any_model, tmp_path):
        path = Path(str(tmp_path / "pic\udcff.png"))
        done = run(path, "--model", any_model, "--output", tmp_path / "out")
        assert done.returncode == 1
        assert r"pic\udcff.png: No such file or directory" in done.stderr
