"""The exercises: a right answer passes, each known mistake is named, and an unfilled blank is reported."""

import argparse
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import tinynet as tn
from tinynet.__main__ import main
from tinynet.study import exercises
from tinynet.study.exercises import EXERCISES, check

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tinynet" / "study" / "exercises" / "blanks"
NAMES = (
    *("dense", "relu", "softmax", "softmax_cross_entropy", "dropout", "batchnorm", "max_pool", "convolution"),
    *("momentum", "adam"),
)
BLANK = re.compile(r"^( +)raise NotImplementedError\(.*\)$", re.MULTILINE)

SOLUTIONS = {
    "dense": """
        self.dW = self.x.T @ dy
        self.db = dy.sum(axis=0)
        return dy @ self.W.T
        """,
    "relu": "return dy * (self.x > 0)",
    "softmax": "return self.y * (dy - (dy * self.y).sum(axis=1, keepdims=True))",
    "softmax_cross_entropy": """
        n = len(self.p)
        dz = self.p.copy()
        dz[np.arange(n), self.labels] -= 1
        return dz / n
        """,
    "dropout": "return dy * self.mask",
    "batchnorm": """
        n = len(dy)
        self.dgamma = (dy * self.x_hat).sum(axis=0)
        self.dbeta = dy.sum(axis=0)
        return self.gamma * self.inv_std * (dy - self.dbeta / n - self.x_hat * self.dgamma / n)
        """,
    "max_pool": """
        k, s = self.pool_size, self.strides
        n, _, _, c = self.x.shape
        dx = np.zeros_like(self.x)
        for i in range(dy.shape[1]):
            for j in range(dy.shape[2]):
                window = self.x[:, i * s : i * s + k, j * s : j * s + k]
                rows, columns = divmod(window.reshape(n, k * k, c).argmax(axis=1), k)
                dx[np.arange(n)[:, None], i * s + rows, j * s + columns, np.arange(c)] += dy[:, i, j]
        return dx
        """,
    "convolution": """
        kh, kw, _, _ = self.W.shape
        s = self.strides
        dx, self.dW = np.zeros_like(self.x), np.zeros_like(self.W)
        for i in range(dy.shape[1]):
            for j in range(dy.shape[2]):
                there = np.s_[:, i * s : i * s + kh, j * s : j * s + kw]
                self.dW += np.tensordot(self.x[there], dy[:, i, j], axes=(0, 0))
                dx[there] += np.tensordot(dy[:, i, j], self.W, axes=(1, 3))
        self.db = dy.sum(axis=(0, 1, 2))
        return dx
        """,
    "momentum": """
        self.velocity = self.momentum * self.velocity - self.learning_rate * grads
        params += self.velocity
        """,
    "adam": """
        self.t += 1
        self.m = self.beta_1 * self.m + (1 - self.beta_1) * grads
        self.v = self.beta_2 * self.v + (1 - self.beta_2) * grads**2
        c1, c2 = 1 - self.beta_1**self.t, 1 - self.beta_2**self.t
        params -= self.learning_rate * np.sqrt(c2) / c1 * self.m / (np.sqrt(self.v) + self.epsilon)
        """,
}


def solution(name):
    """The code that fills the blank, without indentation."""
    return textwrap.dedent(SOLUTIONS[name]).strip("\n")


# A pool written with masks, in which mistakes with equal pixels and with overlaps come naturally.
MASKED_POOL = """
        k, s = self.pool_size, self.strides
        dx = np.zeros_like(self.x)
        for i in range(dy.shape[1]):
            for j in range(dy.shape[2]):
                there = np.s_[:, i * s : i * s + k, j * s : j * s + k]
                window = self.x[there]
                largest = window == window.max(axis=(1, 2), keepdims=True)
                dx[there] += dy[:, i : i + 1, j : j + 1] * largest
        return dx
        """
ADAM_STEP = "np.sqrt(c2) / c1 * self.m / (np.sqrt(self.v) + self.epsilon)"
COUNTED_AFTERWARDS = SOLUTIONS["adam"].replace("self.t += 1\n", "\n") + "self.t += 1\n"
BATCHNORM_DX = "(dy - self.dbeta / n - self.x_hat * self.dgamma / n)"

