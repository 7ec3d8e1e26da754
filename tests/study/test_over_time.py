"""TrainingMonitor: its numbers match direct computation, it leaves training unchanged, it finds and names faults."""

import json
import math
import re
import runpy
import signal
import sys
import zlib
from base64 import b64decode
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import tinynet as tn
from tinynet.study.over_time import monitor
from tinynet.study.over_time.findings import findings, number
from tinynet.study.over_time.maps import bins_worth_showing, merged
from tinynet.study.over_time.page import render
from tinynet.study.over_time.probe import BINS, LEVELS, LOWEST, SAMPLED, Histograms, Probe, octave

RNG = np.random.default_rng(0)
X = RNG.standard_normal((48, 6)).astype(np.float32)
Y = np.arange(48) % 3
IMAGES = RNG.integers(0, 256, (24, 28, 28), dtype=np.uint8)
LABELS = np.arange(24) % 10


def network(seed=0):
    layers = [
        *(tn.Dense(8), tn.BatchNorm(), tn.ReLU(), tn.Dropout(0.3)),
        tn.Residual(tn.Dense(5), tn.Tanh(), projection=tn.Dense(5)),
        *(tn.Residual(tn.Residual(tn.Dense(5), tn.Sigmoid())), tn.Dense(3), tn.Softmax()),
    ]
    return tn.Sequential(layers, input_shape=(6,), seed=seed)


def monitored(model, path, x=X, y=Y, every=1, probe=None, callbacks=(), **settings):
    """Train with a monitor; return its record."""
    px, py = (x, y) if probe is None else probe
    monitor = tn.study.TrainingMonitor(path / "page.html", px, py, every=every)
    defaults = {"optimizer": tn.SGD(0.1), "loss": tn.CrossEntropy(), "batch_size": 8, "verbose": 0}
    model.fit(x, y, callbacks=[*callbacks, monitor], **(defaults | settings))
    return monitor.record


def kinds(record):
    return {finding.kind for finding in findings(record)}


# -- histograms ------------------------------------------------------------------------------------------


def slow_histogram(array):
    counts = [0] * BINS
    for value in np.asarray(array, np.float32).ravel().tolist():
        size = abs(value)
        if math.isfinite(size) and size < 2.0**LOWEST:
            counts[LEVELS] += 1
            continue
        exponent = math.frexp(size)[1] - 1 if math.isfinite(size) else 10_000
        level = min(exponent - LOWEST + 1, LEVELS)
        counts[LEVELS + math.copysign(1, value).__int__() * level] += 1
    return counts


class TestHistograms:
    @given(
        st.lists(
            st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40), min_size=1, max_size=4
        )
    )
    def test_counts_by_sign_and_power_of_two(self, lists):
        arrays = [np.array(values, np.float32) for values in lists]
        counts, _ = Histograms([array.size for array in arrays]).count(arrays)
        assert counts.tolist() == [slow_histogram(array) for array in arrays]

    def test_powers_of_two_begin_their_bin(self):
        for exponent in (LOWEST, -3, 0, 5, LOWEST + LEVELS - 1):
            for factor, sign in ((1, 1), (1.99, 1), (1, -1), (1.99, -1)):
                (counts,), _ = Histograms([1]).count([np.array([sign * factor * 2.0**exponent])])
                (found,) = np.flatnonzero(counts)
                low, high = octave(int(found))
                assert low == 2.0**exponent
                assert high == 2 * low
                assert np.sign(found - LEVELS) == sign

    def test_root_mean_squares_also_where_squares_underflow(self):
        arrays = [np.array([3.0, -4.0]), np.full((5, 7), 1e-30, np.float32), np.zeros(3)]
        _, rms = Histograms([2, 35, 3]).count(arrays)
        np.testing.assert_allclose(rms, [math.sqrt(12.5), 1e-30, 0])

    @pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
    def test_large_arrays_are_sampled_without_a_copy_and_the_same_each_time(self, axes):
        array = np.random.default_rng(1).standard_normal((40, 30, 20)).transpose(axes)
        assert np.shares_memory(array.ravel(order="K"), array)
        histograms = Histograms([array.size])
        (counts,), (rms,) = histograms.count([array])
        assert counts.sum() == SAMPLED
        assert rms == pytest.approx(1, rel=0.1)
        (again,), _ = histograms.count([array])
        assert again.tolist() == counts.tolist()
        share = counts[LEVELS - LOWEST] / SAMPLED  # from 1/2 to 1
        assert share == pytest.approx(np.mean((array >= 0.5) & (array < 1)), abs=0.05)

    def test_rows_hold_every_element(self):
        values = np.concatenate([np.zeros(9), np.random.default_rng(2).standard_normal(500), [1e-12]])
        (counts,), _ = Histograms([values.size]).count([values])
        bins = bins_worth_showing(counts[None])
        rows = merged(counts[None], bins)[0]
        assert rows.sum() == values.size
        assert rows[bins.index(LEVELS)] >= 10  # 1e-12 is too rare for a row of its own
        assert bins == sorted(bins, reverse=True)
        assert np.abs(values).max() < octave(bins[0])[1] or np.abs(values).max() < octave(bins[-1])[1]
        assert bins_worth_showing(np.eye(1, BINS, LEVELS, dtype=np.uint16)) == [LEVELS]


