"""A model as a table."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from tinynet.layers import Layer
from tinynet.support.arguments import shown_arguments
from tinynet.support.checks import batch_shape
from tinynet.support.types import Shape


class LayerRow(NamedTuple):
    """One layer, as `summary` and `plots.plot_model` show it."""

    name: str  # its path, such as "2"
    kind: str  # its class, "Dense"
    detail: str  # its non-default arguments, such as "units=300"
    output_shape: Shape
    params: int  # including state that is not trained
    multiply_adds: int  # of one example's forward pass
    trainable_params: int


def rows(layers: Iterable[tuple[str, Layer]]) -> list[LayerRow]:
    """Return a row for each built layer, given with its path."""
    described = []
    for path, layer in layers:
        params = sum(math.prod(spec.shape) for spec in layer.param_specs.values())
        state = sum(getattr(layer, name).size for name in layer.state_names)
        described.append(
            LayerRow(
                name=path,
                kind=type(layer).__name__,
                detail="" if layer.children else shown_arguments(layer),  # children have rows of their own
                output_shape=layer.output_shape or (),
                params=params + state,
                multiply_adds=0 if layer.children else layer.multiply_adds(),
                trainable_params=params if layer.trainable else 0,
            )
        )
    return described


def table(rows: list[LayerRow], dtype: np.dtype[np.generic], input_shape: Shape, vector_size: int) -> str:
    """Return a table like Keras's, with multiply-adds, followed by the totals and their memory.

    ``vector_size``: the number of parameters, including frozen ones.
    """
    header = ("Layer (type)", "Output Shape", "Param #", "Multiply-adds")
    cells = [
        (
            f"{row.name} ({row.kind})",
            batch_shape(row.output_shape).replace("batch", "None"),
            f"{row.params:,}",
            f"{row.multiply_adds:,}",
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in [header, *cells]) + 2 for column in range(4)]

    def line(texts: tuple[str, ...]) -> str:
        left = f"{texts[0]:<{widths[0]}}{texts[1]:<{widths[1]}}"
        return f"{left}{texts[2]:>{widths[2]}}{texts[3]:>{widths[3]}}"

    total = sum(row.params for row in rows)
    trainable = sum(row.trainable_params for row in rows)
    activations = sum(math.prod(row.output_shape) for row in rows)
    size = dtype.itemsize
    rule = "=" * sum(widths)
    return "\n".join(
        [
            f"Model: Sequential, input {batch_shape(input_shape).replace('batch', 'None')}, {dtype}",
            rule,
            line(header),
            rule,
            *(line(texts) for texts in cells),
            rule,
            f"Total params: {total:,} ({memory(total * size)})",
            f"Trainable params: {trainable:,} ({memory(trainable * size)})",
            f"Non-trainable params: {total - trainable:,} ({memory((total - trainable) * size)})",
            f"Multiply-adds: {sum(row.multiply_adds for row in rows):,} per example, forward",
            f"Memory in training: {memory(2 * vector_size * size)} for parameters and gradients, "
            f"{memory(2 * activations * size)} per example for outputs and their gradients",
        ]
    )


def memory(count: int) -> str:
    """Format a number of bytes: 397.54 KB (1 KB is 1,024 bytes, as in Keras)."""
    value = float(count)
    for unit in ("B", "KB", "MB"):
        if value < 1024:
            return f"{value:.2f} {unit}"
        value /= 1024
    return f"{value:.2f} GB"
