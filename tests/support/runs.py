"""Small training runs that together use everything that a checkpoint must save."""

import hashlib
import json

import numpy as np

import tinynet as tn
from tinynet.datasets import augment

STEPS, EPOCHS = 5, 4


def vectors(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 4)).astype(np.float32), rng.integers(0, 3, n)


def noise(x, generator):
    return x + generator.normal(0, 0.1, x.shape).astype(x.dtype)


def dense():
    """Batch-norm, dropout, augmentation, Adam at a rate that is reduced, early stopping; the last batch is smaller."""
    x, y = vectors(47)
    model = tn.Sequential(
        [tn.Dense(6), tn.BatchNorm(), tn.ReLU(), tn.Dropout(0.3), tn.Dense(3), tn.Softmax()], (4,), seed=3
    )
    return model, {
        "x": x,
        "y": y,
        "optimizer": tn.Adam(0.05),
        "loss": tn.CrossEntropy(0.1),
        "augment": noise,
        "validation_data": vectors(20, seed=1),
        "callbacks": [
            tn.EarlyStopping("val_loss", patience=3),
            tn.ReduceLROnPlateau("val_loss", 0.5, patience=1),
        ],
    }


def two_workers():
    """Convolutions in two threads, nested layers, AdamW on one cycle with clipping, flips, best weights restored."""
    rng = np.random.default_rng(0)
    layers = [
        *(tn.Rescale(1 / 255), tn.Conv2D(3, 3, padding="same", use_bias=False), tn.BatchNorm(), tn.ReLU()),
        *(tn.Residual(tn.Conv2D(3, 3, padding="same"), tn.BatchNorm(), tn.Dropout(0.2)), tn.MaxPool2D()),
        *(tn.Flatten(), tn.Dense(3), tn.Softmax()),
    ]
    return tn.Sequential(layers, (6, 6, 1), seed=1), {
        "x": rng.integers(0, 256, (50, 6, 6, 1), dtype=np.uint8),
        "y": rng.integers(0, 3, 50),
        "optimizer": tn.AdamW(tn.schedules.one_cycle(0.02, STEPS * EPOCHS), clip_norm=0.5),
        "loss": tn.CrossEntropy(),
        "augment": augment.Compose(augment.RandomFlip(), augment.RandomShift(1)),
        "validation_split": 0.2,
        "callbacks": [tn.EarlyStopping("val_accuracy", patience=None)],
        "batch_size": 8,
        "workers": 2,
    }


def iterable():
    """Batches from a list, momentum, a history without validation."""
    x, y = vectors(45)
    model = tn.Sequential([tn.Dense(5), tn.Tanh(), tn.Dense(3)], (4,), seed=2)
    return model, {
        "x": [(x[i : i + 10], y[i : i + 10]) for i in range(0, 45, 10)],
        "optimizer": tn.SGD(0.1, momentum=0.9, nesterov=True),
        "loss": tn.SoftmaxCrossEntropy(),
        "augment": noise,
    }


def pruned():
    """Masks that grow while training, RMSprop, weight decay."""
    x, y = vectors(50)
    model = tn.Sequential([tn.Dense(6), tn.ReLU(), tn.Dense(3), tn.LogSoftmax()], (4,), seed=5)
    return model, {
        "x": x,
        "y": y,
        "optimizer": tn.RMSprop(0.01, weight_decay=0.01),
        "loss": tn.NegativeLogLikelihood(),
        "callbacks": [tn.MagnitudePruning(0.7, ramp_steps=12, every=3)],
    }


def regression():
    """float64, without shuffling, plain SGD with a schedule."""
    x, _ = vectors(50)
    model = tn.Sequential([tn.Dense(4), tn.Sigmoid(), tn.Dense(2)], (4,), seed=4, dtype="float64")
    return model, {
        "x": x,
        "y": x[:, :2] ** 2,
        "optimizer": tn.SGD(tn.schedules.step_decay(0.1, every=7, factor=0.5)),
        "loss": tn.MeanSquaredError(),
        "shuffle": False,
        "validation_data": (x[:9], x[:9, :2]),
    }


def part_of_the_data():
    """Five of seven batches an epoch, so that passes over the data begin in mid-epoch; the last batch is smaller."""
    model, arguments = dense()
    x, y = vectors(64)
    return model, arguments | {"x": x, "y": y, "steps_per_epoch": STEPS}


class Stream:
    """Seven batches without a length."""

    def __iter__(self):
        x, y = vectors(64)
        return ((x[i : i + 10], y[i : i + 10]) for i in range(0, 64, 10))


def part_of_a_stream():
    """Five of an iterable's seven batches an epoch."""
    model, arguments = iterable()
    return model, arguments | {"x": Stream(), "steps_per_epoch": STEPS}


CASES = {
    case.__name__: case
    for case in (dense, two_workers, iterable, pruned, regression, part_of_the_data, part_of_a_stream)
}


def start(case, *callbacks, **settings):
    """Run a case with new objects; return (model, optimizer, history)."""
    model, arguments = CASES[case]()
    given = {"batch_size": 10, "epochs": EPOCHS, "verbose": 0, "callbacks": []} | arguments | settings
    given["callbacks"] = [*given["callbacks"], *callbacks]
    history = model.fit(given.pop("x"), given.pop("y", None), **given)
    return model, given["optimizer"], history


def what_is_left(model, optimizer, history):
    """Return everything that a run ends with, except the time it took."""
    columns = {name: values for name, values in history.history.items() if name != "seconds"}
    numbers = [model.step, model.epoch, optimizer.step_count, repr(optimizer.current_learning_rate())]
    slots = optimizer.state()["slots"]
    arrays = [*model.get_weights(), *(slots[name] for name in sorted(slots))]
    return columns, numbers, arrays


def digest(model, optimizer, history):
    """Return a digest of `what_is_left`."""
    columns, numbers, arrays = what_is_left(model, optimizer, history)
    sha256 = hashlib.sha256(json.dumps([columns, numbers]).encode())
    for array in arrays:
        sha256.update(array.tobytes())
    return sha256.hexdigest()


def assert_same_end(one, other):
    """Check that two runs ended bit for bit alike."""
    (columns, numbers, arrays), (others, its_numbers, its_arrays) = what_is_left(*one), what_is_left(*other)
    assert columns == others
    assert numbers == its_numbers
    for array, its in zip(arrays, its_arrays, strict=True):
        assert array.dtype == its.dtype
        np.testing.assert_array_equal(array, its)


def by_team(team, x, y, loss):
    """The loss of a batch; its gradients are then in the team's model."""
    layers, loss = team.model._fuse(loss)
    team.model._begin_step()
    return team.forward_backward(layers, x, y, loss, len(x))
