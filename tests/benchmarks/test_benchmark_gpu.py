"""benchmarks/gpu/run_gpu.py: its parts without a GPU, and a rehearsal on the CPU."""

import contextlib
import copy
import dataclasses
import importlib.util
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tinynet.datasets.augment import Compose, RandomErasing, RandomFlip, RandomShift
from tinynet.engines.gpu import cublas
from tinynet.support.errors import DeviceError

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "gpu"))

import augmentation
import cases
import clocks
import limit
import machine_gpu
import report_gpu
import run_gpu
import summary_gpu
from budget import Budget
from contender_tinynet_gpu import GpuTinynetTrainer
from summary_gpu import Way

NEEDS_TORCH = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


class TestCases:
    def test_the_best_network_is_described_as_its_recipe_has_it(self):
        case, weights, rates = cases.make_as_recipe("cnn_best")
        assert case.optimizer["weight_decay"] == 0.05
        assert (case.label_smoothing, case.average_flips, case.epochs) == (0.1, True, 14)
        assert case.augment == {"flip": 0.5, "pixels": 2, "size": 8, "erase": 0.35}
        assert len(rates) == 14 * 469  # batches of 128
        assert rates.max() == pytest.approx(0.006)
        residual = next(layer for layer in case.layers if layer["kind"] == "Residual")
        inside = [layer["path"] for layer in residual["children"]]
        assert inside == [f"{residual['path']}.{index}" for index in range(3)]
        assert f"{inside[0]}.W" in weights
        assert {"Residual", "Conv2D", "BatchNorm", "GlobalMaxPool2D"} <= case.kinds()
        assert "weight_decay=0.05), label smoothing 0.1, batches of 128" in case.describe_training()

    def test_a_constant_rate_has_as_many_steps(self):
        _, _, rates = cases.make_as_recipe("mlp_sgd")
        assert set(rates) == {0.01}
        assert len(rates) == 30 * 1875

    @pytest.mark.parametrize("name", cases.GPU_CASES)
    def test_products_are_those_of_the_network(self, name):
        case, _, _ = cases.make_as_recipe(name)
        forward = sum(int(np.prod(layer.forward)) for layer in limit.layer_products(case, 5))
        assert forward == 5 * case.multiply_adds

    def test_other_augmentation_is_refused(self):
        for other in (
            Compose(RandomFlip()),
            Compose(RandomFlip(), RandomShift(), RandomErasing((2, 4))),
            RandomFlip(),
        ):
            with pytest.raises(ValueError, match="the benchmark translates"):
                cases._describe_augmentation(other)


def test_augmentation_makes_tinynets_pictures_of_the_same_draws():
    images = np.random.default_rng(0).integers(1, 256, (50, 28, 28), dtype=np.uint8)
    expected = Compose(RandomFlip(), RandomShift(2), RandomErasing(8, 0.35))(images, np.random.default_rng(1))
    rng = np.random.default_rng(1)  # drawn in the same order
    mirrored = rng.random(50) < 0.5
    up, left = rng.integers(0, 5, (2, 50))
    erased = rng.random(50) < 0.35
    size = rng.integers(8, 9, 50)
    top, side = rng.integers(0, 28 - size + 1), rng.integers(0, 28 - size + 1)
    draws = augmentation.Draws(mirrored, up, left, erased, top, side)
    found = augmentation.augmented(np, images, np.arange, draws, pixels=2, size=8)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8


class TestClocks:
    def test_events_are_recorded_between_an_idle_device_and_the_end_of_its_work(self):
        started, told = time.perf_counter(), []

        def record():
            told.append("event")
            return len(told)

        clock = clocks.EventClock(
            lambda: told.append("wait"), record, lambda begin, end: 1500.0 * (end - begin)
        )
        clock.start()
        told.append("work")
        span = clock.stop()
        assert told == ["wait", "event", "work", "event", "wait"]
        assert span.device == 3.0  # seconds: the events are the second and the fourth recorded call
        assert 0 < span.wall < time.perf_counter() - started

    def test_the_wall_clock_has_no_time_of_the_device(self):
        clock = clocks.WallClock(lambda: None)
        clock.start()
        assert clock.stop().device is None


class TestBudget:
    def make(self, limit):
        self.now = 100.0
        return Budget(limit, lambda: self.now)

    def spend(self, budget, seconds, *kind):
        with budget.spending(*kind) as spent:
            self.now += seconds
            assert spent() == seconds

    def test_what_took_long_is_expected_to_take_as_long_again(self):
        budget = self.make(100)
        self.spend(budget, 30, "times", "cnn", "torch")
        self.spend(budget, 20, "times", "cnn", "torch")  # the longest counts
        assert budget.left() == 50
        assert budget.expected("times", "mlp_sgd", "torch") == 30  # from another case of the same contender
        assert budget.expected("times", "cnn", "jax") == budget.expected("losses", "cnn", "torch") == 0
        assert budget.allows("times", "cnn", "torch")
        self.now += 21
        assert not budget.allows("times", "cnn", "torch")
        assert budget.allows("times", "cnn", "jax")  # nothing is known about it
        assert budget.at_most(600) == 29
        self.now += 29
        assert budget.over()
        assert not budget.allows("times", "cnn", "jax")
        assert budget.at_most(600) == 0

    def test_without_a_limit_all_is_allowed(self):
        budget = self.make(float("inf"))
        self.spend(budget, 1e6, "times", "cnn", "torch")
        assert budget.allows("times", "cnn", "torch")
        assert budget.at_most(600) == 600