# -- the probe -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*tn.recipes.RECIPES, "network"])
def test_the_probe_sees_what_training_computes(name):
    """Outputs, layer by layer, and gradients: the sum of dy is the gradient of the layer's bias or beta."""
    if name == "network":
        model, loss, x, y = network(), tn.CrossEntropy(), X, Y
    else:
        recipe = tn.recipes.make(name, seed=0)
        model, loss, x, y = recipe.model, recipe.loss, IMAGES[:6], LABELS[:6]
    probe = Probe(model, x, y, loss)
    look, twin = probe.look(), model.copy()
    assert twin.loss_and_gradients(x, y, loss) == look.loss
    checked = 0
    for path, layer in twin.walk():
        for bias in ("db", "dbeta"):
            if bias in layer.__dict__:
                dy = look.gradients[path]
                expected = getattr(layer, bias)
                total = dy.sum(axis=tuple(range(dy.ndim - 1)), dtype=np.float64)
                np.testing.assert_allclose(
                    total, expected, rtol=2e-4, atol=2e-5 * np.abs(expected).max() + 1e-7
                )
                checked += 1
    assert checked >= 2
    twin, outputs = model.copy(), x.astype(np.float32)
    twin._begin_step()
    for index, layer in enumerate(twin._fuse(loss)[0]):
        outputs = layer.forward(outputs, training=True)
        if index >= probe.first - 1:
            seen = look.outputs[str(index)] if index >= probe.first else probe.input
            np.testing.assert_array_equal(seen, outputs)


def test_the_probe_leaves_the_model_alone_and_sees_it_anew_each_time():
    model = network()
    model.loss_and_gradients(X, Y, tn.CrossEntropy())  # caches, outputs, running statistics
    probe = Probe(model, X[:5], Y[:5], tn.CrossEntropy())
    kept = {name: array.copy() for name, array in (model.named_weights() | model.named_grads()).items()}
    outputs, step = model.outputs.copy(), model.step
    first = probe.look().loss
    assert probe.look().loss == first
    for name, array in (model.named_weights() | model.named_grads()).items():
        np.testing.assert_array_equal(array, kept[name])
    np.testing.assert_array_equal(model.outputs, outputs)
    assert model.step == step
    model.layers[0].W *= 2
    assert probe.look().loss != first


def test_a_frozen_batch_norm_is_followed():
    model = network()
    probe = Probe(model, X[:5], Y[:5], tn.CrossEntropy())
    before = probe.look().loss
    model.layers[1].trainable = False
    frozen = probe.look().loss
    assert frozen != before
    model.layers[1].running_mean += 1  # it uses these now
    assert probe.look().loss not in (before, frozen)


# -- samples -----------------------------------------------------------------------------------------------


