"""The page of a training step: in a browser its numbers are the library's, and everything is within reach."""

import base64
import json
import math
import re
import xml.etree.ElementTree as ET
import zlib

import numpy as np
import pytest

import tinynet as tn
from tests.support.browser import opened
from tinynet import recipes
from tinynet.study.tracing import cards, notation, page
from tinynet.study.tracing.formulas import FORMULAS, mathml
from tinynet.study.tracing.source import method_sources

NAMES = [f"class {k}" for k in range(10)]


def images(n, seed=0):
    """Not noise: shapes with a black border, as the real images have."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n, 28, 28), np.uint8)
    for image in x:
        top, left = rng.integers(3, 12, 2)
        image[top : top + rng.integers(6, 14), left : left + rng.integers(6, 14)] = rng.integers(40, 256)
    return x, rng.integers(0, 10, n)


def traced(recipe, n):
    made = recipes.make(recipe, seed=1)
    x, y = images(n)
    return tn.study.trace(made.model, x, y, made.loss, made.optimizer)


def zoo():
    """The layers that no recipe uses."""
    layers = [
        *(tn.Rescale(1 / 255, -0.5), tn.Reshape((28, 28, 1))),
        *(tn.Conv2D(2, 3, strides=2, padding="same"), tn.DepthwiseConv2D(3, depth_multiplier=2), tn.Tanh()),
        *(tn.AveragePool2D(2), tn.MaxPool2D(3, strides=1, padding="same"), tn.LeakyReLU(0.2)),
        tn.Residual(tn.Conv2D(4, 3, padding="same"), tn.Sigmoid()),
        *(tn.GlobalAveragePool2D(), tn.Dense(6), tn.Softmax(), tn.Dense(10), tn.LogSoftmax()),
    ]
    model = tn.Sequential(layers, input_shape=(28, 28), seed=0)
    return tn.study.trace(model, *images(4), tn.NegativeLogLikelihood(), tn.RMSprop())


def regression():
    model = tn.Sequential([tn.Dense(5), tn.Tanh(), tn.Dense(2)], (3,), seed=0)
    rng = np.random.default_rng(0)
    return tn.study.trace(
        model,
        rng.standard_normal((6, 3)),
        rng.standard_normal((6, 2)),
        tn.MeanSquaredError(),
        tn.SGD(0.1, momentum=0.9),
    )


def frozen():
    """A frozen batch-norm, whose running statistics are not the batch's, and a subclass of Residual."""

    class Block(tn.Residual):
        pass

    layers = [tn.Flatten(), tn.Dense(6), tn.BatchNorm(), Block(tn.Dense(6), tn.Tanh()), tn.Dense(10)]
    model = tn.Sequential(layers, (28, 28), seed=0)
    model.layers[2].running_mean = np.arange(6)
    model.layers[2].trainable = False
    return tn.study.trace(model, *images(5), tn.SoftmaxCrossEntropy(), tn.AdamW())


