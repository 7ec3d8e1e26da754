"""Augmentation: every image becomes one of the images that its step allows, each of them as often as it should."""

import copy
import pickle

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import tinynet as tn
from tests.support.strategies import seeds
from tinynet.datasets.augment import Compose, RandomErasing, RandomFlip, RandomShift

DTYPES = ["uint8", "int16", "float32", "float64"]
LAYOUTS = ["C", "F", "reversed", "of a larger one"]


@st.composite
def batches(draw, smallest=1):
    """A batch without zeros, so that what was filled with 0 can be seen; in any layout, and write-protected."""
    shape = (draw(st.integers(0, 6)), draw(st.integers(smallest, 9)), draw(st.integers(smallest, 9)))
    channels = draw(st.sampled_from([(), (1,), (3,)]))
    rng = np.random.default_rng(draw(seeds))
    x = rng.integers(1, 120, (*shape, *channels)).astype(draw(st.sampled_from(DTYPES)))
    layout = draw(st.sampled_from(LAYOUTS))
    if layout == "F":
        x = np.asfortranarray(x)
    elif layout == "reversed":
        x = x[::-1, :, ::-1]
    elif layout == "of a larger one":
        x = np.repeat(x, 2, axis=1)[:, ::2]
    x.flags.writeable = False
    return x


def called(step, x, seed=0):
    """step(x), after checks of what holds for all of them."""
    before = x.copy()
    y = step(x, np.random.default_rng(seed))
    np.testing.assert_array_equal(x, before)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert y.flags.c_contiguous
    assert y.flags.writeable
    assert not np.shares_memory(x, y)
    np.testing.assert_array_equal(y, step(x, np.random.default_rng(seed)))
    return y


def moved(image, down, right, fill=0):
    """The image moved, pixel by pixel."""
    height, width = image.shape[:2]
    result = np.full_like(image, fill)
    for r in range(height):
        for c in range(width):
            if 0 <= r - down < height and 0 <= c - right < width:
                result[r, c] = image[r - down, c - right]
    return result


def zeros(y):
    """Where the values are 0: (n, height, width, channels)."""
    return (y if y.ndim == 4 else y[..., None]) == 0


def is_one_of(image, candidates):
    return any(np.array_equal(image, candidate) for candidate in candidates)


class TestFlip:
    @given(batches(), seeds)
    def test_an_image_is_mirrored_or_as_it_was(self, x, seed):
        for image, result in zip(x, called(RandomFlip(), x, seed), strict=True):
            assert is_one_of(result, [image, image[:, ::-1]])

    @given(batches(), seeds)
    def test_never_and_always(self, x, seed):
        np.testing.assert_array_equal(called(RandomFlip(0), x, seed), x)
        np.testing.assert_array_equal(called(RandomFlip(1), x, seed), x[:, :, ::-1])

    @pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
    def test_the_share_of_mirrored_ones(self, probability):
        x = np.tile(np.arange(2, dtype=np.uint8), (20_000, 1, 1))
        share = (called(RandomFlip(probability), x)[:, 0, 0] == 1).mean()
        assert share == pytest.approx(probability, abs=0.015)  # over four standard deviations

    def test_mirroring_leaves_the_colors_of_a_pixel_together(self):
        x = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
        np.testing.assert_array_equal(called(RandomFlip(1), x)[0, 0, 0], [9, 10, 11])


class TestShift:
    @given(batches(smallest=4), st.integers(1, 3), st.sampled_from([0, 7, 120]), seeds)
    def test_an_image_is_moved_and_the_rest_is_filled(self, x, pixels, fill, seed):
        y = called(RandomShift(pixels, fill=fill), x, seed)
        steps = range(-pixels, pixels + 1)
        for image, result in zip(x, y, strict=True):
            assert is_one_of(result, (moved(image, down, right, fill) for down in steps for right in steps))

    @pytest.mark.parametrize("pixels", [1, 2, 3])
    def test_all_moves_are_made_equally_often(self, pixels):
        x = np.zeros((20_000, 9, 9), np.uint8)
        x[:, 4, 4] = 1
        _, rows, columns = np.nonzero(called(RandomShift(pixels), x))
        steps = 2 * pixels + 1
        assert len(rows) == len(x)
        counts = np.bincount((rows - 4 + pixels) * steps + columns - 4 + pixels, minlength=steps**2)
        assert counts.shape == (steps**2,)
        expected = len(x) / steps**2
        assert ((counts - expected) ** 2 / expected).sum() < steps**2 + 5 * np.sqrt(2 * steps**2)

    def test_fractions_can_fill_floats(self):
        y = called(RandomShift(1, fill=-0.25), np.ones((50, 3, 3), np.float32))
        assert set(np.unique(y)) == {-0.25, 1}


