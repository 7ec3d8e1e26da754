"""The benchmark's parts: cases as data, the limit's products, contenders, installed sizes, and the peers' losses."""

import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import tinynet as tn

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import cases
import contenders
import limit
import machine
import summary
import trainer
from children import Children
from contenders import CONTENDERS, LIMIT


class TestCases:
    @pytest.mark.parametrize("name", cases.CASES)
    def test_they_are_the_recipes_networks(self, name):
        case, weights = cases.make(name)
        recipe = tn.recipes.make(name, seed=0)
        assert [layer["kind"] for layer in case.layers] == [
            type(layer).__name__ for layer in recipe.model.layers
        ]
        assert case.batch_size == recipe.batch_size
        assert case.multiply_adds == recipe.model.multiply_adds()
        for path, array in recipe.model.named_weights().items():
            np.testing.assert_array_equal(weights[path], array)

    def test_a_case_survives_its_file(self, tmp_path):
        case, weights = cases.make("mlp_bn")
        cases.save(tmp_path, case, weights)
        again, arrays = cases.load(tmp_path, "mlp_bn")
        assert again.input_shape == (28, 28)
        assert json.dumps(again.layers) == json.dumps(case.layers)
        assert list(arrays) == list(weights)

    def test_without_dropout(self):
        case, _ = cases.make("mlp_bn")
        rates = {layer["config"]["rate"] for layer in case.layers if layer["kind"] == "Dropout"}
        silent = {
            layer["config"]["rate"] for layer in case.without_dropout().layers if layer["kind"] == "Dropout"
        }
        assert (rates, silent) == ({0.1}, {0.0})

    @pytest.mark.parametrize(("name", "width", "batch_size"), [("width_512", 512, 64), ("batch_16", 256, 16)])
    def test_scaling_cases(self, name, width, batch_size):
        case, weights = cases.make(name)
        assert weights["2.W"].shape == (784, width)
        assert case.batch_size == batch_size

    def test_images_read_in_pieces_are_those_scaled_at_once(self, tmp_path):
        images = np.random.default_rng(0).integers(0, 256, (2500, 4, 3), dtype=np.uint8)
        np.save(tmp_path / "x.npy", images)
        scaled = cases.load_scaled(tmp_path / "x.npy", 1 / 255)
        np.testing.assert_array_equal(scaled, images * np.float32(1 / 255))
        np.testing.assert_array_equal(
            cases.load_scaled(tmp_path / "x.npy", 1 / 255, "float64", 7), images[:7] * (1 / 255)
        )

    def test_batches_to_compare_losses_on_hold_every_image_before_any_comes_again(self, tmp_path):
        data = {"y_train": np.zeros(150, np.uint8)}
        cases.save_data(tmp_path, data, {32})
        batches = np.load(tmp_path / "batches_32.npy")
        assert batches.shape == (100, 32)
        assert sorted(batches.reshape(-1)[:150]) == list(range(150))


def test_spans_leave_each_step_of_interest_alone():
    assert trainer.spans((1, 10, 100)) == [(0, 1), (1, 9), (9, 10), (10, 99), (99, 100)]


class TestLimit:
    @pytest.mark.parametrize("name", cases.CASES)
    def test_its_products_are_those_of_the_network(self, name):
        case, _ = cases.make(name)
        layers = limit.layer_products(case, 5)
        forward = sum(int(np.prod(layer.forward)) for layer in layers)
        assert forward == 5 * case.multiply_adds
        without_dx = int(np.prod(layers[0].forward))
        assert limit.multiply_adds(case, 5) == 3 * forward - without_dx

    @pytest.mark.parametrize("by_rows", [False, True])
    def test_what_runs_has_as_many_multiply_adds(self, by_rows):
        case, _ = cases.make("cnn")
        step = limit.Step(case, 4, by_rows)
        done = sum(a.shape[0] * a.shape[1] * b.shape[1] for a, b, _ in step.calls)
        assert done == limit.multiply_adds(case, 4)
        step.run()
        assert all(np.isfinite(out).all() for _, _, out in step.calls)

    def test_an_epoch_has_a_last_batch_that_is_smaller(self):
        case, _ = cases.make("mlp_adam")
        ways = limit.summarise(list(limit.measure(case, 100, epochs=2)))["ways"]
        assert set(ways) == {"1 BLAS thread", "all BLAS threads"}
        assert all(len(way["seconds"]) == 2 for way in ways.values())


