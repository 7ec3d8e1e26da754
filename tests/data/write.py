"""Writes the model files and checkpoints that every later version has to read.

    python -m tests.data.write tests/data/v0.1.0

Each folder here holds what one version wrote, and is never written again: its files stand for those that users have.
`tests/test_old_files.py` reads them all, and makes the runs to resume with the functions below. So the functions must
keep giving the same models, data and settings. What is new goes into new functions and a new version's folder.

Written are, for each of MODELS, a model file, and for each of RUNS, a checkpoint of a run that stopped on the way.
``expected.json`` and ``expected.safetensors`` hold what the version that wrote them makes of each.
"""

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import tinynet as tn
from tinynet.datasets import augment

STEPS = 5  # batches in an epoch of each run
INITIALIZERS = ("glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "lecun_normal", "ones", "zeros")
CALLBACKS = (
    *("CSVLogger", "EarlyStopping", "EpochTable", "MagnitudePruning", "ModelCheckpoint", "ProgressBar"),
    "ReduceLROnPlateau",
)


def numbers(seed, *shape):
    """Multiples of 1/32 from -2 to 2, which are exact in any float."""
    return np.random.default_rng(seed).integers(-64, 65, shape) / np.float32(32)


def pictures(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def labelled(x, classes):
    """x with labels that can be learned: which part of each example, of as many as classes, has the largest sum."""
    parts = np.array_split(x.reshape(len(x), -1), classes, axis=1)
    return {"x": x, "y": np.stack([part.sum(axis=1) for part in parts]).argmax(axis=0)}


# -- a user's own: a layer, a function that augments, a callback -------------------------------------------


class Shift(tn.Layer):
    """y = x + amount offset. Its state is the largest input of each feature."""

    state_names = ("peak",)

    def __init__(self, amount=1.0):
        super().__init__()
        self.amount = amount

    def build(self, input_shape):
        self.add_param("offset", input_shape, "ones", decay=False)
        self.add_state("peak", input_shape, 0)
        return input_shape

    def forward(self, x, training=False):
        if training:
            self.peak = np.maximum(self.peak, np.abs(x).max(axis=0))
        return x + self.amount * self.offset

    def backward(self, dy):
        self.doffset = self.amount * dy.sum(axis=0)
        return dy


def noise(x, generator):
    return x + generator.integers(-4, 5, x.shape).astype(x.dtype) / 32


class Stopped(Exception):
    """In place of a lost machine."""


class Watch(tn.Callback):
    """Raises `Stopped` after a number of batches, and shows what a resumed run begins with.

    Its state has everything that a callback's state may hold.
    """

    def __init__(self, stop=None, look=None):
        self.stop, self.look = stop, look
        self.others = []  # the callbacks before it
        self.kept = {
            "batches": 0,
            "lowest": np.inf,
            "others": [None, True, 0.1, -np.inf, "text", []],
            "losses": {"all": np.zeros(0, np.float32), "count": np.array([0], np.uint8)},
        }

    def on_train_begin(self, run):
        if self.look is not None:
            self.look(run)

    def on_batch_end(self, run):
        kept, losses = self.kept, self.kept["losses"]
        kept["batches"] += 1
        kept["lowest"] = min(kept["lowest"], run.batch_loss)
        losses["all"] = np.append(losses["all"], np.float32(run.batch_loss))
        losses["count"] += 1
        if kept["batches"] == self.stop:
            raise Stopped

    def state(self):
        return self.kept

    def set_state(self, state):
        assert state["others"] == self.kept["others"], state
        self.kept = state


# -- models ------------------------------------------------------------------------------------------------
# Each gives a new model, how it is trained, and what is done to it before it is saved.


def same(model):
    return model


def residual():
    """Bytes, batch-norm, both kinds of Residual, dropout with and without a seed of its own, two frozen layers."""
    layers = [
        tn.Rescale(1 / 255, -0.5),
        tn.Conv2D(3, 3, padding="same", use_bias=False, kernel_initializer="he_normal"),
        tn.BatchNorm(),
        tn.ReLU(),
        tn.MaxPool2D(),
        tn.Residual(
            tn.Conv2D(3, 3, padding="same", use_bias=False),
            tn.BatchNorm(0.8, 1e-4),
            tn.LeakyReLU(0.1),
            tn.Dropout(0.2),
        ),
        tn.Residual(
            tn.Residual(tn.Dropout(0.1), tn.Tanh()),
            tn.Conv2D(4, 3, strides=2, padding="same"),
            projection=tn.Conv2D(4, 1, strides=2),
        ),
        *(tn.Flatten(), tn.Dropout(0.1, seed=11), tn.Dense(3), tn.Softmax()),
    ]

    def freeze(model):
        model.layers[2].trainable = False
        model.layers[5].layers[0].trainable = False
        return model

    return (
        tn.Sequential(layers, (8, 8, 1), seed=101),
        {
            **labelled(pictures(1, 40, 8, 8, 1), 3),
            "optimizer": tn.SGD(0.05, momentum=0.9),
            "loss": tn.CrossEntropy(0.1),
        },
        freeze,
    )


def windows():
    """Both paddings, strides and uneven sizes, for every layer that has them; all kinds of pooling."""
    layers = [
        tn.Reshape((7, 6, 1)),
        tn.Conv2D(3, (2, 3), strides=(2, 1), padding="valid"),
        tn.Sigmoid(),
        tn.DepthwiseConv2D(3, padding="same", depth_multiplier=2, use_bias=False),
        tn.AveragePool2D(2, strides=1, padding="same"),
        tn.DepthwiseConv2D((1, 2), strides=(1, 1), padding="valid"),
        tn.MaxPool2D((2, 2), strides=(1, 2), padding="same"),
        tn.Residual(tn.GlobalMaxPool2D(), projection=tn.GlobalAveragePool2D()),
        *(tn.Dense(4), tn.LogSoftmax()),
    ]
    return (
        tn.Sequential(layers, (42,), seed=102),
        {
            **labelled(numbers(3, 40, 42), 4),
            "optimizer": tn.SGD(0.1),
            "loss": tn.NegativeLogLikelihood(),
        },
        same,
    )


def initializers():
    """Every initializer by its name, in a model that ends in logits."""
    layers = [
        *(tn.Dense(5, kernel_initializer="glorot_uniform", bias_initializer="zeros"), tn.Tanh()),
        *(tn.Dense(5, kernel_initializer="glorot_normal", bias_initializer="ones"), tn.Tanh()),
        *(tn.Dense(5, kernel_initializer="he_uniform"), tn.ReLU()),
        *(tn.Dense(5, kernel_initializer="he_normal"), tn.ReLU()),
        tn.Dense(3, kernel_initializer="lecun_normal"),
    ]
    return (
        tn.Sequential(layers, (4,), seed=103),
        {
            **labelled(numbers(5, 40, 4), 3),
            "optimizer": tn.SGD(0.1),
            "loss": tn.SoftmaxCrossEntropy(0.05),
        },
        same,
    )


def regression():
    """float64, a frozen layer of weights."""
    model = tn.Sequential(
        [tn.Dense(4), tn.Sigmoid(), tn.Dense(3, use_bias=False), tn.BatchNorm(), tn.Dense(2)],
        input_shape=(4,),
        seed=104,
        dtype="float64",
    )
    model.layers[0].trainable = False
    x = numbers(7, 40, 4).astype(np.float64)
    return (
        model,
        {"x": x, "y": x[:, :2] * x[:, 2:], "optimizer": tn.SGD(0.1), "loss": tn.MeanSquaredError()},
        same,
    )


def own_layer():
    """A user's layer, also inside a Residual; the file names no loss."""
    layers = [tn.Dense(4), Shift(0.5), tn.Residual(Shift(), tn.Tanh()), tn.Dense(3), tn.Softmax()]

    def forget_loss(model):
        model.loss = None
        return model

    return (
        tn.Sequential(layers, (4,), seed=105),
        {
            **labelled(numbers(8, 40, 4), 3),
            "optimizer": tn.SGD(0.1),
            "loss": tn.CrossEntropy(),
        },
        forget_loss,
    )


def pruned():
    """Weights that are 0 and stay so when it trains on with `MagnitudePruning(0)`."""
    layers = [tn.Dense(8), tn.ReLU(), tn.Dense(6), tn.ReLU(), tn.Dense(3), tn.Softmax()]

    def prune(model):
        tn.prune_weights(model, 0.6)
        return model

    return (
        tn.Sequential(layers, (5,), seed=106),
        {
            **labelled(numbers(10, 40, 5), 3),
            "optimizer": tn.SGD(0.1, momentum=0.5, weight_decay=0.01),
            "loss": tn.CrossEntropy(),
            "callbacks": [tn.MagnitudePruning(0)],
        },
        prune,
    )


def slimmed():
    """What prune_units leaves: sizes that the user never wrote."""
    layers = [
        *(tn.Conv2D(6, 3, use_bias=False), tn.BatchNorm(), tn.ReLU()),
        *(tn.DepthwiseConv2D(2, depth_multiplier=2), tn.Flatten(), tn.Dense(8), tn.ReLU()),
        *(tn.Dense(3), tn.Softmax()),
    ]
    return (
        tn.Sequential(layers, (5, 5, 1), seed=107),
        {
            **labelled(numbers(12, 40, 5, 5, 1), 3),
            "optimizer": tn.SGD(0.1),
            "loss": tn.CrossEntropy(),
        },
        lambda model: tn.prune_units(model, 0.5),
    )


MODELS = {
    make.__name__: make for make in (residual, windows, initializers, regression, own_layer, pruned, slimmed)
}


# -- runs ----------------------------------------------------------------------------------------------------
# Each gives a new model, what fit takes, and where the run stops: every so many batches a file is written (None:
# after epochs only), and after so many in all it raises (None: it runs to its end). Callbacks write to ``folder``.


def adam(folder, patience=5):
    """Batch-norm, dropout, augmentation; early stopping, and a rate that has been reduced when the run stops."""
    layers = [
        tn.Dense(6, use_bias=False),
        tn.BatchNorm(),
        tn.Tanh(),
        tn.Dropout(0.3),
        tn.Dense(3),
        tn.Softmax(),
    ]
    return (
        tn.Sequential(layers, (4,), seed=201),
        {
            **labelled(numbers(21, 47, 4), 3),
            "batch_size": 10,
            "epochs": 6,
            "optimizer": tn.Adam(0.05, weight_decay=0.01, decoupled=False),
            "loss": tn.CrossEntropy(0.1),
            "augment": noise,
            "validation_data": tuple(labelled(numbers(23, 20, 4), 3).values()),
            "callbacks": [
                tn.EarlyStopping("val_loss", patience=patience),
                tn.ReduceLROnPlateau("loss", 0.5, patience=2, min_delta=10),
            ],
        },
        {"every": 2, "stop": 3 * STEPS + 3},
    )


def adamw(folder):
    """Images, convolutions in two threads, one cycle with clipping, augmentation, the best models saved."""
    layers = [
        *(tn.Rescale(1 / 255), tn.Conv2D(3, 3, padding="same", use_bias=False), tn.BatchNorm(0.5), tn.ReLU()),
        tn.Residual(tn.Conv2D(3, 3, padding="same", use_bias=False), tn.BatchNorm(0.5), tn.Dropout(0.2)),
        *(tn.MaxPool2D(), tn.Flatten(), tn.Dense(3), tn.Softmax()),
    ]
    steps = augment.RandomFlip(), augment.RandomShift(1), augment.RandomErasing((2, 3), 0.3, fill=128)
    return (
        tn.Sequential(layers, (6, 6, 1), seed=205),
        {
            **labelled(pictures(25, 50, 6, 6, 1), 3),
            "batch_size": 8,
            "epochs": 4,
            "optimizer": tn.AdamW(tn.schedules.one_cycle(0.01, 4 * STEPS), weight_decay=0.01, clip_norm=0.5),
            "loss": tn.CrossEntropy(),
            "augment": augment.Compose(*steps),
            "validation_split": 0.2,
            "callbacks": [
                tn.EarlyStopping("val_loss", patience=None),
                tn.ModelCheckpoint(folder / "best{epoch}.safetensors", save_best_only=True),
            ],
            "workers": 2,
        },
        {"every": 1, "stop": 2 * STEPS + 3},
    )


def nesterov(folder):
    """Batches from a list, a user's layer, a warmed-up cosine, coupled weight decay, clipping, a log."""
    x, y = labelled(numbers(27, 45, 4), 3).values()
    schedule = tn.schedules.warm_up(tn.schedules.cosine(0.1, 4 * STEPS, final=0.01), 3)
    return (
        tn.Sequential([tn.Dense(5), Shift(0.5), tn.Tanh(), tn.Dense(3)], (4,), seed=203),
        {
            "x": [(x[i : i + 10], y[i : i + 10]) for i in range(0, 45, 10)],
            "epochs": 4,
            "optimizer": tn.SGD(
                schedule, momentum=0.9, nesterov=True, weight_decay=0.01, decoupled=False, clip_norm=1
            ),
            "loss": tn.SoftmaxCrossEntropy(),
            "augment": noise,
            "callbacks": [tn.CSVLogger(folder / "log.csv")],
        },
        {"every": 4, "stop": STEPS + 5},
    )


def rmsprop(folder):
    """Masks that grow while training, an exponential schedule, a frozen layer, part of the data in each epoch."""
    layers = [tn.Dense(4), tn.Tanh(), tn.Dense(6), tn.ReLU(), tn.Dense(3), tn.LogSoftmax()]
    model = tn.Sequential(layers, (4,), seed=204)
    model.layers[0].trainable = False
    return (
        model,
        {
            **labelled(numbers(29, 70, 4), 3),
            "batch_size": 10,
            "epochs": 4,
            "steps_per_epoch": STEPS,
            "optimizer": tn.RMSprop(tn.schedules.exponential(0.01, STEPS), weight_decay=0.01),
            "loss": tn.NegativeLogLikelihood(),
            "callbacks": [tn.MagnitudePruning(0.7, ramp_steps=12, every=3)],
        },
        {"every": 3, "stop": STEPS + 4},
    )


def sgd(folder):
    """float64, in the order of the arrays, steps without slots; stopped after an epoch."""
    x = numbers(31, 50, 4).astype(np.float64)
    return (
        tn.Sequential([tn.Dense(4), tn.Sigmoid(), tn.Dense(2)], (4,), seed=202, dtype="float64"),
        {
            "x": x,
            "y": x[:, :2] ** 2,
            "batch_size": 10,
            "epochs": 3,
            "optimizer": tn.SGD(tn.schedules.step_decay(0.1, every=7, factor=0.5)),
            "loss": tn.MeanSquaredError(),
            "shuffle": False,
            "validation_data": (x[:9], x[:9, :2]),
            "callbacks": [
                *(tn.ProgressBar(leave=False), tn.EpochTable(), tn.CSVLogger(folder / "log.csv")),
                tn.ModelCheckpoint(folder / "{epoch:02d}.safetensors"),
            ],
        },
        {"every": None, "stop": STEPS + 1},
    )


def stopped_early(folder):
    """A run that early stopping has ended: all that is left is to put the best weights back."""
    model, arguments, _ = adam(folder, patience=1)
    return model, arguments | {"epochs": 20}, {"every": 2, "stop": None}


RUNS = {make.__name__: make for make in (adam, adamw, nesterov, rmsprop, sgd, stopped_early)}


# -- what this version makes of each -------------------------------------------------------------------------


def train(model, arguments, **settings):
    given = {"epochs": 1, "batch_size": 10, "verbose": 0, "workers": 1, **arguments, **settings}
    return model.fit(given.pop("x"), given.pop("y", None), **given)


def examples(arguments):
    """x and y, all of them, also where they come in batches."""
    if "y" in arguments:
        return arguments["x"], arguments["y"]
    return tuple(map(np.concatenate, zip(*arguments["x"], strict=True)))


def numbers_of(model, arguments, history=None):
    """(numbers for JSON, arrays by name): the model's counts, scores, predictions and weights."""
    x, y = examples(arguments)
    found = {
        "step": model.step,
        "epoch": model.epoch,
        "evaluate": model.evaluate(x, y, loss=arguments["loss"] if model.loss is None else None),
    }
    if history is not None:
        found["history"] = {name: values for name, values in history.history.items() if name != "seconds"}
    return found, {"predictions": model.predict(x), **model.named_weights()}


def description(model):
    """What a model is, apart from its arrays, as JSON holds it."""
    loss = model.loss
    return {
        "input_shape": list(model.input_shape),
        "output_shape": list(model.output_shape),
        "seed": model.seed,
        "dtype": str(model.dtype),
        "loss": None if loss is None else [type(loss).__name__, loss.config()],
        "fitted_on_bytes": model.fitted_on_bytes,
        "layers": [
            [path, type(layer).__name__, layer.trainable, {} if layer.children else _lists(layer.config())]
            for path, layer in model.walk()
        ],
    }


def _lists(config):
    return {name: list(value) if isinstance(value, tuple) else value for name, value in config.items()}


def train_on(name, model):
    """`numbers_of` a saved model after one more epoch, with a new optimizer."""
    _, arguments, _ = MODELS[name]()
    history = train(model, arguments)
    return numbers_of(model, arguments, history)


def run(name, folder, watch, **settings):
    """(model, arguments, history) of a run, begun or resumed."""
    model, arguments, _ = RUNS[name](folder)
    watch.others = list(arguments["callbacks"])
    arguments["callbacks"].append(watch)
    history = train(model, arguments, **settings)
    return model, arguments, history


def end_of(model, arguments, history):
    """`numbers_of` the model at the end of a run, and the optimizer's."""
    found, arrays = numbers_of(model, arguments, history)
    optimizer = arguments["optimizer"]
    slots = optimizer.state()["slots"]
    found["optimizer_step"] = optimizer.step_count
    found["learning_rate"] = optimizer.current_learning_rate()
    return found, arrays | {f"slot {slot}": slots[slot] for slot in slots}


# -- writing -------------------------------------------------------------------------------------------------


def public_names():
    """What users write in their programs and what files name, by module."""
    return {
        "": [name for name in tn.__all__ if callable(getattr(tn, name))],
        "layers": [name for name in tn.layers.__all__ if name != "Layer"],
        "losses": [name for name in tn.losses.__all__ if name != "Loss"],
        "optimizers": ["SGD", "RMSprop", "Adam", "AdamW"],
        "initializers": list(INITIALIZERS),
        "schedules": ["cosine", "exponential", "one_cycle", "step_decay", "warm_up"],
        "datasets.augment": ["Compose", "RandomErasing", "RandomFlip", "RandomShift"],
    }


def write_model(name, folder, arrays):
    model, arguments, change = MODELS[name]()
    train(model, arguments, epochs=2)
    model = change(model)
    model.save(folder / f"model_{name}.safetensors")
    found, saved = numbers_of(model, arguments)
    found = description(model) | found
    arrays[f"{name} saved predictions"] = saved["predictions"]
    found["trained_on"], later = train_on(name, model)
    arrays |= {f"{name} trained_on {key}": array for key, array in later.items()}
    return found


def write_checkpoint(name, folder, arrays):
    path = folder / f"checkpoint_{name}.safetensors"
    with tempfile.TemporaryDirectory() as scratch:
        _, arguments, stops = RUNS[name](Path(scratch))
        watch = Watch(stops["stop"])
        with contextlib.suppress(Stopped):
            run(name, Path(scratch), watch, checkpoint=path, checkpoint_every=stops["every"])
    with tempfile.TemporaryDirectory() as scratch:
        watch = Watch()
        found, later = end_of(*run(name, Path(scratch), watch, resume=path))
        found |= {"files": sorted(os.listdir(scratch)), "batches": watch.kept["batches"]}
    arrays |= {f"{name} resumed {key}": array for key, array in later.items()}
    return found | {
        "optimizer": type(arguments["optimizer"]).__name__,
        "loss": type(arguments["loss"]).__name__,
    }


def _with_lines(value):
    """JSON with a line for each entry of a mapping."""
    if not isinstance(value, dict):
        return json.dumps(value)
    lines = ",\n".join(f'  "{key}": {json.dumps(item)}' for key, item in value.items())
    return f"{{\n{lines}\n}}"


def main(folder):
    os.makedirs(folder, exist_ok=True)
    folder = Path(folder)
    if any(folder.glob("expected.*")):
        sys.exit(f"{folder} has such files already; what an older version wrote is not to change")
    arrays = {}
    expected = {
        "version": tn.__version__,
        "names": public_names(),
        "callbacks": CALLBACKS,
        "models": {name: write_model(name, folder, arrays) for name in MODELS},
        "checkpoints": {name: write_checkpoint(name, folder, arrays) for name in RUNS},
    }
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(arrays, folder / "expected.safetensors")
    text = ",\n".join(f'"{key}": {_with_lines(value)}' for key, value in expected.items())
    (folder / "expected.json").write_text(f"{{\n{text}\n}}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