class TestErasing:
    @given(batches(smallest=3), st.integers(1, 3), st.integers(0, 1), seeds)
    def test_a_square_of_an_image_is_filled(self, x, size, probability, seed):
        y = called(RandomErasing(size, probability), x, seed)
        filled = zeros(y)
        assert (filled == filled[..., :1]).all()  # all colors of a pixel
        np.testing.assert_array_equal(y, np.where(y == 0, 0, x))
        for image in filled[..., 0]:
            rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
            assert image.sum() == probability * size**2
            assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (size, size) if probability else not len(rows)

    @given(batches(smallest=5), seeds)
    def test_each_image_draws_its_size(self, x, seed):
        y = called(RandomErasing((2, 4), probability=1), x, seed)
        areas = zeros(y)[..., 0].sum(axis=(1, 2))
        assert set(areas.tolist()) <= {4, 9, 16}

    def test_all_sizes_are_drawn_equally_often(self):
        y = called(RandomErasing((2, 5), probability=1), np.ones((8_000, 6, 6), np.uint8))
        sizes, counts = np.unique((y == 0).sum(axis=(1, 2)), return_counts=True)
        assert sizes.tolist() == [4, 9, 16, 25]
        assert counts == pytest.approx(np.full(4, 2_000), abs=200)

    def test_the_square_is_everywhere_equally_often(self):
        y = called(RandomErasing(2, probability=1), np.ones((20_000, 4, 5), np.uint8))
        first = (y == 0).reshape(len(y), -1).argmax(axis=1)  # its corner, row by row
        places, counts = np.unique(first, return_counts=True)
        assert places.tolist() == [5 * r + c for r in range(3) for c in range(4)]
        assert counts == pytest.approx(np.full(12, 20_000 / 12), abs=200)

    @pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
    def test_the_share_of_erased_ones(self, probability):
        y = called(RandomErasing(2, probability), np.ones((20_000, 3, 3), np.uint8))
        assert (y == 0).any(axis=(1, 2)).mean() == pytest.approx(probability, abs=0.015)

    def test_it_fills_with_what_it_is_told(self):
        y = called(RandomErasing(2, 1, fill=255), np.zeros((9, 4, 4), np.uint8))
        assert ((y == 255).sum(axis=(1, 2)) == 4).all()

    @given(batches(smallest=4), seeds)
    def test_a_square_as_large_as_the_image_leaves_nothing(self, x, seed):
        x = x[:, :4, :4]
        assert not called(RandomErasing(4, probability=1), x, seed).any()


class TestCompose:
    @given(batches(smallest=4), seeds)
    def test_its_steps_follow_one_another_on_one_generator(self, x, seed):
        steps = RandomFlip(), RandomShift(2), RandomErasing(3)
        generator = np.random.default_rng(seed)
        expected = x
        for step in steps:
            expected = step(expected, generator)
        np.testing.assert_array_equal(called(Compose(*steps), x, seed), expected)

    def test_the_order_counts(self):
        x = np.full((200, 4, 4), 9, np.uint8)
        fill_first = Compose(RandomErasing(4, 1, fill=1), RandomShift(1, fill=2))
        fill_last = Compose(RandomShift(1, fill=2), RandomErasing(4, 1, fill=1))
        assert set(np.unique(called(fill_first, x))) == {1, 2}
        assert set(np.unique(called(fill_last, x))) == {1}

    def test_functions_of_ones_own_are_steps(self):
        x = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
        steps = Compose(lambda x, generator: x + 1, Compose(lambda x, generator: x * 2))
        np.testing.assert_array_equal(called(steps, x), 2 * (x + 1))


ALL = [
    RandomFlip(),
    RandomShift(),
    RandomErasing(),
    RandomErasing((2, 9)),
    Compose(RandomFlip(), RandomShift(2), RandomErasing(8)),
]
every_step = pytest.mark.parametrize("step", ALL, ids=repr)