class Witness(tn.Callback):
    """Computes the long way what the monitor should find."""

    def __init__(self):
        self.before, self.ratios, self.norms, self.losses = None, [], [], []

    def on_train_begin(self, run):
        self.before = {name: array.copy() for name, array in run.model.named_params().items()}

    def on_batch_end(self, run):
        after = {name: array.copy() for name, array in run.model.named_params().items()}
        norm, weights = np.linalg.norm, [name for name in after if name.endswith("W")]
        self.ratios.append(
            [norm(after[name] - self.before[name]) / norm(self.before[name]) for name in weights]
        )
        self.norms.append([norm(run.model.named_grads()[name]) for name in weights])
        self.losses.append(run.batch_loss)
        self.before = after


class TestSamples:
    def test_against_direct_computation(self, tmp_path):
        model, witness = network(), Witness()
        schedule = tn.schedules.cosine(0.1, 12)
        record = monitored(
            model, tmp_path, every=2, epochs=2, optimizer=tn.SGD(schedule), callbacks=[witness]
        )
        assert [sample.step for sample in record.samples] == [1, 2, 4, 6, 8, 10, 12]
        assert [sample.epoch for sample in record.samples] == [1, 1, 1, 1, 2, 2, 2]
        at = [sample.step - 1 for sample in record.samples]
        np.testing.assert_allclose(record.series("ratios"), np.array(witness.ratios)[at], rtol=1e-4)
        np.testing.assert_allclose(record.series("gradient_norms"), np.array(witness.norms)[at], rtol=1e-4)
        np.testing.assert_array_equal(record.series("loss"), np.array(witness.losses)[at])
        np.testing.assert_allclose(record.series("learning_rate"), [schedule(step) for step in at])
        last = Probe(model, X[:32], Y[:32], tn.CrossEntropy()).look()
        assert record.samples[-1].probe_loss == last.loss
        for place, rms, counts in zip(
            record.places, record.samples[-1].rms, record.samples[-1].counts, strict=True
        ):
            array = {"y": last.outputs, "dy": last.gradients}.get(place.name, {}).get(place.path)
            if array is None:
                array = model.named_grads()[f"{place.path}.W"]
            assert rms == pytest.approx(np.sqrt(np.mean(np.square(array, dtype=np.float64))), rel=1e-6)
            assert counts.tolist() == slow_histogram(array)
        assert {place.path for place in record.places} == {
            *("0", "1", "2", "3", "4", "4.0", "4.1", "4.2", "5", "5.0", "5.0.0", "5.0.1", "6")
        }
        dead = ~last.outputs["2"].any(axis=0)
        assert record.samples[-1].dead.tolist() == [dead.mean()]
        flat = [
            np.mean(np.abs(last.outputs["4.1"]) > 0.97),
            np.mean(np.abs(last.outputs["5.0.1"] - 0.5) > 0.47),
        ]
        np.testing.assert_allclose(record.samples[-1].saturated, flat)

    def test_the_first_loss_is_that_of_the_untrained_model(self, tmp_path):
        record = monitored(network(), tmp_path, every=50, shuffle=False)
        untrained = network()
        assert record.samples[0].loss == untrained.loss_and_gradients(X[:8], Y[:8], tn.CrossEntropy())
        assert len(record.samples) == 1

    def test_frozen_parameters_have_no_numbers(self, tmp_path):
        model = network()
        model.layers[0].trainable = False
        record = monitored(model, tmp_path)
        assert record.weights == ["0.W", "4.0.W", "4.2.W", "5.0.0.W", "6.W"]
        for name in ("ratios", "gradient_norms"):
            assert np.isnan(record.series(name)).all(axis=0).tolist() == [True] + [False] * 4
        assert "vanishing" not in kinds(record)

    def test_long_runs_keep_every_second_sample(self, tmp_path, monkeypatch):
        monkeypatch.setattr(monitor, "MOST_SAMPLES", 8)
        record = monitored(network(), tmp_path, every=1, epochs=6)  # 36 steps
        assert record.every == 8
        assert [sample.step for sample in record.samples] == [1, 8, 16, 24, 32]
        assert np.isfinite(record.series("ratios")).all()
        assert "every second one was dropped" in (tmp_path / "page.html").read_text()

    def test_a_resumed_run_has_the_samples_of_one_that_was_not_stopped(self, tmp_path):
        whole = monitored(network(), tmp_path, every=4, epochs=3)
        checkpoint = tmp_path / "checkpoint.safetensors"

        class Stop(tn.Callback):
            def on_batch_end(self, run):
                if run.epoch == 1 and run.batch == 2 and not run.resumed:
                    signal.raise_signal(signal.SIGINT)

        settings = {"every": 4, "epochs": 3, "callbacks": [Stop()], "checkpoint": checkpoint}
        with pytest.raises(KeyboardInterrupt, match="interrupted"):
            monitored(network(), tmp_path, **settings)
        resumed = monitored(network(), tmp_path, resume=checkpoint, **settings)
        assert [sample.step for sample in resumed.samples] == [1, 4, 8, 12, 16]
        assert resumed.fresh
        for name in (
            "step",
            "epoch",
            "loss",
            "probe_loss",
            "learning_rate",
            "ratios",
            "rms",
            "counts",
            "dead",
        ):
            np.testing.assert_array_equal(resumed.series(name), whole.series(name))
        assert "18 of 18" in (tmp_path / "page.html").read_text()

    def test_states_of_other_runs_are_refused(self, tmp_path):
        first = tn.study.TrainingMonitor(tmp_path / "a.html", X, Y)
        assert first.state() == {}
        first.set_state({})
        settings = {"optimizer": tn.SGD(0.1), "loss": tn.CrossEntropy(), "verbose": 0}
        network().fit(X, Y, callbacks=[first], **settings)
        with pytest.raises(KeyError):
            first.set_state({"best": 0.5})
        other = tn.study.TrainingMonitor(tmp_path / "b.html", X, Y)
        other.set_state(first.state())
        with pytest.raises(ValueError, match="come from another model"):
            tn.Sequential([tn.Dense(3), tn.Softmax()], (6,)).fit(X, Y, callbacks=[other], **settings)
        assert not (tmp_path / "b.html").exists()


