"""The page of a training run in a browser: a step's numbers by pointer and by key, pictures painted as counted."""

import numpy as np
import pytest

import tinynet as tn
from tests.support.browser import opened
from tinynet.study.over_time.findings import number

pytestmark = pytest.mark.browser

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 6)).astype(np.float32)
Y = np.arange(60) % 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A page with everything on it, including faults, and its record."""
    layers = [
        *(tn.Dense(8), tn.BatchNorm(), tn.ReLU(), tn.Residual(tn.Dense(8), tn.Sigmoid())),
        *(tn.Dense(5), tn.Tanh(), tn.Dense(3), tn.Softmax()),
    ]
    model = tn.Sequential(layers, input_shape=(6,), seed=0)
    model.layers[1].beta = [-1e3] * 4 + [0] * 4
    monitor = tn.study.TrainingMonitor(tmp_path_factory.mktemp("page") / "page.html", X, Y, every=2)
    settings = {"optimizer": tn.Adam(0.01), "loss": tn.CrossEntropy(), "batch_size": 6, "epochs": 5}
    model.fit(X, Y, callbacks=[monitor], verbose=0, **settings)
    return monitor.path, monitor.record


def minus(text):
    return text.replace("-", "−")


def chart(page, key):
    return page.locator(f'.chart[data-key="{key}"]')


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_fits_every_screen_in_light_and_dark(chromium, run, width, scheme):
    path, record = run
    with opened(chromium, path, width=width, scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator(".card").count() == len(record.layers)
        assert page.locator(".chart").count() == len(record.places) + 6
        inside = """() => [...document.querySelectorAll(".drawing")].every((drawing) => {
            const box = drawing.getBoundingClientRect(), card = drawing.closest(".chart").getBoundingClientRect();
            return box.width > 200 && box.height > 100 && box.right <= innerWidth && card.left >= 0;
        })"""
        assert page.evaluate(inside)
        # Labels on one axis do not overlap.
        apart = """() => [...document.querySelectorAll(".y-axis, .x-axis")].every((axis) => {
            const boxes = [...axis.children].map((label) => label.getBoundingClientRect());
            return boxes.every((a, i) => boxes.every((b, j) => i >= j || a.right <= b.left || b.right <= a.left
                || a.bottom <= b.top + 1 || b.bottom <= a.top + 1));
        })"""
        assert page.evaluate(apart)
        paper = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        lightness = sum(int(part) for part in paper[4:-1].split(","))
        assert (lightness > 600) == (scheme == "light")


def test_pointing_at_a_step_shows_its_numbers_in_every_chart(chromium, run):
    path, record = run
    count = len(record.samples)
    with opened(chromium, path) as page:
        for index in (0, 7, count - 1):
            area = chart(page, "ratios").locator(".drawing")
            area.scroll_into_view_if_needed()
            box = area.bounding_box()
            page.mouse.move(box["x"] + box["width"] * (index + 0.5) / count, box["y"] + 50)
            sample = record.samples[index]
            assert page.locator("#step-text").text_content() == f"step {sample.step}, epoch {sample.epoch}"
            ratios = chart(page, "ratios").locator("output").all_text_contents()
            assert ratios == [minus(number(ratio)) for ratio in record.series("ratios")[index]]
            losses = chart(page, "loss").locator("output").all_text_contents()
            assert [losses[0], losses[2]] == [number(sample.loss), number(sample.probe_loss)]
            assert chart(page, "dead").locator("output").all_text_contents() == [
                f"{100 * sample.dead[0]:.0f}%"
            ]
            for place, rms in zip(record.places, sample.rms, strict=True):
                shown = chart(page, f"{place.path}.{place.name}").locator('[data-of="rms"]').text_content()
                assert shown == minus(number(float(f"{rms:.6g}")))


def test_pointing_at_a_histogram_tells_the_row(chromium, run):
    path, record = run
    with opened(chromium, path) as page:
        figure = chart(page, "0.y")
        area = figure.locator(".drawing")
        area.scroll_into_view_if_needed()
        box, rows = area.bounding_box(), page.evaluate('tinynet.data.charts["0.y"].rows')
        for row in (0, len(rows) - 1, [sign for sign, _, _ in rows].index(0)):
            page.mouse.move(
                box["x"] + box["width"] * 2.5 / len(record.samples),
                box["y"] + box["height"] * (row + 0.5) / len(rows),
            )
            text = figure.locator('[data-of="point"]').text_content()
            sign, low, high = rows[row]
            ends = sorted([sign * low, sign * high])
            expected = (
                f" from {number(ends[0])} to {number(ends[1])}" if sign else " are 0, or too small to show"
            )
            assert text.startswith("here: ")
            assert text.endswith(minus(expected))
        page.mouse.move(2, 2)
        assert figure.locator('[data-of="point"]').text_content().startswith("most: ")


def test_by_keyboard(chromium, run):
    path, record = run
    last = len(record.samples) - 1
    with opened(chromium, path) as page:
        area = chart(page, "2.y").locator(".drawing")
        area.focus()
        assert area.get_attribute("aria-valuenow") == str(last)
        for key, expected in (
            ("ArrowLeft", last - 1),
            ("Home", 0),
            ("ArrowRight", 1),
            ("PageUp", 11),
            ("End", last),
        ):
            page.keyboard.press(key)
            assert area.get_attribute("aria-valuenow") == str(expected)
            step = record.samples[expected].step
            text = area.get_attribute("aria-valuetext")
            assert text.startswith(f"step {step}, epoch {record.samples[expected].epoch}: root mean square ")
        slider = page.locator("#step")
        slider.focus()
        page.keyboard.press("ArrowLeft")
        assert page.locator("#step-text").text_content().startswith(f"step {record.samples[last - 1].step},")
        links = page.locator(".look a")
        assert links.count() >= 1
        links.first.focus()
        page.keyboard.press("Enter")
        assert "#card-" in page.url


def test_pictures_are_painted_as_counted(chromium, run):
    """A pixel's distance from the card's colour is the square root of its share relative to the fullest row."""
    path, _ = run
    with opened(chromium, path) as page:
        pixels, shares, middle = page.evaluate("""() => {
            const { view } = tinynet.views.find(({ area }) => area.closest(".chart").dataset.key === "0.y");
            const { width, height } = view.canvas, context = view.canvas.getContext("2d");
            const image = context.getImageData(0, 0, width, height);
            const shares = [];
            for (let row = 0; row < height; row++) for (let i = 0; i < width; i++) shares.push(view.share(row, i));
            return [[...image.data], shares, view.middle];
        }""")
        colours = np.array(pixels).reshape(-1, 4)[:, :3]
        shares = np.array(shares)
        width = len(run[1].samples)
        others = np.delete(shares.reshape(-1, width), middle, axis=0)
        dark = np.sqrt(np.minimum(shares / others.max(), 1))
        card, tone = np.array([0xFF, 0xFF, 0xFF]), np.array([0x00, 0x72, 0xB2])
        np.testing.assert_allclose(colours, card + (tone - card) * dark[:, None], atol=0.51)
        page.emulate_media(color_scheme="dark")
        page.wait_for_function(
            'tinynet.views.at(-1).view.canvas.getContext("2d").getImageData(0, 0, 1, 1).data[0] < 200'
        )


def test_numbers_can_be_unfolded(chromium, run):
    path, record = run
    with opened(chromium, path) as page:
        details = chart(page, "ratios").locator("details")
        details.locator("summary").click()
        assert details.locator("table").is_visible()
        row = details.locator("tbody tr").first.locator("td").all_text_contents()
        assert row == ["1", *(minus(number(ratio)) for ratio in record.series("ratios")[0])]
        assert page.locator("details").count() == 6 + len(record.layers)


def test_says_what_looks_wrong(chromium, run):
    path, _ = run
    with opened(chromium, path) as page:
        found = page.locator(".look li").all_text_contents()
        assert any("Layer 2: 50% of the ReLU units are dead" in text for text in found)


def test_a_page_without_samples_opens(chromium, tmp_path):
    model = tn.Sequential([tn.Dense(3), tn.Softmax()], input_shape=(6,), seed=0)
    model.layers[0].b = [np.inf, 0, 0]
    path = tmp_path / "page.html"
    with pytest.raises(tn.NonFiniteError):
        model.fit(
            X,
            Y,
            optimizer=tn.SGD(),
            loss=tn.CrossEntropy(),
            callbacks=[tn.study.TrainingMonitor(path, X, Y)],
            verbose=0,
        )
    with opened(chromium, path) as page:
        assert "No step was finished" in page.locator("main").text_content()
        assert not page.locator("#stage").is_visible()
