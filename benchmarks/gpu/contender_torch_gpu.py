"""PyTorch on a GPU: eager, compiled, and whole steps as CUDA graphs.

Images and labels are on the device before the first epoch, the images as float32 in 0..1. The order of an epoch is
drawn there; the loss is never read; the optimizer is fused. Both memory layouts of images are tried, and the faster one
is used. Options: compile (forward and loss through `torch.compile`), graph (gather, forward, backward and optimizer
captured once and replayed). A rehearsal on the CPU, which has no graphs, runs that step as it is.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from augmentation import Draws, augmented
from cases import Case
from clocks import WallClock, torch_clock
from contender_torch import TorchTrainer
from torch import nn
from trainer import EpochEnd
from trainer_gpu import GpuTrainer

TRIED_STEPS = 20  # of each memory layout of images
WARM_UP_STEPS = 3  # before a capture, so that libraries have chosen their kernels


class GpuTorchTrainer(GpuTrainer, TorchTrainer):
    """PyTorch."""

    def __init__(
        self,
        case: Case,
        weights: dict[str, np.ndarray],
        *arguments: Any,
        options: dict[str, Any],
        **settings: Any,
    ) -> None:
        gpu = options["device"] == "gpu"
        if gpu and not torch.cuda.is_available():
            raise RuntimeError(f"PyTorch {torch.__version__} finds no GPU")
        self.device = torch.device("cuda" if gpu else "cpu")
        torch.backends.cuda.matmul.allow_tf32 = options["tf32"]
        torch.backends.cudnn.allow_tf32 = options["tf32"]
        torch.backends.cudnn.benchmark = True  # shapes are fixed
        self.captures = bool(gpu and options.get("graph"))
        if options.get("compile"):
            torch.compiler.reset()  # what an earlier trainer in this process compiled
        with self.device:
            super().__init__(case, weights, *arguments, options=options, **settings)
        self.schedule = self.rates()
        self.layout = "channels_last" if "Conv2D" in case.kinds() else ""
        if gpu and self.layout and self.dtype == "float32":
            self.choose_layout()

    def _optimizer(self) -> torch.optim.Optimizer:
        """Return a fused optimizer; a captured step reads its learning rate from device memory."""
        settings = self.case.optimizer
        rate: Any = settings["learning_rate"]
        if self.captures:
            rate = torch.tensor(rate, device=self.device)
        self.rate = rate
        if settings["name"] == "SGD":
            return torch.optim.SGD(self.model.parameters(), lr=rate, fused=True)
        common = {
            "lr": rate,
            "betas": (settings["beta_1"], settings["beta_2"]),
            "eps": settings["epsilon"],
            "fused": True,
            "capturable": self.captures,
        }
        if not settings.get("weight_decay"):
            return torch.optim.Adam(self.model.parameters(), **common)
        decayed = [parameter for parameter in self.model.parameters() if parameter.dim() > 1]
        others = [parameter for parameter in self.model.parameters() if parameter.dim() < 2]
        groups = [
            {"params": decayed, "weight_decay": settings["weight_decay"]},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, **common)

    # -- a step -------------------------------------------------------------------------------------

    def _step(self, x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        images = x[rows]
        if self.augment is not None:
            images = self._augmented(images)
        loss = self.batch_loss(images, y[rows])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _augmented(self, images: torch.Tensor) -> torch.Tensor:
        spec, n, places = self.augment, len(images), images.shape[1]
        assert spec is not None

        def whole(high: int) -> torch.Tensor:
            return torch.randint(0, high, (n,), device=self.device)

        def chance(probability: float) -> torch.Tensor:
            return torch.rand(n, device=self.device) < probability

        pixels, size = spec["pixels"], spec["size"]
        moves = whole(2 * pixels + 1), whole(2 * pixels + 1)
        squares = whole(places - size + 1), whole(places - size + 1)
        draws = Draws(chance(spec["flip"]), *moves, chance(spec["erase"]), *squares)
        arange: Callable[[int], torch.Tensor] = lambda count: torch.arange(count, device=self.device)  # noqa: E731
        return augmented(torch, images, arange, draws, pixels, size)

    def _set_rate(self, step: int) -> None:
        """Set the schedule's learning rate; a constant one is already set."""
        if len(self.schedule) == 1:
            return
        rate = float(self.schedule[min(step, len(self.schedule) - 1)])
        if self.captures:
            self.rate.fill_(rate)  # the graph has captured its address, not its value
        else:
            for group in self.optimizer.param_groups:
                group["lr"] = rate

    def _captured(
        self, x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor
    ) -> tuple[Callable[[], None], torch.Tensor]:
        """Capture the step on the images that ``rows`` names on replay; return (replay, loss). Trains nothing yet."""
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad()
        torch.cuda.synchronize()
        # Like torch.cuda.graph, but without garbage collection, which would take most of a hundred captures' time.
        with torch.cuda.stream(self.side):
            graph.capture_begin()
            try:
                loss = self._step(x, y, rows)
            finally:
                graph.capture_end()
        return graph.replay, loss

    def _warm_up(self, x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor) -> None:
        """Run some steps without a trace: weights and running statistics are restored, moments set to 0."""
        kept = [tensor.clone() for tensor in self.model.state_dict().values()]
        self.side = torch.cuda.Stream()
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            for _ in range(WARM_UP_STEPS):
                self._step(x, y, rows)
        torch.cuda.current_stream().wait_stream(self.side)
        self._restore(kept)

    def _restore(self, kept: list[torch.Tensor]) -> None:
        with torch.no_grad():
            for tensor, former in zip(self.model.state_dict().values(), kept, strict=True):
                tensor.copy_(former)
            for slots in self.optimizer.state.values():
                for slot in slots.values():
                    if isinstance(slot, torch.Tensor):  # SGD without momentum keeps None
                        slot.zero_()

    def choose_layout(self) -> None:
        """Time eager steps in both memory layouts of images, and keep the faster one."""
        x = torch.rand(self.case.batch_size, *self.case.input_shape, device=self.device)
        y = torch.zeros(len(x), dtype=torch.int64, device=self.device)
        rows = torch.arange(len(x), device=self.device)
        kept = [tensor.clone() for tensor in self.model.state_dict().values()]
        compiled, self.batch_loss = self.batch_loss, self._batch_loss
        seconds = {}
        for layout, memory in (
            ("channels_last", torch.channels_last),
            ("contiguous", torch.contiguous_format),
        ):
            self.model.to(memory_format=memory)
            self.optimizer = self._optimizer()  # moments have the layout of their parameters
            for part in range(2):  # in the first part, cuDNN tries its algorithms
                torch.cuda.synchronize()
                started = time.perf_counter()
                for _ in range(TRIED_STEPS):
                    self._step(x, y, rows)
                torch.cuda.synchronize()
                if part:
                    seconds[layout] = time.perf_counter() - started
        self.layout = min(seconds, key=seconds.__getitem__)
        memory = torch.channels_last if self.layout == "channels_last" else torch.contiguous_format
        self.model.to(memory_format=memory)
        self.optimizer, self.batch_loss = self._optimizer(), compiled
        self._restore(kept)

    # -- training -----------------------------------------------------------------------------------

    def _tensors(self, count: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = super()._tensors(count)
        return x.to(self.device), y.to(self.device)

    def train(self, epochs: int, on_epoch_end: EpochEnd) -> None:
        x, y = self._tensors()
        self.model.train()
        size, done = self.case.batch_size, 0
        rows = torch.arange(size, device=self.device)
        replay = None
        if self.captures:
            self._warm_up(x, y, rows)
            replay, _ = self._captured(x, y, rows)
        for _ in range(epochs):
            for part in torch.randperm(len(x), device=self.device).split(size):
                self._set_rate(done)
                if replay is not None and len(part) == size:
                    rows.copy_(part)
                    replay()
                else:
                    self._step(x, y, part)
                done += 1
            if on_epoch_end():
                return

    def step_losses(self, batches: np.ndarray, steps: tuple[int, ...]) -> list[float]:
        """Capture a new graph for each of these steps, as epsilon is a constant in it."""
        x, y = self._tensors()
        self.model.train()
        losses = []
        for batch in torch.from_numpy(batches[: max(steps)]).to(self.device):
            if self.captures and not losses:
                self._warm_up(x, y, batch)
            self._rescale_epsilon()
            if self.captures:
                replay, loss = self._captured(x, y, batch)
                replay()
            else:
                loss = self._step(x, y, batch)
            losses.append(loss.item())
        return [losses[step - 1] for step in steps]

    def predict_classes(self, x: np.ndarray) -> np.ndarray:
        self.model.eval()
        with torch.inference_mode():
            images = torch.from_numpy(x).to(self.device)
            probabilities = self._probabilities(images)
            if self.case.average_flips:
                probabilities += self._probabilities(images.flip(2))
        self.model.train()
        return probabilities.argmax(dim=1).cpu().numpy()

    def _probabilities(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([nn.functional.softmax(self.model(part), dim=1) for part in images.split(1000)])

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def clock(self) -> WallClock:
        return torch_clock(torch) if self.on_gpu else super().clock()

    def describe(self) -> dict[str, Any]:
        words = {
            "tf32": f"matrix products {torch.get_float32_matmul_precision()}, cuDNN "
            f"{'TF32' if torch.backends.cudnn.allow_tf32 else 'float32'}"
        }
        return {**words, **({"layout": self.layout} if self.layout else {})}