# Exercise, the part of its solution to replace (None: all), its replacement, the wrong result, words of the verdict.
MISTAKES = [
    (
        "dense",
        "self.x.T @ dy",
        "dy.T @ self.x",
        "dW",
        r"transposed: yours has shape \(3, 4\), but W has \(4, 3\)",
    ),
    ("dense", "self.x.T @ dy", "self.x.T @ dy / len(dy)", "dW", "averaged over the batch"),
    ("dense", "self.x.T @ dy", "len(dy) * self.x.T @ dy", "dW", "n times too large"),
    ("dense", "self.x.T @ dy", "2 * self.x.T @ dy", "dW", "twice as large as it should be"),
    ("dense", "self.x.T @ dy", "self.x.T @ dy / 2", "dW", "half as large"),
    ("dense", "self.x.T @ dy", "-self.x.T @ dy", "dW", "wrong sign"),
    ("dense", "self.x.T @ dy", "self.x.T @ np.ones_like(dy)", "dW", "ignores dy"),
    ("dense", "self.x.T @ dy", "np.zeros_like(self.W)", "dW", "0 everywhere"),
    ("dense", "self.x.T @ dy", "-2 * dy.T @ self.x", "dW", r"has shape \(3, 4\), but should have \(4, 3\)"),
    ("dense", "self.x.T @ dy", "-(dy.T @ self.x)", "dW", "transposed.*in addition, it has the wrong sign"),
    ("dense", "self.x.T @ dy", "3 * self.x.T @ dy", "dW", "every number is 3 times what is right"),
    (
        "dense",
        "self.x.T @ dy",
        "self.x.T @ dy + 1",
        "dW",
        r"wrong in 12 of 12 numbers; the first is dW\[0, 0\]: yours is",
    ),
    ("dense", "self.x.T @ dy", "self.x.T @ dy * np.nan", "dW", "NaN or infinite"),
    ("dense", "self.x.T @ dy", "(self.x.T @ dy).astype(np.float32)", "dW", "dtype is float32"),
    ("dense", "self.x.T @ dy", "(self.x.T @ dy).astype(int)", "dW", "dtype is int64, which can't hold"),
    ("dense", "self.x.T @ dy", "(self.x.T @ dy).tolist()", "dW", "is a list, but must be an array"),
    ("dense", "self.dW =", "unused =", "dW", "missing: set self.dW"),
    (
        "dense",
        "dy.sum(axis=0)",
        "dy",
        "db",
        r"not summed over the batch: yours has shape \(5, 3\), but b has \(3,\)",
    ),
    ("dense", "dy.sum(axis=0)", "dy.mean(axis=0)", "db", "averaged over the batch"),
    ("dense", "dy.sum(axis=0)", "dy.sum(axis=1)", "db", "summed over the outputs"),
    ("dense", "dy.sum(axis=0)", "dy.sum()", "db", "over both axes"),
    (
        "dense",
        "dy.sum(axis=0)",
        "dy.sum(axis=0, keepdims=True)",
        "db",
        r"shape \(1, 3\) instead of \(3,\): leave out keepdims",
    ),
    ("dense", "return dy @ self.W.T", "return self.W @ dy.T", "dx", "transposed"),
    ("dense", "return dy @ self.W.T", "return dy @ self.W", "dx", "is dy W: W must be transposed"),
    (
        "dense",
        "return dy @ self.W.T",
        "return self.W.sum(axis=1) * np.ones_like(self.x)",
        "dx",
        "ignores dy",
    ),
    ("dense", "return ", "dx = ", "dx", "missing: backward returned None; return dx"),
    ("dense", "return dy @ self.W.T", "return dy @ self.W.T, self.dW", "dx", "is a tuple"),
    ("relu", "self.x > 0", "dy > 0", "dx", "takes its mask from dy"),
    ("relu", "self.x > 0", "self.x >= 0", "dx", "lets dy pass where x is 0"),
    ("relu", "self.x > 0", "self.x < 0", "dx", "wrong way round"),
    ("relu", "dy * (self.x > 0)", "dy", "dx", "the mask is missing"),
    ("relu", "dy * (self.x > 0)", "(self.x > 0) * 1.0", "dx", "ignores dy"),
    ("relu", "dy * (self.x > 0)", "dy * np.maximum(self.x, 0)", "dx", "multiplied by x"),
    ("relu", "dy * (self.x > 0)", "-dy * (self.x > 0)", "dx", "wrong sign"),
    ("relu", None, "dy *= self.x > 0\nreturn dy", "dy", "wrote into dy"),
    ("relu", None, "self.x[self.x < 0] = 0\nreturn dy * (self.x > 0)", "x", "wrote into x"),
    ("softmax", None, "return dy * self.y * (1 - self.y)", "dx", "only the diagonal of the Jacobian"),
    ("softmax", None, "return self.y * (1 - self.y)", "dx", "ignores dy and has only the diagonal"),
    ("softmax", None, "return dy * self.y", "dx", "sum over the row is not subtracted"),
    ("softmax", "self.y * (dy - ", "(dy - ", "dx", "lacks the factor y in front"),
    ("softmax", "(dy - ", "(dy + ", "dx", "a plus instead of a minus"),
    ("softmax", "axis=1", "axis=0", "dx", "sums over the batch"),
    ("softmax", "axis=1", "axis=None", "dx", "sums over all rows"),
    ("softmax", ", keepdims=True", "", "dx", "keepdims=True is missing"),
    ("softmax", "(dy * self.y).sum", "dy.sum", "dx", "sums dy instead of dy y"),
    ("softmax_cross_entropy", "return dz / n", "return dz", "dz", "not divided by n"),
    ("softmax_cross_entropy", None, "return self.p / len(self.p)", "dz", "1 is not subtracted at the labels"),
    ("softmax_cross_entropy", None, "return self.p.copy()", "dz", "is p: subtract 1"),
    (
        "softmax_cross_entropy",
        "return dz / n",
        "return dz / dz.size",
        "dz",
        "also divided by the number of classes",
    ),
    ("softmax_cross_entropy", "return dz / n", "return -dz / n", "dz", "wrong sign"),
    (
        "softmax_cross_entropy",
        "return dz / n",
        "return -dz",
        "dz",
        "not divided by n.*in addition, it has the wrong sign",
    ),
    ("softmax_cross_entropy", "dz[np.arange(n), self.labels]", "dz[:, self.labels]", "dz", "whole columns"),
    ("softmax_cross_entropy", "self.p.copy()", "self.p", "again", "changed in place what forward stored"),
    (
        "softmax_cross_entropy",
        "return dz / n",
        "return (dz - self.p) / self.p / n",
        "dz",
        "with respect to p",
    ),
    (
        "dropout",
        "self.mask",
        "(np.random.default_rng().random(dy.shape) >= self.rate) / (1 - self.rate)",
        "dx",
        "newly drawn mask",
    ),
    (
        "dropout",
        "self.mask",
        "(self.rng.random(dy.shape) >= self.rate) / (1 - self.rate)",
        "dx",
        "newly drawn mask",
    ),
    ("dropout", "self.mask", "(self.mask > 0)", "dx", r"not scaled by 1 / \(1 - rate\)"),
    ("dropout", "self.mask", "self.mask / (1 - self.rate)", "dx", "scaled twice"),
    ("dropout", "self.mask", "(self.mask > 0) * (1 - self.rate)", "dx", "by 1 - rate instead of"),
    ("dropout", "dy * self.mask", "dy", "dx", "the mask is missing"),
    ("dropout", "dy * self.mask", "self.mask", "dx", "ignores dy"),
    ("dropout", "self.mask", "(self.mask == 0) / (1 - self.rate)", "dx", "wrong way round"),
    ("batchnorm", BATCHNORM_DX, "dy", "dx", "treats mean and variance as constants"),
    ("batchnorm", " - self.x_hat * self.dgamma / n", "", "dx", "treats the variance as a constant"),
    ("batchnorm", " - self.dbeta / n", "", "dx", "treats the mean as a constant"),
    (
        "batchnorm",
        BATCHNORM_DX,
        "(dy - self.dbeta - self.x_hat * self.dgamma)",
        "dx",
        "does not divide dbeta",
    ),
    ("batchnorm", "self.gamma * self.inv_std", "self.inv_std", "dx", "lacks the factor gamma"),
    ("batchnorm", "self.gamma * self.inv_std", "self.gamma", "dx", r"not divided by sqrt\(var"),
    ("batchnorm", "self.inv_std", "self.inv_std**2", "dx", "the square root is missing"),
    (
        "batchnorm",
        "self.dgamma = (dy * self.x_hat).sum(axis=0)",
        "self.dgamma = dy * self.x_hat",
        "dgamma",
        "not summed",
    ),
    ("batchnorm", "self.dbeta = dy.sum", "self.dbeta = dy.mean", "dbeta", "averaged"),
    ("max_pool", "+= dy", "= dy", "dx", r"overwritten where windows overlap: use \+= instead of =, as"),
    ("max_pool", "+= dy", "+= 1 + 0 * dy", "dx", "ignores dy"),
    ("max_pool", "+= dy", "-= dy", "dx", "wrong sign"),
    ("max_pool", "argmax", "argmin", "dx", "smallest pixel"),
    (
        *("max_pool", "window.reshape(n, k * k, c).argmax(axis=1)"),
        *(
            "k * k - 1 - window.reshape(n, k * k, c)[:, ::-1].argmax(axis=1)",
            "dx",
            "gives dy to the last of several equal",
        ),
    ),
    (
        "max_pool",
        None,
        MASKED_POOL,
        "dx",
        "gives dy to all of several equal largest pixels: only the first",
    ),
    (
        "max_pool",
        None,
        MASKED_POOL.replace("+=", "="),
        "dx",
        "all of several equal.*overwritten where windows overlap",
    ),
    (
        "max_pool",
        None,
        MASKED_POOL.replace("* largest", "* np.ones_like(window)"),
        "dx",
        "every pixel of the window",
    ),
    ("max_pool", None, MASKED_POOL.replace("* largest", "/ k**2"), "dx", "as in average-pooling"),
    (
        *(
            "max_pool",
            None,
            MASKED_POOL.replace("* largest", "* largest / largest.sum(axis=(1, 2), keepdims=True)"),
        ),
        *("dx", "divides dy between several equal largest"),
    ),
    (
        "convolution",
        "dx[there] +=",
        "dx[there] =",
        "dx",
        r"overwritten where windows overlap: use \+= instead of =, as",
    ),
    ("convolution", "self.dW +=", "self.dW =", "dW", r"the last window's only: use \+= instead of ="),
    ("convolution", "self.W, axes=(1, 3)", "self.W[::-1, ::-1], axes=(1, 3)", "dx", "flips the kernel"),
    ("convolution", "axes=(1, 3)", "axes=(1, 2)", "dx", "swaps W.s input and output channels"),
    ("convolution", "s = self.strides", "s = 1", "dW", "windows at i and j"),
    ("convolution", "s = self.strides", "s = 1", "dx", "windows at i and j"),
    ("convolution", "self.db = dy.sum(axis=(0, 1, 2))", "self.db = dy", "db", "not summed"),
    ("convolution", "axis=(0, 1, 2)", "axis=0", "db", "over the batch only"),
    (
        "convolution",
        "dy.sum(axis=(0, 1, 2))",
        "dy.mean(axis=(0, 1, 2))",
        "db",
        "averaged over batch and positions",
    ),
    ("convolution", "dy.sum(axis=(0, 1, 2))", "dy[:, -1, -1].sum(axis=0)", "db", "the last window's only"),
    ("momentum", None, "params -= self.learning_rate * grads", "params", "velocity were not kept"),
    ("momentum", "- self.learning_rate", "+ self.learning_rate", "params", "up the gradient"),
    ("momentum", "params += self.velocity", "params -= self.velocity", "params", "up the gradient"),
    (
        *("momentum", "params += self.velocity"),
        *("params += self.momentum * self.velocity - self.learning_rate * grads", "params", "Nesterov"),
    ),
    ("momentum", "params +=", "params += self.learning_rate *", "params", "the learning rate twice"),
    ("momentum", "self.learning_rate * grads", "grads", "params", "without the learning rate"),
    ("momentum", "- self", "- (1 - self.momentum) * self", "params", "by 1 - momentum"),
    ("momentum", "self.momentum * self.velocity", "self.velocity", "params", "momentum is missing"),
    ("momentum", "params += self.velocity", "params = params + self.velocity", "params", "does not change"),
    ("momentum", None, "grads *= 0.5\n" + solution("momentum"), "params", "first is params.0. after step 1"),
    (
        *(
            "momentum",
            None,
            "v = self.momentum * self.velocity - self.learning_rate * grads\nparams += v\ngrads *= 0",
        ),
        *("grads", "wrote into grads"),
    ),
    ("adam", "np.sqrt(c2) / c1 * ", "", "params", "no bias correction"),
    ("adam", "np.sqrt(c2) / c1", "1 / c1", "params", "not that of v"),
    ("adam", "np.sqrt(c2) / c1", "np.sqrt(c2)", "params", "not that of m"),
    (
        "adam",
        "(np.sqrt(self.v) + self.epsilon)",
        "np.sqrt(self.v + self.epsilon)",
        "params",
        "epsilon inside the root",
    ),
    (
        "adam",
        ADAM_STEP,
        "self.m / c1 / np.sqrt(self.v / c2 + self.epsilon)",
        "params",
        "epsilon inside the root",
    ),
    ("adam", None, COUNTED_AFTERWARDS, "params", "counts steps from 0"),
    ("adam", "self.t += 1", "self.t = 1", "params", "uses t = 1 in every step"),
    ("adam", "self.m / (np.sqrt(self.v)", "self.v / (np.sqrt(self.m)", "params", r"moves by v / sqrt\(m\)"),
    ("adam", "grads**2", "grads", "params", "v as the mean of g instead of g.2"),
    ("adam", "np.sqrt(self.v) +", "self.v +", "params", "divides by v instead of its square root"),
    ("adam", "params -=", "params +=", "params", "up the gradient"),
    ("adam", "params -= self.learning_rate *", "params -=", "params", "without the learning rate"),
    ("adam", "params -=", "params = params -", "params", "does not change"),
    ("adam", "self.m = self.beta_1 * self.m +", "self.m =", "params", "as if m were not kept"),
    ("adam", "self.v = self.beta_2 * self.v +", "self.v =", "params", "as if v were not kept"),
    ("adam", "(1 - self.beta_1) * grads", "grads", "params", "m as a sum"),
    ("adam", "(1 - self.beta_2) * grads", "grads", "params", "v as a sum"),
]