# -- training is unchanged -------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "workers"), [("network", 1), ("mlp_bn", 1), ("cnn_small", 2)])
def test_training_gives_the_same_bits(name, workers, tmp_path):
    results = []
    for watched in (False, True):
        if name == "network":
            model, settings, x, y = network(), {"optimizer": tn.Adam(), "loss": tn.CrossEntropy()}, X, Y
        else:
            recipe = tn.recipes.make(name, seed=0)
            model, settings, x, y = recipe.model, recipe.fit_arguments(), IMAGES, LABELS
        monitor = tn.study.TrainingMonitor(tmp_path / "page.html", x[:7], y[:7], every=2)
        settings |= {"batch_size": 9, "epochs": 2, "verbose": 0, "workers": workers}
        history = model.fit(x, y, callbacks=[monitor] if watched else [], **settings).history
        results.append((model, settings["optimizer"], history))
    (plain, plain_optimizer, plain_history), (seen, seen_optimizer, seen_history) = results
    for one, other in zip(plain.named_weights().values(), seen.named_weights().values(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(plain.grads, seen.grads)
    np.testing.assert_array_equal(plain.outputs, seen.outputs)
    for slot in plain_optimizer.slots:
        np.testing.assert_array_equal(plain_optimizer.slots[slot], seen_optimizer.slots[slot])
    assert (plain.step, plain.epoch) == (seen.step, seen.epoch)
    assert plain_history["loss"] == seen_history["loss"]


@pytest.mark.data
def test_its_cost_can_be_measured(fashion_mnist, monkeypatch, capsys):
    script = Path(__file__).parents[2] / "benchmarks" / "monitor_overhead.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--train-size", "640", "--pairs", "2", "--every", "5"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert end.value.code == 0
    assert re.search(
        r"mlp_adam, every 5 steps: [+-]\d+\.\d%, the median over 2 pairs", capsys.readouterr().out
    )


# -- the page ----------------------------------------------------------------------------------------------


def page_data(text):
    """The data and the counts that the page's script gets."""
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    planes = zlib.decompress(b64decode(re.search(r'id="counts">(.*?)</script>', text, re.DOTALL)[1]))
    return data, np.ascontiguousarray(np.frombuffer(planes, np.uint8).reshape(2, -1).T).view("<u2").ravel()


class TestPage:
    def test_holds_the_numbers_of_the_record(self, tmp_path):
        record = monitored(network(), tmp_path, epochs=2)
        data, counts = page_data((tmp_path / "page.html").read_text())
        assert data["steps"] == [sample.step for sample in record.samples]
        for column, name in enumerate(record.weights):
            series = data["charts"]["ratios"]["series"][column]
            assert series["name"] == name
            np.testing.assert_allclose(series["values"], record.series("ratios")[:, column], rtol=1e-5)
        np.testing.assert_allclose(
            data["charts"]["loss"]["series"][0]["values"], record.series("loss"), rtol=1e-5
        )
        for index, (path, name) in enumerate(record.places):
            chart = data["charts"][f"{path}.{name}"]
            size = len(chart["rows"]) * len(record.samples)
            rows = counts[chart["start"] : chart["start"] + size].reshape(len(chart["rows"]), -1)
            assert (rows.sum(axis=0) == record.counted[index]).all()
            for row, (sign, low, _) in zip(rows, chart["rows"], strict=True):
                if sign:
                    number = LEVELS + sign * (round(math.log2(low)) - LOWEST + 1)
                    assert row.tolist() == [sample.counts[index, number] for sample in record.samples]

    @pytest.mark.parametrize("name", tn.recipes.RECIPES)
    def test_of_every_recipe(self, name, tmp_path):
        recipe = tn.recipes.make(name, seed=0)
        settings = recipe.fit_arguments() | {"batch_size": 8, "epochs": 1, "augment": None}
        record = monitored(recipe.model, tmp_path, IMAGES, LABELS, probe=(IMAGES[:6], LABELS[:6]), **settings)
        text = (tmp_path / "page.html").read_text()
        for path, layer in recipe.model.walk():
            has_card = f'id="card-{path}"' in text
            skipped = isinstance(layer, tn.Flatten | tn.Reshape | tn.Rescale | tn.Softmax)
            assert has_card != skipped, path
        assert "{{" not in text
        assert "http" not in re.sub(r'<script type="text/array".*?</script>', "", text, flags=re.DOTALL)
        assert len(record.samples) == 3

    def test_of_regression_and_of_a_model_without_parameters(self, tmp_path):
        model = tn.Sequential([tn.Dense(4), tn.ReLU(), tn.Dense(2)], input_shape=(6,), seed=0)
        targets = X[:, :2].copy()
        record = monitored(model, tmp_path, X, targets, loss=tn.MeanSquaredError())
        assert record.classes is None
        assert (
            "guessing"
            not in (tmp_path / "page.html").read_text().partition("<script")[0].partition("<aside")[0]
        )
        bare = tn.Sequential([tn.Softmax()], input_shape=(3,), seed=0)
        monitored(bare, tmp_path, X[:, :3], Y)
        assert 'id="card-' not in (tmp_path / "page.html").read_text()

    def test_is_written_when_the_loss_is_not_finite(self, tmp_path):
        model = network()
        with pytest.raises(tn.NonFiniteError):
            monitored(model, tmp_path, every=3, optimizer=tn.SGD(1e30), epochs=4)
        text = (tmp_path / "page.html").read_text()
        assert "Training ended with an error. NonFiniteError: epoch 1, batch" in text
        assert "ended by an error" in text
        assert "set every=1 to see the last steps" in text

    def test_is_written_when_no_step_was_finished(self, tmp_path):
        model = network()
        model.layers[0].W = np.full((6, 8), np.inf)
        with pytest.raises(tn.NonFiniteError):
            monitored(model, tmp_path)
        assert "No step was finished" in (tmp_path / "page.html").read_text()

    def test_is_written_after_an_interrupt(self, tmp_path):
        class Interrupt(tn.Callback):
            def on_batch_end(self, run):
                if run.batch == 2:
                    signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt, match="interrupted"):
            monitored(network(), tmp_path, callbacks=[Interrupt()])
        assert "3 of 6, ended by Ctrl-C" in (tmp_path / "page.html").read_text()

    def test_of_a_run_inside_an_except_block_has_no_error(self, tmp_path):
        try:
            raise KeyError("not of this run")
        except KeyError:
            record = monitored(network(), tmp_path)
        assert record.error is None

    def test_an_examples_text_cannot_end_its_script(self, tmp_path):
        class Odd(tn.Dense):
            pass

        Odd.__name__ = "</script><b>"
        record = monitored(tn.Sequential([Odd(3), tn.Softmax()], (6,), seed=0), tmp_path)
        assert "</script><b>" not in render(record)

    def test_folders_are_made(self, tmp_path):
        monitored(network(), tmp_path / "new" / "folder")
        assert (tmp_path / "new" / "folder" / "page.html").exists()

    @pytest.mark.parametrize(
        ("probe", "message"),
        [
            ((X[:, :5], Y), r"x of TrainingMonitor: expected shape \(batch, 6\), got \(48, 5\)"),
            ((X, Y + 1), r"y of TrainingMonitor: labels: expected class numbers from 0 to 2"),
            ((X[:3], Y), "expected one target per example"),
        ],
    )
    def test_a_probe_that_does_not_fit_refuses_the_run(self, probe, message, tmp_path):
        model = network()
        before = model.params.copy()
        with pytest.raises(ValueError, match=message):
            monitored(model, tmp_path, probe=probe)
        np.testing.assert_array_equal(model.params, before)
        assert not (tmp_path / "page.html").exists()

    @pytest.mark.parametrize("every", [0, -1, 2.5, True, "50"])
    def test_every_is_a_positive_int(self, every):
        with pytest.raises(ValueError, match="TrainingMonitor every: expected a positive int"):
            tn.study.TrainingMonitor("page.html", X, Y, every=every)


# -- what looks wrong --------------------------------------------------------------------------------------


class TestFindings:
    """Each fault is provoked and found; a healthy run has no findings."""

    def test_nothing_in_a_healthy_run(self, tmp_path):
        model = tn.Sequential([tn.Dense(16), tn.ReLU(), tn.Dense(3), tn.Softmax()], (6,), seed=0)
        record = monitored(model, tmp_path, epochs=8, optimizer=tn.SGD(0.05))
        assert findings(record) == []
        assert "Nothing looks wrong" in (tmp_path / "page.html").read_text()

    def test_dead_units(self, tmp_path):
        model = tn.Sequential([tn.Dense(10), tn.ReLU(), tn.Dense(3), tn.Softmax()], (6,), seed=0)
        model.layers[0].b = [-1e3] * 5 + [0] * 5
        record = monitored(model, tmp_path)
        (finding,) = [finding for finding in findings(record) if finding.kind == "dead"]
        assert finding.path == "1"
        assert finding.text.startswith(
            "Layer 1: 50% of the ReLU units are dead for every probe example, from the first step on."
        )

    def test_units_that_die_on_the_way(self, tmp_path):
        class Kill(tn.Callback):
            def on_batch_end(self, run):
                if run.batch == 3:
                    run.model.layers[0].b = np.full(10, -1e3)

        model = tn.Sequential([tn.Dense(10), tn.ReLU(), tn.Dense(3), tn.Softmax()], (6,), seed=0)
        record = monitored(model, tmp_path, callbacks=[Kill()])
        (finding,) = [finding for finding in findings(record) if finding.kind == "dead"]
        assert "100% of the ReLU units are dead for every probe example, from step 4 on." in finding.text

    def test_a_learning_rate_that_is_too_high(self, tmp_path):
        model = tn.Sequential([tn.Dense(10), tn.Tanh(), tn.Dense(3), tn.Softmax()], (6,), seed=0)
        record = monitored(model, tmp_path, optimizer=tn.Adam(0.3), epochs=3)
        (first, *_) = [finding for finding in findings(record) if finding.kind == "ratio-high"]
        assert re.match(
            r"0\.W moves by 0\.\d+ of its size per step; 0\.001 is typical\. The learning", first.text
        )

    def test_one_that_is_too_low_but_not_the_end_of_a_schedule(self, tmp_path):
        model = tn.Sequential([tn.Dense(10), tn.ReLU(), tn.Dense(3), tn.Softmax()], (6,), seed=0)
        assert "ratio-low" in kinds(monitored(model, tmp_path, optimizer=tn.SGD(1e-6)))
        falling = tn.SGD(lambda step: 0.1 if step < 12 else 1e-9)
        assert "ratio-low" not in kinds(monitored(model, tmp_path, optimizer=falling, epochs=8))

    def test_unscaled_inputs(self, tmp_path):
        layers = [tn.Flatten(), tn.Dense(30), tn.ReLU(), tn.Dense(10), tn.Softmax()]
        model = tn.Sequential(layers, input_shape=(28, 28), seed=0)
        record = monitored(model, tmp_path, IMAGES, LABELS)
        found = {finding.kind: finding.text for finding in findings(record)}
        assert "gets inputs of size 1" in found["unscaled"]
        first = number(record.samples[0].loss)
        assert found["first-loss"].startswith(f"The first loss, {first}, is far above ln 10 = 2.303")

    def test_a_first_loss_that_is_too_good(self, tmp_path):
        x = np.eye(3, dtype=np.float32)[Y]
        model = tn.Sequential([tn.Dense(3), tn.Softmax()], (3,), seed=0)
        model.layers[0].W = 9 * np.eye(3)
        assert "first-loss" in kinds(monitored(model, tmp_path, x, Y))
        again = monitored(model, tmp_path, x, Y)  # no surprise now: it has been trained
        assert not again.fresh
        assert "first-loss" not in kinds(again)

    def test_gradients_that_vanish(self, tmp_path):
        deep = [layer for _ in range(10) for layer in (tn.Dense(8), tn.Sigmoid())]
        model = tn.Sequential([*deep, tn.Dense(3), tn.Softmax()], (6,), seed=0)
        record = monitored(model, tmp_path)
        (finding,) = [finding for finding in findings(record) if finding.kind == "vanishing"]
        assert finding.path == "0"
        assert "times that of 20.W: it vanishes on the way back" in finding.text

    def test_gradients_that_explode(self, tmp_path):
        deep = [layer for _ in range(4) for layer in (tn.Dense(16), tn.ReLU())]
        model = tn.Sequential([*deep, tn.Dense(3), tn.Softmax()], (6,), seed=0)
        for layer in model.layers[:8:2]:
            layer.W *= 30
        record = monitored(model, tmp_path, optimizer=tn.SGD(1e-9))
        (finding,) = [finding for finding in findings(record) if finding.kind == "exploding"]
        assert "it is first above 1,000 at step 1." in finding.text

    def test_saturated_units(self, tmp_path):
        model = tn.Sequential([tn.Dense(8), tn.Tanh(), tn.Dense(3), tn.Softmax()], (6,), seed=0)
        model.layers[0].W *= 100
        record = monitored(model, tmp_path)
        (finding,) = [finding for finding in findings(record) if finding.kind == "saturated"]
        assert "of the Tanh outputs are where the function is flat, from the first step on" in finding.text

    def test_a_loss_that_rises(self, tmp_path):
        class Spoil(tn.Callback):
            def on_batch_end(self, run):
                run.model.layers[0].W *= 1.5

        model = tn.Sequential([tn.Dense(3), tn.Softmax()], (6,), seed=0)
        record = monitored(
            model,
            tmp_path,
            y=np.random.default_rng(2).integers(0, 3, 48),
            optimizer=tn.SGD(0),
            callbacks=[Spoil()],
            epochs=2,
        )
        assert "no-progress" in kinds(record)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00123456, "0.00123"),
        (12.345, "12.3"),
        (1234.5, "1,234"),
        (-2e-5, "-2e-5"),
        (1.5e7, "1.5e7"),
    ],
)
def test_numbers_in_words(value, text):
    assert number(value) == text
