"""benchmarks/run.py from end to end, on a few made-up images, with tinynet and the limit."""

import json
import re
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import cases
import children
import contenders
import run

ABSENT = contenders.Contender(
    "absent", "Absent", "no_such_module:Trainer", "none", (("no-such-distribution",),), "bench-absent"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of every part: its results, its output, its folder and how many seconds it took."""
    started = time.perf_counter()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (700, 28, 28), dtype=np.uint8)
    labels = (images[:, 0, 0] // 26).astype(np.uint8)
    data = (images[:600], labels[:600]), (images[600:], labels[600:])
    folder = tmp_path_factory.mktemp("benchmark")
    printed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.fashion_mnist, "load", lambda *arguments, **settings: data)
        patch.setitem(run.CONTENDERS, "absent", ABSENT)
        patch.setattr(cases, "WIDTHS", (8, 16))
        patch.setattr(cases, "BATCH_SIZES", (64,))
        patch.setattr(run, "MOST_EPOCHS", 2)
        patch.setattr("builtins.print", lambda *words, **settings: printed.append(" ".join(map(str, words))))
        arguments = ["--cases", "mlp_adam", "--contenders", "tinynet", "absent", "numpy-limit"]
        arguments += ["--repeats", "2", "--epochs", "3", "--train-size", "500", "--output", str(folder)]
        status = run.main(arguments)
    assert status == 0
    results = json.loads((folder / "results.json").read_text())
    return results, "\n".join(printed), folder, time.perf_counter() - started


def test_what_is_not_installed_is_left_out_with_a_line_that_says_so(finished):
    results, printed, folder, _ = finished
    line = "no-such-distribution not installed: pip install -e '.[bench-absent]'"
    assert f"absent was left out: {line}" in printed
    assert results["left_out"] == {"absent": line}
    assert f"`absent` was left out: {line}" in (folder / "results.md").read_text()


def test_every_process_has_its_figures(finished):
    results, _, _, whole = finished
    epochs = results["time"]["mlp_adam"]
    assert [len(runs) for runs in epochs.values()] == [2, 2]
    for measured in epochs["tinynet"]:
        assert (
            len(measured["seconds"]) == len(measured["cpu_seconds"]) == 2
        )  # of three epochs, without the first
        assert measured["start_to_first_epoch"] > measured["seconds"][0] > 0
        assert 20 < measured["peak_memory_mb"] < 2000
        assert 0 <= measured["accuracy"] <= 1
        assert measured["environment"]["threads"] == "1 worker"
        assert measured["environment"]["engine"] == "numpy"  # also where Numba is installed
    for measured in results["first_step"]["mlp_adam"]["tinynet"]:
        assert 0 < measured["start_to_first_step"] < whole
    for measured in epochs["numpy-limit"]:
        assert set(measured["ways"]) == {"1 BLAS thread", "all BLAS threads"}


def test_the_report_shows_those_figures(finished):
    results, _, folder, _ = finished
    text = (folder / "results.md").read_text()
    measured = results["time"]["mlp_adam"]["tinynet"]
    seconds = [value for process in measured for value in process["seconds"]]
    middle, low, high = statistics.median(seconds), min(seconds), max(seconds)
    assert f"| **`tinynet`** | {middle:.3f} ({low:.3f} to {high:.3f}) | 1.00 |" in text
    assert re.search(r"^\| the limit \((1|all) BLAS threads?\) \|", text, re.MULTILINE)
    assert "Adam(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-07), batches of 32" in text
    assert "| hidden width | 8 | 16 |" in text
    assert "500 training images, 2 processes per figure, 3 epochs in each" in text


def test_it_compares_losses_in_both_dtypes(finished):
    results, _, _, _ = finished
    entry = results["equivalence"]["mlp_adam"]["tinynet"]
    assert len(entry["float32"]) == len(entry["float64"]) == 3
    assert entry["differences"] == {"float32": [0, 0, 0], "float64": [0, 0, 0]}
    np.testing.assert_allclose(entry["float32"][:2], entry["float64"][:2], rtol=1e-5)


def test_accuracy_and_scaling_are_measured(finished):
    results, _, _, _ = finished
    assert [len(process["accuracies"]) for process in results["accuracy"]["mlp_adam"]["tinynet"]] == [2, 2, 2]
    assert set(results["scaling"]["width"]["tinynet"]) == {"8", "16"}
    assert results["scaling"]["batch"]["tinynet"]["64"]["images"] == 500


def test_plots_are_written(finished):
    _, _, folder, _ = finished
    assert {path.name for path in folder.glob("*.png")} == {"epochs.png", "scaling.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.glob("*.png"))


def test_a_contender_that_fails_tells_its_last_words(tmp_path, monkeypatch):
    case, weights = cases.make("mlp_adam")
    cases.save(tmp_path, case, weights)
    result = children.Children(tmp_path).run("sklearn", "no_such_case", "epochs")
    assert "no_such_case.json" in result["failed"]


def test_with_patience_a_slow_contender_is_measured_once(tmp_path):
    benchmark = run.Benchmark(run.parse(["--patience", "2"]), tmp_path, tmp_path)
    seconds = {"tinynet": 9.0, "torch": 1.0, "sklearn": 2.0, "keras-jax": 2.1, "numpy-limit": None}
    benchmark.results["contenders"] = dict.fromkeys(seconds)
    benchmark.results["time"]["mlp_adam"] = {
        name: [{"seconds": [value]}] for name, value in seconds.items() if value
    }
    slow = [name for name in seconds if benchmark.is_slow("mlp_adam", name)]
    assert slow == ["keras-jax"]  # never tinynet itself
    benchmark.options.patience = run.parse([]).patience
    assert not any(benchmark.is_slow("mlp_adam", name) for name in seconds)


def test_a_run_goes_on_where_another_ended(tmp_path):
    first = run.Benchmark(run.parse(["--epochs", "4"]), tmp_path, tmp_path)
    first.results["time"]["mlp_sgd"] = {"torch": [{"seconds": [1.0]}]}
    first.write()
    second = run.Benchmark(run.parse(["--epochs", "4", "--cases", "cnn"]), tmp_path, tmp_path)
    assert second.results == json.loads(json.dumps(first.results))
    with pytest.raises(SystemExit, match="measured with epochs=4, but this run has 3; use another --output"):
        run.Benchmark(run.parse([]), tmp_path, tmp_path)


def test_a_contender_that_joins_later_is_compared_before_it_is_timed(tmp_path, monkeypatch):
    class Told:
        """Stands in for processes: records what they were asked, and gives each its losses."""

        folder, asked = tmp_path, []

        def run(self, name, case, task, **options):
            self.asked.append((task, name, options.get("seed")))
            if task == "losses":
                return {"losses": [1.0, 1.0, 1.0 if name != "sklearn" else 2.0]}
            return {"failed": "broken"} if name == "keras-jax" else {"seconds": [1.0]}

    first = run.Benchmark(run.parse(["--repeats", "2"]), tmp_path, tmp_path)
    names = ("tinynet", "torch", "sklearn", "keras-jax")
    first.cases = {"mlp_sgd": cases.make("mlp_sgd")[0]}
    first.results["contenders"] = dict.fromkeys(names)
    first.children = Told()
    for joined in (2, 4):
        first.contenders = [run.CONTENDERS[name] for name in names[:joined]]
        Told.asked.clear()
        first.equivalence()
        assert [name for _, name, _ in Told.asked[::2]] == list(names[:joined])
    assert list(first.results["equivalence"]["mlp_sgd"]) == list(names)
    Told.asked.clear()
    first.time()
    taking_turns = [("epochs", "tinynet", 0), ("epochs", "torch", 0), ("epochs", "keras-jax", 0)]
    taking_turns += [("epochs", "tinynet", 1), ("epochs", "torch", 1)]  # what failed is not tried again
    assert [call for call in Told.asked if call[0] == "epochs"] == taking_turns


def test_what_keeps_compiled_code_is_used_once_before_it_is_timed(tmp_path):
    class Told:
        """Stands in for processes: one contender can't compile."""

        folder, asked = tmp_path, []

        def run(self, name, case, task, **options):
            self.asked.append((task, name))
            if name == "torch-compile":
                return {"failed": "no compiler"}
            return {"start_to_first_step": 5.0} if task.startswith("first") else {"seconds": [1.0]}

    benchmark = run.Benchmark(run.parse(["--repeats", "1"]), tmp_path, tmp_path)
    names = ("tinynet", "tinynet-fast", "torch-compile")
    benchmark.cases = {"mlp_sgd": cases.make("mlp_sgd")[0]}
    benchmark.results["contenders"] = dict.fromkeys(names)
    benchmark.contenders = [run.CONTENDERS[name] for name in names]
    benchmark.children = Told()
    benchmark.time()
    assert Told.asked == [
        *(("first-use", "tinynet-fast"), ("first-use", "torch-compile")),
        *(("epochs", "tinynet"), ("epochs", "tinynet-fast")),
        *(("first-step", "tinynet"), ("first-step", "tinynet-fast")),
    ]
    assert benchmark.results["first_use"]["mlp_sgd"]["tinynet-fast"] == {"start_to_first_step": 5.0}
    assert run.summary.failure(benchmark.results, "mlp_sgd", "torch-compile") == "no compiler"
    assert run.summary.failure(benchmark.results, "mlp_sgd", "tinynet-fast") is None


def test_compiled_code_belongs_to_the_run_and_the_first_use_finds_none(tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, os, pathlib\n"
        "folders = {os.environ[name] for name in ('NUMBA_CACHE_DIR', 'TORCHINDUCTOR_CACHE_DIR')}\n"
        "folder = pathlib.Path(folders.pop())\n"
        "found = folder.exists()\n"
        "folder.mkdir(parents=True, exist_ok=True)\n"
        "print(json.dumps({'found': found, 'folder': str(folder)}))\n"
    )
    processes = children.Children(tmp_path, worker=worker)
    tasks = ("losses", "first-use", "epochs", "first-step")
    results = [processes.run("tinynet-fast", "cnn", task) for task in tasks]
    assert [result["found"] for result in results] == [False, False, True, True]
    assert len({result["folder"] for result in results}) == 1
    others = (
        processes.run("tinynet-fast", "mlp_sgd", "epochs"),
        processes.run("torch-compile", "cnn", "epochs"),
    )
    assert not any(other["found"] for other in others)


def test_once_compiled_the_engine_compiles_nothing_more(tmp_path):
    pytest.importorskip("numba")
    case, weights = cases.make("mlp_bn")
    cases.save(tmp_path, case, weights)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 28, 28), dtype=np.uint8)
    labels = rng.integers(0, 10, 200).astype(np.uint8)
    data = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    cases.save_data(tmp_path, data, {case.batch_size})
    processes, compiled = children.Children(tmp_path), []
    for task in ("first-use", "first-step", "epochs"):
        result = processes.run("tinynet-fast", "mlp_bn", task, epochs=2)
        assert "failed" not in result, result
        compiled.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("compiled/**/*.nb?")})
    assert result["environment"]["engine"] == "numba"
    assert compiled[0]
    assert compiled[0] == compiled[1] == compiled[2]


def test_a_process_that_takes_too_long_is_ended(tmp_path):
    result = children.Children(tmp_path, timeout=0.001).run("tinynet", "mlp_adam", "epochs")
    assert result == {"failed": "not finished after 0.001 seconds"}


def test_processes_choose_their_own_kernels_unless_they_inherit(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    chosen, inherited = children.Children(tmp_path), children.Children(tmp_path, inherit_environment=True)
    assert "OPENBLAS_CORETYPE" not in chosen.environment()
    assert chosen.settings()["OMP_NUM_THREADS"] == "3"
    assert inherited.settings()["OPENBLAS_CORETYPE"] == "Haswell"


def test_one_epoch_is_too_few(capsys):
    with pytest.raises(SystemExit):
        run.main(["--epochs", "1"])
    assert "expected at least 2" in capsys.readouterr().err


def test_results_of_one_day_do_not_overwrite_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    first, second = run.output_folder(None), run.output_folder(None)
    assert second.name == f"{first.name}-2"