def write(folder, name, body):
    """The exercise with its blank filled in."""
    blank = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    (indent,) = BLANK.findall(blank)
    text = textwrap.indent(textwrap.dedent(body).strip("\n"), indent)
    path = folder / f"{name}.py"
    path.write_text(BLANK.sub(lambda _: text, blank), encoding="utf-8")
    return path


def verdicts(report):
    return {verdict.subject: verdict for verdict in report.verdicts}


def test_each_exercise_has_its_file_and_each_file_its_exercise():
    assert tuple(EXERCISES) == NAMES
    assert {path.stem for path in FOLDER.iterdir() if path.suffix == ".py"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_blank_says_that_it_is_one(name, capsys):
    report = check(name, FOLDER / f"{name}.py")
    assert not report.right
    assert "not written yet: your turn:" in str(report)
    assert main(["exercise", name, str(FOLDER / f"{name}.py")]) == 1
    assert capsys.readouterr().out == f"{report}\n"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_right_answer_passes(name, seed, tmp_path):
    report = check(name, write(tmp_path, name, solution(name)), seed)
    assert report.right, str(report)
    assert list(verdicts(report)) == list(EXERCISES[name].formulas)
    assert "All right." in str(report)
    if name not in ("momentum", "adam"):
        assert all("the slope of forward agrees" in verdict.words for verdict in report.verdicts[1:])


@pytest.mark.parametrize("name", NAMES)
def test_the_file_names_where_the_librarys_own_is(name):
    """The path that the lesson gives exists and has the class that it names."""
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    kind, path = re.search(r"compare it with `(\w+)` in (\S+\.py)", text).groups()
    assert f"class {kind}(" in (ROOT / path).read_text(encoding="utf-8")
    assert f"python -m tinynet exercise {name} exercises/{name}.py" in text


def test_the_table_is_long_enough():
    assert len(MISTAKES) >= 40
    assert {row[0] for row in MISTAKES} == set(NAMES)


@pytest.mark.parametrize(("name", "old", "new", "subject", "words"), MISTAKES)
def test_a_mistake_is_named(name, old, new, subject, words, tmp_path):
    body = solution(name)
    if old is not None:
        assert old in body
        body = body.replace(old, new)
    report = check(name, write(tmp_path, name, body if old is not None else new))
    verdict = verdicts(report)[subject]
    assert not verdict.right, str(report)
    assert re.search(words, verdict.words), str(report)


def test_a_mistake_without_a_name_is_shown_at_its_first_number_with_the_slope_there(tmp_path):
    report = check(
        "dense", write(tmp_path, "dense", solution("dense").replace("self.x.T @ dy", "self.x.T @ dy + 1"))
    )
    words = verdicts(report)["dW"].words
    yours, right, slope = map(
        float,
        re.search(
            r"yours is (\S+), but it should be (\S+) \(the slope of forward is (\S+)\)", words
        ).groups(),
    )
    assert abs(yours - right - 1) < 1e-5
    assert abs(slope - right) < 1e-5


def test_each_result_is_judged_alone(tmp_path):
    body = solution("dense").replace("dy.sum(axis=0)", "dy.mean(axis=0)")
    report = check("dense", write(tmp_path, "dense", body))
    assert {name: verdict.right for name, verdict in verdicts(report).items()} == {
        "y": True,
        "dx": True,
        "dW": True,
        "db": False,
    }


def test_every_mistake_of_an_exercise_gives_something_wrong():
    """None of them happens to be right on all trials, and each can happen on at least one trial."""
    for exercise in EXERCISES.values():
        trials = exercise.draw(0)
        for mistake in exercise.mistakes:
            differs = False
            for trial in trials:
                try:
                    with np.errstate(all="ignore"):
                        wrong = np.asarray(mistake.gives(trial))
                except (ValueError, IndexError):
                    continue
                right = trial.right[mistake.tensor]
                differs |= wrong.shape != right.shape or not np.allclose(wrong, right, rtol=1e-4)
            assert differs, (exercise.name, mistake.words)


OTHER_ANSWERS = {
    "momentum, as in PyTorch": """
        self.velocity = self.momentum * self.velocity + grads
        params -= self.learning_rate * self.velocity
        """,
    "softmax, with the whole Jacobian": """
        jacobian = np.einsum("ni,ij->nij", self.y, np.eye(self.y.shape[1])) - self.y[:, :, None] * self.y[:, None]
        return np.einsum("ni,nij->nj", dy, jacobian)
        """,
    "batchnorm, as the lesson derives it": """
        n = len(dy)
        self.dgamma, self.dbeta = (dy * self.x_hat).sum(axis=0), dy.sum(axis=0)
        centered, dx_hat = self.x_hat / self.inv_std, self.gamma * dy
        dvar = (dx_hat * centered).sum(axis=0) * -0.5 * self.inv_std**3
        dmean = -dx_hat.sum(axis=0) * self.inv_std
        return dx_hat * self.inv_std + dvar * 2 * centered / n + dmean / n
        """,
    "relu, with where": "return np.where(self.x > 0, dy, 0)",
    "max_pool, pixel by pixel": """
        k, s = self.pool_size, self.strides
        dx = np.zeros_like(self.x)
        for n, i, j, c in np.ndindex(*dy.shape):
            window = self.x[n, i * s : i * s + k, j * s : j * s + k, c]
            u, v = np.unravel_index(window.argmax(), window.shape)
            dx[n, i * s + u, j * s + v, c] += dy[n, i, j, c]
        return dx
        """,
}


@pytest.mark.parametrize("answer", OTHER_ANSWERS)
def test_a_right_answer_of_another_form_passes(answer, tmp_path):
    name = answer.partition(",")[0]
    report = check(name, write(tmp_path, name, OTHER_ANSWERS[answer]))
    assert report.right, str(report)


def test_another_form_of_adam_is_as_good(tmp_path):
    body = solution("adam").replace(ADAM_STEP, "(self.m / c1) / (np.sqrt(self.v / c2) + self.epsilon)")
    report = check("adam", write(tmp_path, "adam", body))
    assert report.right, str(report)
    assert "PyTorch" in str(report)


def test_counting_from_0_is_explained_where_it_divides_by_0(tmp_path):
    body = textwrap.dedent(COUNTED_AFTERWARDS).replace("np.sqrt(c2) / c1", "(c2**0.5 / c1)")
    report = check("adam", write(tmp_path, "adam", body))
    assert "ZeroDivisionError on line" in str(report)
    assert "In the first step, t is 1" in report.verdicts[0].words


def test_gradients_that_add_up_from_call_to_call_are_found(tmp_path):
    body = "self.dW = getattr(self, 'dW', 0) + self.x.T @ dy\n" + solution("dense").partition("\n")[2]
    report = check("dense", write(tmp_path, "dense", body))
    assert not report.right
    assert "a different dW" in verdicts(report)["again"].words


def test_an_exception_is_reported_with_its_line_and_the_shapes(tmp_path):
    body = solution("dense").replace("dy @ self.W.T", "dy @ self.W")
    path = write(tmp_path, "dense", body)
    line = path.read_text(encoding="utf-8").splitlines().index("        return dy @ self.W") + 1
    words = verdicts(check("dense", path))["error"].words
    assert f"ValueError on line {line}, `return dy @ self.W`" in words
    assert "x (5, 4), dy (5, 3)" in words
    assert verdicts(check("dense", path))["dW"].words.startswith("right for the shapes it ran with")


def test_an_exception_in_every_trial_is_all_that_is_reported(tmp_path):
    report = check("relu", write(tmp_path, "relu", "return 1 / 0"))
    assert [verdict.subject for verdict in report.verdicts] == ["error"]
    assert "ZeroDivisionError" in str(report)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(:\n", "not valid Python: .* on line 1"),
        ("import no_such_module\n", "ModuleNotFoundError on line 1"),
        ("class Relu:\n    pass\n", "defines no class ReLU"),
        ("class ReLU:\n    def forward(self, x):\n        return x.clip(0)\n", "no attribute 'backward'"),
        (
            "class ReLU:\n    def __init__(self, slope):\n        pass\n",
            r"The check calls ReLU\(\), forward\(x\)",
        ),
    ],
)
def test_files_that_hold_no_answer(text, words, tmp_path):
    path = tmp_path / "relu.py"
    path.write_text(text, encoding="utf-8")
    report = check("relu", path)
    assert not report.right
    assert re.search(words, report.verdicts[0].words), str(report)


