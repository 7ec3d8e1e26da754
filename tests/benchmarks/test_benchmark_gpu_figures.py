"""The figures and the report of benchmarks/gpu/run_gpu.py: limits, times, ratios and shares, from made-up results."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "gpu"))

import cases
import limit_gpu
import report_gpu
import summary_gpu
from summary_gpu import Way


class TestLimits:
    def test_least_bytes(self):
        case, _, _ = cases.make_as_recipe("mlp_adam")
        # Images 32 x 784; 101,770 parameters, m and v, each read and written as 4 bytes; 32 x 128 hidden units twice.
        assert limit_gpu.least_bytes(case, 32) == 25_088 + 101_770 * 4 * 6 + 32 * 128 * 8
        plain, _, _ = cases.make_as_recipe("mlp_sgd")
        assert limit_gpu.least_bytes(plain, 1) == 784 + 266_610 * 4 * 2 + (300 + 100) * 8

    def test_needs_of_a_step(self):
        case, _, _ = cases.make_as_recipe("mlp_adam")
        # 784-128-10: forward and dW of both layers, dx of the second only
        products = 2 * (784 * 128 + 128 * 10) + 128 * 10
        assert limit_gpu.needs(case, 512)["multiply_adds"] == 512 * products

    def test_the_larger_time_is_the_floor(self):
        limits = {
            "bytes_per_second": [1e9, 2e9, 3e9],
            "multiply_adds_per_second": {"off": [1e12], "on": [4e12]},
        }
        needs = {"multiply_adds": 4e9, "bytes": 4e6}  # 2 ms of copying; 4 or 1 ms of products
        assert limit_gpu.floor(needs, limits, "off") == (0.004, "matrix")
        assert limit_gpu.floor(needs, limits, "on") == (0.002, "memory")

    def test_measured_on_the_cpu(self, monkeypatch):
        monkeypatch.setitem(limit_gpu.COPIED_BYTES, "cpu", 4000)
        monkeypatch.setitem(limit_gpu.MATRIX_SIZE, "cpu", 8)
        found = limit_gpu.measure("cpu")
        assert (found["copied_bytes"], found["matrix_size"]) == (4000, 8)
        rates = [found["bytes_per_second"], *found["multiply_adds_per_second"].values()]
        assert [len(each) for each in rates] == [limit_gpu.REPEATS - 1] * 3
        assert all(rate > 0 for each in rates for rate in each)


def timed(device, wall):
    """Return a process's figures, in seconds per step; the same for both ways."""
    entry = {"wall": wall, "first_epoch": 1.0, **({"device": device} if device else {})}
    return {"by_size": {"32": {"off": entry, "on": entry}}}


@pytest.fixture
def results():
    losses = {"float32": [2.0], "float64": [2.0], "tf32": [2.002]}
    return {
        "machine": {
            "date": "2026-01-02",
            "cpu": "A CPU",
            "cores": 2,
            "system": "Linux",
            "python": "3.12.3",
            "gpu": {
                "name": "A GPU",
                "memory": "80.0 of 80.0 GiB free",
                "compute capability": "9.0",
                "driver": "580.1",
                "CUDA driver": "13.1",
                "CUDA runtime": "13.0",
                "cupy": "14.2.0",
            },
        },
        "settings": {
            "device": "gpu",
            "synthetic": False,
            "steps": 3,
            "epochs": 4,
            "tf32": ["off", "on"],
            "environment": {},
        },
        "repeats": 2,
        "left_out": {"jax": "jax not installed"},
        "contenders": {
            name: {"title": name, "fast_path": "fit", "versions": {"numpy": "2.4.6"}}
            for name in ("tinynet", "torch", "torch-graph", "jax-scan")
        },
        "cases": {
            "mlp_adam": {
                "title": "784-128-10, ReLU",
                "training": "Adam(learning_rate=0.001), batches of 32",
                "params": 101_770,
                "multiply_adds": 101_632,
                "batch_size": 32,
                "needs": {"32": {"multiply_adds": 6.5e6, "bytes": 2.5e6}},
                "targets": [0.9],
            }
        },
        "limits": {
            "bytes_per_second": [4e12, 5e12, 6e12],
            "multiply_adds_per_second": {"off": [25e12], "on": [200e12]},
            "copied_bytes": 2_000_000_000,
            "matrix_size": 8192,
        },
        "equivalence": {
            "mlp_adam": {
                name: {
                    **losses,
                    "agrees": name != "torch",
                    "differences": losses,
                    "decided_by_float64": [False],
                }
                for name in ("tinynet", "torch-graph", "jax-scan")
            }
        },
        "time": {
            "mlp_adam": {
                "tinynet": [timed([40e-6, 50e-6], [60e-6, 62e-6]), timed([60e-6], [64e-6])],
                "torch-graph": [timed([80e-6], [90e-6]), timed([100e-6, 120e-6], [110e-6])],
                "jax-scan": [timed(None, [75e-6]), {"failed": "RuntimeError: a | b"}],
            }
        },
        "kernels": {"mlp_adam": {"tinynet": [{"by_size": {"32": {"off": {"kernels": 31e-6}}}}]}},
        "accuracy": {
            "mlp_adam": {
                "tinynet": [
                    {"reached": {"0.9": {"seconds": 2.0, "epoch": 5}}, "accuracies": [0.8, 0.9012]},
                    {"reached": {"0.9": {"seconds": 4.0, "epoch": 7}}, "accuracies": [0.8, 0.9034]},
                ],
                "torch-graph": [{"reached": {}, "accuracies": [0.8]}, {"failed": "ended"}],
            }
        },
    }


