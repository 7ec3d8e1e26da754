"""Deliberately broken kernels: the tests of this folder find each one.

The kernels run as plain Python, so that nothing is compiled; see `tests.test_mutants` for how one is changed.
"""

import functools
import importlib

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import Phase, given, settings

from tests.engines.fast import test_loops, test_non_finite
from tests.test_mutants import changed_functions

numba = pytest.importorskip("numba")

FILES = ("activations", "batchnorm", "depthwise", "dropout", "losses", "optimizers", "pooling", "windows")


few = settings(max_examples=100, derandomize=True, phases=[Phase.generate], print_blob=False)


def examples(test, *arguments, **fixed):
    """A check that runs a test of Hypothesis on a few examples, the same each time."""
    drawn = {name: strategy for name, strategy in test.hypothesis._given_kwargs.items() if name not in fixed}
    inner = functools.partial(test.hypothesis.inner_test, *arguments, **fixed)

    @few
    @given(data=st.data())
    def check(data):
        inner(**{name: data if name == "data" else data.draw(strategy) for name, strategy in drawn.items()})

    return check


def loop(name):
    @few
    @given(data=st.data())
    def check(data):
        test_loops.compare_with_body(name, data)

    return check


def bad(layer, where, value):
    return examples(
        test_non_finite.test_each_layer_is_not_finite_exactly_where_numpys_is, layer, where, value=value
    )


CHECKS = {name: loop(name) for name in sorted(set(test_loops.LOOPS) - {"max_pool_backward"})} | {
    "max_pool_backward": examples(test_loops.test_a_max_pools_winners_are_kept_for_backward),
    "pool, NaN": lambda: test_loops.test_nan_and_infinity_go_through_a_pool_and_its_relu(2, "valid"),
    "pools, NaN": lambda: test_loops.test_nan_and_infinity_go_through_a_pool_and_its_relu(3, "same"),
    "threshold": test_loops.test_a_unit_whose_bits_are_the_threshold_is_kept,
    "label": lambda: test_loops.test_a_label_out_of_range_reads_no_foreign_memory(3),
    "ReLU, bad dy": bad("ReLU", "gradient", np.inf),
    "LogSoftmax, bad x": bad("LogSoftmax", "input", -np.inf),
    "MaxPool2D, bad dy": bad("MaxPool2D", "gradient", np.inf),
    "logits, bad": lambda: test_non_finite.test_losses_of_bad_scores("logits", -np.inf, 1),
    "SGD, bad": lambda: test_non_finite.test_updates_with_a_bad_gradient("SGD", np.inf),
    "momentum, bad": lambda: test_non_finite.test_updates_with_a_bad_gradient("momentum", -np.inf),
}

