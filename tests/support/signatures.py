"""Which kernels a run has compiled, or loaded from the cache, and for which arguments.

``python -m tests.support.signatures NAME...`` does each run in a process of its own, forked from one that has Numba,
and prints, as JSON, the signatures of each kernel by run.
"""

import json
import os
import sys
import traceback

import numba.core.dispatcher
import numpy as np

import tinynet as tn
from tests.support.engine_runs import train
from tinynet.engines.fast import operations  # noqa: F401  (all kernels)

N = 32


def signatures():
    """By kernel."""
    return {
        f"{name}.{kernel}": list(map(str, value.signatures))
        for name, module in sys.modules.items()
        if name.startswith("tinynet.engines.fast.")
        for kernel, value in vars(module).items()
        if isinstance(value, numba.core.dispatcher.Dispatcher)
        and value.__module__ == name
        and value.signatures
    }


def protected(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def unaligned(array):
    raw = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    raw[...] = array
    return raw


ARRANGED = {
    "plain": np.copy,
    "read-only": protected,
    "Fortran order": np.asfortranarray,
    "unaligned": unaligned,
    "strided": lambda array: np.repeat(array, 2, axis=array.ndim - 1)[..., ::2],
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "a subclass": lambda array: array.view(type("Own", (np.ndarray,), {})),
    "int32 labels": lambda array: array.astype(np.int32) if array.dtype.kind == "i" else array,
    "uint8 labels": lambda array: array.astype(np.uint8) if array.dtype.kind == "i" else array,
    "float64 inputs": lambda array: array.astype(np.float64) if array.dtype.kind == "f" else array,
}


def arranged(name):
    """Whatever can be done with arrays that are arranged in this way: the first layers have loops."""
    arrange, rng = ARRANGED[name], np.random.default_rng(0)
    y = rng.integers(0, 3, N)
    for layers, shape in (
        ([tn.ReLU(), tn.BatchNorm(), tn.Dropout(0.1)], (4,)),
        ([tn.BatchNorm()], (4,)),
        ([tn.Dropout(0.2)], (4,)),
        ([tn.MaxPool2D(), tn.ReLU(), tn.Flatten()], (6, 6, 1)),
        ([tn.Conv2D(2, 3), tn.MaxPool2D(3), tn.Flatten()], (6, 6, 1)),
    ):
        model = tn.Sequential([*layers, tn.Dense(3), tn.Softmax()], shape, seed=0)
        x = rng.standard_normal((N, *shape)).astype(np.float32)
        batches = [(arrange(x[i : i + 8]), arrange(y[i : i + 8])) for i in range(0, N, 8)]
        x, y_ = arrange(x), arrange(y)
        given = {"optimizer": tn.Adam(), "loss": tn.CrossEntropy(0.1), "verbose": 0}
        model.set_weights([arrange(array) for array in model.get_weights()])
        model.fit(x, y_, batch_size=8, **given)
        model.fit(batches, steps_per_epoch=4, **given)
        model.train_step(*batches[0], given["loss"], given["optimizer"])
        model.evaluate(x, y_)
        model.predict(x)
        model.predict(x[:1])  # which is in the order of convolutions too


def settings(dtype="float32"):
    """Numbers of several types, and all optimizers."""
    x, y = np.random.default_rng(0).standard_normal((N, 4)).astype(np.float32), np.arange(N) % 3
    rates = 0.01, np.float32(0.01), tn.schedules.cosine(0.01, 5), 1
    for rate in rates:
        for optimizer in (
            *(
                tn.SGD(rate),
                tn.SGD(rate, momentum=0.9),
                tn.SGD(rate, momentum=np.float32(0.5), nesterov=True),
            ),
            *(tn.RMSprop(rate), tn.Adam(rate, epsilon=np.float32(1e-7)), tn.AdamW(rate, weight_decay=0.1)),
            tn.SGD(rate, weight_decay=0.1, decoupled=False, clip_norm=1),
        ):
            layers = [tn.Dropout(0.5), tn.BatchNorm(momentum=np.float32(0.9)), tn.Dense(3), tn.Softmax()]
            model = tn.Sequential(layers, (4,), seed=0, dtype=dtype)
            model.fit(x, y, optimizer=optimizer, loss=tn.CrossEntropy(0), batch_size=16, verbose=0)


RUNS = {name: lambda name=name: train("numba", name, 2, batch_size=8) for name in tn.recipes.RECIPES}
RUNS |= {
    f"{name}, float64": lambda name=name: train("numba", name, 2, dtype="float64", batch_size=8)
    for name in RUNS
}
RUNS["cnn_small, 3 workers"] = lambda: train("numba", "cnn_small", 2, workers=3, batch_size=7)
RUNS |= {name: lambda name=name: arranged(name) for name in ARRANGED}
RUNS |= {"settings": settings, "settings, float64": lambda: settings("float64")}


def alone(name):
    """The signatures after a run in a process of its own."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        status = 1
        try:
            RUNS[name]()
            with open(tell, "w") as pipe:
                json.dump(signatures(), pipe)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(tell)
    with open(told) as pipe:
        text = pipe.read()
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{name} failed")
    return json.loads(text)


if __name__ == "__main__":
    tn.engines.use("numba")
    print(json.dumps({name: alone(name) for name in sys.argv[1:] or RUNS}))