class TestEveryStep:
    @every_step
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_the_generator_decides(self, step, dtype):
        x = np.random.default_rng(0).integers(1, 128, (64, 28, 28)).astype(dtype)
        generator = np.random.default_rng(1)
        first, second = step(x, generator), step(x, generator)
        np.testing.assert_array_equal(first, step(x, np.random.default_rng(1)))
        assert (first != second).any()
        assert (first != step(x, np.random.default_rng(2))).any()

    @every_step
    def test_images_are_changed_independently(self, step):
        x = np.random.default_rng(0).integers(1, 256, (64, 28, 28)).astype(np.uint8)
        same = np.repeat(x[:1], 64, axis=0)
        results = {image.tobytes() for image in step(same, np.random.default_rng(3))}
        assert len(results) > (1 if isinstance(step, RandomFlip) else 15)
        # What becomes of an image is not a matter of what the others show.
        mixed = x.copy()
        mixed[5] = same[5]
        np.testing.assert_array_equal(
            step(mixed, np.random.default_rng(3))[5], step(same, np.random.default_rng(3))[5]
        )

    @every_step
    def test_colors_are_changed_as_one_image(self, step):
        x = np.random.default_rng(0).integers(1, 256, (32, 28, 28)).astype(np.uint8)
        grey = step(x, np.random.default_rng(4))
        for channels in (1, 3):
            colors = step(np.repeat(x[..., None], channels, axis=3), np.random.default_rng(4))
            np.testing.assert_array_equal(colors, np.repeat(grey[..., None], channels, axis=3))

    @every_step
    def test_its_repr_makes_it_again(self, step):
        x = np.random.default_rng(0).integers(1, 256, (32, 28, 28)).astype(np.uint8)
        expected = step(x, np.random.default_rng(5))
        for again in (eval(repr(step)), copy.deepcopy(step), pickle.loads(pickle.dumps(step))):
            assert repr(again) == repr(step)
            np.testing.assert_array_equal(again(x, np.random.default_rng(5)), expected)

    @every_step
    @pytest.mark.parametrize(
        ("x", "found"),
        [
            (np.zeros((64, 784), np.uint8), r"got shape \(64, 784\); reshape them"),
            (np.zeros((28, 28), np.uint8), r"got shape \(28, 28\); reshape"),
            (np.zeros((1, 2, 28, 28, 3), np.uint8), "got shape"),
            (np.uint8(3), "got uint8"),
            ([[[0]]], "got list"),
        ],
    )
    def test_what_is_no_batch_of_images_is_refused(self, step, x, found):
        with pytest.raises(
            ValueError, match=rf"^Random.*: expected images \(n, height, width\) or .*{found}"
        ):
            step(x, np.random.default_rng(0))

    @every_step
    def test_what_is_no_generator_is_refused(self, step):
        with pytest.raises(
            ValueError, match=r"expected a numpy.random.Generator, got 0; use np.random.default_rng"
        ):
            step(np.zeros((2, 28, 28), np.uint8), 0)