def test_a_forward_that_was_changed_is_found(tmp_path):
    path = write(tmp_path, "relu", solution("relu"))
    path.write_text(
        path.read_text(encoding="utf-8").replace("np.maximum(x, 0)", "np.maximum(x, 0.5)"), encoding="utf-8"
    )
    report = check("relu", path)
    assert not report.right
    assert "forward was right in the original file" in verdicts(report)["y"].words


def test_the_slope_of_forward_has_the_last_word(tmp_path, monkeypatch):
    """If the library's own backward were wrong, an answer that matches it would not pass."""
    right = tn.ReLU.backward
    monkeypatch.setattr(tn.ReLU, "backward", lambda self, dy: 2 * right(self, dy))
    report = check("relu", write(tmp_path, "relu", "return 2 * dy * (self.x > 0)"))
    assert not report.right
    assert "the slope of forward is" in verdicts(report)["dx"].words


def test_what_is_tried_has_batch_sizes_that_differ_and_square_shapes():
    for name in ("dense", "softmax", "batchnorm"):
        trials = EXERCISES[name].draw(0)
        assert len({trial.n for trial in trials}) == len(trials) >= 3
        assert any(trial.x.shape[0] == trial.x.shape[1] for trial in trials)
        assert any(trial.x.shape[0] != trial.x.shape[1] for trial in trials)
    for name in ("max_pool", "convolution"):
        overlaps = {
            trial.strides < (trial.pool_size if name == "max_pool" else trial.W.shape[0])
            for trial in EXERCISES[name].draw(0)
        }
        assert True in overlaps


