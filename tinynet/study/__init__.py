"""Backprop made visible."""

from tinynet.study.gradient_check import GradientReport, TensorCheck, gradcheck

__all__ = ["GradientReport", "TensorCheck", "gradcheck"]