STEPS = {
    "mlp_adam": lambda: traced("mlp_adam", 32),
    "mlp_bn": lambda: traced("mlp_bn", 8),
    "cnn": lambda: traced("cnn", 4),
    "cnn_small": lambda: traced("cnn_small", 3),
    "zoo": zoo,
    "regression": regression,
    "frozen": frozen,
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """name -> (trace, path of its page), written on first use."""
    known = {}

    def write(name):
        if name not in known:
            step = STEPS[name]()
            path = tmp_path_factory.mktemp("page") / f"{name}.html"
            step.to_html(path, class_names=NAMES)
            known[name] = step, path
        return known[name]

    return write


def decode(text, kind):
    """An array as the page's script reads it."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(int(kind[1]), -1)
    return np.ascontiguousarray(planes.T).view(f"<{kind}").ravel()


# -- the file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp_adam", "zoo", "regression"])
def test_the_file_holds_the_librarys_arrays(name, written):
    step, path = written(name)
    text = path.read_text(encoding="utf-8")
    data = json.loads(re.search(r'<script type="application/json" id="step">(.*?)</script>', text)[1])
    texts = re.findall(r'<script type="text/array">(.*?)</script>', text)
    arrays, compared = step.arrays(), 0
    for layer in data["layers"]:
        for array, place in layer["arrays"].items():
            expected = arrays[f"{layer['path']}.{array}"]
            assert place["shape"] == list(expected.shape)
            if not place.get("product"):
                np.testing.assert_array_equal(decode(texts[place["data"]], place["kind"]), expected.ravel())
                compared += 1
    assert compared > 8


def test_large_arrays_are_kept_to_three_digits():
    array = np.random.default_rng(0).standard_normal(page.MOST_EXACT + 1).astype(np.float32) * 1e-9
    from tinynet.study.tracing.encoding import ArrayStore

    store = ArrayStore(page.MOST_EXACT)
    place = store.add(array)
    found = decode(store.texts[0], place["kind"]).astype(np.float64) * place["scale"]
    np.testing.assert_allclose(found, array, rtol=6e-4, atol=1e-6 * np.abs(array).max())
    exact = store.add(array, exact=True)
    np.testing.assert_array_equal(decode(store.texts[1], exact["kind"]), array)
    assert store.add(array.reshape(-1, 1), exact=True)["data"] == exact["data"]  # the same content, once


@pytest.mark.parametrize("epochs", [0, 2])
@pytest.mark.parametrize(("recipe", "limit"), [("mlp_adam", 2e6), ("mlp_bn", 6e6)])
@pytest.mark.data
def test_the_size_of_the_page_on_a_real_batch(recipe, limit, epochs, fashion_mnist, tmp_path):
    """Also for a trained network, whose updates compress less."""
    (x, y), _ = fashion_mnist
    made = recipes.make(recipe, seed=0)
    if epochs:
        made.model.fit(
            x[:6400],
            y[:6400],
            optimizer=made.optimizer,
            loss=made.loss,
            batch_size=64,
            epochs=epochs,
            verbose=0,
        )
    step = tn.study.trace(made.model, x[:32], y[:32], made.loss, made.optimizer)
    step.to_html(tmp_path / "page.html", checks=0)
    assert (tmp_path / "page.html").stat().st_size < limit


@pytest.mark.parametrize("name", ["mlp_adam", "cnn"])
def test_every_array_in_the_file_is_used(name, written):
    text = written(name)[1].read_text(encoding="utf-8")
    data = json.loads(re.search(r'<script type="application/json" id="step">(.*?)</script>', text)[1])
    used = set(re.findall(r'"data":(\d+)', json.dumps(data).replace(" ", "")))
    assert {int(number) for number in used} == set(range(text.count('<script type="text/array">')))


@pytest.mark.parametrize("names", [[], ["a"], "abcdefghij", 5, list(range(10))])
def test_class_names_are_checked(names, tmp_path):
    with pytest.raises(ValueError, match="class_names: expected"):
        traced("mlp_adam", 2).to_html(tmp_path / "page.html", class_names=names)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("checks", [-1, 1.5, "a", True])
def test_checks_are_checked(checks, tmp_path):
    with pytest.raises(ValueError, match="checks: expected"):
        traced("mlp_adam", 2).to_html(tmp_path / "page.html", checks=checks)


def test_the_pages_own_placeholders_are_text_in_what_it_is_given():
    text = page.render(
        traced("mlp_adam", 2), ["{{arrays}}"] * 10, title="{{style}}", about=["{{data}}"], checks=0
    )
    assert "<h1>{{style}}</h1>" in text
    assert "<p>{{data}}</p>" in text
    assert json.loads(re.search(r'id="step">(.*?)</script>', text)[1])["classNames"] == ["{{arrays}}"] * 10


def test_without_a_finite_loss_the_page_says_why_nothing_came_back():
    made = recipes.make("mlp_adam", seed=0)
    made.model.layers[2].W[0, 0] = np.nan
    text = page.render(tn.study.trace(made.model, *images(4), made.loss, made.optimizer))
    assert "Not run: the loss is not finite." in text
    assert "neither this layer nor an earlier one trains" not in text


def test_a_page_made_after_more_training_is_of_its_own_step():
    made = recipes.make("mlp_bn", seed=0)
    x, y = images(6)
    step = tn.study.trace(made.model, x, y, made.loss, made.optimizer)
    before = page.render(step)
    made.model.fit(x, y, optimizer=made.optimizer, loss=made.loss, epochs=3, verbose=0)
    assert page.render(step) == before


def test_nothing_is_fetched_and_text_cannot_break_out(tmp_path):
    step = traced("mlp_adam", 2)
    path = tmp_path / "page.html"
    hostile = '</script><script>alert("x")</script>'
    step.to_html(path, class_names=[hostile] * 10, title=hostile, about=[hostile])
    text = path.read_text(encoding="utf-8")
    assert hostile not in text
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#|data:)|url\(|@import|https?://""", text)


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path):
    step = traced("mlp_adam", 2)
    with pytest.raises(OSError, match="does not exist"):
        step.to_html(tmp_path / "no" / "page.html")