def test_an_answer_gets_copies(tmp_path):
    """What one answer writes into its inputs does not reach the next one's data."""
    exercise = EXERCISES["dense"]
    trial = exercise.draw(0)[0]
    before = trial.dy.copy()
    module = ModuleType("answer")
    exec(write(tmp_path, "dense", "dy *= 0\n" + solution("dense")).read_text(encoding="utf-8"), vars(module))
    assert exercise.run(module, trial).changed == ["dy"]
    np.testing.assert_array_equal(trial.dy, before)


def test_the_command_lists_the_exercises(capsys):
    assert main(["exercise"]) == 0
    text = capsys.readouterr().out
    for name in NAMES:
        assert re.search(rf"^  {name} +\S", text, re.MULTILINE)


def test_the_commands_exit_status(tmp_path, capsys):
    path = write(tmp_path, "relu", solution("relu"))
    assert main(["exercise", "relu", str(path)]) == 0
    assert "All right." in capsys.readouterr().out
    assert main(["exercise", "relu", str(write(tmp_path, "relu", "return dy"))]) == 1
    assert main(["exercise", "no_such", str(path)]) == 2
    assert "known: dense, relu" in capsys.readouterr().err
    assert main(["exercise", "relu", str(tmp_path / "nowhere.py")]) == 2
    assert "nowhere.py" in capsys.readouterr().err


