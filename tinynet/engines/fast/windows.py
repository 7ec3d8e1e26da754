"""The pixels under windows, over images (c, h, w n), each row flat. NumPy bodies: `tinynet.layers.windows.patches`."""

from typing import Any

from tinynet.engines.fast.arrays import dense
from tinynet.engines.fast.compile import kernel, loop
from tinynet.support.types import Array


@loop
def take_windows(padded: Array, windows: Any, rows: slice, columns: Array) -> Any:
    return _move_windows(_take_windows, padded, windows, rows, columns)


@kernel
def _take_windows(padded: Array, n: int, top: int, down: int, across: int, columns: Array) -> None:
    """columns[u, v, c, i, j] = padded[c, top + i down + u, j across + v], for strides down and across."""
    kh, kw, channels, rows, length = columns.shape
    run = length if across == 1 else n  # numbers that lie side by side in both
    for u in range(kh):
        for v in range(kw):
            for c in range(channels):
                for i in range(rows):
                    row = padded[c, top + i * down + u]
                    for start in range(0, length, run):
                        pixels = row[(start // n * across + v) * n :]
                        column = columns[u, v, c, i, start : start + run]
                        for k in range(run):
                            column[k] = pixels[k]


@loop
def add_windows(columns: Array, padded: Array, windows: Any, rows: slice) -> Any:
    return _move_windows(_add_windows, padded, windows, rows, columns)


@kernel
def _add_windows(padded: Array, n: int, top: int, down: int, across: int, columns: Array) -> None:
    """padded[c, top + i down + u, j across + v] += columns[u, v, c, i, j]"""
    kh, kw, channels, rows, length = columns.shape
    run = length if across == 1 else n
    for c in range(channels):
        for u in range(kh):
            for i in range(rows):
                row = padded[c, top + i * down + u]
                for v in range(kw):
                    for start in range(0, length, run):
                        pixels = row[(start // n * across + v) * n :]
                        column = columns[u, v, c, i, start : start + run]
                        for k in range(run):
                            pixels[k] += column[k]


def _move_windows(move: Any, padded: Array, windows: Any, rows: slice, columns: Array) -> Any:
    if not padded.size or not dense(padded, columns):
        return NotImplemented
    (down, across), (channels, height, width, n) = windows, padded.shape
    shape = down.size, across.size, channels, rows.stop - rows.start, across.outputs * n
    flat = padded.reshape(channels, height, width * n)
    move(flat, n, rows.start * down.stride, down.stride, across.stride, columns.reshape(shape))
    return None
