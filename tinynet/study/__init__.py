"""Tools that make backpropagation visible."""

from tinynet.study.comparison.compare import Comparison, compare
from tinynet.study.gradients.check import gradcheck
from tinynet.study.gradients.report import ElementCheck, GradientReport, TensorCheck
from tinynet.study.over_time.monitor import TrainingMonitor
from tinynet.study.tracing.events import Event
from tinynet.study.tracing.records import LayerTrace, LossTrace, ParameterTrace
from tinynet.study.tracing.trace import Trace, step_through, trace

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