# (the check that must fail, the file, the text to replace, its replacement)
MUTANTS = [
    ("rectify", "activations", "y[i] = 0 if x[i] <= 0 else x[i]", "y[i] = x[i] if x[i] > 0 else 0"),
    ("rectify", "activations", "y[n, j] = 0 if z <= 0 else z", "y[n, j] = z if z > 0 else 0"),
    ("rectify", "activations", "z = x[n, j] + bias[j]", "z = x[n, j] - bias[j]"),
    ("rectify_backward", "activations", "dy[i] * (y[i] > 0)", "dy[i] * (y[i] >= 0)"),
    ("ReLU, bad dy", "activations", "dy[i] * (y[i] > 0)", "dy[i] if y[i] > 0 else 0"),
    ("log_softmax", "activations", "y[n, j] -= logarithm", "y[n, j] += logarithm"),
    ("log_softmax", "activations", "if x[n, j] > largest else", "if x[n, j] < largest else"),
    ("LogSoftmax, bad x", "activations", "total = 0.0", "total = x[n, 0] - x[n, 0]"),
    ("sum_rows", "batchnorm", "total[j] += rows[n, j]", "total[j] = rows[n, j]"),
    ("sum_rows", "batchnorm", "total += features[j, n]\n", "total -= features[j, n]\n"),
    ("moments", "batchnorm", "difference = rows[n, j] - mean[j]", "difference = rows[n, j]"),
    ("moments", "batchnorm", "  total += difference * difference", "  total += abs(difference)"),
    ("standardize", "batchnorm", "(rows[n, j] - mean[j]) * inv", "(rows[n, j] + mean[j]) * inv"),
    ("standardize", "batchnorm", "gamma[j] * x_hat[j, n] + beta[j]", "gamma[j] * x_hat[j, n]"),
    (
        "move_averages",
        "batchnorm",
        "running_var[j] + share * var[j]",
        "running_var[j] + share * mean[j]",
    ),
    ("feature_sums", "batchnorm", "product[j] += dy[n, j] * x_hat[n, j]", "product[j] += dy[n, j]"),
    ("feature_sums", "batchnorm", "dgamma[j] = total, product", "dgamma[j] = product, total"),
    ("batchnorm_dx", "batchnorm", "(dbeta[j] + x_hat[n, j] *", "(dbeta[j] - x_hat[n, j] *"),
    ("batchnorm_dx", "batchnorm", "(dy[j, n] - (dbeta[j] +", "(dy[j, n] - (0 +"),
    ("batchnorm_dx", "batchnorm", "dy.dtype.type(m)", "dy.dtype.type(len(dy))"),
    ("depthwise", "depthwise", "sums[:] = b[c, m]", "sums[:] = 0"),
    ("depthwise", "depthwise", "part[k] += w * pixels[k]", "part[k] = w * pixels[k]"),
    ("depthwise_dw", "depthwise", "product += pixels[k] * part[k]", "product += pixels[k]"),
    ("depthwise_dx", "depthwise", "pixels[k] += w * part[k]", "pixels[k] -= w * part[k]"),
    ("average_pool", "pooling", "mean[k] /= rows * columns[k]", "mean[k] /= rows * columns[0]"),
    ("average_pool_backward", "pooling", "gradient[k] / (rows * columns[k])", "gradient[k] / rows"),
    ("global_average", "pooling", "total[n] / images.shape[1]", "total[n]"),
    ("global_average_backward", "pooling", "share[n] = dy[n, c] / dx", "share[n] = dy[n, 0] / dx"),
    ("drop", "dropout", "= x[n, j] * mask[n, j]", "= x[n, j] * (mask[n, j] > 0)"),
    ("threshold", "dropout", ">= threshold", "> threshold"),
    ("softmax_cross_entropy", "losses", "math.log(total) - target", "math.log(total) + target"),
    ("softmax_cross_entropy", "losses", "smoothing * (average / classes)", "smoothing * average"),
    ("softmax_cross_entropy", "losses", "p[k] /= total", "p[k] /= classes"),
    ("logits, bad", "losses", "if smoothing != 0:", "if True:"),
    ("label", "losses", "if known else NotImplemented\n\n\n@kernel\ndef _soft", "\n\n\n@kernel\ndef _soft"),
    ("cross_entropy_gradient", "losses", "labels[n]] -= at_label", "labels[n]] += at_label"),
    ("cross_entropy_gradient", "losses", "number((1 - smoothing) / total)", "number(1 / total)"),
    ("cross_entropy_gradient", "losses", "gradient[n, k] -= everywhere", "gradient[n, k] -= at_label"),
    ("record", "losses", "not (y[k] <= y[best]) and", "y[k] >= y[best] and"),
    ("record", "losses", "not (y[k] <= y[best]) and y[best] == y[best]", "y[k] > y[best]"),
    (
        "sgd_update",
        "optimizers",
        "params[i] = p - step_size * grads[i]",
        "params[i] = p + step_size * grads[i]",
    ),
    (
        "SGD, bad",
        "optimizers",
        "abs(params[i]) == math.inf and abs(grads[i]) < math.inf",
        "abs(params[i]) == math.inf",
    ),
    ("momentum_update", "optimizers", "momentum * velocity[i] - step\n", "momentum * velocity[i] + step\n"),
    ("momentum_update", "optimizers", "- step if nesterov else", "- step if not nesterov else"),
    (
        "momentum, bad",
        "optimizers",
        "abs(velocity[i]) == math.inf and abs(grads[i]) < math.inf",
        "abs(velocity[i]) == math.inf",
    ),
    ("rmsprop_update", "optimizers", "math.sqrt(v[i] + epsilon)", "(math.sqrt(v[i]) + epsilon)"),
    ("rmsprop_update", "optimizers", "rho * v[i] + share * (g * g)", "rho * v[i] + (g * g)"),
    ("adam_update", "optimizers", "m[i] = beta_1 * m[i] + g", "m[i] = beta_1 * m[i] - g"),
    ("adam_update", "optimizers", "v[i] = beta_2 * v[i] + g * g", "v[i] = beta_2 * v[i] + abs(g)"),
    ("adam_update", "optimizers", "(math.sqrt(v[i]) + epsilon)", "math.sqrt(v[i])"),
    ("take_windows", "windows", "column[k] = pixels[k]", "column[k] = pixels[0]"),
    ("add_windows", "windows", "pixels[k] += column[k]", "pixels[k] = column[k]"),
    ("max_pool", "pooling", "winner[n] == _NONE or _beats", "winner[n] == _NONE and _beats"),
    (
        "pools, NaN",
        "pooling",
        "best[n] = 0 if best[n] <= 0 else best[n]",
        "best[n] = best[n] if best[n] > 0 else 0",
    ),
    (
        "pool, NaN",
        "pooling",
        "largest = 0 if largest <= 0 else largest",
        "largest = largest if largest > 0 else 0",
    ),
    ("max_pool", "pooling", "not (pixel <= best) and best == best", "pixel > best"),
    ("max_pool_backward", "pooling", "not (pixel <= best) and", "pixel >= best and"),
    ("max_pool_backward", "pooling", "place if largest > 0 else _NONE", "place if largest >= 0 else _NONE"),
    ("max_pool_backward", "pooling", "(3 if lower_right else 2)", "(2 if lower_right else 3)"),
    ("max_pool_backward", "pooling", "pixels[n] + won if add else won", "won"),
    (
        "MaxPool2D, bad dy",
        "pooling",
        "gradient[n] * (winner[n] == place)",
        "gradient[n] if winner[n] == place else 0",
    ),
]