def test_every_formula_is_well_formed():
    for name, formulas in FORMULAS.items():
        for formula in (*formulas.forward, *formulas.backward):
            root = ET.fromstring(mathml(formula).replace("&nbsp;", " "))
            assert root.tag == "math", name
            for node in root.iter():
                arguments = {"mfrac": 2, "msub": 2, "msup": 2, "munder": 2, "msubsup": 3, "mover": 2}.get(
                    node.tag
                )
                assert arguments is None or len(node) == arguments, formula


def test_every_layer_loss_and_optimizer_has_formulas():
    missing = {name for name in tn.layers.__all__ if name != "Layer"} - set(FORMULAS)
    missing |= set(tn.losses.BY_NAME) - set(FORMULAS)
    assert not missing
    momentum, nesterov = tn.SGD(momentum=0.9), tn.SGD(momentum=0.9, nesterov=True)
    drawn = [
        notation.update_formulas(optimizer)
        for optimizer in (tn.SGD(), momentum, nesterov, tn.RMSprop(), tn.Adam())
    ]
    assert len({str(lines) for lines in drawn}) == 5
    assert all(line.startswith("<math") for lines in drawn for line in lines)
    assert len(notation.update_formulas(tn.AdamW())) == len(drawn[-1]) + 1
    changed = notation.update_formulas(tn.SGD(weight_decay=0.1, decoupled=False, clip_norm=1.0))
    assert len(changed) == len(drawn[0]) + 2


def test_a_step_on_soft_targets_is_traced_but_has_no_page():
    model, x = tn.Sequential([tn.Dense(3), tn.Softmax()], (4,), seed=0), np.ones((2, 4))
    step = tn.study.trace(model, x, np.full((2, 3), 1 / 3), tn.CrossEntropy(), tn.SGD())
    assert "loss" in "".join(map(str, step.events()))
    with pytest.raises(
        ValueError, match=r"the page shows class labels; .* instead of soft targets: y.argmax\(1\)"
    ):
        page.render(step)


@pytest.mark.parametrize("name", tn.losses.BY_NAME)
def test_a_loss_shows_its_formula_and_the_lines_that_compute_it(name):
    loss = tn.losses.BY_NAME[name]()
    for way in ("forward", "backward"):
        lines = notation.loss_formulas(loss, way)
        assert lines
        assert all(line.startswith("<math") for line in lines)
    shown = "".join(source.text for source in method_sources(type(loss), "forward"))
    assert {
        "SoftmaxCrossEntropy": "np.log(sums",
        "CrossEntropy": "np.log(outputs)",
        "NegativeLogLikelihood": "scores[np.arange(len(labels)), labels]",
        "MeanSquaredError": "np.vdot(x, x)",
    }[name] in shown

    class Own(tn.losses.BY_NAME[name]):
        def forward(self, outputs, targets, total=None):
            return 7.0

    assert not any(line.startswith("<math") for line in notation.loss_formulas(Own(), "forward"))


@pytest.mark.parametrize(
    ("owner", "method", "functions"),
    [
        (tn.ReLU, "forward", ["forward", "rectify"]),
        (tn.BatchNorm, "forward", ["forward", "moments", "standardize", "move_averages"]),
        (tn.Dense, "backward", ["backward", "sum_rows"]),
        (tn.Adam, "update", ["update", "adam_update"]),
    ],
)
def test_the_operations_of_a_method_stand_below_it(owner, method, functions):
    found = [re.match(r"def (\w+)", source.text)[1] for source in method_sources(owner, method)]
    assert found == functions


class ReLU(tn.Layer):
    """Has the name of a library layer, but computes another function.

    Forward:   y = x^2
    Backward:  dx = 2 x dy
    """

    _x = None

    def forward(self, x, training=False):
        self._x = x
        return x * x

    def backward(self, dy):
        return 2 * self._x * dy


