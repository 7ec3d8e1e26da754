"""Deliberately broken backward passes and updates: the gradient check, and the optimizers' formulas, find each one.

A mutant changes a few characters of the library's source, in memory: the module is compiled again, and the functions
that differ run the changed code until the test ends. The changed text must occur in the source exactly once, so this
table can't become stale unnoticed.
"""

import importlib
import inspect
import types

import numpy as np
import pytest

import tinynet as tn
from tests.support.strategies import away_from_zero
from tests.test_optimizers import PAIRS, gradients
from tinynet.engines import devices
from tinynet.layers import pooling
from tinynet.study import gradcheck

RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((4, 5))
KINKED = away_from_zero(RNG, (4, 5))
IMAGES = RNG.permutation(np.linspace(-2, 2, 2 * 5 * 4 * 2)).reshape(2, 5, 4, 2)  # no two pixels alike
SPREAD = RNG.permutation(np.linspace(-2, 2, 24)).reshape(6, 4)
LABELS = np.array([0, 2, 1, 1])


def layer(make, x):
    """The gradient check of a layer."""
    return lambda: gradcheck(make(), x).check()


def loss(make, heads=(), y=LABELS):
    """The gradient check of a small network with a loss."""

    def check():
        model = tn.Sequential([tn.Dense(3), *(head() for head in heads)], input_shape=(5,), seed=0)
        gradcheck(model, VECTORS, y, make()).check()

    return check


def optimizer(kind, rate=0.05, **settings):
    """Some steps of an optimizer against its formula in plain floats; two of three parameters decay."""

    def check():
        ours, reference = kind(rate, **settings), PAIRS[kind](rate, **settings)
        params = np.array([0.5, -2.0, 1.5])
        expected = params.tolist()
        for grads in gradients(np.random.default_rng(3), 3, steps=5):
            expected = reference.step(expected, grads.tolist(), 2, range(3))
            ours.step(params, grads, decay_size=2)
        np.testing.assert_allclose(params, expected, rtol=1e-9)

    return check


def in_blocks():
    """A convolution whose columns are made for one row of windows at a time."""
    block, devices.CPU.block_elements = devices.CPU.block_elements, 1
    try:
        gradcheck(tn.Conv2D(2, 3, padding="same"), IMAGES).check()
    finally:
        devices.CPU.block_elements = block


def frozen_batchnorm():
    frozen = tn.BatchNorm()
    frozen.trainable = False
    gradcheck(frozen, SPREAD).check()


def projected():
    block = tn.Residual(tn.Dense(3), tn.Tanh(), projection=tn.Dense(3))
    gradcheck(tn.Sequential([tn.Dense(4), block], input_shape=(5,), seed=0), VECTORS).check()


ADAM = {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3}

