"""Convolutions against their formula in plain loops, and Keras's padding by hand."""

import itertools
import json
import math
from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import tinynet as tn
from tests.support.strategies import pairs, seeds
from tinynet.engines import devices
from tinynet.layers.windows.geometry import channel_major

KINDS = ["full", "depthwise"]


@dataclass
class Problem:
    """A convolution and its input. ``filters`` is the depth multiplier of a depthwise one."""

    kernel_size: object
    strides: object
    padding: str
    use_bias: bool
    filters: int
    x: np.ndarray
    seed: int

    def layer(self, kind, dtype="float64"):
        """The layer, built, with random parameters."""
        options = (self.kernel_size, self.strides, self.padding)
        if kind == "depthwise":
            layer = tn.DepthwiseConv2D(*options, depth_multiplier=self.filters, use_bias=self.use_bias)
        else:
            layer = tn.Conv2D(self.filters, *options, use_bias=self.use_bias)
        tn.Sequential([layer], input_shape=self.x.shape[1:], seed=0, dtype=dtype)
        rng = np.random.default_rng(self.seed)
        for name, spec in layer.param_specs.items():
            setattr(layer, name, rng.standard_normal(spec.shape))
        return layer


@st.composite
def problems(draw):
    """Kernels as large as the image, with "same" also larger; strides larger than the kernel."""
    h, w = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    padding = draw(st.sampled_from(["valid", "same"]))
    size = st.integers(1, 8) if padding == "same" else st.integers(1, min(h, w))
    whole = st.tuples(st.integers(1, h), st.integers(1, w)) | st.just((h, w))
    seed = draw(seeds)
    return Problem(
        kernel_size=draw(size | whole | st.sampled_from([1, (h, 1), (1, w)])),
        strides=draw(pairs(1, 3) | st.tuples(st.integers(1, 9), st.integers(1, 9))),
        padding=padding,
        use_bias=draw(st.booleans()),
        filters=draw(st.integers(1, 4)),
        x=np.random.default_rng(seed).standard_normal(
            (draw(st.integers(1, 3)), h, w, draw(st.integers(1, 3)))
        ),
        seed=seed,
    )


def both(value):
    return value if isinstance(value, tuple) else (value, value)


def output_sizes(problem):
    """The sizes as Keras's documentation gives them."""
    return [
        math.ceil(pixels / stride) if problem.padding == "same" else math.ceil((pixels - size + 1) / stride)
        for pixels, size, stride in zip(
            problem.x.shape[1:3], both(problem.kernel_size), both(problem.strides), strict=True
        )
    ]


def pixels_before(pixels, size, stride):
    """The padding at the top or the left with "same", as TensorFlow's documentation gives it."""
    remainder = pixels % stride
    return max(size - (remainder if remainder else stride), 0) // 2


def reference(kind, problem, x, dy, W, b):
    """(y, dx, dW, db), pixel by pixel."""
    (kh, kw), (s, t), (_, h, w, c) = both(problem.kernel_size), both(problem.strides), x.shape
    top, left = 0, 0
    if problem.padding == "same":
        top, left = pixels_before(h, kh, s), pixels_before(w, kw, t)
    y, dx, dW = np.zeros_like(dy), np.zeros_like(x), np.zeros_like(W)
    for image, i, j in np.ndindex(dy.shape[:3]):
        y[image, i, j] = b
        for u, v in itertools.product(range(kh), range(kw)):
            p, q = i * s + u - top, j * t + v - left
            if not (0 <= p < h and 0 <= q < w):
                continue
            pixel, gradient = x[image, p, q], dy[image, i, j]
            if kind == "depthwise":
                gradient = gradient.reshape(c, -1)
                y[image, i, j] += (pixel[:, None] * W[u, v]).ravel()
                dW[u, v] += pixel[:, None] * gradient
                dx[image, p, q] += (gradient * W[u, v]).sum(axis=1)
            else:
                y[image, i, j] += pixel @ W[u, v]
                dW[u, v] += np.outer(pixel, gradient)
                dx[image, p, q] += W[u, v] @ gradient
    return y, dx, dW, sum(dy[place] for place in np.ndindex(dy.shape[:3]))