def test_formulas_are_those_of_what_runs():
    layers = [tn.Dense(4, use_bias=False), ReLU(), tn.BatchNorm(), tn.Dense(2)]
    model = tn.Sequential(layers, (3,), seed=0)
    model.layers[2].trainable = False
    step = tn.study.trace(model, np.ones((5, 3)), np.zeros(5, int), tn.SoftmaxCrossEntropy(), tn.SGD())
    dense, own, frozen, last = (
        {way: " ".join(notation.layer_formulas(record, way)) for way in ("forward", "backward")}
        for record in step.layers
    )
    assert "<mi>b</mi>" not in dense["forward"]
    assert "<mi>db</mi>" not in dense["backward"]
    assert "<mi>b</mi>" in last["forward"]
    assert own["forward"] == "<code>y = x^2</code>"
    assert "running mean" in frozen["forward"]
    assert "<mi>dβ</mi>" not in frozen["backward"]


def test_the_gradient_check_on_the_page_finds_a_wrong_backward():
    from tinynet.study.scenarios.catalogue import ReLUWithWrongMask

    def words(relu):
        model = tn.Sequential(
            [tn.Rescale(1 / 255), tn.Flatten(), tn.Dense(8), relu, tn.Dense(10), tn.Softmax()],
            (28, 28),
            seed=0,
        )
        text = page.render(tn.study.trace(model, *images(6), tn.CrossEntropy(), tn.SGD()))
        return re.findall(r'<td class="verdict (\w+)">', text)

    assert set(words(tn.ReLU())) == {"fine"}
    assert "wrong" in words(ReLUWithWrongMask())


def test_the_check_leaves_the_model_alone():
    step = traced("mlp_bn", 4)
    params, state = step.model.params.copy(), {k: v.copy() for k, v in step.model.named_state().items()}
    found = page.check_elements(step, 2)
    np.testing.assert_array_equal(step.model.params, params)
    for name, array in state.items():
        np.testing.assert_array_equal(step.model.named_state()[name], array)
    assert {len(elements) for elements in found.values()} == {2}
    for path, elements in found.items():
        layer, _, name = path.rpartition(".")
        gradient = step.arrays()[f"{layer}.d{name}"]
        for element in elements:
            assert element.analytic == pytest.approx(float(gradient[element.index]), rel=1e-3, abs=1e-6)


# -- in a browser -----------------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("name", STEPS)
def test_every_sum_gives_the_librarys_number(name, written, chromium):
    """For some elements of every array on every card, the page's sum is the library's number."""
    step, path = written(name)
    arrays = step.arrays()
    rng = np.random.default_rng(0)
    asked = []
    for layer in step.walk():
        for array, values in layer.arrays().items():
            for flat in rng.choice(values.size, min(5, values.size), replace=False):
                asked.append((layer.path, array, [int(i) for i in np.unravel_index(flat, values.shape)]))
    with opened(chromium, path) as opened_page:
        found = opened_page.evaluate(
            """asked => asked.map(([path, name, index]) => {
                const {total, stored, lines, terms} = tinynet.explain(path, name, index);
                const mass = (terms ?? []).reduce((sum, {value}) => sum + Math.abs(value), 0);
                return {total: total ?? null, stored: stored ?? null, lines: lines ?? [], mass};
            })""",
            asked,
        )
    summed = set()
    for (layer, name_, index), answer in zip(asked, found, strict=True):
        expected = float(arrays[f"{layer}.{name_}"][tuple(index)])
        size = float(np.abs(arrays[f"{layer}.{name_}"]).max())
        if answer["stored"] is not None:
            assert answer["stored"] == pytest.approx(expected, rel=1e-3, abs=1e-6 * size), (
                layer,
                name_,
                index,
            )
        if answer["total"] is not None:
            # Terms may cancel, as for a bias before batch-norm; then only rounding is left.
            rounding = 1e-6 * answer["mass"] + 2e-5 * size
            assert answer["total"] == pytest.approx(expected, rel=1e-3, abs=rounding), (layer, name_, index)
            summed.add((layer, name_))
        assert answer["total"] is not None or answer["lines"], (layer, name_)
        assert "no sum for" not in " ".join(answer["lines"]), (layer, name_)
    products = {
        (layer.path, name_)
        for layer in step.walk()
        for name_ in ("y", "dW", "dx")
        if isinstance(layer.layer, (tn.Dense, tn.Conv2D, tn.DepthwiseConv2D)) and name_ in layer.arrays()
    }
    assert products <= summed


