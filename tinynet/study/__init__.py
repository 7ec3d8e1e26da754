"""Backprop made visible."""

from tinynet.study.comparison import Comparison, compare
from tinynet.study.events import Event, step_through
from tinynet.study.gradient_check import gradcheck
from tinynet.study.gradient_report import ElementCheck, GradientReport, TensorCheck
from tinynet.study.over_time import TrainingMonitor
from tinynet.study.tracing import LayerTrace, LossTrace, ParameterTrace, Trace, trace

__all__ = [
    "Comparison",
    "ElementCheck",
    "Event",
    "GradientReport",
    "LayerTrace",
    "LossTrace",
    "ParameterTrace",
    "TensorCheck",
    "Trace",
    "TrainingMonitor",
    "compare",
    "gradcheck",
    "step_through",
    "trace",
]
