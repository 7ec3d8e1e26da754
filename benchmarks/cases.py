"""What the benchmark trains: networks from tinynet's recipes, as plain data that every contender translates.

A case describes layers, batch size and optimizer in words and numbers, so that a process that measures another library
never imports tinynet. The optimizer's settings are the benchmark's own: a constant learning rate and no weight decay,
which every library can express. Batch sizes, layers, dropout and batch-norm settings are the recipe's. On the GPU
(`make_as_recipe`), so are weight decay, label smoothing and, for the time to an accuracy, the schedule.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CASES = ("mlp_sgd", "mlp_adam", "mlp_bn", "cnn")
GPU_CASES = (*CASES, "cnn_best")
WIDTHS = tuple(2**power for power in range(7, 13))  # 128 to 4096
BATCH_SIZES = tuple(2**power for power in range(4, 11))  # 16 to 1024
CLASSES = 10
TRAINING_IMAGES = 60_000
LOSS_STEPS = (1, 10, 100)  # steps whose losses are compared
TOLERANCES = (1e-5, 1e-4, 1e-3)  # relative, for these steps: how large float32 rounding may become


def _rounded(**settings: float) -> dict[str, float]:
    """Round to float32, as one Keras backend does with beta_2, so that all libraries train alike."""
    return {key: float(np.float32(value)) for key, value in settings.items()}


SGD = {"name": "SGD", **_rounded(learning_rate=0.01)}
ADAM = {"name": "Adam", **_rounded(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7)}


@dataclasses.dataclass(frozen=True)
class Case:
    """A network and how it is trained.

    Args:
        layers: a dict for each: "kind" (the name of a tinynet layer), its "config", its "path" in the names of
            weights, its "input_shape" and "output_shape" without the batch axis, and its "children": the same kind of
            dicts for the layers in a Residual, whose config is then empty.
        optimizer: "name", "learning_rate" and, for Adam, "beta_1", "beta_2" and "epsilon"; also "weight_decay", if
            there is one: decoupled, for weights but not for biases, gamma and beta.
        multiply_adds: those of one example's forward pass.
        params: how many numbers are trained.
        label_smoothing: that of the loss.
        average_flips: whether the probabilities of a test image and its mirror image are averaged.
        epochs: the length of the recipe's schedule.
        augment: how training images are changed, as `_describe_augmentation` returns it; None: not at all.
    """

    name: str
    title: str
    layers: list[dict[str, Any]]
    input_shape: tuple[int, ...]
    batch_size: int
    optimizer: dict[str, Any]
    multiply_adds: int
    params: int
    label_smoothing: float = 0.0
    average_flips: bool = False
    epochs: int = 0
    augment: dict[str, Any] | None = None

    def without_dropout(self) -> "Case":
        """Return the case with every dropout rate set to 0, so that all libraries compute the same losses."""
        layers = [  # none is inside a Residual
            {**layer, "config": {**layer["config"], "rate": 0.0}} if layer["kind"] == "Dropout" else layer
            for layer in self.layers
        ]
        return dataclasses.replace(self, layers=layers)

    def input_scale(self) -> float:
        """Return what pixels are multiplied by: the scale of the Rescale layer that each network begins with."""
        first = self.layers[0]
        if first["kind"] != "Rescale" or first["config"]["offset"]:
            raise ValueError(f"{self.name}: expected a network that begins with Rescale(scale)")
        return float(first["config"]["scale"])

    def hidden_layers(self) -> list[dict[str, Any]]:
        """Return the layers between the Rescale at the beginning and the Softmax or LogSoftmax at the end."""
        if self.layers[-1]["kind"] not in ("Softmax", "LogSoftmax"):
            raise ValueError(f"{self.name}: expected a network that ends with Softmax() or LogSoftmax()")
        self.input_scale()
        return self.layers[1:-1]

    def kinds(self) -> set[str]:
        """Return the kinds of layers between the first and the last."""
        return {layer["kind"] for layer in walk(self.hidden_layers())}

    def describe_training(self) -> str:
        """Describe the hyper-parameters in words: "Adam(learning_rate=0.001, ...), batches of 32"."""
        settings = ", ".join(f"{key}={value:g}" for key, value in self.optimizer.items() if key != "name")
        smoothing = f", label smoothing {self.label_smoothing:g}" if self.label_smoothing else ""
        return f"{self.optimizer['name']}({settings}){smoothing}, batches of {self.batch_size}"


def walk(layers: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield every layer, each followed by the layers inside it."""
    for layer in layers:
        yield layer
        yield from walk(layer.get("children", []))


def make(name: str) -> tuple[Case, dict[str, np.ndarray]]:
    """Return the case and its initial weights, by the names of `Sequential.named_weights`, from seed 0.

    Args: name: one of ``CASES``, or a scaling case, "width_512" or "batch_64".
    """
    import tinynet as tn  # here, as the processes of other libraries import this module

    family, _, size = name.rpartition("_")
    if family in ("width", "batch"):
        width, batch_size = (int(size), 64) if family == "width" else (256, int(size))
        layers = [
            tn.Rescale(1 / 255),
            tn.Flatten(),
            tn.Dense(width),
            tn.ReLU(),
            tn.Dense(CLASSES),
            tn.Softmax(),
        ]
        model = tn.Sequential(layers, input_shape=(28, 28), seed=0)
        title, optimizer = f"784-{width}-{CLASSES}, ReLU", ADAM
    elif name in CASES:
        recipe = tn.recipes.make(name, seed=0)
        model, batch_size = recipe.model, recipe.batch_size
        title, optimizer = recipe.title, SGD if name == "mlp_sgd" else ADAM
    else:
        raise ValueError(f"unknown case {name!r}; known: {', '.join(CASES)}, width_N, batch_N")
    return _case(name, title, model, batch_size, optimizer)