class Doubled(tn.Dense):
    """Dense with another backward."""

    def backward(self, dy):
        return super().backward(2 * dy)


class Plain(tn.Layer):
    def forward(self, x, training=False):
        return x + 1

    def backward(self, dy):
        return dy


@pytest.mark.browser
def test_layers_of_the_users_own_are_not_explained_by_others_sums(chromium, tmp_path):
    layers = [tn.Flatten(), Doubled(40), Plain(), tn.Dense(3)]
    model = tn.Sequential(layers, (28, 28), seed=0)
    x, y = images(3)
    step = tn.study.trace(model, x, y % 3, tn.SoftmaxCrossEntropy(), tn.SGD(1e-4))
    step.to_html(tmp_path / "page.html")
    with opened(chromium, tmp_path / "page.html") as opened_page:

        def answer(*arguments):
            return opened_page.evaluate(
                "([path, name, index]) => tinynet.explain(path, name, index)", arguments
            )

        assert answer("1", "y", [0, 0])["total"] == pytest.approx(step.layers[1].y[0, 0], rel=1e-4)
        gradient = answer("1", "dW", [400, 5])
        assert "total" not in gradient
        assert gradient["stored"] == step.arrays()["1.dW"][400, 5]
        assert "the number comes from the run" in answer("2", "y", [0, 0])["lines"][0]


@pytest.mark.browser
def test_a_large_weight_gradient_is_summed_by_the_page(written, chromium):
    step, path = written("mlp_adam")
    with opened(chromium, path) as opened_page:
        assert "dW" in opened_page.evaluate("Object.keys(tinynet.step.byPath.get('2').products)")
        found = np.array(opened_page.evaluate("Array.from(tinynet.array('2', 'dW').data)"))
    np.testing.assert_allclose(found.reshape(784, 128), step.arrays()["2.dW"], rtol=1e-3, atol=1e-7)


@pytest.mark.browser
@pytest.mark.parametrize("name", ["zoo", "regression", "mlp_adam"])
def test_the_loss_of_each_example_is_explained(name, written, chromium):
    step, path = written(name)
    with opened(chromium, path) as opened_page:
        found = opened_page.evaluate(
            "n => Array.from({length: n}, (_, k) => tinynet.explain('loss', 'loss of each', [k]))",
            len(step.x),
        )
        gradient = opened_page.evaluate(
            "() => { const c = tinynet.step.byPath.get('loss'); return Array.from(c.array('d' + c.outputs).data); }"
        )
    for answer, expected in zip(found, step.loss.each, strict=True):
        assert answer["stored"] == pytest.approx(expected)
        if "total" in answer:
            assert answer["total"] == pytest.approx(expected, rel=1e-4)
    np.testing.assert_array_equal(np.float32(gradient), step.loss.gradient.ravel())


@pytest.mark.browser
def test_frames_go_by_key_and_by_button(written, chromium):
    step, path = written("mlp_adam")
    phases = [event.phase for event in step.events()]
    with opened(chromium, path, reduced_motion="reduce") as opened_page:

        def current():
            return opened_page.evaluate("tinynet.stepper.current")

        assert opened_page.locator("#flow button").count() == len(phases)
        assert opened_page.locator("#back").get_attribute("aria-disabled") == "true"
        opened_page.keyboard.press("ArrowRight")
        assert current() == 0
        opened_page.locator("#next").click()
        assert current() == 1
        opened_page.keyboard.press("ArrowLeft")
        assert current() == 0
        opened_page.keyboard.press("ArrowLeft")
        assert current() == 0
        for k, phase in enumerate(phases):
            if k:
                opened_page.keyboard.press("ArrowRight")
            assert current() == k
            assert opened_page.locator("#flow [aria-current=step]").count() == 1
            assert (
                opened_page.locator("#frame").inner_text().startswith(f"{k + 1} of {len(phases)} · {phase}")
            )
            card = opened_page.locator(".card.in-play")
            assert card.count() == 1
            box = card.bounding_box()
            assert -box["height"] < box["y"] < 900  # in sight
            if phase == "backward":
                assert card.locator(".pass.backward.in-play").count() == 1
                assert card.locator("tr.in-play").count() == 1
                assert card.locator(".tabs [aria-pressed=true]").inner_text() in ("dW", "dx")
        assert opened_page.locator("#next").get_attribute("aria-disabled") == "true"
        opened_page.locator("#next").click(force=True)
        assert current() == len(phases) - 1
        opened_page.keyboard.press("Home")
        assert current() == 0
        opened_page.locator("#flow button").nth(5).click()
        assert "loss" in opened_page.locator("#frame").inner_text()


