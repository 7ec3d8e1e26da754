"""The contenders on the GPU, and their fast paths."""

from typing import Any

from contenders import REFERENCE, Contender

_GRAPH = "whole steps (gather, forward, backward, optimizer) captured as one CUDA graph and replayed"
_EAGER = (
    "images preloaded as float32, fused optimizer, cuDNN's fastest algorithms, faster memory layout of images"
)
_COMPILED = "torch.compile(dynamic=False) of forward and loss"


def _torch(name: str, title: str, fast_path: str, **options: Any) -> Contender:
    trainer = "contender_torch_gpu:GpuTorchTrainer"
    return Contender(name, title, trainer, fast_path, (("torch",),), "bench-torch", options)


def _jax(name: str, title: str, fast_path: str, **options: Any) -> Contender:
    trainer = "contender_jax_gpu:GpuJaxTrainer"
    return Contender(name, title, trainer, fast_path, (("jax",),), "bench-jax", options)


CONTENDERS: dict[str, Contender] = {
    contender.name: contender
    for contender in (
        Contender(
            REFERENCE,
            "tinynet",
            "contender_tinynet_gpu:GpuTinynetTrainer",
            "fit with its defaults; images are bytes, scaled batch by batch",
            (("numpy",),),
        ),
        _torch("torch", "PyTorch", f"eager; {_EAGER}"),
        _torch("torch-compile", "PyTorch compiled", f"{_COMPILED}; the rest as torch", compile=True),
        _torch("torch-graph", "PyTorch, CUDA graphs", f"{_GRAPH}; the rest as torch", graph=True),
        _torch(
            "torch-compile-graph",
            "PyTorch compiled, CUDA graphs",
            f"{_COMPILED}; {_GRAPH}; the rest as torch",
            compile=True,
            graph=True,
        ),
        _jax("jax", "JAX", "jit of a step, state donated; images preloaded as float32"),
        _jax("jax-scan", "JAX, scan", "jit of an epoch's steps as one lax.scan; the rest as jax", scan=True),
    )
}