def test_reprs_are_what_one_would_write():
    assert [repr(step) for step in ALL] == [
        "RandomFlip(probability=0.5)",
        "RandomShift(pixels=2, fill=0)",
        "RandomErasing(size=8, probability=0.5, fill=0)",
        "RandomErasing(size=(2, 9), probability=0.5, fill=0)",
        "Compose(RandomFlip(probability=0.5), RandomShift(pixels=2, fill=0), "
        "RandomErasing(size=8, probability=0.5, fill=0))",
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomFlip(-0.1), r"RandomFlip probability: expected a number in \[0, 1\], got -0.1"),
        (lambda: RandomFlip(1.5), r"RandomFlip probability: .* got 1.5"),
        (lambda: RandomFlip(np.nan), "RandomFlip probability: .* got nan"),
        (lambda: RandomFlip("half"), "RandomFlip probability: expected a number, got 'half'"),
        (lambda: RandomFlip(True), "RandomFlip probability: expected a number, got True"),
        (lambda: RandomShift(0), "RandomShift pixels: expected a positive int, got 0"),
        (lambda: RandomShift(1.5), "RandomShift pixels: .* got 1.5"),
        (lambda: RandomShift((2, 2)), r"RandomShift pixels: .* got \(2, 2\)"),
        (lambda: RandomShift(2, fill=None), "RandomShift fill: expected a number, got None"),
        (lambda: RandomShift(2, fill=np.inf), "RandomShift fill: .* got inf"),
        (lambda: RandomErasing(0), "RandomErasing size: expected a positive int, got 0"),
        (lambda: RandomErasing((0, 3)), "RandomErasing size: expected a positive int, got 0"),
        (lambda: RandomErasing((5, 3)), r"RandomErasing size: expected \(low, high\) .* got \(5, 3\)"),
        (lambda: RandomErasing((1, 2, 3)), r"RandomErasing size: .* got \(1, 2, 3\)"),
        (lambda: RandomErasing("8"), "RandomErasing size: .* got '8'"),
        (lambda: RandomErasing(8, 2), "RandomErasing probability: .* got 2"),
        (lambda: RandomErasing(8, fill="black"), "RandomErasing fill: .* got 'black'"),
        (lambda: Compose(), "Compose: expected at least one step, got none"),
        (lambda: Compose([RandomFlip()]), r"got \[RandomFlip.*\]; write Compose\(f, g\)"),
        (lambda: Compose(RandomFlip), r"got <class .*>; write RandomFlip\(\)"),
        (lambda: Compose(RandomFlip(), None), r"expected functions \(x, generator\) -> y, got None"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("step", "shape", "dtype", "message"),
    [
        (
            RandomShift(4),
            (2, 4, 9),
            "uint8",
            "RandomShift.*: expected images of more than 4 x 4 .* got 4 x 9",
        ),
        (RandomShift(9), (2, 28, 9), "uint8", "got 28 x 9; make pixels smaller"),
        (
            RandomErasing(5),
            (2, 4, 9),
            "uint8",
            "RandomErasing.*: .* at least 5 x 5 pixels, got 4 x 9; make size",
        ),
        (RandomErasing((2, 10)), (2, 28, 9, 1), "uint8", "at least 10 x 10 pixels, got 28 x 9"),
        (
            RandomShift(2, fill=256),
            (2, 9, 9),
            "uint8",
            "a fill that uint8 can hold, .* 0 to 255, got 256; use another fill",
        ),
        (RandomErasing(2, fill=-1), (2, 9, 9), "uint8", "0 to 255, got -1"),
        (RandomErasing(2, fill=0.5), (2, 9, 9), "int16", "whole number from -32768 to 32767, got 0.5"),
    ],
)
def test_images_that_do_not_fit_are_refused(step, shape, dtype, message):
    with pytest.raises(ValueError, match=message):
        step(np.zeros(shape, dtype), np.random.default_rng(0))


class TestFit:
    @staticmethod
    def fitted(augment, seed=0, channels=()):
        rng = np.random.default_rng(0)
        x, y = rng.integers(0, 256, (60, 8, 8, *channels)).astype(np.uint8), rng.integers(0, 3, 60)
        before = x.copy()
        model = tn.Sequential(
            [tn.Rescale(1 / 255), tn.Flatten(), tn.Dense(3), tn.Softmax()], (8, 8, *channels), seed=seed
        )
        history = model.fit(
            x, y, optimizer=tn.SGD(0.1), loss=tn.CrossEntropy(), epochs=3, augment=augment, verbose=0
        )
        np.testing.assert_array_equal(x, before)
        return model.params, history.history["loss"]

    @pytest.mark.parametrize("channels", [(), (1,), (3,)])
    def test_a_seed_gives_the_same_training_twice(self, channels):
        augment = Compose(RandomFlip(), RandomShift(2), RandomErasing(3))
        params, losses = self.fitted(augment, channels=channels)
        again, losses_again = self.fitted(augment, channels=channels)
        np.testing.assert_array_equal(params, again)
        assert losses == losses_again
        assert np.isfinite(losses).all()
        assert (self.fitted(None, channels=channels)[0] != params).any()
        assert (self.fitted(augment, seed=1, channels=channels)[0] != params).any()

    def test_steps_that_change_nothing_change_nothing(self):
        unchanged = Compose(RandomFlip(0), RandomErasing(3, 0))
        np.testing.assert_array_equal(self.fitted(unchanged)[0], self.fitted(None)[0])