def test_without_a_file_the_nearest_is_checked(tmp_path, monkeypatch, capsys):
    """In the current folder, in exercises/, or else the blank that came with the library."""
    monkeypatch.chdir(tmp_path)
    for place in (None, tmp_path / "exercises", tmp_path):
        if place is not None:
            place.mkdir(exist_ok=True)
            write(place, "relu", solution("relu"))
        assert main(["exercise", "relu"]) == (1 if place is None else 0)
        file = FOLDER / "relu.py" if place is None else (place / "relu.py").relative_to(tmp_path)
        output = capsys.readouterr().out
        assert output.startswith(f"{file}\n")
        assert ("not written yet" in output) == (place is None)


def test_the_blanks_are_written_where_the_student_wants_them(tmp_path, capsys):
    folder = tmp_path / "my" / "exercises"
    assert main(["exercise", "--write", str(folder)]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        f"{name}.py": (FOLDER / f"{name}.py").read_bytes() for name in NAMES
    }
    assert capsys.readouterr().out.splitlines() == [f"wrote {folder / name}.py" for name in EXERCISES]
    assert main(["exercise", "dense", str(folder / "dense.py")]) == 1

    one = tmp_path / "one"
    assert main(["exercise", "adam", "--write", str(one)]) == 0
    assert [path.name for path in one.iterdir()] == ["adam.py"]
    assert main(["exercise", "lstm", "--write", str(one)]) == 2


