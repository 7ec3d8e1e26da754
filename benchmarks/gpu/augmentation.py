"""Flip, shift and erase in one gather, on the device, for libraries without such augmentation of their own.

From the same draws it makes the same images as `tinynet.datasets.augment`, which is tested; each library makes its own
draws. It works with any module whose arrays index and broadcast like NumPy's: torch, jax.numpy, numpy.
"""

from typing import Any, NamedTuple


class Draws(NamedTuple):
    """The random decisions for each of n images; arrays (n,)."""

    mirrored: Any  # bool
    up: Any  # 0 to 2 pixels: where the window in the padded image begins; `pixels` means no shift
    left: Any
    erased: Any  # bool
    top: Any  # of the square
    side: Any


def augmented(xp: Any, images: Any, arange: Any, draws: Draws, pixels: int, size: int) -> Any:
    """Return images (n, h, w), each mirrored, shifted and with a square set to 0 as its draws say.

    Args: xp: the module; arange: function of one number, its array is on the images' device; pixels: the largest shift;
        size: the side of the square.
    """
    n, height, width = images.shape
    down, across = arange(height)[None], arange(width)[None]
    rows = down + (draws.up - pixels)[:, None]  # (n, h): where each pixel comes from
    columns = across + (draws.left - pixels)[:, None]  # (n, w)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    columns = xp.where(draws.mirrored[:, None], width - 1 - columns, columns)
    rows, columns = xp.clip(rows, 0, height - 1), xp.clip(columns, 0, width - 1)
    moved = images[arange(n)[:, None, None], rows[:, :, None], columns[:, None]]
    in_rows = (down >= draws.top[:, None]) & (down < draws.top[:, None] + size)
    in_columns = (across >= draws.side[:, None]) & (across < draws.side[:, None] + size)
    painted = draws.erased[:, None, None] & in_rows[:, :, None] & in_columns[:, None]
    return xp.where(inside & ~painted, moved, xp.zeros_like(moved))
