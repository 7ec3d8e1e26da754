"""Files that earlier versions wrote stay readable: nothing in them is ignored, and they give what they gave then.

The files, and the functions that make the runs to resume, are in `tests.data`.
"""

import contextlib
import copy
import csv
import functools
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import tinynet as tn
from tests.data import write

HERE = Path(write.__file__).parent
EXPECTED = {path.parent: json.loads(path.read_text()) for path in sorted(HERE.glob("*/expected.json"))}
FOLDERS = [pytest.param(folder, id=folder.name) for folder in EXPECTED]


def each(kind):
    cases = [(folder, name) for folder, expected in EXPECTED.items() for name in expected[kind]]
    return pytest.mark.parametrize(
        ("folder", "name"), cases, ids=[f"{folder.name}-{name}" for folder, name in cases]
    )


@functools.cache
def expected_arrays(folder):
    return load_file(folder / "expected.safetensors")


def described(path):
    """The description in a file."""
    with safe_open(path, "numpy") as file:
        return json.loads(file.metadata()["tinynet"])


def load(folder, name):
    return tn.load_model(folder / f"model_{name}.safetensors", custom_layers={"Shift": write.Shift})


@contextlib.contextmanager
def may_warn_of_other_versions(path):
    """The one warning that is allowed when a run resumes: its last digits may differ from then."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
    for warning in caught:
        assert warning.category is UserWarning, warning
        assert re.match(re.escape(str(path)) + ": .*not bit for bit", str(warning.message)), warning


def resume(folder, name, scratch, watch, **settings):
    path = folder / f"checkpoint_{name}.safetensors"
    with may_warn_of_other_versions(path) as caught:
        return *write.run(name, scratch, watch, resume=path, **settings), caught


def assert_agrees(found, expected, where=""):
    """Numbers within 1e-4, all else equal. Mappings and states may have gained entries since."""
    if isinstance(expected, dict):
        assert expected.keys() <= found.keys(), where
        for key, value in expected.items():
            assert_agrees(found[key], value, f"{where} {key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for index, value in enumerate(expected):
            assert_agrees(found[index], value, f"{where} {index}")
    elif isinstance(expected, (float, np.ndarray)):
        assert np.shape(found) == np.shape(expected), where
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=where)
    else:
        assert found == expected, where


def assert_results(results, folder, expected, prefix):
    """What functions of `write` give, numbers and arrays, are what they gave then."""
    numbers, arrays = results
    assert_agrees(numbers, {key: expected[key] for key in numbers})
    then = expected_arrays(folder)
    assert_agrees(arrays, {key.removeprefix(prefix): then[key] for key in then if key.startswith(prefix)})


def assert_same_arrays(found, saved):
    """To the bit."""
    assert found.keys() == saved.keys()
    for name, array in saved.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@each("models")
class TestModels:
    def test_all_of_the_file_is_in_the_model(self, folder, name):
        model, expected = load(folder, name), EXPECTED[folder]["models"][name]
        saved = load_file(folder / f"model_{name}.safetensors")
        assert_same_arrays(model.named_weights(), saved)
        assert all(array.any() for key, array in saved.items() if key.endswith("running_mean"))
        now = write.description(model)
        assert_agrees(now, {key: expected[key] for key in now})

    def test_it_predicts_and_scores_as_then(self, folder, name):
        model, expected = load(folder, name), EXPECTED[folder]["models"][name]
        _, arguments, _ = write.MODELS[name]()
        assert_results(write.numbers_of(model, arguments), folder, expected, f"{name} saved ")

    def test_it_trains_on_as_then(self, folder, name):
        model, expected = load(folder, name), EXPECTED[folder]["models"][name]
        before = {key: array.copy() for key, array in model.named_weights().items()}
        assert_results(write.train_on(name, model), folder, expected["trained_on"], f"{name} trained_on ")
        if name == "pruned":
            zeros = {key: array == 0 for key, array in before.items() if key.endswith("W")}
            assert 0.5 < np.mean(np.concatenate([mask.reshape(-1) for mask in zeros.values()])) < 0.7
            for key, mask in zeros.items():
                np.testing.assert_array_equal(model.named_weights()[key] == 0, mask)
        for path, layer in model.walk():
            if not layer.trainable:
                frozen = {key: array for key, array in before.items() if key.startswith(f"{path}.")}
                assert frozen
                assert_same_arrays({key: model.named_weights()[key] for key in frozen}, frozen)


@each("checkpoints")
class TestCheckpoints:
    def test_a_resumed_run_ends_as_then(self, folder, name, tmp_path):
        expected, watch = EXPECTED[folder]["checkpoints"][name], write.Watch()
        *ended, _ = resume(folder, name, tmp_path, watch)
        assert_results(write.end_of(*ended), folder, expected, f"{name} resumed ")
        assert watch.kept["batches"] == expected["batches"]
        files = sorted(path.name for path in tmp_path.iterdir())
        assert files == expected["files"]
        if "log.csv" in files:
            with open(tmp_path / "log.csv") as file:
                rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
            columns = {key: [row[key] for row in rows] for key in expected["history"]}
            assert_agrees(columns, expected["history"])
        models = [file for file in files if file.endswith(".safetensors")]
        if models:  # the last of them is the model at the end
            assert_same_arrays(tn.load_model(tmp_path / models[-1]).named_weights(), ended[0].named_weights())

    def test_all_of_the_file_is_in_the_run(self, folder, name, tmp_path):
        path = folder / f"checkpoint_{name}.safetensors"
        arrays, saved = load_file(path), described(path)
        place = unpacked(saved["place"], arrays)
        watch, run = write.Watch(), {}

        def look(begun):
            run["arrays"] = {
                f"model.{key}": array.copy() for key, array in begun.model.named_weights().items()
            }
            history = begun.history.history
            run["arrays"] |= {f"history.{key}": np.array(values, float) for key, values in history.items()}
            run["states"] = [copy.deepcopy(item.state()) for item in (begun.optimizer, *watch.others, watch)]
            run["counts"] = [begun.model.step, begun.model.epoch, begun.optimizer.step_count]
            run["means"] = [begun.mean_loss(), begun.mean_accuracy()]
            run["stopped"], run["rate"] = begun.stop_training, begun.optimizer.learning_rate

        watch.look = look
        resume(folder, name, tmp_path, watch)
        named = {key: array for key, array in arrays.items() if key.startswith(("model.", "history."))}
        assert_same_arrays(run["arrays"], named)
        states = [unpacked(state, arrays) for state in (saved["optimizer"], *saved["callbacks"])]
        assert_agrees(run["states"], states)
        assert len(named) + sum(map(count_arrays, states)) == len(arrays)
        assert run["counts"] == [place["model_step"], place["model_epoch"], place["optimizer_step"]]
        assert run["stopped"] is place["stopped"]
        assert_agrees(run["means"], [place[sums] / place["examples"] for sums in ("loss_sum", "correct")])
        if saved["changed"]:
            assert saved["changed"] == {"optimizer learning_rate": run["rate"]}


def unpacked(value, arrays):
    """A value of a checkpoint's description: plain, or {"array": its name}, {"float": "inf"}, {"items": a mapping}."""
    if isinstance(value, list):
        return [unpacked(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "items":
        return {key: unpacked(item, arrays) for key, item in content.items()}
    return arrays[content] if kind == "array" else float(content)


def count_arrays(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, np.ndarray) + sum(map(count_arrays, inner))


@pytest.mark.parametrize("folder", FOLDERS)
class TestFolder:
    def test_another_number_of_workers_is_warned_of_in_the_words_that_are_allowed(self, folder, tmp_path):
        *ended, caught = resume(folder, "adam", tmp_path, write.Watch(), workers=2)
        assert len(caught) == 1
        expected = EXPECTED[folder]["checkpoints"]["adam"]
        assert_results(write.end_of(*ended), folder, expected, "adam resumed ")

    def test_no_file_is_left_out(self, folder):
        expected = EXPECTED[folder]
        files = {"expected.json", "expected.safetensors"}
        files |= {f"model_{name}.safetensors" for name in expected["models"]}
        files |= {f"checkpoint_{name}.safetensors" for name in expected["checkpoints"]}
        assert {path.name for path in folder.iterdir()} == files
        assert (
            folder.name == f"v{expected['version']}"
        )  # written anew by a later version, they would prove nothing

    def test_no_public_name_is_gone(self, folder):
        for module, names in EXPECTED[folder]["names"].items():
            place = functools.reduce(getattr, filter(None, module.split(".")), tn)
            missing = [name for name in names if not hasattr(place, name)]
            assert not missing, f"{module}: {missing}"

    def test_the_files_hold_each_layer_loss_optimizer_callback_and_initializer(self, folder):
        """Of those that the version had."""
        expected = EXPECTED[folder]
        names = expected["names"] | {"callbacks": expected["callbacks"]}
        models, checkpoints = expected["models"], expected["checkpoints"]
        found = {kind: set() for kind in ("layers", "losses", "optimizers", "initializers", "callbacks")}
        for name, then in models.items():
            for _, layer in load(folder, name).walk():
                found["layers"].add(type(layer).__name__)
                found["initializers"] |= {
                    value for key, value in layer.config().items() if key.endswith("_initializer")
                }
            found["losses"].add(then["loss"] and then["loss"][0])
        for name, then in checkpoints.items():
            saved = described(folder / f"checkpoint_{name}.safetensors")["settings"]
            assert saved["optimizer"] == then["optimizer"]
            found["optimizers"].add(then["optimizer"])
            found["callbacks"] |= set(saved["callbacks"])
        for kind in found:
            assert set(names[kind]) <= found[kind], kind


def test_the_first_version_is_among_them():
    assert "v0.1.0" in [folder.name for folder in EXPECTED]


def test_the_script_writes_such_files(tmp_path, capsys):
    folder = tmp_path / "new"
    write.main(folder)
    expected = json.loads((folder / "expected.json").read_text())
    assert set(expected["models"]) == set(write.MODELS)
    assert set(expected["checkpoints"]) == set(write.RUNS)
    assert len(list(folder.iterdir())) == len(write.MODELS) + len(write.RUNS) + 2
    with pytest.raises(SystemExit, match="not to change"):
        write.main(folder)
