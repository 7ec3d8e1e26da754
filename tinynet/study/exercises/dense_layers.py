"""The exercises on vectors: the data to try them on, and common mistakes."""

import numpy as np

from tinynet.layers import BatchNorm, Dense, Dropout, ReLU, Softmax
from tinynet.losses import SoftmaxCrossEntropy
from tinynet.study.exercises.exercise import Exercise, Mistake, Trial, library_results
from tinynet.support.types import Array, Shape

# Batch sizes differ, so a factor n is not a constant; one shape is square, so that a transposed matrix still fits.
_SHAPES = ((5, 4, 3), (2, 3, 6), (4, 4, 4))


def _dense_trials(rng: np.random.Generator) -> list[Trial]:
    return [
        Trial(
            x=rng.standard_normal((n, inputs)),
            W=rng.standard_normal((inputs, outputs)),
            b=rng.standard_normal(outputs),
            dy=rng.standard_normal((n, outputs)),
            smooth=True,
        )
        for n, inputs, outputs in _SHAPES
    ]


DENSE = Exercise(
    name="dense",
    title="a fully connected layer, y = x W + b",
    kind="Dense",
    library="Dense in tinynet/layers/dense.py",
    constructor=("W", "b"),
    trials=_dense_trials,
    solve=lambda t: library_results(Dense(t.W.shape[1]), t, "W", "b"),
    formulas={
        "y": "y = x W + b",
        "dx": "dx = dy W^T, (n, out) (out, in) -> (n, in)",
        "dW": "dW = x^T dy, (in, n) (n, out) -> (in, out)",
        "db": "db = the sum of dy over the batch, axis 0, (out,)",
    },
    mistakes=(
        Mistake("dx", "is dy W: W must be transposed", lambda t: t.dy @ t.W),
        Mistake("dW", "is x dy: x must be transposed", lambda t: t.x @ t.dy),
        Mistake(
            "dW",
            "is averaged over the batch but should be summed: the loss already divides by n",
            lambda t: t.right["dW"] / t.n,
        ),
        Mistake(
            "db", "is not summed over the batch: yours has shape {found}, but b has {right}", lambda t: t.dy
        ),
        Mistake(
            "db",
            "is averaged over the batch but should be summed: the loss already divides by n",
            lambda t: t.dy.mean(axis=0),
        ),
        Mistake(
            "db",
            "is summed over the outputs, axis 1, instead of the batch, axis 0",
            lambda t: t.dy.sum(axis=1),
        ),
        Mistake("db", "is summed over both axes", lambda t: t.dy.sum()),
        Mistake("db", "is the last example's dy, as if only that example used b", lambda t: t.dy[-1]),
    ),
)


def _relu_trials(rng: np.random.Generator) -> list[Trial]:
    trials = []
    for shape, smooth in (((5, 4), True), ((4, 4), True), ((3, 2, 4), True), ((6, 3), False)):
        x = rng.choice([-1.0, 1.0], shape) * rng.uniform(0.1, 3, shape)  # away from the kink
        if not smooth:
            x.reshape(-1)[::2] = 0
        trials.append(Trial(x=x, dy=rng.standard_normal(shape), smooth=smooth))
    return trials


RELU = Exercise(
    name="relu",
    title="ReLU, y = max(x, 0)",
    kind="ReLU",
    library="ReLU in tinynet/layers/activations.py",
    trials=_relu_trials,
    solve=lambda t: library_results(ReLU(), t),
    formulas={"y": "y = max(x, 0)", "dx": "dx = dy where x > 0, else 0"},
    mistakes=(
        Mistake(
            "dx", "takes its mask from dy: what counts is where x was above 0", lambda t: t.dy * (t.dy > 0)
        ),
        Mistake("dx", "is dy, unchanged: the mask is missing", lambda t: t.dy),
        Mistake(
            "dx", "lets dy pass where x is 0: the slope there is taken to be 0", lambda t: t.dy * (t.x >= 0)
        ),
        Mistake(
            "dx",
            "has the mask the wrong way round: dy should pass where x is above 0",
            lambda t: t.dy * (t.x <= 0),
        ),
        Mistake(
            "dx",
            "has the mask the wrong way round: dy should pass where x is above 0",
            lambda t: t.dy * (t.x < 0),
        ),
        Mistake("dx", "is multiplied by x: the slope is 1, not x", lambda t: t.dy * np.maximum(t.x, 0)),
        Mistake("dx", "is y, the result of forward", lambda t: np.maximum(t.x, 0)),
    ),
)


