"""Backprop made visible."""

from tinynet.study.gradient_check import gradcheck
from tinynet.study.gradient_report import ElementCheck, GradientReport, TensorCheck

__all__ = ["ElementCheck", "GradientReport", "TensorCheck", "gradcheck"]
