"""Tools that make backpropagation visible."""

from tinynet.study.comparison import Comparison, compare
from tinynet.study.events import Event
from tinynet.study.gradient_check import gradcheck
from tinynet.study.gradient_report import ElementCheck, GradientReport, TensorCheck
from tinynet.study.over_time import TrainingMonitor
from tinynet.study.records import LayerTrace, LossTrace, ParameterTrace
from tinynet.study.tracing import Trace, step_through, trace

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