def _softmax_trials(rng: np.random.Generator) -> list[Trial]:
    shapes = ((5, 3), (4, 4), (2, 6))
    return [Trial(x=rng.standard_normal(s), dy=rng.standard_normal(s), smooth=True) for s in shapes]


def _dot(t: Trial, axis: int | None = 1, keepdims: bool = True) -> Array:
    """The sum of dy y, for softmax."""
    total: Array = (t.dy * t.right["y"]).sum(axis=axis, keepdims=keepdims)
    return total


SOFTMAX = Exercise(
    name="softmax",
    title="softmax, y_i = exp(x_i) / sum exp(x_j)",
    kind="Softmax",
    library="Softmax in tinynet/layers/activations.py",
    trials=_softmax_trials,
    solve=lambda t: library_results(Softmax(), t),
    formulas={
        "y": "y_i = exp(x_i) / sum over j of exp(x_j)",
        "dx": "dx = y (dy - s), with s the sum of dy y over the classes of each row, (n, 1)",
    },
    mistakes=(
        Mistake(
            "dx",
            "has only the diagonal of the Jacobian: each y also changes with every other x in its row, by - y_i y_j",
            lambda t: t.dy * t.right["y"] * (1 - t.right["y"]),
        ),
        Mistake(
            "dx",
            "ignores dy and has only the diagonal of the Jacobian",
            lambda t: t.right["y"] * (1 - t.right["y"]),
        ),
        Mistake(
            "dx", "is dy y: the sum over the row is not subtracted from dy", lambda t: t.dy * t.right["y"]
        ),
        Mistake("dx", "lacks the factor y in front", lambda t: t.dy - _dot(t)),
        Mistake("dx", "has a plus instead of a minus", lambda t: t.right["y"] * (t.dy + _dot(t))),
        Mistake(
            "dx",
            "sums over the batch, axis 0, instead of the classes, axis 1",
            lambda t: t.right["y"] * (t.dy - _dot(t, 0)),
        ),
        Mistake(
            "dx",
            "sums over all rows together: each row has its own sum",
            lambda t: t.right["y"] * (t.dy - _dot(t, None)),
        ),
        Mistake(
            "dx",
            "subtracts each row's sum from a column: keepdims=True is missing",
            lambda t: t.right["y"] * (t.dy - _dot(t, keepdims=False)),
        ),
        Mistake(
            "dx",
            "sums dy instead of dy y",
            lambda t: t.right["y"] * (t.dy - t.dy.sum(axis=1, keepdims=True)),
        ),
    ),
)


def _loss_trials(rng: np.random.Generator) -> list[Trial]:
    return [
        Trial(z=rng.standard_normal((n, classes)), labels=rng.integers(0, classes, n), smooth=True)
        for n, classes in ((5, 3), (4, 4), (3, 6))
    ]


def _solve_loss(t: Trial) -> dict[str, Array]:
    loss = SoftmaxCrossEntropy()
    value = loss.forward(t.z, t.labels)
    return {"loss": np.asarray(value), "dz": loss.backward()}


def _p(t: Trial) -> Array:
    e = np.exp(t.z - t.z.max(axis=1, keepdims=True))
    p: Array = e / e.sum(axis=1, keepdims=True)
    return p


def _onehot(t: Trial) -> Array:
    onehot: Array = np.eye(t.z.shape[1])[t.labels]
    return onehot


def _columns_struck(t: Trial) -> Array:
    p = _p(t)
    p[:, t.labels] -= 1
    dz: Array = p / t.n
    return dz


SOFTMAX_CROSS_ENTROPY = Exercise(
    name="softmax_cross_entropy",
    title="softmax with cross-entropy, where backward begins",
    kind="SoftmaxCrossEntropy",
    library="SoftmaxCrossEntropy in tinynet/losses.py",
    inputs=("z", "labels"),
    upstream=(),
    trials=_loss_trials,
    solve=_solve_loss,
    formulas={
        "loss": "L = - the mean of log p[label]",
        "dz": "dz = (p - onehot) / n, where onehot is 1 at the label and 0 elsewhere",
    },
    mistakes=(
        Mistake("dz", "is not divided by n: the loss is a mean over the batch", lambda t: _p(t) - _onehot(t)),
        Mistake("dz", "is p / n: 1 is not subtracted at the labels", lambda t: _p(t) / t.n),
        Mistake("dz", "is p: subtract 1 at the labels, then divide by n", _p),
        Mistake(
            "dz",
            "is also divided by the number of classes: the loss is a mean over examples only",
            lambda t: t.right["dz"] / t.z.shape[1],
        ),
        Mistake(
            "dz",
            "is divided by the number of classes instead of n",
            lambda t: t.right["dz"] * t.n / t.z.shape[1],
        ),
        Mistake(
            "dz",
            "has 1 subtracted from whole columns: p[:, labels] selects every row; p[np.arange(n), labels] selects one "
            "number per row",
            _columns_struck,
        ),
        Mistake(
            "dz",
            "is the gradient with respect to p, - onehot / (n p): it must also go back through the softmax to z",
            lambda t: -_onehot(t) / _p(t) / t.n,
        ),
        Mistake(
            "dz",
            "is - onehot / n: p is missing",
            lambda t: -_onehot(t) / t.n,
        ),
    ),
)