def compare(layer, kind, problem, x, tolerance=None):
    """Forward and backward of a layer against the loops; ``tolerance``: relative to the size of the terms."""
    dy = np.random.default_rng(1).standard_normal((len(x), *layer.output_shape)).astype(x.dtype)
    y, dx = layer.forward(x, training=True), layer.backward(dy)
    bias = layer.b if problem.use_bias else 0 * y[0, 0, 0]
    exact = [np.asarray(array, np.float64) for array in (x, dy, layer.W, bias)]
    expected = dict(zip(("y", "dx", "dW", "db"), reference(kind, problem, *exact), strict=True))
    found = {"y": y, "dx": dx, "dW": layer.dW}
    if problem.use_bias:
        found["db"] = layer.db
    if tolerance is not None:
        terms = reference(kind, problem, *map(np.abs, exact))
        scale = {name: max(array.max(), 1) for name, array in zip(expected, terms, strict=True)}
    for name, array in found.items():
        assert array.shape == expected[name].shape
        atol = 1e-10 if tolerance is None else tolerance * scale[name]
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=atol, err_msg=name)
    np.testing.assert_allclose(layer.forward(x), y, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
class TestAgainstLoops:
    @settings(max_examples=150)
    @given(problem=problems())
    def test_float64(self, kind, problem):
        layer = problem.layer(kind)
        assert layer.output_shape[:2] == tuple(output_sizes(problem))
        compare(layer, kind, problem, problem.x)

    @settings(max_examples=25)
    @given(problem=problems())
    def test_float32_to_its_precision(self, kind, problem):
        layer = problem.layer(kind, "float32")
        compare(layer, kind, problem, problem.x.astype(np.float32), tolerance=3e-5)

    @settings(max_examples=15)
    @given(problem=problems(), sizes=st.lists(st.integers(1, 5), min_size=2, max_size=4))
    def test_batches_of_changing_size(self, kind, problem, sizes):
        layer, rng = problem.layer(kind), np.random.default_rng(0)
        for size in sizes:
            compare(layer, kind, problem, rng.standard_normal((size, *problem.x.shape[1:])))

    @settings(max_examples=15)
    @given(problem=problems())
    def test_a_frozen_one_writes_no_gradient_and_a_first_one_makes_no_dx(self, kind, problem):
        layer = problem.layer(kind)
        y = layer.forward(problem.x, training=True)
        dy = np.random.default_rng(1).standard_normal(y.shape)
        dx = layer.backward(dy).copy()
        gradients = {name: getattr(layer, "d" + name) for name in layer.param_specs}
        expected = {name: array.copy() for name, array in gradients.items()}
        layer.needs_input_grad = False
        assert layer.backward(dy) is None
        for name, array in gradients.items():
            np.testing.assert_array_equal(array, expected[name])
            array.fill(5)
        layer.trainable, layer.needs_input_grad = False, True
        np.testing.assert_array_equal(layer.backward(dy), dx)
        assert all((array == 5).all() for array in gradients.values())
        layer.needs_input_grad = False
        assert layer.backward(dy) is None


def convolve(x, kernel, strides=1, padding="valid"):
    """Convolve one image with one channel fully and depthwise, which must agree."""
    x, kernel = np.asarray(x, np.float64)[None, :, :, None], np.asarray(kernel, np.float64)
    results = []
    for layer in (
        tn.Conv2D(1, kernel.shape, strides, padding),
        tn.DepthwiseConv2D(kernel.shape, strides, padding),
    ):
        tn.Sequential([layer], input_shape=x.shape[1:], seed=0, dtype="float64")
        layer.W = kernel[:, :, None, None]
        results.append(layer.forward(x)[0, :, :, 0])
    np.testing.assert_allclose(results[0], results[1], atol=1e-12)
    return results[0].tolist()


class TestByHand:
    x = np.arange(1, 10).reshape(3, 3)

    def test_valid(self):
        assert convolve(self.x, [[1, 2], [3, 4]]) == [[37, 47], [67, 77]]

    def test_the_odd_pixel_of_padding_is_at_the_end(self):
        assert convolve(self.x, [[1, 2], [3, 4]], padding="same") == [[37, 47, 21], [67, 77, 33], [23, 26, 9]]

    def test_same_with_strides(self):
        assert convolve(self.x, [[1, 2], [3, 4]], 2, "same") == [[37, 21], [23, 9]]
        # 3 taps at every 2nd of 4 pixels need one pixel of padding, at the end; PyTorch would add one on each side.
        assert convolve([[1, 2, 3, 4]], [[1, 10, 100]], (1, 2), "same") == [[321, 43]]
        assert convolve([[1], [2], [3], [4]], [[1], [10], [100]], (2, 1), "same") == [[321], [43]]

    def test_an_even_kernel_has_one_pixel_more_after_than_before(self):
        assert convolve([[1, 2, 3, 4]], [[1, 10, 100, 1000]], padding="same") == [[3210, 4321, 432, 43]]

    def test_a_kernel_larger_than_the_image(self):
        assert convolve([[7]], [[1, 2, 3], [4, 5, 6], [7, 8, 9]], padding="same") == [[35]]
        assert convolve([[1, 2]], [[1, 10, 100, 1000, 10000]], padding="same") == [[2100, 210]]

    def test_strides_larger_than_the_kernel_leave_pixels_out(self):
        assert convolve([[1, 2, 3, 4, 5]], [[1, 10]], (1, 3)) == [[21, 54]]
        assert convolve([[1, 2, 3, 4, 5]], [[1, 10]], (1, 3), "same") == [[21, 54]]
        assert convolve([[1, 2, 3, 4, 5]], [[1]], (1, 4)) == [[1, 5]]

    def test_the_first_number_of_a_pair_is_down(self):
        assert convolve(self.x, [[1, 10]]) == [[21, 32], [54, 65], [87, 98]]
        assert convolve(self.x, [[1], [10]], (1, 2)) == [[41, 63], [74, 96]]

    def test_the_kernels_axes_are_kerass(self):
        layer = tn.Conv2D(2, (1, 2))
        tn.Sequential([layer], input_shape=(1, 2, 2), seed=0, dtype="float64")
        layer.W = np.reshape([1, 10, 100, 1000, 2, 20, 200, 2000], (1, 2, 2, 2))  # across, c_in, c_out
        layer.b = [0.5, 0.25]
        x = np.reshape([1.0, 2, 3, 4], (1, 1, 2, 2))
        y = [[[[1 + 200 + 6 + 800 + 0.5, 10 + 2000 + 60 + 8000 + 0.25]]]]
        np.testing.assert_allclose(layer.forward(x), y, rtol=1e-13)

    def test_channels_of_a_depthwise_convolution_stand_side_by_side(self):
        layer = tn.DepthwiseConv2D(1, depth_multiplier=2)
        tn.Sequential([layer], input_shape=(1, 1, 2), seed=0)
        layer.W, layer.b = np.reshape([1, 10, 100, 1000], (1, 1, 2, 2)), [0, 1, 2, 3]
        np.testing.assert_array_equal(
            layer.forward(np.reshape([2.0, 3], (1, 1, 1, 2))), [[[[2, 21, 302, 3003]]]]
        )


class TestEachWindowByItself:
    """An output depends on the pixels under its window, whatever else is in the image or in the batch."""

    @pytest.mark.parametrize(
        "layer", [tn.Conv2D(64, 3, padding="same"), tn.DepthwiseConv2D(3, padding="same")]
    )
    @pytest.mark.parametrize("images", [1, 64])
    def test_dark_pixels_beside_a_bright_one(self, layer, images):
        model = tn.Sequential([layer.from_config(layer.config())], input_shape=(7, 7, 64), seed=0)
        x = np.random.default_rng(0).uniform(0, 2e-3, (images, 7, 7, 64)).astype(np.float32)
        x[:, 3, 3] = 1e4
        exact = model.copy(dtype="float64").predict(x.astype(np.float64))
        far = np.r_[0, 6]  # rows whose windows don't reach the bright pixel
        error = model.predict(x)[:, far] - exact[:, far]
        assert np.sqrt((error**2).mean() / (exact[:, far] ** 2).mean()) < 1e-6

    def test_zeros_stay_zeros_and_large_numbers_finite(self):
        model = tn.Sequential([tn.Conv2D(64, 3, padding="same")], input_shape=(7, 7, 64), seed=0)
        x = np.zeros((64, 7, 7, 64), np.float32)
        x[:, 3, 3] = 1e4
        assert (model.predict(x)[:, [0, 6]] == 0).all()
        assert np.isfinite(model.predict(np.full_like(x, 3e36))).all()

    @given(problem=problems(), brightness=st.sampled_from([1e-3, 1.0, 1e4]))
    def test_alone_and_in_a_batch(self, problem, brightness):
        layer = problem.layer("full", "float32")
        x = np.repeat(problem.x.astype(np.float32), 40, axis=0)
        x[1:] *= brightness
        terms = layer.from_config(layer.config())
        tn.Sequential([terms], input_shape=x.shape[1:])
        terms.W = abs(layer.W)
        if layer.use_bias:
            terms.b = abs(layer.b)
        np.testing.assert_array_less(
            abs(layer.forward(x)[:1] - layer.forward(x[:1])), 1e-6 * terms.forward(abs(x[:1])) + 1e-30
        )


class TestColumns:
    @settings(max_examples=40)
    @given(problem=problems(), rows=st.integers(1, 4))
    def test_results_do_not_depend_on_the_blocks(self, problem, rows):
        """With the columns of one to four rows of windows at a time, which need not divide the rows evenly."""
        dy, results = None, []
        for at_once in (None, rows):
            layer = problem.layer("full")
            with pytest.MonkeyPatch.context() as patch:
                if at_once is not None:
                    of_a_row = (layer.W[..., 0].size + layer.filters) * layer.output_shape[1] * len(problem.x)
                    patch.setattr(devices.CPU, "block_elements", at_once * of_a_row)
                y = layer.forward(problem.x, training=True)
                dy = np.random.default_rng(2).standard_normal(y.shape) if dy is None else dy
                results.append((y, layer.backward(dy), layer.dW))
        assert ("dW part" in layer._buffers) == (layer.output_shape[0] > rows)  # there were several blocks
        for whole, in_blocks in zip(*results, strict=True):
            np.testing.assert_allclose(in_blocks, whole, rtol=0, atol=1e-11)

    def test_a_block_smaller_than_a_row_is_a_row(self, monkeypatch):
        monkeypatch.setattr(devices.CPU, "block_elements", 1)
        problem = Problem(3, 1, "same", True, 2, np.random.default_rng(0).standard_normal((2, 5, 4, 2)), 0)
        compare(problem.layer("full"), "full", problem, problem.x)


class TestErrors:
    @pytest.mark.parametrize("layer", [tn.Conv2D(2, 3), tn.DepthwiseConv2D(3)], ids=repr)
    def test_no_image(self, layer):
        with pytest.raises(
            ValueError,
            match=r"layer 0 \(\w+\): expected input shape \(batch, height, width, channels\), got \(batch, 28, 28\); "
            r"put Reshape\(\(28, 28, 1\)\) before it",
        ):
            tn.Sequential([layer], input_shape=(28, 28))
        with pytest.raises(ValueError, match=r"got \(batch, 784\)$"):
            tn.Sequential([layer], input_shape=(784,))

    @pytest.mark.parametrize("make", [lambda size: tn.Conv2D(2, size), tn.DepthwiseConv2D])
    def test_a_kernel_that_does_not_fit(self, make):
        message = (
            'a kernel of {} does not fit into an image of 4 x 5; make it smaller, or give padding="same"'
        )
        for size, text in ((5, "5 x 5"), ((1, 6), "1 x 6"), ((5, 1), "5 x 1")):
            with pytest.raises(ValueError, match=message.format(text)):
                tn.Sequential([make(size)], input_shape=(4, 5, 1))
        assert tn.Sequential([make((4, 5))], input_shape=(4, 5, 1)).output_shape[:2] == (1, 1)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"kernel_size": 0}, "kernel_size: expected a positive int, got 0"),
            ({"kernel_size": 2.0}, "kernel_size: expected a positive int"),
            ({"kernel_size": True}, "kernel_size: expected a positive int"),
            ({"kernel_size": "3"}, "kernel_size: expected a positive int"),
            (
                {"kernel_size": (3,)},
                r"kernel_size: expected an int or a pair \(down, across\), got \(3,\)",
            ),
            ({"kernel_size": (3, 3, 3)}, "kernel_size: expected an int or a pair"),
            ({"kernel_size": (3, 0)}, "kernel_size: expected a positive int, got 0"),
            ({"kernel_size": None}, "kernel_size: expected a positive int"),
            ({"strides": 0}, "strides: expected a positive int, got 0"),
            ({"strides": (1, -1)}, "strides: expected a positive int, got -1"),
            ({"strides": None}, "strides: expected a positive int, got None"),
            ({"padding": "full"}, 'padding: expected "valid" or "same", got \'full\''),
            ({"padding": "SAME"}, 'padding: expected "valid" or "same"'),
            ({"padding": 1}, 'padding: expected "valid" or "same"'),
            ({"padding": None}, 'padding: expected "valid" or "same"'),
            ({"use_bias": "relu"}, r"use_bias: expected True or False, got 'relu'; .* add a ReLU\(\) layer"),
            ({"use_bias": 1}, "use_bias: expected True or False"),
        ],
    )
    def test_bad_arguments(self, settings, message):
        arguments = {"kernel_size": 3} | settings
        with pytest.raises(ValueError, match="^Conv2D " + message):
            tn.Conv2D(2, **arguments)
        with pytest.raises(ValueError, match="^DepthwiseConv2D " + message):
            tn.DepthwiseConv2D(**arguments)

    @pytest.mark.parametrize("count", [0, -1, 1.5, "8", None, True, (2, 2)])
    def test_bad_counts(self, count):
        with pytest.raises(ValueError, match="Conv2D filters: expected a positive int"):
            tn.Conv2D(count, 3)
        with pytest.raises(ValueError, match="DepthwiseConv2D depth_multiplier: expected a positive int"):
            tn.DepthwiseConv2D(3, depth_multiplier=count)


