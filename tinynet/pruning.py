"""Magnitude pruning: set the smallest weights to 0, and keep them there during training.

`tinynet.slimming` prunes whole units and channels, which makes a model smaller and faster.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinynet.engines.devices import device_of, to_host
from tinynet.protocols import Model
from tinynet.support.checks import check_number, check_positive_int
from tinynet.support.types import Array, Scope
from tinynet.training.callbacks import Callback, state_entry
from tinynet.training.run import Run

SCOPES = ("global", "layer")


def prunable_weights(model: Model) -> dict[str, Array]:
    """Return the weights that pruning may set to 0, by name: those of trainable layers that weight decay applies to.

    So biases, batch-norm's gamma and beta, and frozen layers are never pruned.
    """
    return {
        f"{path}.{name}": getattr(layer, name)
        for path, layer in model.walk()
        for name, spec in layer.param_specs.items()
        if spec.decay and layer.trainable
    }


def sparsity_of(model: Model) -> float:
    """Return the share of the prunable weights that are 0."""
    weights = prunable_weights(model).values()
    zeros = sum(array.size - int(np.count_nonzero(to_host(array))) for array in weights)
    return zeros / max(sum(array.size for array in weights), 1)


def magnitude_masks(model: Model, sparsity: float, scope: Scope = "global") -> dict[str, Array]:
    """Return the pruning masks by name: boolean arrays, False for weights to be set to 0.

    These are the round(sparsity n) smallest in magnitude of all n weights or, with scope="layer", of each array's n.
    Weights that are already 0 are the smallest, so they come first.

    Args: sparsity: in [0, 1); scope: "global" or "layer".
    Raises: ValueError: for arguments out of range, or if the model has no weights to prune.
    Source: Han, Pool, Tran & Dally 2015.
    """
    check_number("sparsity", sparsity, 0, 1, open_high=True)
    if scope not in SCOPES:
        raise ValueError(f"scope: expected 'global' or 'layer', got {scope!r}")
    weights = prunable_weights(model)
    if not weights:
        raise ValueError("the model has no weights to prune: no trainable layer has any")
    magnitudes = {name: np.abs(to_host(array)).reshape(-1) for name, array in weights.items()}
    if scope == "layer":
        return {name: _largest(magnitudes[name], sparsity).reshape(weights[name].shape) for name in weights}
    kept = _largest(np.concatenate(list(magnitudes.values())), sparsity)
    ends = np.cumsum([array.size for array in weights.values()])[:-1]
    return {
        name: part.reshape(weights[name].shape)
        for name, part in zip(weights, np.split(kept, ends), strict=True)
    }


def _largest(magnitudes: Array, sparsity: float) -> Array:
    """Return which elements of a vector are not among the round(sparsity n) smallest."""
    count = round(sparsity * magnitudes.size)
    kept = np.ones(magnitudes.size, bool)
    if count:
        kept[np.argpartition(magnitudes, count - 1)[:count]] = False
    return kept


def prune_weights(model: Model, sparsity: float, scope: Scope = "global") -> dict[str, Array]:
    """Set the smallest weights to 0, in place, and return the masks of `magnitude_masks`.

    Further training changes them again, unless `MagnitudePruning` is among the callbacks.
    """
    masks = magnitude_masks(model, sparsity, scope)
    _apply(model, masks)
    return masks


def _apply(model: Model, masks: Mapping[str, Array]) -> None:
    weights = prunable_weights(model)
    for name, mask in masks.items():
        if name in weights:  # if not, it is frozen by now: nothing changes it
            weights[name] *= device_of(weights[name]).asarray(mask)


class MagnitudePruning(Callback):
    """Prune to a given sparsity during training, and keep the pruned weights at exactly 0.

    sparsity(t) = final + (initial - final) (1 - t / ramp_steps)^3      for t = 0, every, 2 every, ...

    t counts the training steps, and initial is the model's share of zeros at the beginning. Weights that are 0 when
    training begins stay 0. So the zeros of a pruned model are its masks, even after saving and loading, and
    ``MagnitudePruning(0)`` only keeps them. Without a ramp, all pruning happens before the first step.

    The weights are set to 0 after each step, whatever momentum, moments or decay did to them. With a ramp, put
    `EarlyStopping` before this callback in the list: the best weights, which may come from an epoch with fewer
    zeros, are then pruned by the last masks.

    Args:
        sparsity: the share of weights that are 0 at the end, in [0, 1).
        scope: "global" prunes the smallest of all weights, "layer" the smallest of each layer.
        ramp_steps: steps over which the sparsity grows to that; 0 prunes at once.
        every: steps between prunings during the ramp.
    Raises: ValueError: when training begins, if the ramp is longer than the run, or a layer's weights are all 0.
    Source: Han, Pool, Tran & Dally 2015; the ramp: Zhu & Gupta 2018.
    """

    def __init__(
        self, sparsity: float, scope: Scope = "global", ramp_steps: int = 0, every: int = 50
    ) -> None:
        self.sparsity = check_number("MagnitudePruning sparsity", sparsity, 0, 1, open_high=True)
        if scope not in SCOPES:
            raise ValueError(f"MagnitudePruning scope: expected 'global' or 'layer', got {scope!r}")
        self.scope = scope
        self.ramp_steps = check_positive_int("MagnitudePruning ramp_steps", ramp_steps) if ramp_steps else 0
        self.every = check_positive_int("MagnitudePruning every", every)
        self.initial = 0.0
        self.step = 0
        self.masks: dict[str, Array] = {}  # False: pruned
        self._moved: tuple[Any, ...] = ()  # the masks, and they where the weights are

    def on_train_begin(self, run: Run) -> None:
        if not run.resumed:
            self.masks = {}  # or a rejected run would end with the masks of the previous one
            steps = run.epochs * run.steps_per_epoch
            if self.ramp_steps > steps:
                raise ValueError(
                    f"MagnitudePruning ramp_steps: expected at most the run's {steps:,} steps, got {self.ramp_steps:,}"
                )
            weights = prunable_weights(run.model)
            empty = [name for name, array in weights.items() if not array.any()]
            if empty:
                raise ValueError(
                    f"MagnitudePruning: {', '.join(empty)} is all 0 (untrained or entirely pruned), so there is "
                    "nothing to choose from; freeze that layer, train it first, or prune less"
                )
            self.step, self.initial = 0, sparsity_of(run.model)
            self.masks = {name: to_host(array) != 0 for name, array in weights.items()}
            self._prune(run.model)
        _apply(run.model, self.masks)

    def on_batch_end(self, run: Run) -> None:
        self.step += 1
        if not self._moved or self._moved[0] is not self.masks:
            there = {name: run.model.device.asarray(mask) for name, mask in self.masks.items()}
            self._moved = self.masks, there
        _apply(run.model, self._moved[1])
        if self.step <= self.ramp_steps and (self.step % self.every == 0 or self.step == self.ramp_steps):
            self._prune(run.model)

    def on_train_end(self, run: Run) -> None:
        self._moved = ()
        _apply(run.model, self.masks)

    def current_sparsity(self) -> float:
        """Return the formula's value at this step."""
        left = 1 - self.step / self.ramp_steps if self.step < self.ramp_steps else 0.0
        return self.sparsity + (min(self.initial, self.sparsity) - self.sparsity) * left**3

    def _prune(self, model: Model) -> None:
        masks = magnitude_masks(model, self.current_sparsity(), self.scope)
        self.masks = {name: mask & self.masks.get(name, True) for name, mask in masks.items()}
        _apply(model, self.masks)

    def state(self) -> dict[str, Any]:
        names = list(self.masks)
        return {
            "step": self.step,
            "initial": self.initial,
            "names": names,
            "masks": [self.masks[name] for name in names],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        self.step = state_entry(state, "step", int)
        self.initial = state_entry(state, "initial", float, int)
        self.masks = {
            name: np.asarray(mask, bool) for name, mask in zip(state["names"], state["masks"], strict=True)
        }
