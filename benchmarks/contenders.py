"""The contenders: what each needs, which cases it can express, and its fast path."""

import importlib.metadata
import os
import shutil
import sys
from dataclasses import dataclass, field
from typing import Any

LIMIT = "numpy-limit"
REFERENCE = "tinynet"
FAST = "tinynet-fast"
OWN = (REFERENCE, FAST)  # tinynet's two engines on the CPU: neither is a peer


@dataclass(frozen=True)
class Contender:
    """A library and the way it is used.

    Args:
        needs: distributions, each a tuple of alternatives of which one is enough.
        extra: tinynet's extra that installs them.
        trainer: "module:class" of its `Trainer`, imported in the processes that measure.
        options: for the trainer.
        kinds: the layers it can express; None for all.
        compiler: what compiles its code and keeps it on disk, "Numba" or "torch.compile"; "" for nothing.
        fast_path: what is done to make it fast, in words.
    """

    name: str
    title: str
    trainer: str
    fast_path: str
    needs: tuple[tuple[str, ...], ...]
    extra: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    kinds: frozenset[str] | None = None
    compiler: str = ""

    @property
    def is_peer(self) -> bool:
        """Whether it is another library than tinynet."""
        return self.name not in (*OWN, LIMIT)

    @property
    def is_keras(self) -> bool:
        return self.name.startswith("keras")

    @property
    def library(self) -> str:
        """The library it belongs to: "keras-jax" for "keras-jax-fast"."""
        for library in (REFERENCE, "keras-tensorflow", "keras-jax", "keras-torch", "torch"):
            if self.name.startswith(library):
                return library
        return self.name

    def can_express(self, kinds: set[str]) -> bool:
        """Return whether it has all these layers."""
        return self.kinds is None or kinds <= self.kinds

    def installed(self) -> list[str]:
        """Return the distributions it needs that are installed."""
        return [name for alternatives in self.needs for name in alternatives if _is_installed(name)]

    def missing(self) -> str | None:
        """Return what is not installed and, for a library, how to install it; None if nothing is missing."""
        lacking = [
            " or ".join(alternatives)
            for alternatives in self.needs
            if not any(map(_is_installed, alternatives))
        ]
        if lacking:
            return f"{' and '.join(lacking)} not installed: pip install -e '.[{self.extra}]'"
        if self.compiler == "torch.compile" and shutil.which(_cpp_compiler()) is None:
            return f"torch.compile needs a C++ compiler, and {_cpp_compiler()} is not installed"
        return None


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _cpp_compiler() -> str:
    """Return the program that torch.compile starts."""
    return os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")


_TENSORFLOW = (("keras",), ("tensorflow-cpu", "tensorflow"))
_JAX = (("keras",), ("jax",))
_STEPS = {"steps_per_execution": 16}
_XLA = {"jit_compile": True}
_EAGER = "eager; fused optimizer, images preloaded as one tensor, channels_last for images, loss never read"
_COMPILED = "torch.compile(dynamic=False) of forward and loss; the rest as torch"
_AUTOTUNED = 'torch.compile(mode="max-autotune", dynamic=False) of forward and loss; the rest as torch'
_KERAS_COMPILED = (
    "; torch.compile compiles the step in parts, broken at backward() and, with SGD, in the optimizer"
)


def _keras(name: str, title: str, backend: str, **options: Any) -> Contender:
    words = " and ".join(f"{key}={value}" for key, value in options.items()) or "its defaults"
    needs = {"tensorflow": _TENSORFLOW, "jax": _JAX, "torch": (("keras",), ("torch",))}[backend]
    by_torch = backend == "torch" and "jit_compile" in options
    return Contender(
        name,
        title,
        "contender_keras:KerasTrainer",
        f"fit with {words}; float32 images in 0..1, no metrics{_KERAS_COMPILED if by_torch else ''}",
        needs,
        f"bench-{backend}",
        {"backend": backend, **options},
        compiler="torch.compile" if by_torch else "",
    )


def _torch(name: str, title: str, fast_path: str, **options: Any) -> Contender:
    return Contender(
        name,
        title,
        "contender_torch:TorchTrainer",
        fast_path,
        (("torch",),),
        "bench-torch",
        options,
        compiler="torch.compile" if options.get("compile") else "",
    )


CONTENDERS: dict[str, Contender] = {
    contender.name: contender
    for contender in (
        Contender(
            REFERENCE,
            "tinynet, NumPy",
            "contender_tinynet:TinynetTrainer",
            "fit with its defaults and the NumPy engine; images are bytes, scaled batch by batch",
            (("tinynet",),),
            options={"engine": "numpy"},
        ),
        Contender(
            FAST,
            "tinynet, Numba",
            "contender_tinynet:TinynetTrainer",
            "the same with the Numba engine",
            (("tinynet",), ("numba",)),
            "fast",
            {"engine": "numba"},
            compiler="Numba",
        ),
        _keras("keras-tensorflow", "Keras, TensorFlow", "tensorflow"),
        _keras("keras-tensorflow-steps", "Keras, TensorFlow, 16 steps per call", "tensorflow", **_STEPS),
        _keras("keras-tensorflow-fast", "Keras, TensorFlow, XLA, 16 steps", "tensorflow", **_XLA, **_STEPS),
        _keras("keras-jax", "Keras, JAX", "jax"),
        _keras("keras-jax-fast", "Keras, JAX, 16 steps per call", "jax", **_XLA, **_STEPS),
        _keras("keras-torch", "Keras, torch", "torch"),
        _keras("keras-torch-compile", "Keras, torch, compiled", "torch", **_XLA),
        _torch("torch", "PyTorch", _EAGER),
        _torch("torch-1-thread", "PyTorch, 1 thread", f"{_EAGER}; one thread", threads=1),
        _torch("torch-compile", "PyTorch compiled", _COMPILED, compile=True),
        _torch(
            "torch-compile-1-thread",
            "PyTorch compiled, 1 thread",
            f"{_COMPILED}; one thread",
            compile=True,
            threads=1,
        ),
        _torch(
            "torch-max-autotune",
            "PyTorch compiled, max-autotune",
            _AUTOTUNED,
            compile=True,
            mode="max-autotune",
        ),
        Contender(
            "sklearn",
            "scikit-learn",
            "contender_sklearn:SklearnTrainer",
            "MLPClassifier, one partial_fit per epoch; float32 images in 0..1",
            (("scikit-learn",),),
            "bench-sklearn",
            kinds=frozenset({"Flatten", "Dense", "ReLU"}),
        ),
        Contender(
            LIMIT,
            "the limit",
            "",
            "the case's matrix products and nothing else, by NumPy, at its best number of BLAS threads",
            (("numpy",),),
        ),
    )
}