CHECKS = {
    "Dense": layer(lambda: tn.Dense(3, bias_initializer="ones"), VECTORS),
    "Conv2D": layer(lambda: tn.Conv2D(3, (3, 2), padding="same"), IMAGES),
    "Conv2D, strides": layer(lambda: tn.Conv2D(2, 2, (1, 2)), IMAGES),
    "Conv2D, blocks": in_blocks,
    "DepthwiseConv2D": layer(lambda: tn.DepthwiseConv2D(3, padding="same", depth_multiplier=2), IMAGES),
    "MaxPool2D": layer(lambda: tn.MaxPool2D(2), IMAGES),
    "MaxPool2D, overlap": layer(lambda: tn.MaxPool2D(3, 1), IMAGES),
    "AveragePool2D": layer(lambda: tn.AveragePool2D(3, 2, "same"), IMAGES),
    "GlobalAveragePool2D": layer(tn.GlobalAveragePool2D, IMAGES),
    "GlobalMaxPool2D": layer(tn.GlobalMaxPool2D, IMAGES),
    "BatchNorm": layer(tn.BatchNorm, SPREAD),
    "BatchNorm, frozen": frozen_batchnorm,
    "ReLU": layer(tn.ReLU, KINKED),
    "LeakyReLU": layer(tn.LeakyReLU, KINKED),
    "Sigmoid": layer(tn.Sigmoid, VECTORS),
    "Tanh": layer(tn.Tanh, VECTORS),
    "Softmax": layer(tn.Softmax, VECTORS),
    "LogSoftmax": layer(tn.LogSoftmax, VECTORS),
    "Flatten": layer(tn.Flatten, IMAGES),
    "Reshape": layer(lambda: tn.Reshape((4, 10)), IMAGES),
    "Dropout": layer(lambda: tn.Dropout(0.4, seed=1), VECTORS),
    "Rescale": layer(lambda: tn.Rescale(1.5, -0.2), VECTORS),
    "Residual": layer(lambda: tn.Residual(tn.Dense(5), tn.Tanh()), VECTORS),
    "Residual, projection": projected,
    "SoftmaxCrossEntropy": loss(lambda: tn.SoftmaxCrossEntropy(0.2)),
    "CrossEntropy": loss(tn.CrossEntropy, [tn.Softmax]),
    "NegativeLogLikelihood": loss(tn.NegativeLogLikelihood, [tn.LogSoftmax]),
    "MeanSquaredError": loss(tn.MeanSquaredError, y=RNG.standard_normal((4, 3))),
    "SGD": optimizer(tn.SGD),
    "SGD, momentum": optimizer(tn.SGD, momentum=0.9),
    "SGD, Nesterov": optimizer(tn.SGD, momentum=0.9, nesterov=True),
    "SGD, penalty": optimizer(tn.SGD, weight_decay=0.1, decoupled=False),
    "SGD, clipped": optimizer(tn.SGD, clip_norm=0.5),
    "SGD, clipped seldom": optimizer(tn.SGD, clip_norm=1e6),
    "RMSprop": optimizer(tn.RMSprop, rho=0.8, epsilon=1e-3),
    "Adam": optimizer(tn.Adam, **ADAM),
    "AdamW": optimizer(tn.AdamW, weight_decay=0.1, **ADAM),
}

DENSE, CONV, PATCHES = "layers.dense", "layers.conv", "layers.windows.patches"
DEPTHWISE, POOLING = "layers.depthwise", "layers.pooling"
BATCHNORM, ACTIVATIONS, FLATTEN = "layers.batchnorm", "layers.activations", "layers.flatten"

