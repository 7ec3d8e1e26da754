"""A layer's matrix products as equations of shapes with named axes, which show why a matrix is transposed."""

from typing import NamedTuple

from tinynet.layers import Conv2D, Dense
from tinynet.study.tracing.records import LayerTrace


class Axis(NamedTuple):
    """One side of a matrix."""

    name: str  # "in"
    size: int


class Matrix(NamedTuple):
    """A matrix in an equation; rows and columns are those after transposing."""

    name: str  # "x"
    rows: Axis
    columns: Axis
    transposed: bool = False

    @property
    def T(self) -> "Matrix":
        """The same matrix, transposed."""
        return Matrix(self.name, self.columns, self.rows, not self.transposed)

    def __str__(self) -> str:
        return f"{self.name}{'^T' if self.transposed else ''} ({self.rows.size:,} x {self.columns.size:,})"


class Equation(NamedTuple):
    """result = left . right (+ added). The sum runs over the columns of left, which are the rows of right."""

    result: Matrix
    left: Matrix
    right: Matrix
    added: str  # " + b", or ""
    why: str

    def __str__(self) -> str:
        return f"{self.result} = {self.left} . {self.right}{self.added}"


class Equations(NamedTuple):
    """A layer's products: the one in forward, and those in backward for the gradients that exist."""

    forward: Equation
    backward: tuple[Equation, ...]


def equations(record: LayerTrace) -> Equations | None:
    """The equations of a Dense or Conv2D layer; None for a layer without a matrix product."""
    if isinstance(record.layer, Dense):
        return _dense(record)
    if isinstance(record.layer, Conv2D):
        return _convolution(record)
    return None


def _dense(record: LayerTrace) -> Equations:
    (n, fan_in), fan_out = record.x.shape, record.y.shape[1]
    images, inputs, outputs = Axis("n", n), Axis("in", fan_in), Axis("out", fan_out)
    x, W, y = Matrix("x", images, inputs), Matrix("W", inputs, outputs), Matrix("y", images, outputs)
    dy, dW, dx = (matrix._replace(name=f"d{matrix.name}") for matrix in (y, W, x))
    bias = " + b" if "b" in record.parameters else ""
    return _products(
        record, Equation(y, x, W, bias, _why("y", inputs, "inputs")), x, W, dy, dW, dx, "examples"
    )


def _convolution(record: LayerTrace) -> Equations:
    n, down, across, fan_out = record.y.shape
    kh, kw, channels = record.parameters["W"].value.shape[:3]
    places = Axis("n · down · across", n * down * across)
    window, outputs = Axis("kh · kw · c_in", kh * kw * channels), Axis("c_out", fan_out)
    x, W, y = Matrix("windows", places, window), Matrix("W", window, outputs), Matrix("y", places, outputs)
    dy, dW = y._replace(name="dy"), W._replace(name="dW")
    dx = x._replace(name="dwindows")
    bias = " + b" if "b" in record.parameters else ""
    forward = Equation(
        y,
        x,
        W,
        bias,
        f"Each row of windows is one flattened {kh} x {kw} patch of x. " + _why("y", window, "numbers"),
    )
    return _products(record, forward, x, W, dy, dW, dx, "positions in all images")


def _products(
    record: LayerTrace,
    forward: Equation,
    x: Matrix,
    W: Matrix,
    dy: Matrix,
    dW: Matrix,
    dx: Matrix,
    summed: str,
) -> Equations:
    backward = []
    if record.dy is not None and record.parameters["W"].gradient is not None:
        why = (
            f"dW has the shape of W: {W.rows.name} by {W.columns.name}. {x.name} and dy share the axis "
            f"{x.rows.name}, so the sum runs over it: over {x.rows.size:,} {summed}. {x.name} is transposed because "
            "the sum in a product runs over the columns of the left matrix."
        )
        backward.append(Equation(dW, x.T, dy, "", why))
    if record.dx is not None:
        why = (
            f"{dx.name} has the shape of {x.name}: {x.rows.name} by {x.columns.name}. Each number in y came from one "
            f"column of W, and its gradient in {dy.name} goes back through that column. So the sum runs over the "
            f"axis {dy.columns.name}, and W is transposed."
        )
        if x.name == "windows":
            why += " Where windows overlap, a pixel of dx is the sum of its gradients in all of them."
        backward.append(Equation(dx, dy, W.T, "", why))
    return Equations(forward, tuple(backward))


def _why(name: str, axis: Axis, what: str) -> str:
    return f"Each number in {name} is a sum over the axis {axis.name}: {axis.size:,} {what}, each times its weight."