def _dropout_trials(rng: np.random.Generator) -> list[Trial]:
    def trial(shape: Shape, rate: float, seed: int) -> Trial:
        keep = np.random.default_rng(seed).random(shape) >= rate
        x = rng.choice([-1.0, 1.0], shape) * rng.uniform(0.1, 3, shape)
        # No number is 0, so dx / dy is the mask that was used.
        dy = rng.choice([-1.0, 1.0], shape) * rng.uniform(0.1, 3, shape)
        generator = np.random.default_rng(seed)
        return Trial(
            x=x, dy=dy, rate=rate, rng=generator, seed=seed, keep=keep, mask=keep / (1 - rate), smooth=True
        )

    return [trial((8, 5), 0.25, 1), trial((4, 4), 0.6, 2), trial((3, 5, 4), 0.4, 3)]


class _DropoutWithMask(Dropout):
    """The library's layer, with a given mask."""

    def __init__(self, mask: Array) -> None:
        super().__init__(0.5)
        self.mask = mask

    def forward(self, x: Array, training: bool = False) -> Array:
        self._mask = self.mask
        y: Array = x * self.mask
        return y


def _drawn_again(t: Trial) -> Array:
    generator = np.random.default_rng(t.seed)
    generator.random(t.x.shape)
    again: Array = t.dy * (generator.random(t.x.shape) >= t.rate) / (1 - t.rate)
    return again


def _looks_drawn_again(t: Trial, found: Array) -> bool:
    """Whether it is dy times some dropout mask; the one from forward was ruled out before."""
    mask = found / t.dy
    return bool(
        np.logical_or(np.isclose(mask, 0), np.isclose(mask, 1 / (1 - t.rate))).all()
        and 0 < (mask == 0).mean() < 1
    )


DROPOUT = Exercise(
    name="dropout",
    title="dropout, y = x mask",
    kind="Dropout",
    library="Dropout in tinynet/layers/dropout.py",
    constructor=("rate", "rng"),
    trials=_dropout_trials,
    solve=lambda t: library_results(_DropoutWithMask(t.mask), t),
    formulas={"y": "y = x mask", "dx": "dx = dy mask, with the mask from forward: 1 / (1 - rate) or 0"},
    mistakes=(
        Mistake("dx", "is not scaled by 1 / (1 - rate), which is part of the mask", lambda t: t.dy * t.keep),
        Mistake(
            "dx", "is scaled by 1 - rate instead of 1 / (1 - rate)", lambda t: t.dy * t.keep * (1 - t.rate)
        ),
        Mistake(
            "dx",
            "is scaled twice by 1 / (1 - rate), which is already in the mask",
            lambda t: t.dy * t.mask / (1 - t.rate),
        ),
        Mistake("dx", "is dy, unchanged: the mask is missing", lambda t: t.dy),
        Mistake("dx", "is scaled, but no unit is dropped", lambda t: t.dy / (1 - t.rate)),
        Mistake("dx", "has the mask the wrong way round", lambda t: t.dy * ~t.keep / (1 - t.rate)),
        Mistake(
            "dx",
            "is also multiplied by x: the slope of y = x mask is the mask",
            lambda t: t.dy * t.x * t.mask,
        ),
        Mistake(
            "dx",
            "uses a newly drawn mask: the units dropped in forward must be dropped here too",
            _drawn_again,
            fits=_looks_drawn_again,
        ),
    ),
)