def kernels(module):
    """The kernels that are defined in a module, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, numba.core.dispatcher.Dispatcher) and value.__module__ == module.__name__
    }


@pytest.fixture(autouse=True)
def in_python(monkeypatch):
    """All kernels as plain Python; what they may warn of is told by their results."""
    for file in FILES:
        module = importlib.import_module(f"tinynet.engines.fast.{file}")
        for name, kernel in kernels(module).items():
            monkeypatch.setattr(module, name, kernel.py_func)
    with np.errstate(all="ignore"):
        yield


@pytest.mark.parametrize("name", CHECKS)
def test_the_kernels_as_they_are_pass(name):
    CHECKS[name]()


@pytest.mark.parametrize(
    ("name", "file", "old", "new"), MUTANTS, ids=[f"{index}: {row[0]}" for index, row in enumerate(MUTANTS)]
)
def test_a_mutant_is_found(name, file, old, new, monkeypatch):
    module = importlib.import_module(f"tinynet.engines.fast.{file}")
    for function, code in changed_functions(module, old, new):
        monkeypatch.setattr(function, "__code__", code)
    with pytest.raises((AssertionError, ArithmeticError, IndexError)):
        CHECKS[name]()


def test_there_are_mutants_of_every_file_of_kernels():
    import tinynet.engines.fast as folder

    files = {path.stem for path in importlib.resources.files(folder).iterdir() if path.suffix == ".py"}
    assert (
        {file for _, file, *_ in MUTANTS}
        == set(FILES)
        == files - {"__init__", "arrays", "compile", "operations"}
    )