class TestInstalledSize:
    def test_the_closure_holds_what_is_needed_and_no_extras(self):
        needed = machine.closure(["tinynet"])
        assert {"tinynet", "numpy", "matplotlib", "pillow"} <= set(needed)
        assert "mypy" not in needed
        assert needed["numpy"] == importlib.metadata.version("numpy")

    def test_a_package_installed_in_place_counts_with_its_own_files(self):
        sources = sum(path.stat().st_size for path in Path(tn.__file__).parent.rglob("*.py"))
        assert machine.installed_megabytes(["tinynet"]) >= sources / 1e6

    def test_more_distributions_take_more_space(self):
        one, all_of_them = (
            machine.installed_megabytes(names) for names in (["numpy"], machine.closure(["tinynet"]))
        )
        assert 1 < one < all_of_them


class TestContenders:
    def test_the_limit_and_tinynets_engines_are_no_peers(self):
        own = {name for name, contender in CONTENDERS.items() if not contender.is_peer}
        assert own == {"tinynet", "tinynet-fast", LIMIT}

    def test_without_a_cpp_compiler_torch_compile_is_left_out_and_says_why(self, monkeypatch):
        monkeypatch.setattr(contenders, "_is_installed", lambda name: True)
        monkeypatch.setenv("CXX", "no-such-compiler")
        lacking = {name: words for name in CONTENDERS if (words := CONTENDERS[name].missing())}
        assert set(lacking) == {
            *("torch-compile", "torch-compile-1-thread", "torch-max-autotune", "keras-torch-compile")
        }
        assert set(lacking.values()) == {
            "torch.compile needs a C++ compiler, and no-such-compiler is not installed"
        }

    def test_sklearn_has_no_convolutions(self):
        able = {
            name for name in cases.CASES if CONTENDERS["sklearn"].can_express(cases.make(name)[0].kinds())
        }
        assert able == {"mlp_sgd", "mlp_adam"}

    def test_extras_are_those_of_the_package(self):
        offered = set(importlib.metadata.metadata("tinynet").get_all("Provides-Extra"))
        assert {contender.extra for contender in CONTENDERS.values() if contender.extra} <= offered


@pytest.mark.parametrize(
    "name", ["tinynet-fast", "torch", "sklearn", "keras-jax", "keras-tensorflow", "keras-torch"]
)
def test_others_lose_what_tinynet_loses(name, tmp_path):
    """The losses of the first and the tenth step in float64, from the same weights on the same batches."""
    contender = CONTENDERS[name]
    if contender.missing():
        pytest.skip(contender.missing())
    rng = np.random.default_rng(0)
    data = {f"x_{part}": rng.integers(0, 256, (400, 28, 28), dtype=np.uint8) for part in ("train", "test")}
    data |= {f"y_{part}": rng.integers(0, 10, 400).astype(np.uint8) for part in ("train", "test")}
    processes = Children(tmp_path)
    for case_name in ("mlp_adam",) if name == "sklearn" else ("mlp_bn", "cnn"):
        case, weights = cases.make(case_name)
        cases.save(tmp_path, case, weights)
        cases.save_data(tmp_path, data, {case.batch_size})
        ours, theirs = (
            processes.run(each, case_name, "losses", dtype="float64") for each in ("tinynet", name)
        )
        assert "failed" not in theirs, theirs
        # One backend of Keras reports losses as float32, whatever it trains in.
        assert max(summary.differences(theirs["losses"][:2], ours["losses"][:2])) < 2e-7
