"""PyTorch with a training loop in its recommended fast form; float32 images in 0..1, preloaded as one tensor.

It uses a fused optimizer, channels_last for convolutions, gradients set to None, and no ``.item()`` in the loop: the
loss is never read. Options: compile (whether forward and loss go through `torch.compile`) and its mode, threads.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from cases import Case
from torch import nn
from trainer import EpochEnd, Trainer


class TorchTrainer(Trainer):
    """PyTorch, eager or compiled."""

    def __init__(self, case: Case, weights: dict[str, np.ndarray], *arguments: Any, **settings: Any) -> None:
        super().__init__(case, weights, *arguments, **settings)
        if "threads" in self.options:
            torch.set_num_threads(self.options["threads"])
        torch.set_default_dtype(getattr(torch, self.dtype))
        torch.manual_seed(self.seed)
        self.model = nn.Sequential(*(self._layer(layer) for layer in case.hidden_layers()))
        if "Conv2D" in case.kinds():
            self.model = self.model.to(memory_format=torch.channels_last)
        self.optimizer, self.steps = self._optimizer(), 0
        self.batch_loss = self._batch_loss
        if self.options.get("compile"):
            self.batch_loss = torch.compile(self._batch_loss, dynamic=False, mode=self.options.get("mode"))

    def _layer(self, layer: dict[str, Any]) -> nn.Module:
        kind, config, in_shape = layer["kind"], layer["config"], layer["input_shape"]
        values = {
            name.rpartition(".")[2]: torch.from_numpy(array)
            for name, array in self.weights.items()
            if name.startswith(f"{layer['path']}.")
        }
        if kind == "Flatten":
            return _Flatten()
        if kind == "Reshape":
            return _ToImages(config["target_shape"])
        if kind == "ReLU":
            return nn.ReLU()
        if kind == "Dropout":
            return nn.Dropout(config["rate"])
        if kind == "MaxPool2D" and config["padding"] == "valid":
            return nn.MaxPool2d(_as_torch(config["pool_size"]), _as_torch(config["strides"]))
        if kind == "GlobalMaxPool2D":
            return nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
        if kind == "Residual":
            return _Residual(*map(self._layer, layer["children"]))
        if kind == "Dense":
            module = nn.Linear(in_shape[0], config["units"], bias=config["use_bias"])
            return _filled(module, weight=values["W"].T, bias=values.get("b"))
        if kind == "Conv2D":
            module = nn.Conv2d(
                in_shape[2],
                config["filters"],
                _as_torch(config["kernel_size"]),
                _as_torch(config["strides"]),
                padding=config["padding"],
                bias=config["use_bias"],
            )
            return _filled(module, weight=values["W"].permute(3, 2, 0, 1), bias=values.get("b"))
        if kind == "BatchNorm":
            norm = nn.BatchNorm1d if len(in_shape) == 1 else nn.BatchNorm2d
            module = norm(in_shape[-1], eps=config["epsilon"], momentum=1 - config["momentum"])
            return _filled(
                module,
                weight=values["gamma"],
                bias=values["beta"],
                running_mean=values["running_mean"],
                running_var=values["running_var"],
            )
        raise ValueError(f"{kind}: no translation to PyTorch")

    def _optimizer(self) -> torch.optim.Optimizer:
        settings, parameters = self.case.optimizer, self.model.parameters()
        if settings["name"] == "SGD":
            return torch.optim.SGD(parameters, lr=settings["learning_rate"], fused=True)
        betas = (settings["beta_1"], settings["beta_2"])
        rate, epsilon = settings["learning_rate"], settings["epsilon"]
        return torch.optim.Adam(parameters, lr=rate, betas=betas, eps=epsilon, fused=True)

    def _batch_loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self.model(x), y, label_smoothing=self.case.label_smoothing)

    def _train_on(self, x: torch.Tensor, y: torch.Tensor, batches: Iterable[torch.Tensor]) -> torch.Tensor:
        """Train on these rows of x and y, batch by batch, and return the last loss."""
        for rows in batches:
            loss = self.batch_loss(x[rows], y[rows])
            self.optimizer.zero_grad()
            loss.backward()
            self._rescale_epsilon()
            self.optimizer.step()
        return loss

    def _rescale_epsilon(self) -> None:
        """Make PyTorch's epsilon mean the same as in the other libraries; this costs a microsecond at most.

        PyTorch adds it to sqrt(v / (1 - beta_2^t)), the others to sqrt(v), which is the other form of Adam in Kingma
        & Ba 2015. Otherwise, losses differ by a percent after a hundred steps.
        """
        self.steps += 1
        for group in self.optimizer.param_groups:
            if "betas" in group:
                group["eps"] = self.case.optimizer["epsilon"] / math.sqrt(1 - group["betas"][1] ** self.steps)

    def _tensors(self, count: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = self.training_data(count)
        return torch.from_numpy(x), torch.from_numpy(y)

    def train(self, epochs: int, on_epoch_end: EpochEnd) -> None:
        x, y = self._tensors()
        self.model.train()
        for _ in range(epochs):
            self._train_on(x, y, torch.randperm(len(x)).split(self.case.batch_size))
            if on_epoch_end():
                return

    def first_step(self) -> None:
        x, y = self._tensors(self.case.batch_size)
        self._train_on(x, y, [torch.arange(len(x))])

    def step_losses(self, batches: np.ndarray, steps: tuple[int, ...]) -> list[float]:
        x, y = self._tensors()
        losses = [self._train_on(x, y, [torch.from_numpy(rows)]).item() for rows in batches[: max(steps)]]
        return [losses[step - 1] for step in steps]

    def predict_classes(self, x: np.ndarray) -> np.ndarray:
        self.model.eval()
        with torch.inference_mode():
            parts = [self.model(part).argmax(dim=1) for part in torch.from_numpy(x).split(1000)]
        self.model.train()
        return torch.cat(parts).numpy()

    def describe(self) -> dict[str, Any]:
        return describe_torch()


def describe_torch() -> dict[str, Any]:
    """Return what PyTorch reports of its BLAS, vector instructions and threads."""
    blas = "MKL" if torch.backends.mkl.is_available() else "its own BLAS"
    kernels = f"{blas} and oneDNN, {torch.backends.cpu.get_cpu_capability()}"
    threads = torch.get_num_threads()
    return {"kernels": kernels, "threads": f"{threads} thread{'s' if threads > 1 else ''}"}


def _filled(module: nn.Module, **values: torch.Tensor | None) -> nn.Module:
    with torch.no_grad():
        for name, value in values.items():
            if value is not None:
                getattr(module, name).copy_(value)
    return module


def _as_torch(size: Any) -> Any:
    """Return a size as a tuple if JSON turned it into a list."""
    return tuple(size) if isinstance(size, list) else size


class _ToImages(nn.Module):
    """(n, ...) as images (n, channels, height, width), with channels last in memory."""

    def __init__(self, shape: list[int]) -> None:
        super().__init__()
        if len(shape) != 3:
            raise ValueError(f"expected Reshape to (height, width, channels), got {tuple(shape)}")
        self.shape = tuple(shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(len(x), *self.shape).permute(0, 3, 1, 2)


class _Residual(nn.Sequential):
    """x + f(x)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(x)


class _Flatten(nn.Module):
    """Flattens each example, images in the order height, width, channels: a view of channels_last memory."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 4:
            x = x.permute(0, 2, 3, 1)
        return x.reshape(len(x), math.prod(x.shape[1:]))