@pytest.mark.browser
def test_hovering_over_dW_shows_the_sum(written, chromium):
    step, path = written("mlp_adam")
    gradient = step.arrays()["2.dW"]
    with opened(chromium, path) as opened_page:
        section = opened_page.locator("#card-2 .inspector")
        section.locator("button[data-array=dW]").click()
        section.locator("input[type=checkbox]").uncheck()  # show a matrix: rows are inputs, columns are units
        canvas = section.locator("canvas.cells")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        opened_page.mouse.move(
            box["x"] + box["width"] * (70.5 / 128), box["y"] + box["height"] * (400.5 / 784)
        )
        heading = section.locator(".readout h4").inner_text()
        i, j = map(int, re.search(r"dW\[(\d+), (\d+)\]", heading).groups())
        assert (abs(i - 400), abs(j - 70)) <= (1, 1)
        text = section.locator(".readout").inner_text()
        assert f"Σₙ x[n, {i}] · dy[n, {j}]" in text
        summed = float(re.search(r"summed here: ([−\d.e]+)", text)[1].replace("−", "-"))
        assert summed == pytest.approx(float(gradient[i, j]), rel=2e-3, abs=1e-8)
        assert section.locator(".readout li canvas").count() == 8  # the images that add most to it
        # A click holds the element while the mouse moves away.
        opened_page.mouse.click(box["x"] + 30, box["y"] + 30)
        held = section.locator(".readout h4").inner_text()
        opened_page.mouse.move(box["x"] + 60, box["y"] + 60)
        assert section.locator(".readout h4").inner_text() == held != heading


@pytest.mark.browser
def test_the_keyboard_reaches_every_element(written, chromium):
    _, path = written("mlp_adam")
    with opened(chromium, path) as opened_page:
        section = opened_page.locator("#card-3 .inspector")
        section.locator("canvas.cells").focus()

        def index():
            return [
                int(i)
                for i in re.search(r"\[(.*?)\]", section.locator(".readout h4").inner_text())[1].split(",")
            ]

        row, column = index()
        frame = opened_page.evaluate("tinynet.stepper.current")
        opened_page.keyboard.press("ArrowRight" if column < 127 else "ArrowLeft")
        opened_page.keyboard.press("ArrowDown" if row < 31 else "ArrowUp")
        assert index() == [row + (1 if row < 31 else -1), column + (1 if column < 127 else -1)]
        assert opened_page.evaluate("tinynet.stepper.current") == frame  # the arrow keys moved in the array
        opened_page.keyboard.press("Escape")
        opened_page.keyboard.press("ArrowRight")
        assert opened_page.evaluate("tinynet.stepper.current") == frame + 1