class Told:
    """Stands in for processes, and records what they were asked."""

    def __init__(self, folder):
        self.folder, self.asked = folder, []

    def settings(self):
        return {}

    def run(self, name, case, task, **options):
        self.asked.append((task, name, options.get("seed")))
        return {"failed": "broken"} if name == "torch" and task == "times" else {"by_size": {}}


class TestRun:
    def make(self, tmp_path, *arguments):
        options = run_gpu.parse(["--device", "cpu", "--repeats", "2", *arguments])
        benchmark = run_gpu.GpuBenchmark(options, tmp_path, tmp_path, {"name": "none"})
        benchmark.cases = {"mlp_sgd": cases.make_as_recipe("mlp_sgd")[0]}
        benchmark.contenders = [run_gpu.CONTENDERS[name] for name in ("tinynet", "torch", "jax")]
        return benchmark

    def replace(self, benchmark, monkeypatch):
        told = Told(benchmark.folder)
        benchmark.children = told
        monkeypatch.setattr(run_gpu.dataclasses, "replace", lambda children, **changes: children)
        return told.asked

    def test_contenders_take_turns_and_who_fails_is_not_asked_again(self, tmp_path, monkeypatch):
        benchmark = self.make(tmp_path)
        asked = self.replace(benchmark, monkeypatch)
        benchmark.time("mlp_sgd")
        assert asked == [
            ("times", "tinynet", 0),
            ("times", "torch", 0),
            ("times", "jax", 0),
            ("times", "tinynet", 1),
            ("times", "jax", 1),
        ]

    def test_what_no_longer_fits_is_left_out_and_named(self, tmp_path, monkeypatch):
        benchmark = self.make(tmp_path, "--seconds-limit", "50")
        asked = self.replace(benchmark, monkeypatch)
        benchmark.budget.spent["times", "cnn", "tinynet"] = 60.0
        benchmark.time("mlp_sgd")
        assert {name for _, name, _ in asked} == {"torch", "jax"}
        assert benchmark.results["left_out"] == {
            "times of mlp_sgd, tinynet": "it no longer fits into the run's 50 seconds"
        }
        assert set(benchmark.results["time"]["mlp_sgd"]) == {"torch", "jax"}

    def test_a_run_goes_on_where_another_ended(self, tmp_path):
        first = self.make(tmp_path)
        first.results["time"]["cnn"] = {"torch": [{"by_size": {}}]}
        first.results["left_out"] = {"jax": "absent"}
        first.write()
        assert (tmp_path / "results.md").exists()
        second = self.make(tmp_path, "--cases", "mlp_sgd")
        assert second.results["time"] == first.results["time"]
        assert second.results["left_out"] == {"jax": "absent"}
        with pytest.raises(SystemExit, match="measured with steps=500, but this run has 3; use another"):
            self.make(tmp_path, "--steps", "3")

    def test_batch_sizes(self, tmp_path):
        benchmark = self.make(tmp_path, "--batch-sizes", "own", "32", "512")
        assert benchmark.sizes(benchmark.cases["mlp_sgd"]) == [32, 512]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--batch-sizes", "many"], "expected positive numbers or own, got 'many'"),
            (["--batch-sizes", "0"], "expected positive numbers or own, got '0'"),
            (["--seconds-limit", "0"], "expected more than 0, got 0"),
            (["--cases", "cnn_small"], "invalid choice: 'cnn_small'"),
        ],
    )
    def test_wrong_arguments(self, arguments, message, capsys):
        with pytest.raises(SystemExit):
            run_gpu.main(arguments)
        assert message in capsys.readouterr().err

    def test_steps_and_repeats_are_positive(self):
        with pytest.raises(ValueError, match="steps"):
            run_gpu.parse(["--steps", "0"])

    def test_without_a_gpu_it_says_why(self, monkeypatch, capsys, tmp_path):
        def find(name):
            raise DeviceError("device 'gpu': none here")

        monkeypatch.setattr(machine_gpu.devices, "get_device", find)
        assert run_gpu.main(["--output", str(tmp_path / "out")]) == 1
        assert capsys.readouterr().err == "device 'gpu': none here\n"
        assert not (tmp_path / "out").exists()

    def test_without_platformdirs_the_folder_has_to_be_given(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "platformdirs", None)
        monkeypatch.delenv("TINYNET_DATA", raising=False)
        with pytest.raises(SystemExit, match="platformdirs.*; use --data-dir, .* or --synthetic"):
            run_gpu.fashion_images(None)