# (the check that must fail, the module, the text to replace, its replacement)
MUTANTS = [
    ("Dense", DENSE, "matmul(x.T, dy, out=self.dW)", "matmul(x.T, -dy, out=self.dW)"),
    ("Dense", DENSE, "matmul(x.T, dy, out=self.dW)", "matmul(x.T, 0 * dy + 1, out=self.dW)"),
    ("Dense", DENSE, "matmul(x.T, dy, out=self.dW)", "self.dW.fill(0)"),
    ("Dense", DENSE, "sum_rows(dy, self.db)", "sum_rows(dy[1:], self.db)"),
    ("Dense", DENSE, "sum_rows(dy, self.db)", "self.db[...] = sum(dy) / len(dy)"),
    (
        "Dense",
        DENSE,
        "matmul(dy, self.W.T, out=dx)",
        "matmul(dy, self.W.reshape(-1, len(self.W)), out=dx)",
    ),
    ("Dense", DENSE, "matmul(dy, self.W.T, out=dx)", "matmul(2 * dy, self.W.T, out=dx)"),
    (
        "Conv2D",
        CONV,
        "dy.reshape(self.filters, -1).T, self.db",
        "dy[..., :1].reshape(self.filters, -1).T, self.db",
    ),
    (
        "Conv2D",
        CONV,
        "channel_major(crop(",
        "channel_major(-crop(",
    ),
    (
        "Conv2D",
        CONV,
        "matmul(columns, dy_rows.T, out=part)",
        "matmul(columns, -dy_rows.T, out=part)",
    ),
    (
        "Conv2D, blocks",
        CONV,
        "self.dW += part.reshape(self.dW.shape)",
        "self.dW[...] = part.reshape(self.dW.shape)",
    ),
    ("Conv2D, blocks", CONV, "dx.fill(0)", "dx.fill(1)"),
    ("Conv2D", CONV, "matmul(W, dy_rows, out", "matmul(W, dy_rows[:, ::-1], out"),
    ("Conv2D", PATCHES, "padded[:, *there] += parts[i, j]", "padded[:, *there] = parts[i, j]"),
    ("Conv2D", PATCHES, "slice(j, j + width,", "slice(0, width,"),
    ("Conv2D, strides", PATCHES, "slice(top + i, top + i + span,", "slice(top, top + span,"),
    (
        "Conv2D",
        PATCHES,
        "np.copyto(images, padded[inside])",
        "np.copyto(images, padded[:, -down.pixels :, -across.pixels :])",
    ),
    (
        "DepthwiseConv2D",
        DEPTHWISE,
        "dy.reshape(len(self.db), -1).T",
        "dy[..., 1:].reshape(len(self.db), -1).T",
    ),
    ("DepthwiseConv2D", DEPTHWISE, "across], dW[u, v])", "across], dW[v, u])"),
    (
        "DepthwiseConv2D",
        DEPTHWISE,
        "np.multiply(dy[:, :, down, across], W[u, v]",
        "np.multiply(dy[:, :, down, across], W[-1 - u, v]",
    ),
    ("DepthwiseConv2D", DEPTHWISE, "for m in range(dy.shape[1]):", "for m in range(1):"),
    ("DepthwiseConv2D", DEPTHWISE, "dx[:, rows, columns] += part[:, m]", "dx[:, rows, columns] = part[:, m]"),
    ("MaxPool2D", POOLING, "np.multiply(dy[here], won, out=pixels)", "np.multiply(dy[here], 1, out=pixels)"),
    (
        "MaxPool2D",
        POOLING,
        "np.equal(x[:, rows, columns], y[here]",
        "np.not_equal(x[:, rows, columns], y[here]",
    ),
    (
        "MaxPool2D, overlap",
        POOLING,
        "pixels += np.multiply(dy[here], won",
        "pixels[...] = np.multiply(dy[here], won",
    ),
    (
        "AveragePool2D",
        POOLING,
        "counts, out=shares",
        "windows.area, out=shares",
    ),
    ("AveragePool2D", POOLING, "dx[:, rows, columns] += shares", "dx[:, rows, columns] = shares"),
    (
        "GlobalAveragePool2D",
        POOLING,
        "np.divide(dy.T[:, None, None], math.prod(dx.shape[1:3])",
        "np.divide(dy.T[:, None, None], math.prod(dx.shape[1:2] * 2)",
    ),
    (
        "GlobalMaxPool2D",
        POOLING,
        "super().backward(dy[:, None, None])",
        "super().backward(-dy[:, None, None])",
    ),
    (
        "BatchNorm",
        BATCHNORM,
        "dbeta[...] = sum_of_rows(dy)",
        "dbeta[...] = sum_of_rows(dy[1:])",
    ),
    ("BatchNorm", BATCHNORM, "sum_of_rows(dy, x_hat)", "sum_of_rows(dy, dy)"),
    ("BatchNorm", BATCHNORM, "np.multiply(x_hat, dgamma, out=dx)", "dx.fill(0)"),
    ("BatchNorm", BATCHNORM, "dx += dbeta", "dx += 0"),
    ("BatchNorm", BATCHNORM, "dx /= -m", "dx /= 1 - m"),
    ("BatchNorm", BATCHNORM, "dx *= gamma * inv_std", "dx *= inv_std"),
    ("BatchNorm", BATCHNORM, "dx += dy\n", "dx -= dy\n"),
    ("BatchNorm, frozen", BATCHNORM, "dy * (self.gamma * inv_std)", "dy * self.gamma"),
    ("ReLU", ACTIVATIONS, "np.greater(y, 0, out", "np.less_equal(y, 0, out"),
    ("ReLU", ACTIVATIONS, "np.multiply(dy, passes,", "np.multiply(abs(dy), passes,"),
    (
        "LeakyReLU",
        ACTIVATIONS,
        "np.multiply(dy, self._slope",
        "np.multiply(dy, 1 / self._slope",
    ),
    ("Sigmoid", ACTIVATIONS, "dx = np.subtract(1, y, out", "dx = np.subtract(2, y, out"),
    ("Tanh", ACTIVATIONS, "np.subtract(1, dx, out=dx)", "np.subtract(1, y, out=dx)"),
    (
        "Softmax",
        ACTIVATIONS,
        "np.add.reduce(dy * y, axis=-1, keepdims=True)",
        "np.add.reduce(dy, axis=-1, keepdims=True)",
    ),
    ("Softmax", ACTIVATIONS, "dx = dy - np.add.reduce(dy * y", "dx = dy - 0 * np.add.reduce(dy * y"),
    ("Softmax", ACTIVATIONS, "dx = dy - np.add.reduce(dy * y", "dx = 0 * dy - 0 * np.add.reduce(dy * y"),
    ("LogSoftmax", ACTIVATIONS, "np.subtract(dy, dx, out=dx)", "np.add(dy, dx, out=dx)"),
    ("LogSoftmax", ACTIVATIONS, "dx *= np.add.reduce(dy, axis=-1, keepdims=True)", "dx *= dy"),
    (
        "Flatten",
        FLATTEN,
        "return y.T\n\n    def backward(self, dy: Array) -> Array:\n        return dy.",
        "return y.T\n\n    def backward(self, dy: Array) -> Array:\n        return dy[:, ::-1].",
    ),
    (
        "Reshape",
        FLATTEN,
        "*self.target_shape)\n\n    def backward(self, dy: Array) -> Array:\n        return dy.",
        "*self.target_shape)\n\n    def backward(self, dy: Array) -> Array:\n        return dy[::-1].",
    ),
    (
        "Dropout",
        "layers.dropout",
        "np.multiply(dy, self._mask",
        "np.multiply(dy, self._mask != 0",
    ),
    ("Rescale", "layers.rescale", "np.multiply(dy, self.scale", "np.divide(dy, self.scale"),
    (
        "Residual",
        "layers.residual",
        "cut = backward_through(self._short_cut, dy,",
        "cut = backward_through(self._short_cut, 0 * dy,",
    ),
    ("Residual", "layers.residual", "np.add(cut, through,", "np.subtract(cut, through,"),
    (
        "Residual, projection",
        "layers.residual",
        "backward_through(self._short_cut, dy,",
        "backward_through(self._short_cut, -dy,",
    ),
    (
        "Residual, projection",
        "layers.residual",
        "backward_through(self.layers, dy, self.",
        "backward_through(self.layers, 2 * dy, self.",
    ),
    (
        "SoftmaxCrossEntropy",
        "losses",
        "probabilities / total\n    subtract_targets(",
        "probabilities / 1\n    subtract_targets(",
    ),
    ("SoftmaxCrossEntropy", "losses", "labels] -= (1 - smoothing) / total", "labels] -= 1 / total"),
    (
        "SoftmaxCrossEntropy",
        "losses",
        "gradient -= smoothing / (total * gradient.shape[1])",
        "gradient -= smoothing / total",
    ),
    (
        "SoftmaxCrossEntropy",
        "losses",
        "labels] -= (1 - smoothing) / total",
        "labels] += (1 - smoothing) / total",
    ),
    (
        "CrossEntropy",
        "losses",
        "np.divide(gradient, np.where(",
        "np.multiply(gradient, np.where(",
    ),
    (
        "NegativeLogLikelihood",
        "losses",
        "np.zeros_like(self._outputs)",
        "np.ones_like(self._outputs)",
    ),
    ("MeanSquaredError", "losses", "* (2 / self._count)", "* (1 / self._count)"),
    ("MeanSquaredError", "losses", "self._difference * (2", "abs(self._difference) * (2"),
    (
        "SGD",
        "optimizers",
        "params -= np.multiply(grads, step_size, out=scratch)",
        "params += np.multiply(grads, step_size, out=scratch)",
    ),
    (
        "SGD",
        "optimizer",
        "learning_rate = self.current_learning_rate()",
        "learning_rate = 2 * self.current_learning_rate()",
    ),
    ("SGD, momentum", "optimizers", "velocity *= momentum", "velocity *= 1"),
    ("SGD, momentum", "optimizers", "velocity -= scratch", "velocity -= (1 - momentum) * scratch"),
    (
        "SGD, Nesterov",
        "optimizers",
        "np.multiply(velocity, momentum, out=scratch)",
        "np.multiply(velocity, 1, out=scratch)",
    ),
    ("SGD, Nesterov", "optimizers", "if not nesterov:", "if True:"),
    (
        "SGD, penalty",
        "optimizer",
        "np.multiply(params[:decay_size], penalty,",
        "np.multiply(params[:decay_size], penalty / 2,",
    ),
    ("SGD, penalty", "optimizer", "gradient[:decay_size] += np", "gradient[:decay_size] -= np"),
    (
        "SGD, clipped",
        "optimizer",
        "gradient *= clip_norm / norm",
        "np.clip(gradient, -clip_norm, clip_norm, gradient)",
    ),
    ("SGD, clipped seldom", "optimizer", "if norm > clip_norm:", "if True:"),
    ("RMSprop", "optimizers", "scratch *= 1 - rho", "scratch *= rho"),
    ("RMSprop", "optimizers", "v *= rho", "v *= 1"),
    (
        "RMSprop",
        "optimizers",
        "np.add(v, epsilon, out=scratch)\n    np.sqrt(scratch, out=scratch)",
        "np.sqrt(v, out=scratch)\n    scratch += epsilon",
    ),
    ("Adam", "optimizers", "m *= beta_1", "m *= beta_2"),
    (
        "Adam",
        "optimizers",
        "np.multiply(grads, grads, out=scratch)  # first",
        "np.abs(grads, out=scratch)  # first",
    ),
    ("Adam", "optimizers", "math.sqrt(1 - self.beta_2**t) /", "1 /"),
    ("Adam", "optimizers", "/ (1 - self.beta_1**t) *", "*"),
    (
        "Adam",
        "optimizers",
        "epsilon, betas = self.epsilon / math.sqrt(1 - self.beta_2),",
        "epsilon, betas = self.epsilon,",
    ),
    ("Adam", "optimizer", '["step_count"] += 1', '["step_count"] += 2'),
    ("AdamW", "optimizer", "1 - learning_rate * self.weight_decay if", "1 - self.weight_decay if"),
    ("AdamW", "optimizer", "max(0, min(decay_size, stop) - start) if", "stop - start if"),
]


