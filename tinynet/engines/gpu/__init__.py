"""The GPU, by way of CuPy: its memory and streams, a CUDA kernel for each operation, and cuBLAS."""

from tinynet.engines.gpu.cublas import allow_tf32

__all__ = ["allow_tf32"]
