"""Backprop made visible."""

from tinynet.study.events import Event, step_through
from tinynet.study.gradient_check import GradientReport, TensorCheck, gradcheck
from tinynet.study.tracing import LayerTrace, LossTrace, ParameterTrace, Trace, trace

__all__ = [
    "Event",
    "GradientReport",
    "LayerTrace",
    "LossTrace",
    "ParameterTrace",
    "TensorCheck",
    "Trace",
    "gradcheck",
    "step_through",
    "trace",
]