class TestFigures:
    way = Way("mlp_adam", "32", "off")

    def test_times_are_of_all_processes_by_events_where_there_are_some(self, results):
        assert summary_gpu.seconds(results, self.way, "tinynet") == (50e-6, 40e-6, 60e-6)
        assert summary_gpu.seconds(results, self.way, "tinynet", "wall") == (62e-6, 60e-6, 64e-6)
        assert summary_gpu.seconds(results, self.way, "jax-scan") == (75e-6, 75e-6, 75e-6)
        assert not summary_gpu.has_events(results, self.way, "jax-scan")

    def test_ratios_and_shares(self, results):
        assert summary_gpu.best_peer(results, self.way) == "jax-scan"
        assert summary_gpu.ratio(results, self.way, "jax-scan") == pytest.approx(1.5)
        assert summary_gpu.ratio(results, self.way, "torch-graph") == pytest.approx(2)
        assert summary_gpu.ratio(results, self.way, "torch") is None
        assert summary_gpu.launch_overhead(results, self.way, "tinynet") == pytest.approx(0.5)  # 31 of 62
        # 2.5 MB at 5 TB/s take 0.5 us; 6.5 million multiply-adds at 25 million million per second take 0.26 us
        assert summary_gpu.floor(results, self.way) == pytest.approx((0.5e-6, "memory"))
        assert summary_gpu.share_of_limit(results, self.way, "tinynet") == pytest.approx(0.01)

    def test_whose_losses_differ_is_not_timed(self, results):
        results["equivalence"]["mlp_adam"]["jax-scan"]["float64"] = [2.1]
        assert summary_gpu.seconds(results, self.way, "jax-scan") is None
        assert summary_gpu.best_peer(results, self.way) == "torch-graph"

    def test_one_way_that_failed_leaves_the_other(self, results):
        results["time"]["mlp_adam"]["tinynet"][1]["by_size"]["32"]["off"] = {
            "failed": "OutOfMemoryError: none"
        }
        assert summary_gpu.seconds(results, self.way, "tinynet").high == 50e-6
        assert summary_gpu.failure(results, "time", "mlp_adam", "tinynet") == "OutOfMemoryError: none"


class TestReport:
    def test_the_page(self, results):
        text = report_gpu.page(results)
        assert "A GPU, 80.0 of 80.0 GiB free, compute capability 9.0; driver 580.1 (for CUDA 13.1)" in text
        assert "- jax was left out: jax not installed" in text
        assert (
            "| copy of 2.0 GB on the device, bytes read and written | 5,000 GB/s (4,000 to 6,000) |" in text
        )
        assert "| 8192 x 8192 matrices, TF32 on | 400 TFLOP/s (400 to 400) |" in text
        assert "| `mlp_adam` | 32 | off | 0.05 (0.04 to 0.06) | - | 1.50 (`jax-scan`) | 1.0% |" in text
        assert "| **`tinynet`** | 0.05 (0.04 to 0.06) | 1.00 | 0.062 | 0.031 | 50% | 1.0% |" in text
        assert "| `jax-scan` | 0.075 (0.075 to 0.075) † | 1.50 | 0.075 | - | - | 0.7% |" in text
        assert "At least 0.0005 ms, by the memory limit." in text
        assert "- time of `mlp_adam`, `jax-scan`: RuntimeError: a \\| b" in text
        assert "| `mlp_adam`, `torch-graph` | 2.002000 | 1e-3 |" in text
        assert "| `mlp_adam`, `tinynet` | 3.00 s (2.00 to 4.00; epoch 5 to 7) | 0.9012, 0.9034 |" in text
        assert "| `mlp_adam`, `torch-graph` | - | 0.8000 |" in text
        assert "rehearsal" not in text

    def test_eager_against_a_graph(self, results):
        results["time"]["mlp_adam"]["torch"] = [timed([400e-6], [410e-6])]
        results["equivalence"]["mlp_adam"]["torch"] = results["equivalence"]["mlp_adam"]["tinynet"]
        line = "as a CUDA graph takes 25% of its eager step's time"  # 100 of 400 us
        assert line in report_gpu.page(results)
        results["settings"]["device"] = "cpu"
        assert line not in report_gpu.page(results)

    def test_a_rehearsal_says_so(self, results):
        results["settings"]["device"] = "cpu"
        assert "**A rehearsal on the CPU: these figures say nothing about any GPU.**" in report_gpu.page(
            results
        )

    def test_a_run_that_has_just_begun_has_a_page(self, results):
        for part in ("limits", "equivalence", "time", "kernels", "accuracy"):
            results[part] = {}
        assert "## The limits\n\nNot measured." in report_gpu.page(results)

    def test_it_is_written_anew(self, results, tmp_path, capsys):
        (tmp_path / "results.json").write_text(json.dumps(results))
        assert report_gpu.main([str(tmp_path)]) == 0
        assert (tmp_path / "results.md").read_text() == report_gpu.page(results)
        assert report_gpu.main([]) == 2