def make_as_recipe(name: str) -> tuple[Case, dict[str, np.ndarray], np.ndarray]:
    """Return the case with the recipe's regularisation, initial weights, and the schedule's learning rate at each step.

    The case's own learning rate is constant, as in `make`; the schedule is for all 60,000 training images.
    Args: name: one of ``GPU_CASES``.
    """
    import tinynet as tn

    recipe = tn.recipes.make(name, seed=0, training_examples=TRAINING_IMAGES)
    decay = recipe.optimizer.weight_decay
    optimizer = {**(SGD if name == "mlp_sgd" else ADAM), **({"weight_decay": decay} if decay else {})}
    case, weights = _case(name, recipe.title, recipe.model, recipe.batch_size, optimizer)
    case = dataclasses.replace(
        case,
        label_smoothing=recipe.loss.config().get("label_smoothing", 0.0),
        average_flips=recipe.average_flips,
        epochs=recipe.epochs,
        augment=None if recipe.augment is None else _describe_augmentation(recipe.augment),
    )
    rate = recipe.optimizer.learning_rate
    steps = range(recipe.epochs * math.ceil(TRAINING_IMAGES / recipe.batch_size))
    return case, weights, np.array([rate(step) if callable(rate) else rate for step in steps])


def _case(
    name: str, title: str, model: Any, batch_size: int, optimizer: dict[str, Any]
) -> tuple[Case, dict[str, np.ndarray]]:
    for rest in (", Adam with", ", augmentation"):  # what follows is the recipe's, not the benchmark's
        title = title.partition(rest)[0]
    case = Case(
        name=name,
        title=title,
        layers=_describe(model.layers, model.input_shape),
        input_shape=model.input_shape,
        batch_size=batch_size,
        optimizer=optimizer,
        multiply_adds=model.multiply_adds(),
        params=int(model.params.size),
    )
    return case, {path: array.copy() for path, array in model.named_weights().items()}


def _describe(layers: Sequence[Any], shape: Sequence[int], prefix: str = "") -> list[dict[str, Any]]:
    described = []
    for index, layer in enumerate(layers):
        path = f"{prefix}{index}"
        if layer.children and (type(layer).__name__ != "Residual" or layer.projection is not None):
            raise ValueError(
                f"layer {path}: the benchmark translates only chains and Residual without projection"
            )
        described.append(
            {
                "kind": type(layer).__name__,
                "config": {} if layer.children else layer.config(),
                "path": path,
                "input_shape": list(shape),
                "output_shape": list(layer.output_shape),
                "children": _describe(layer.children, shape, f"{path}."),
            }
        )
        shape = layer.output_shape
    return described


def _describe_augmentation(augment: Any) -> dict[str, Any]:
    """Return flip, shift and erasing, in this order, as numbers."""
    steps = getattr(augment, "steps", ())
    if [type(step).__name__ for step in steps] != ["RandomFlip", "RandomShift", "RandomErasing"]:
        raise ValueError(f"{augment!r}: the benchmark translates only flip, shift and erasing, in this order")
    flip, shift, erasing = steps
    if erasing.low != erasing.high or erasing.fill or shift.fill:
        raise ValueError(f"{augment!r}: the benchmark translates only squares of one size, filled with 0")
    return {
        "flip": flip.probability,
        "pixels": shift.pixels,
        "size": erasing.low,
        "erase": erasing.probability,
    }


def save(folder: Path, case: Case, weights: dict[str, np.ndarray]) -> None:
    """Write the case and its weights for the processes that measure."""
    (folder / f"{case.name}.json").write_text(json.dumps(dataclasses.asdict(case)), encoding="utf-8")
    np.savez(folder / f"{case.name}.npz", **weights)


def load(folder: Path, name: str) -> tuple[Case, dict[str, np.ndarray]]:
    """Load what `save` wrote."""
    fields = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    fields["input_shape"] = tuple(fields["input_shape"])
    with np.load(folder / f"{name}.npz") as arrays:
        return Case(**fields), dict(arrays)


def save_data(folder: Path, data: dict[str, np.ndarray], batch_sizes: set[int], seed: int = 0) -> None:
    """Write images and labels as bytes and, for each batch size, the fixed batches on which losses are compared."""
    for name, array in data.items():
        np.save(folder / f"{name}.npy", array)
    rng = np.random.default_rng(seed)
    n = len(data["y_train"])
    for batch_size in batch_sizes:
        rows = LOSS_STEPS[-1] * batch_size
        orders = [rng.permutation(n) for _ in range(math.ceil(rows / n))]
        np.save(folder / f"batches_{batch_size}.npy", np.concatenate(orders)[:rows].reshape(-1, batch_size))


def load_scaled(path: Path, scale: float, dtype: str = "float32", count: int | None = None) -> np.ndarray:
    """Load the first ``count`` images (None: all) in this dtype, multiplied by ``scale``.

    The file is read piece by piece, so that no library's peak memory contains the bytes as well as the floats.
    """
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
        count = shape[0] if count is None else min(count, shape[0])
        images = np.empty((count, *shape[1:]), dtype)
        pixels = math.prod(shape[1:])
        for start in range(0, count, 1000):
            part = images[start : start + 1000]
            bytes_read = np.fromfile(file, np.uint8, len(part) * pixels)
            np.multiply(bytes_read.reshape(part.shape), images.dtype.type(scale), out=part)
    return images
