"""The benchmark's report and its figures, from made-up results."""

import copy
import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import cells
import report
import summary


def process(seconds, first_epoch=1.0, memory=100.0):
    return {
        "seconds": seconds,
        "cpu_seconds": [2 * value for value in seconds],
        "start_to_first_epoch": first_epoch,
        "peak_memory_mb": memory,
        "accuracy": 0.875,
        "environment": {"pools": [], "threads": "2 threads", "kernels": "some"},
    }


def losses(*values):
    return {"float32": list(values), "float64": list(values)}


def about(title):
    return {"title": title, "fast_path": "fit", "versions": {"numpy": "2.4.6"}, "installed_mb": 50.0}


@pytest.fixture
def results():
    names = ("tinynet", "keras-jax", "torch", "numpy-limit")
    return {
        "machine": {"date": "2026-01-02", "cpu": "A CPU", "cores": 2, "system": "Linux", "python": "3.11.7"},
        "settings": {
            "repeats": 2,
            "epochs": 3,
            "inherit_environment": False,
            "environment": {},
            "images": 60_000,
            "scaling_images": 15_000,
            "targets": [0.88, 0.9, 0.91, 0.92],
        },
        "left_out": {"sklearn": "scikit-learn not installed"},
        "contenders": {name: about(name) for name in names},
        "cases": {
            "mlp_sgd": {
                "title": "784-300-100-10",
                "training": "SGD(learning_rate=0.01), batches of 32",
                "params": 266_610,
                "multiply_adds": 266_200,
                "targets": [0.88, 0.9],
            }
        },
        "equivalence": {
            "mlp_sgd": {
                "tinynet": losses(2.0, 1.5, 1.0),
                "keras-jax": losses(2.0, 1.50001, 1.0005),
                "torch": losses(2.0, 1.5, 1.0),
            }
        },
        "time": {
            "mlp_sgd": {
                "tinynet": [process([1.0, 1.2], 1.5, 50.0), process([1.1, 0.9], 1.7, 60.0)],
                "keras-jax": [process([3.0, 3.0], 6.0, 400.0), process([3.3, 2.9], 6.4, 400.0)],
                "torch": [process([2.1, 2.1], 5.0, 300.0), process([2.0, 2.2], 5.0, 300.0)],
                "numpy-limit": [
                    {
                        "ways": {
                            "1 BLAS thread": {"seconds": [0.5, 0.5], "cpu_seconds": [0.5, 0.5]},
                            "all BLAS threads": {"seconds": [0.7, 0.4], "cpu_seconds": [1.4, 0.8]},
                        },
                        "environment": {"pools": []},
                    }
                ],
            }
        },
        "first_step": {
            "mlp_sgd": {
                "tinynet": [{"start_to_first_step": 0.25}],
                "keras-jax": [{"start_to_first_step": 2.0}],
            }
        },
        "accuracy": {
            "mlp_sgd": {
                "tinynet": [
                    {"reached": {"0.88": {"seconds": 5.0, "epoch": 4}}, "accuracies": []},
                    {"reached": {"0.88": {"seconds": 7.0, "epoch": 6}}, "accuracies": []},
                ]
            }
        },
        "scaling": {"width": {"tinynet": {"128": {"seconds": [0.1, 0.3], "images": 15_000}}}},
    }