@pytest.mark.browser
def test_max_pool_winners_are_marked(written, chromium):
    step, path = written("cnn")
    pool = next(layer for layer in step.layers if layer.kind == "MaxPool2D")
    with opened(chromium, path) as opened_page:
        won = opened_page.evaluate(
            """path => { const card = tinynet.step.byPath.get(path), [, h, w, c] = card.array('y').shape, out = [];
            for (let i = 0; i < h; i++) for (let j = 0; j < w; j++) out.push([i, j, ...winner(card, 1, i, j, 0)]);
            return out; }""",
            pool.path,
        )
        opened_page.locator(f"#card-{pool.path} button[data-array=x]").click()
        assert opened_page.locator(f"#card-{pool.path} canvas.winners").is_visible()
    for i, j, row, column in won:
        window = pool.x[1, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, 0]
        assert (row - 2 * i, column - 2 * j) == np.unravel_index(window.argmax(), (2, 2))


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("name", ["mlp_adam", "cnn_small"])
def test_nothing_is_cut_or_overlaps(name, width, scheme, written, chromium):
    _, path = written(name)
    with opened(chromium, path, width, scheme=scheme) as opened_page:
        assert opened_page.evaluate("document.documentElement.scrollWidth") <= width
        beyond = opened_page.evaluate(
            """width => [...document.querySelectorAll('body *')].filter(node => {
                if (node.closest('.scroll, .scrolled, pre, .formulas, .flow, .hidden, .skip, svg')) return false;
                const box = node.getBoundingClientRect();
                return box.width > 0 && (box.right > width + 1 || box.left < -1);
            }).map(node => node.outerHTML.slice(0, 120))""",
            width,
        )
        assert beyond == []
        # Stacked elements do not overlap.
        overlaps = opened_page.evaluate(
            """() => { const out = []; for (const list of document.querySelectorAll('.card, .thumbs, .terms, .pass')) {
                const boxes = [...list.children].map(node => [node, node.getBoundingClientRect()]);
                for (let a = 0; a < boxes.length; a++) for (let b = a + 1; b < boxes.length; b++) {
                    const [n, p] = boxes[a], [m, q] = boxes[b];
                    const across = Math.min(p.right, q.right) - Math.max(p.left, q.left);
                    const down = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
                    if (across > 1 && down > 1) out.push(n.outerHTML.slice(0, 80) + ' / ' + m.outerHTML.slice(0, 80));
                } } return out; }"""
        )
        assert overlaps == []
        contrast = opened_page.evaluate(CONTRAST)
        assert contrast == []


CONTRAST = """() => {
    const part = c => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
    const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
    const rgb = text => text.match(/[\\d.]+/g).map(Number);
    const low = [];
    for (const node of document.querySelectorAll('h1, h2, h3, p, td, th, figcaption, .tabs button, .flow button')) {
        if (!node.innerText?.trim() || node.closest('[hidden], .hidden')) continue;
        let behind = node, ground = [0, 0, 0, 0];
        while (behind && (ground.length === 4 && ground[3] === 0)) {
            ground = rgb(getComputedStyle(behind).backgroundColor); behind = behind.parentElement;
        }
        if (ground.length === 4 && ground[3] < 1) continue;
        const [a, b] = [light(rgb(getComputedStyle(node).color)), light(ground)].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) low.push(node.className + ' ' + node.innerText.slice(0, 30) + ' ' + ratio.toFixed(2));
    }
    return low.slice(0, 10);
}"""


@pytest.mark.browser
def test_a_screen_reader_finds_names(written, chromium):
    _, path = written("cnn_small")
    with opened(chromium, path) as opened_page:
        nameless = opened_page.evaluate(
            """() => [...document.querySelectorAll('button, canvas.cells, canvas.thumb, svg[role=img], select, input')]
            .filter(node => !(node.getAttribute('aria-label') || node.innerText?.trim() || node.closest('label')))
            .map(node => node.outerHTML.slice(0, 120))"""
        )
        assert nameless == []
        assert opened_page.locator("h1").count() == 1
        assert opened_page.evaluate("document.documentElement.lang") == "en"
        assert opened_page.locator("[aria-live=polite]").count() >= 2
        ids = opened_page.evaluate("[...document.querySelectorAll('[id]')].map(node => node.id)")
        assert len(ids) == len(set(ids))


@pytest.mark.browser
def test_it_is_a_page_without_a_script_too(written, chromium):
    """Formulas, source, shapes, statistics and the check are there without the interactive parts."""
    step, path = written("mlp_adam")
    with opened(chromium, path, wait_for="#card-2", java_script_enabled=False) as opened_page:
        text = opened_page.locator("#card-2").inner_text()
        assert "matmul(x.T, dy, out=self.dW)" in text
        assert "dW (784 x 128) = x^T (784 x 32) . dy (32 x 128)" in text
        assert "fine: the two agree" in text
        assert f"{step.loss_before:.5g}" in opened_page.locator("dl.facts").inner_text()


def test_numbers_have_one_form():
    assert [cards.number(value) for value in (0, 1, -0.5, 12345.678, 1e-5, -2e-9, math.nan, math.inf)] == [
        *("0", "1", "−0.5", "1.23e+04", "1.00e−05", "−2.00e−09", "NaN", "∞")
    ]
