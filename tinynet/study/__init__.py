"""Backprop made visible."""

from tinynet.study.comparison import Comparison, compare
from tinynet.study.gradient_check import GradientReport, TensorCheck, gradcheck

__all__ = ["Comparison", "GradientReport", "TensorCheck", "compare", "gradcheck"]