def changed_functions(module, old, new):
    """(function, changed code) for each function of the module that the change alters."""
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{old!r} is {source.count(old)} times in {module.__name__}"
    codes, others = (
        _codes(compile(text, module.__file__, "exec")) for text in (source, source.replace(old, new))
    )
    assert codes.keys() == others.keys()
    found = [
        (_function(module, name), other)
        for name, other in others.items()
        if _plain(other) != _plain(codes[name])
    ]
    assert found, "the change is none"
    return found


def _codes(module):
    """The code of every function and method of a compiled module, by its qualified name."""
    found = {}
    for code in (constant for constant in module.co_consts if isinstance(constant, types.CodeType)):
        found |= (
            {code.co_qualname: code} | _codes(code)
            if code.co_name == code.co_qualname
            else {code.co_qualname: code}
        )
    return {
        name: code for name, code in found.items() if code.co_flags & inspect.CO_OPTIMIZED and "<" not in name
    }


def _plain(code):
    """What a code object does, without its location."""
    constants = [_plain(item) if isinstance(item, types.CodeType) else repr(item) for item in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants


def _function(module, qualified_name):
    owner = module
    for name in qualified_name.split("."):
        owner = inspect.unwrap(inspect.getattr_static(owner, name))
    return owner.fget if isinstance(owner, property) else owner


@pytest.fixture(autouse=True)
def forget_what_was_computed():
    """A mutant may leave wrong numbers in this cache."""
    yield
    pooling._pixels_in_windows.cache_clear()


@pytest.mark.parametrize("name", CHECKS)
def test_the_library_as_it_is_passes(name):
    CHECKS[name]()


@pytest.mark.parametrize(
    ("name", "module", "old", "new"), MUTANTS, ids=[f"{index}: {row[0]}" for index, row in enumerate(MUTANTS)]
)
def test_a_mutant_is_found(name, module, old, new, monkeypatch):
    module = importlib.import_module(f"tinynet.{module}")
    for function, code in changed_functions(module, old, new):
        monkeypatch.setattr(function, "__code__", code)
    with pytest.raises(AssertionError), np.errstate(all="ignore"):
        CHECKS[name]()


def test_there_are_mutants_of_every_layer_loss_and_optimizer():
    checked = {name.partition(",")[0] for name, *_ in MUTANTS}
    expected = {*tn.layers.__all__, *tn.losses.__all__, "SGD", "RMSprop", "Adam", "AdamW"} - {"Layer", "Loss"}
    assert checked == expected
    assert {name for name, *_ in MUTANTS} <= set(CHECKS)
    assert len(MUTANTS) >= 40