def _batchnorm_trials(rng: np.random.Generator) -> list[Trial]:
    trials = []
    for n, features, epsilon in ((6, 3, 1e-3), (4, 4, 0.1), (5, 7, 1e-2)):
        x = rng.normal(0.5, 1.5, (n, features))
        inv_std = 1 / np.sqrt(x.var(axis=0) + epsilon)
        trials.append(
            Trial(
                x=x,
                dy=rng.standard_normal((n, features)),
                gamma=rng.uniform(0.5, 2, features),
                beta=rng.standard_normal(features),
                epsilon=epsilon,
                inv_std=inv_std,
                x_hat=(x - x.mean(axis=0)) * inv_std,
                smooth=True,
            )
        )
    return trials


def _batchnorm_dx(t: Trial, mean: float = 1, var: float = 1) -> Array:
    """dx, with the terms from the mean and the variance multiplied by these."""
    dbeta, dgamma = t.dy.sum(axis=0), (t.dy * t.x_hat).sum(axis=0)
    dx: Array = t.gamma * t.inv_std * (t.dy - mean * dbeta / t.n - var * t.x_hat * dgamma / t.n)
    return dx


BATCHNORM = Exercise(
    name="batchnorm",
    title="batch normalization, y = gamma x_hat + beta",
    kind="BatchNorm",
    library="BatchNorm in tinynet/layers/batchnorm.py",
    constructor=("gamma", "beta", "epsilon"),
    trials=_batchnorm_trials,
    solve=lambda t: library_results(BatchNorm(epsilon=t.epsilon), t, "gamma", "beta"),
    formulas={
        "y": "y = gamma x_hat + beta",
        "dx": "dx = gamma / sqrt(var + epsilon) (dy - dbeta / n - x_hat dgamma / n)",
        "dgamma": "dgamma = the sum of dy x_hat over the batch, (features,)",
        "dbeta": "dbeta = the sum of dy over the batch, (features,)",
    },
    mistakes=(
        Mistake(
            "dx",
            "treats mean and variance as constants: they also change with x, which gives two more terms",
            lambda t: _batchnorm_dx(t, 0, 0),
        ),
        Mistake(
            "dx",
            "treats the variance as a constant: it also changes with x",
            lambda t: _batchnorm_dx(t, 1, 0),
        ),
        Mistake(
            "dx", "treats the mean as a constant: it also changes with x", lambda t: _batchnorm_dx(t, 0, 1)
        ),
        Mistake(
            "dx",
            "does not divide dbeta and dgamma by n: mean and variance are means over the batch",
            lambda t: _batchnorm_dx(t, t.n, t.n),
        ),
        Mistake(
            "dx",
            "has a plus instead of a minus: both terms are subtracted",
            lambda t: _batchnorm_dx(t, -1, -1),
        ),
        Mistake("dx", "lacks the factor gamma", lambda t: t.right["dx"] / t.gamma),
        Mistake("dx", "has the factor gamma twice", lambda t: t.right["dx"] * t.gamma),
        Mistake("dx", "is not divided by sqrt(var + epsilon)", lambda t: t.right["dx"] / t.inv_std),
        Mistake(
            "dx",
            "is divided by var + epsilon: the square root is missing",
            lambda t: t.right["dx"] * t.inv_std,
        ),
        Mistake("dgamma", "is dbeta: x_hat is missing", lambda t: t.right["dbeta"]),
        Mistake(
            "dgamma",
            "is not summed over the batch: yours has shape {found}, but gamma has {right}",
            lambda t: t.dy * t.x_hat,
        ),
        Mistake("dgamma", "uses x instead of x_hat", lambda t: (t.dy * t.x).sum(axis=0)),
        Mistake("dgamma", "uses y instead of x_hat", lambda t: (t.dy * t.right["y"]).sum(axis=0)),
        Mistake(
            "dgamma",
            "is averaged over the batch but should be summed",
            lambda t: (t.dy * t.x_hat).mean(axis=0),
        ),
        Mistake("dbeta", "is dgamma", lambda t: t.right["dgamma"]),
        Mistake(
            "dbeta",
            "is not summed over the batch: yours has shape {found}, but beta has {right}",
            lambda t: t.dy,
        ),
        Mistake("dbeta", "is averaged over the batch but should be summed", lambda t: t.dy.mean(axis=0)),
        Mistake(
            "dbeta",
            "is multiplied by gamma: gamma multiplies x_hat only, not beta",
            lambda t: t.dy.sum(axis=0) * t.gamma,
        ),
    ),
)

EXERCISES = (DENSE, RELU, SOFTMAX, SOFTMAX_CROSS_ENTROPY, DROPOUT, BATCHNORM)
