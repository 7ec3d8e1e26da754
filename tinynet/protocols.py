"""What the training loop, the callbacks and other modules need from a model. `Sequential` is one."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from tinynet.engines.devices import Device
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.support.types import Array, DeviceName, FloatType, Shape


class Model(Protocol):
    """See `Sequential` for what each member is."""

    layers: tuple[Layer, ...]
    input_shape: Shape
    output_shape: Shape
    dtype: np.dtype[Any]
    device: Device
    seed: int
    step: int
    epoch: int
    loss: Loss | None
    outputs: Array | None
    fitted_on_bytes: bool
    fitted_magnitude: float | None
    history: Any  # a History, of its last fit

    @property
    def params(self) -> Array: ...

    @property
    def grads(self) -> Array: ...

    @property
    def decay_size(self) -> int: ...

    def loss_and_gradients(
        self, x: Array, y: Array, loss: Loss, total: int | None = None, first_row: int = 0
    ) -> float: ...

    def _forward_backward(
        self, layers: Sequence[Layer], x: Array, y: Array, loss: Loss, total: int | None = None
    ) -> Any: ...

    def _begin_step(self, first_row: int = 0, step: Any = None) -> None: ...

    def copy(self, dtype: FloatType | None = None, device: DeviceName | None = None) -> "Model": ...

    def _replica(self) -> "Model": ...

    def forget(self) -> None: ...

    def trainable_ranges(self) -> list[tuple[int, int]]: ...

    def multiply_adds(self) -> int: ...

    def evaluate(
        self, x: Any, y: Any = None, batch_size: int = 256, loss: Loss | None = None
    ) -> dict[str, float]: ...

    def forward(self, x: Array, training: bool = False) -> Array: ...

    def run(self, layers: Sequence[Layer], x: Array, training: bool) -> Array: ...

    def _check_head(self, loss: Loss) -> None: ...

    def _fuse(self, loss: Loss) -> tuple[Sequence[Layer], Loss]: ...

    def _first_non_finite(self, x: Array) -> str: ...

    def walk(self) -> Iterator[tuple[str, Layer]]: ...

    def named_params(self) -> dict[str, Array]: ...

    def named_grads(self) -> dict[str, Array]: ...

    def named_state(self) -> dict[str, Array]: ...

    def named_weights(self) -> dict[str, Array]: ...

    def get_weights(self) -> list[Array]: ...

    def set_weights(self, weights: Sequence[Any]) -> None: ...

    def save(self, path: str | os.PathLike[str]) -> None: ...