def test_made_up_images_have_the_shapes_of_the_real_ones():
    data = run_gpu.synthetic()
    shapes = {name: array.shape for name, array in data.items()}
    assert shapes == {
        "x_train": (60_000, 28, 28),
        "y_train": (60_000,),
        "x_test": (10_000, 28, 28),
        "y_test": (10_000,),
    }
    assert all(array.dtype == np.uint8 for array in data.values())
    assert set(data["y_test"]) == set(range(10))


def test_tinynet_on_a_stand_in_for_a_gpu_loses_what_it_loses_on_the_cpu(stand_in, tmp_path):
    case, weights, rates = cases.make_as_recipe("mlp_bn")
    data = {name: array[:400] for name, array in run_gpu.synthetic().items()}
    cases.save_data(tmp_path, data, {16})
    np.save(tmp_path / "rates_mlp_bn.npy", rates)
    case = dataclasses.replace(case, batch_size=16)
    batches = np.load(tmp_path / "batches_16.npy")

    def trainer(device, **options):
        options = {"device": device, "tf32": True, **options}
        return GpuTinynetTrainer(case, weights, tmp_path, dtype="float64", options=options)

    try:
        losses = [trainer(device).step_losses(batches, (1, 5)) for device in ("gpu", "cpu")]
        assert cublas.tf32_allowed()
    finally:
        cublas.allow_tf32(False)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-9)
    epochs = []
    scheduled = trainer("gpu", schedule=True)
    try:
        scheduled.train(1, lambda: bool(epochs.append(scheduled.accuracy())))
    finally:
        cublas.allow_tf32(False)
    assert scheduled.optimizer.current_learning_rate() == pytest.approx(rates[25])  # after 400 images
    assert 0 <= epochs[0] <= 1


@NEEDS_TORCH
def test_what_torch_tries_before_it_trains_leaves_nothing_behind(monkeypatch, tmp_path):
    """Both memory layouts of images, and the warm-up of a capture."""
    import torch
    from contender_torch_gpu import GpuTorchTrainer

    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda chosen: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    case, weights, _ = cases.make_as_recipe("cnn_best")
    case = dataclasses.replace(case, batch_size=4)
    cases.save_data(tmp_path, {name: array[:40] for name, array in run_gpu.synthetic().items()}, {4})
    batches = np.load(tmp_path / "batches_4.npy")
    losses = []
    for tries in (False, True):
        options = {"device": "cpu", "tf32": False}
        trainer = GpuTorchTrainer(case, weights, tmp_path, dtype="float64", options=options)
        if tries:
            trainer.choose_layout()
            assert trainer.layout in ("channels_last", "contiguous")
            trainer._warm_up(*trainer._tensors(), torch.arange(4))
        losses.append(trainer.step_losses(batches, (1, 3)))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-9)


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """The results of a rehearsal on few images, its folder and seconds; PyTorch is left out if missing."""
    started, folder = time.perf_counter(), tmp_path_factory.mktemp("rehearsal")
    data = {name: array[:2000] for name, array in run_gpu.synthetic().items()}
    arguments = ["--device", "cpu", "--synthetic", "--cases", "mlp_adam", "--steps", "3", "--repeats", "1"]
    arguments += ["--contenders", "tinynet", "torch", "--output", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_gpu, "synthetic", lambda: data)
        assert run_gpu.main(arguments) == 0
    return json.loads((folder / "results.json").read_text()), folder, time.perf_counter() - started


def test_a_rehearsal_measures_tinynet(rehearsed):
    results, folder, whole = rehearsed
    assert results["equivalence"]["mlp_adam"]["tinynet"]["agrees"]
    (process,) = results["time"]["mlp_adam"]["tinynet"]
    assert set(process["by_size"]) == {"32", "512"}
    for by_tf32 in process["by_size"].values():
        assert set(by_tf32) == {"off", "on"}
        for entry in by_tf32.values():
            assert len(entry["wall"]) == run_gpu.EPOCHS
            assert all(0 < seconds < whole for seconds in entry["wall"])
    assert results["left_out"]["the time to an accuracy"] == "the images are made up"
    text = (folder / "results.md").read_text()
    assert "rehearsal" in text
    assert text == report_gpu.page(copy.deepcopy(results))


@NEEDS_TORCH
def test_a_rehearsal_compares_torch(rehearsed):
    results, _, _ = rehearsed
    entry = results["equivalence"]["mlp_adam"]["torch"]
    assert entry["agrees"]
    assert entry["differences"]["float64"][0] < 1e-12
    assert summary_gpu.seconds(results, Way("mlp_adam", "512", "on"), "torch").low > 0
    assert summary_gpu.kernels(results, Way("mlp_adam", "32", "off"), "torch") > 0
