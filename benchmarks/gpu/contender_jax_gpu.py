"""JAX on a GPU: one jitted step per call, or the steps of an epoch in one call, as one `lax.scan`.

Images and labels are on the device before the first epoch, the images as float32 in 0..1. The order of an epoch is
drawn there; arrays that a step replaces are donated to it; the loss is never read. The network, the loss and the
optimizer are written in jax.numpy, as JAX has none of its own. Option: scan.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from augmentation import Draws, augmented
from cases import Case
from jax import lax
from trainer import EpochEnd
from trainer_gpu import GpuTrainer

State = dict[str, Any]
"""params, slots, running (all by name), step, batch (of the epoch) and key."""


class GpuJaxTrainer(GpuTrainer):
    """JAX."""

    def __init__(self, case: Case, weights: dict[str, np.ndarray], *arguments: Any, **settings: Any) -> None:
        super().__init__(case, weights, *arguments, **settings)
        if self.on_gpu and jax.default_backend() != "gpu":
            raise RuntimeError(f"JAX {jax.__version__} finds no GPU: its backend is {jax.default_backend()}")
        jax.config.update("jax_enable_x64", self.dtype == "float64")
        precision = "tensorfloat32" if self.options["tf32"] else "highest"
        jax.config.update("jax_default_matmul_precision", precision)
        arrays = {name: jnp.asarray(array, self.dtype) for name, array in weights.items()}
        params = {name: array for name, array in arrays.items() if "running" not in name}
        slots = {} if case.optimizer["name"] == "SGD" else {"m": params, "v": params}
        self.state: State = {
            "params": params,
            "running": {name: array for name, array in arrays.items() if "running" in name},
            "slots": jax.tree.map(jnp.zeros_like, slots),
            "step": jnp.int32(0),
            "batch": jnp.int32(0),
            "key": jax.random.key(self.seed, impl="rbg"),
        }
        self.schedule = jnp.asarray(self.rates(), self.dtype)
        self._one = jax.jit(self._next, donate_argnums=0)
        self._all = jax.jit(self._scanned, donate_argnums=0)
        self._on_rows = jax.jit(self._step, donate_argnums=0)
        self._scores = jax.jit(lambda params, running, x: self._network(params, running, x, None)[0])

    # -- the network --------------------------------------------------------------------------------

    def _network(self, params: State, running: State, x: Any, key: Any) -> tuple[Any, State]:
        """Return logits and the updated running statistics; ``key``: for dropout, None when not training."""
        after = dict(running)

        def through(layers: list[dict[str, Any]], x: Any) -> Any:
            for layer in layers:
                x = one(layer, x)
            return x

        def one(layer: dict[str, Any], x: Any) -> Any:
            kind, config, path = layer["kind"], layer["config"], layer["path"]
            if kind == "Flatten":
                return x.reshape(len(x), -1)
            if kind == "Reshape":
                return x.reshape(len(x), *config["target_shape"])
            if kind == "ReLU":
                return jax.nn.relu(x)
            if kind == "Residual":
                return x + through(layer["children"], x)
            if kind == "GlobalMaxPool2D":
                return x.max(axis=(1, 2))
            if kind == "MaxPool2D":
                size, strides = _pair(config["pool_size"]), _pair(config["strides"] or config["pool_size"])
                return lax.reduce_window(
                    x, -np.inf, lax.max, (1, *size, 1), (1, *strides, 1), config["padding"].upper()
                )
            if kind == "Dense":
                y = x @ params[f"{path}.W"]
                return y + params[f"{path}.b"] if config["use_bias"] else y
            if kind == "Conv2D":
                y = lax.conv_general_dilated(
                    x,
                    params[f"{path}.W"],
                    _pair(config["strides"]),
                    config["padding"].upper(),
                    dimension_numbers=("NHWC", "HWIO", "NHWC"),
                )
                return y + params[f"{path}.b"] if config["use_bias"] else y
            if kind == "BatchNorm":
                return self._batchnorm(layer, x, params, after, training=key is not None)
            if kind == "Dropout":
                if key is None or not config["rate"]:
                    return x
                keep = 1 - config["rate"]
                mask = jax.random.bernoulli(jax.random.fold_in(key, int(path)), keep, x.shape)
                return jnp.where(mask, x / keep, 0)
            raise ValueError(f"{kind}: no translation to JAX")

        return through(self.case.hidden_layers(), x), after

    def _batchnorm(self, layer: dict[str, Any], x: Any, params: State, running: State, training: bool) -> Any:
        path, config = layer["path"], layer["config"]
        names = f"{path}.running_mean", f"{path}.running_var"
        mean, var = (running[name] for name in names)
        if training:
            axes = tuple(range(x.ndim - 1))
            mean = x.mean(axes)
            var = jnp.square(x - mean).mean(axes)
            for name, batch in zip(names, (mean, var), strict=True):
                running[name] = config["momentum"] * running[name] + (1 - config["momentum"]) * batch
        x_hat = (x - mean) * lax.rsqrt(var + config["epsilon"])
        return params[f"{path}.gamma"] * x_hat + params[f"{path}.beta"]

    # -- a step -------------------------------------------------------------------------------------

    def _step(self, state: State, x: Any, y: Any, rows: Any) -> tuple[State, Any]:
        key = jax.random.fold_in(state["key"], state["step"])
        images, labels = x[rows], y[rows]
        if self.augment is not None:
            images = self._augmented(images, jax.random.fold_in(key, 10_000))

        def loss_of(params: State) -> tuple[Any, State]:
            logits, running = self._network(params, state["running"], images, key)
            scores, s = jax.nn.log_softmax(logits), self.case.label_smoothing
            picked = jnp.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
            return -((1 - s) * picked + s * scores.mean(axis=1)).mean(), running

        (loss, running), grads = jax.value_and_grad(loss_of, has_aux=True)(state["params"])
        params, slots = self._updated(state, grads)
        changed = {
            "params": params,
            "slots": slots,
            "running": running,
            "step": state["step"] + 1,
            "batch": state["batch"] + 1,
        }
        return state | changed, loss

    def _updated(self, state: State, grads: State) -> tuple[State, State]:
        """Return parameters and slots after the optimizer's step, with epsilon in the same place as in tinynet."""
        settings, params = self.case.optimizer, state["params"]
        rate = self.schedule[jnp.minimum(state["step"], len(self.schedule) - 1)]
        if settings["name"] == "SGD":
            return jax.tree.map(lambda p, g: p - rate * g, params, grads), {}
        beta_1, beta_2, t = settings["beta_1"], settings["beta_2"], state["step"].astype(self.dtype) + 1
        m = jax.tree.map(lambda m, g: beta_1 * m + (1 - beta_1) * g, state["slots"]["m"], grads)
        v = jax.tree.map(lambda v, g: beta_2 * v + (1 - beta_2) * g * g, state["slots"]["v"], grads)
        # 1 - beta^t without the cancellation error of the difference
        size = rate * jnp.sqrt(-jnp.expm1(t * math.log(beta_2))) / -jnp.expm1(t * math.log(beta_1))
        decay = rate * settings.get("weight_decay", 0.0)

        def stepped(name: str) -> Any:
            p = params[name] * (1 - decay) if name.endswith(".W") else params[name]
            return p - size * m[name] / (jnp.sqrt(v[name]) + settings["epsilon"])

        return {name: stepped(name) for name in params}, {"m": m, "v": v}

    def _augmented(self, images: Any, key: Any) -> Any:
        spec, n, places = self.augment, len(images), images.shape[1]
        assert spec is not None
        keys = jax.random.split(key, 6)
        pixels, size = spec["pixels"], spec["size"]
        up, left = (jax.random.randint(each, (n,), 0, 2 * pixels + 1) for each in keys[:2])
        top, side = (jax.random.randint(each, (n,), 0, places - size + 1) for each in keys[2:4])
        mirrored = jax.random.bernoulli(keys[4], spec["flip"], (n,))
        erased = jax.random.bernoulli(keys[5], spec["erase"], (n,))
        draws = Draws(mirrored, up, left, erased, top, side)
        return augmented(jnp, images, jnp.arange, draws, pixels, size)

    def _next(self, state: State, x: Any, y: Any, order: Any) -> tuple[State, Any]:
        """Train on the epoch's next batch, which the state counts: no argument comes from the host."""
        return self._step(state, x, y, order[state["batch"]])

    def _scanned(self, state: State, x: Any, y: Any, order: Any) -> tuple[State, Any]:
        """Train on all batches, (steps, batch size), and return their losses."""
        return lax.scan(lambda state, rows: self._step(state, x, y, rows), state, order)

    # -- training -----------------------------------------------------------------------------------

    def _arrays(self) -> tuple[Any, Any]:
        x, y = self.training_data()
        return jnp.asarray(x), jnp.asarray(y, jnp.int32)

    def train(self, epochs: int, on_epoch_end: EpochEnd) -> None:
        x, y = self._arrays()
        n, size = len(x), self.case.batch_size
        shuffled = jax.jit(lambda key: jax.random.permutation(key, n))
        for epoch in range(epochs):
            order = shuffled(jax.random.key(self.seed * 1000 + epoch))
            full = n // size * size
            self._epoch(x, y, order[:full].reshape(-1, size))
            if full < n:
                self.state, _ = self._on_rows(self.state, x, y, order[full:])
            if on_epoch_end():
                return

    def _epoch(self, x: Any, y: Any, order: Any) -> None:
        if self.options.get("scan"):
            self.state, _ = self._all(self.state, x, y, order)
            return
        self.state["batch"] = jnp.int32(0)
        for _ in range(len(order)):
            self.state, _ = self._one(self.state, x, y, order)

    def step_losses(self, batches: np.ndarray, steps: tuple[int, ...]) -> list[float]:
        x, y = self._arrays()
        order = jnp.asarray(batches[: max(steps)])
        if self.options.get("scan"):
            self.state, losses = self._all(self.state, x, y, order)
        else:
            losses = []
            for _ in range(len(order)):
                self.state, loss = self._one(self.state, x, y, order)
                losses.append(loss)
        return [float(losses[step - 1]) for step in steps]

    def predict_classes(self, x: np.ndarray) -> np.ndarray:
        scores = self._probabilities(x)
        if self.case.average_flips:
            scores = scores + self._probabilities(np.flip(x, 2))
        return scores.argmax(axis=1)

    def _probabilities(self, x: np.ndarray) -> np.ndarray:
        params, running = self.state["params"], self.state["running"]
        parts = [x[start : start + 1000] for start in range(0, len(x), 1000)]
        return np.concatenate([jax.nn.softmax(self._scores(params, running, part)) for part in parts])

    def wait(self) -> None:
        jax.block_until_ready(self.state)

    def describe(self) -> dict[str, Any]:
        return {"tf32": f"matrix products and convolutions {jax.config.jax_default_matmul_precision}"}


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)