def test_an_answer_is_never_overwritten(tmp_path, capsys):
    answer = tmp_path / "relu.py"
    answer.write_text("my answer")
    assert main(["exercise", "--write", str(tmp_path)]) == 2
    assert "exists and may hold your answer; choose another folder" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["my answer"]


def test_the_sub_command_fits_any_parser():
    parser = argparse.ArgumentParser()
    exercises.add_command(parser.add_subparsers())
    options = parser.parse_args(["exercise"])
    assert options.run(options) == 0


def test_the_readme_shows_what_is_printed(tmp_path):
    body = solution("dense").replace("self.x.T @ dy", "dy.T @ self.x").replace("dy.sum", "dy.mean")
    report = str(check("dense", write(tmp_path, "dense", body)))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"<!-- output -->\n```text\n{report}\n```" in readme


def test_from_the_command_line(tmp_path):
    path = write(tmp_path, "softmax", "return dy * self.y * (1 - self.y)")
    command = [sys.executable, "-m", "tinynet", "exercise", "softmax", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "only the diagonal of the Jacobian" in done.stdout
    assert done.stderr == ""


def test_names_that_are_not_known_are_refused():
    with pytest.raises(ValueError, match="unknown exercise 'lstm'; known: dense"):
        check("lstm", "lstm.py")