class TestDescription:
    def test_multiply_adds(self):
        model = tn.Sequential(
            [
                tn.Conv2D(32, 3),
                tn.Conv2D(8, (2, 3), (2, 1), "same"),
                tn.DepthwiseConv2D(3, 2, depth_multiplier=2),
            ],
            input_shape=(28, 28, 1),
        )
        rows = [row.multiply_adds for row in model.describe()]
        assert rows == [9 * 32 * 26 * 26, 6 * 32 * 8 * 13 * 26, 9 * 8 * 2 * 6 * 12]
        assert model.multiply_adds() == sum(rows)

    def test_without_bias_there_is_only_the_kernel(self):
        model = tn.Sequential(
            [tn.Conv2D(3, 2, use_bias=False), tn.DepthwiseConv2D(2, use_bias=False)], input_shape=(4, 4, 2)
        )
        assert {name: array.shape for name, array in model.named_params().items()} == {
            "0.W": (2, 2, 2, 3),
            "1.W": (2, 2, 3, 1),
        }

    @pytest.mark.parametrize(
        ("layer", "text"),
        [
            (tn.Conv2D(32, 3), "Conv2D(filters=32, kernel_size=3)"),
            (
                tn.Conv2D(8, (2, 3), [2, 1], "same", use_bias=False),
                "Conv2D(filters=8, kernel_size=(2, 3), strides=(2, 1), padding='same', use_bias=False)",
            ),
            (tn.DepthwiseConv2D(3, depth_multiplier=2), "DepthwiseConv2D(kernel_size=3, depth_multiplier=2)"),
        ],
    )
    def test_repr_and_config(self, layer, text):
        assert repr(layer) == text
        again = type(layer).from_config(json.loads(json.dumps(layer.config())))
        assert again.config() == layer.config()
        assert repr(again) == text

    def test_images_stay_channel_major_from_one_convolution_to_the_next(self):
        layer = tn.Conv2D(3, 2)
        tn.Sequential([layer], input_shape=(5, 6, 2), seed=0)
        x = np.ones((4, 5, 6, 2), np.float32)
        assert channel_major(layer.forward(x)).flags.c_contiguous
        y = layer.forward(x, training=True)
        assert channel_major(y).flags.c_contiguous
        assert channel_major(layer.backward(np.ones(y.shape, np.float32))).flags.c_contiguous


def test_no_images_give_no_outputs():
    model = tn.Sequential([tn.Conv2D(3, 3, padding="same"), tn.MaxPool2D()], input_shape=(8, 8, 1))
    assert model.forward(np.empty((0, 8, 8, 1), np.float32)).shape == (0, 4, 4, 3)


def test_a_frozen_convolution_gathers_no_columns_for_its_gradient(monkeypatch):
    model = tn.Sequential(
        [tn.Conv2D(2, 3), tn.Conv2D(3, 3), tn.Flatten(), tn.Dense(2)], input_shape=(8, 8, 1), seed=0
    )
    model.layers[1].trainable = False
    y = model.forward(
        np.random.default_rng(0).standard_normal((4, 8, 8, 1)).astype(np.float32), training=True
    )
    model.backward(np.ones_like(y))
    expected = model.grads.copy()
    gathered = []
    original = tn.Conv2D._blocks

    def spy(self, *arguments, gather=True):
        gathered.append(gather)
        return original(self, *arguments, gather=gather)

    monkeypatch.setattr(tn.Conv2D, "_blocks", spy)
    model.backward(np.ones_like(y))
    assert gathered == [False, True]
    np.testing.assert_array_equal(model.grads, expected)