def row(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return [cell.strip() for cell in line.strip("|").split("|")]


class TestEquivalence:
    def test_losses_within_the_tolerances_agree(self, results):
        found = summary.compare(results, "mlp_sgd", "keras-jax")
        assert found["agrees"]
        assert found["differences"]["float64"] == pytest.approx([0, 1e-5 / 1.5, 5e-4])

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize(("step", "loss"), [(0, 2.0001), (1, 1.501), (2, 1.01), (2, float("nan"))])
    def test_others_differ(self, results, dtype, step, loss):
        results["equivalence"]["mlp_sgd"]["torch"][dtype][step] = loss
        assert not summary.compare(results, "mlp_sgd", "torch")["agrees"]

    def test_float64_decides_where_rounding_is_as_large_as_the_tolerance(self, results):
        compared = results["equivalence"]["mlp_sgd"]
        compared["keras-jax"]["float32"][2] = 1.002  # against 1.0005 in float64
        compared["torch"]["float32"][2] = 1.005
        found = summary.compare(results, "mlp_sgd", "torch")
        assert found["decided_by_float64"] == [False, False, True]
        assert found["agrees"]
        compared["torch"]["float64"][2] = 1.005
        assert not summary.compare(results, "mlp_sgd", "torch")["agrees"]

    def test_float32_suffices_there_too(self, results):
        compared = results["equivalence"]["mlp_sgd"]
        compared["keras-jax"]["float32"][2] = 1.002
        compared["torch"]["float32"][2], compared["torch"]["float64"][2] = 1.0001, 1.005
        found = summary.compare(results, "mlp_sgd", "torch")
        assert found["decided_by_float64"] == [False, False, True]
        assert found["agrees"]

    def test_one_library_with_inexact_float32_is_not_excused(self, results):
        compared = results["equivalence"]["mlp_sgd"]
        compared["torch"]["float32"][2] = 1.005
        assert not summary.compare(results, "mlp_sgd", "torch")["agrees"]
        assert summary.compare(results, "mlp_sgd", "keras-jax")["agrees"]

    def test_without_losses_nothing_agrees(self, results):
        results["equivalence"]["mlp_sgd"]["torch"] = {"failed": "it broke"}
        assert not summary.may_be_timed(results, "mlp_sgd", "torch")

    def test_where_none_were_compared_all_are_timed(self, results):
        results["equivalence"] = {}
        assert summary.may_be_timed(results, "mlp_sgd", "torch")

    def test_a_differing_contender_is_marked_and_its_times_are_not_taken(self, results):
        compared = results["equivalence"]["mlp_sgd"]
        compared["torch"] = losses(2.0, 1.5, 1.1)
        for name in compared:
            compared[name] |= summary.compare(results, "mlp_sgd", name)
        text = report.page(results)
        assert (
            "| `torch` | 2.000000, 1.500000, 1.100000 | 0, 0, 1e-1 | 0, 0, 1e-1 | **DIFFERS, not timed** |"
            in text
        )
        assert row(text, "| `torch`, not timed: its losses differ")[1:5] == ["-"] * 4
        assert summary.best_peer(results, "mlp_sgd") == "keras-jax"


class TestFigures:
    def test_the_median_and_the_range_are_of_all_later_epochs(self, results):
        assert summary.epoch_seconds(results, "mlp_sgd", "tinynet") == pytest.approx((1.05, 0.9, 1.2))

    def test_the_limit_is_the_way_with_the_lowest_median(self, results):
        way, seconds = summary.limit(results, "mlp_sgd")
        assert (way, seconds.median) == ("1 BLAS thread", 0.5)
        assert summary.times_the_limit(results, "mlp_sgd", "tinynet") == pytest.approx(2.1)

    def test_ratios_are_against_the_best_peer(self, results):
        assert summary.ratio(results, "mlp_sgd", "seconds") == (pytest.approx(2.0), "torch")
        assert summary.ratio(results, "mlp_sgd", "peak_memory_mb") == (pytest.approx(300 / 55), "torch")
        keras = summary.ratio(results, "mlp_sgd", "start_to_first_epoch", keras_only=True)
        assert keras == (pytest.approx(6.2 / 1.6), "keras-jax")

    def test_scaling_is_brought_to_sixty_thousand_images(self, results):
        assert summary.scaling_seconds(results, "width", "tinynet") == pytest.approx({128: 0.8})


class TestPage:
    def test_the_rows_hold_the_figures(self, results):
        text = report.page(results)
        cells = row(text, "| **`tinynet`**")
        assert cells[1:5] == ["1.050 (0.900 to 1.200)", "1.00", "2.10", "2.10"]
        assert cells[5:] == ["0.25", "1.60", "55.0", "50.0", "0.8750"]
        assert row(text, "| `mlp_sgd` | 2.00")[1:4] == [
            "2.00 (`torch`)",
            "3.88 (`keras-jax`)",
            "8.00 (`keras-jax`)",
        ]
        assert row(text, "| `mlp_sgd`, `tinynet`")[1:] == ["6.00 s (epoch 4 to 6)", "-", "", ""]
        assert "- `sklearn` was left out: scikit-learn not installed" in text

    def test_both_engines_are_held_against_the_best_peer(self, results):
        results["contenders"]["tinynet-fast"] = about("tinynet, Numba")
        results["equivalence"]["mlp_sgd"]["tinynet-fast"] = losses(2.0, 1.5, 1.0)
        results["time"]["mlp_sgd"]["tinynet-fast"] = [process([0.7, 0.7], 3.1, 150.0)]
        results["first_use"] = {
            "mlp_sgd": {"tinynet-fast": {"start_to_first_step": 8.25}, "torch-compile": {"failed": "broken"}}
        }
        text = report.page(results)
        assert row(text, "| `mlp_sgd` | 2.00 / ")[1:] == [
            *("2.00 / 3.00 (`torch`)", "3.88 / 2.00 (`keras-jax`)", "8.00 / - (`keras-jax`)"),
            *("5.45 / 2.00 (`torch`)", "2.10 / 1.40"),
        ]
        assert "the first is for `tinynet` and the second for `tinynet-fast`" in text
        assert row(text, "| **`tinynet-fast`** (1 process)")[1:5] == [
            *("0.700 (0.700 to 0.700)", "0.67", "1.00", "1.40")
        ]
        assert row(text, "| the limit")[2:5] == ["0.48", "0.71", "1"]
        assert (
            "First use, seconds to the first step with nothing compiled yet: `tinynet-fast` 8.25.\n" in text
        )

    def test_a_second_engine_that_differs_is_not_timed(self, results):
        results["contenders"]["tinynet-fast"] = about("tinynet, Numba")
        results["equivalence"]["mlp_sgd"]["tinynet-fast"] = losses(2.0, 1.5, 1.1)
        results["time"]["mlp_sgd"]["tinynet-fast"] = [process([0.7, 0.7])]
        text = report.page(results)
        assert row(text, "| `mlp_sgd` | 2.00 / ")[1] == "2.00 / - (`torch`)"
        assert "**`tinynet-fast`**, not timed: its losses differ" in text

    def test_the_fastest_comes_first(self, results):
        text = report.page(results).partition("## Times")[2]
        assert text.index("**`tinynet`**") < text.index("`torch`") < text.index("`keras-jax`")

    def test_a_failure_is_told_in_one_line(self, results):
        results["time"]["mlp_sgd"]["torch"] = [{"failed": "Traceback\n  ...\nValueError: a | b"}]
        assert "| `torch`, FAILED: ValueError: a \\| b |" in report.page(results)

    def test_advice_after_an_error_is_not_the_error(self):
        text = "Traceback\n  File x\ntorch.exc.InductorError: No compiler\n\nSet VERBOSE=1 for more, set LOGS"
        assert cells.one_line(text) == "torch.exc.InductorError: No compiler"
        assert cells.one_line("exit status 3") == "exit status 3"

    def test_a_slow_contender_that_was_measured_once_says_so(self, results):
        results["time"]["mlp_sgd"]["torch"] = [process([9.0, 9.1])]
        assert "| `torch` (1 process) | 9.050 (9.000 to 9.100) |" in report.page(results)

    def test_a_run_that_has_only_begun_has_a_page(self, results):
        for part in ("equivalence", "time", "first_step", "accuracy", "scaling"):
            results[part] = {}
        assert "## Cases" in report.page(results)

    def test_written_anew_from_the_file(self, results, tmp_path):
        (tmp_path / "results.json").write_text(json.dumps(results))
        before = copy.deepcopy(results)
        assert report.main([str(tmp_path)]) == 0
        assert (tmp_path / "results.md").read_text() == report.page(before, ["epochs.png", "scaling.png"])
        assert {path.name for path in tmp_path.iterdir()} == {
            *("results.json", "results.md", "epochs.png", "scaling.png")
        }
