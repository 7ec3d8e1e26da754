"""A picture from an image file, made into 28 x 28 pixels as the images of Fashion-MNIST were.

Source: Xiao, Rasul & Vollgraf 2017, section 2, which lists the steps; step 4 is ImageMagick's ``-sharpen 1x1``. Two
facts are not in the paper but in the images: the brightest pixel of all 70,000 is 254 or 255, and in over 98% of them
an odd margin has its extra row at the top or its extra column at the left.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

import numpy as np

from tinynet.support.types import Array

# Pillow is imported on first use, as training does not need it.
if TYPE_CHECKING:
    from PIL import Image

SIDE = 28
THUMBNAIL = 73  # longest edge of the shop's thumbnails, 51 x 73, from which the data set was made
LARGEST = 4 * THUMBNAIL  # photos are averaged down to this, because their grain would prevent the trimming
TOLERANCE = 0.05 * 255  # colors within this distance of the background's count as background
FAINTEST = 5.0  # of 255; something that differs less from its background counts as absent
DRAWN_BY_OTHERS = {"EPS", "WMF"}  # kinds of files that Pillow hands to Ghostscript or to Windows
TURNS = {  # what turns a picture upright, by the orientation in its metadata: names in Image.Transpose
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
LIGHT = 160.0  # things cut out are put on black above this mean; below it they look more like the data set on white
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # weights of red, green and blue (ITU-R BT.601)


def from_image_file(path: str | os.PathLike[str]) -> Array:
    """The picture in a file, as an image like those of Fashion-MNIST.

    The file may be of any kind that Pillow decodes, such as PNG, JPEG, WebP, GIF, TIFF and BMP; of several frames, the
    first counts. The picture should show one object on a plain background, light or dark; the background's color is
    taken from the corners. What is cut out, on a transparent ground, is put on black if it is light and on white
    otherwise. Photos taken sideways are turned upright. Then the steps by which the data set was made follow:

    1. Trim edges within 5% of the background's color.
    2. Average a larger picture down to the size of the data set's thumbnails; then drop rows and columns until its
       longest edge is 28.
    3. Convert it to grey, with the background as 0, and invert it unless the object is lighter than its background.
    4. Sharpen it with a Gaussian of radius 1 and standard deviation 1, and scale it to a maximum of 255.
    5. Center it on a canvas of 28 x 28.

    A picture of 28 x 28 pixels on a dark background is taken for an image of the data set: it is only converted to
    grey.

    Args: path: the file.
    Returns: (28, 28) bytes; the background is 0.
    Raises:
        ValueError: naming the file, if it is not a picture, is damaged, too large or shows nothing.
        OSError: if it can't be read.
    """
    picture = _opened(path)
    colors = np.asarray(picture, np.float32)  # (height, width, 3)
    corners = colors[[0, 0, -1, -1], [0, -1, 0, -1]]
    background = np.median(corners, axis=0)  # (3,); the object may hide a corner
    thing = np.sqrt(np.mean((colors - background) ** 2, axis=2)) > TOLERANCE  # (height, width)
    if not thing.any():
        raise _nothing_seen(path)
    greys, level = colors @ GREY, float(background @ GREY)
    if picture.size == (SIDE, SIDE) and level < 128:
        return _to_bytes(greys)
    values = _thumbnail(picture, thing) @ GREY - level
    if (greys - level)[thing].sum() < 0:  # the object is darker than its background
        values = -values
    values = _sharpened(np.maximum(values, 0))
    if values.max() < FAINTEST:
        raise _nothing_seen(path)
    return _centred(_to_bytes(values * (255 / values.max())))


def _nothing_seen(path: str | os.PathLike[str]) -> ValueError:
    return ValueError(
        f"{os.fspath(path)}: expected an object on a plain background, got a picture of one brightness; "
        "use one with more contrast"
    )


def _opened(path: str | os.PathLike[str]) -> Image.Image:
    """The picture of a file in RGB, upright, opaque, and no larger than needed."""
    from PIL import Image, UnidentifiedImageError

    name = os.fspath(path)
    Image.init()
    kinds = [kind for kind in Image.ID if kind not in DRAWN_BY_OTHERS]
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd metadata and large pictures, both usable
        try:
            with Image.open(file, formats=kinds) as opened:  # refuses what is too large before decoding it
                picture = _upright(_with_eight_bits(opened), opened)
        except UnidentifiedImageError:
            raise ValueError(
                f"{name}: expected a picture, such as a PNG or JPEG file, got another kind of file; convert it first"
            ) from None
        except Image.DecompressionBombError as error:
            raise ValueError(f"{name}: the picture is too large: {error}; make it smaller") from None
        except Exception as error:  # Pillow raises many kinds for damaged files
            raise ValueError(f"{name}: the picture is damaged: {error}; use another copy") from error
    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    return _opaque(picture) if picture.mode == "RGBA" else picture


def _upright(picture: Image.Image, opened: Image.Image) -> Image.Image:
    """The picture, turned as the file's metadata says; metadata that makes no sense is ignored."""
    from PIL import Image

    try:  # only the orientation is read: ImageOps.exif_transpose fails if any other tag is odd
        turn = TURNS.get(opened.getexif().get(0x0112))  # type: ignore[arg-type]
    except Exception:
        turn = None
    return picture if turn is None else picture.transpose(Image.Transpose[turn])


def _with_eight_bits(picture: Image.Image) -> Image.Image:
    """The picture in RGB, or in RGBA if parts of it may be transparent."""
    from PIL import Image

    if picture.mode[0] in "IF":  # grey with more than 8 bits, which Pillow would cut off at 255
        return Image.fromarray(_from_deep_grey(np.asarray(picture))).convert("RGB")
    may_be_transparent = "A" in picture.getbands() or "transparency" in picture.info
    return picture.convert("RGBA" if may_be_transparent else "RGB")


def _from_deep_grey(values: Array) -> Array:
    """Grey of 16 or more bits as bytes. White is the largest number with as many bits as are used, at least 8.

    Cameras and scanners write 10, 12 or 14 bits into files of 16. Where nothing is larger than 1, white is 1.
    """
    values = np.clip(np.nan_to_num(values.astype(np.float32)), 0, None)
    most = float(values.max())
    white = 1 if most <= 1 else 2 ** max(8, int(most).bit_length()) - 1
    return _to_bytes(values * (255 / white))


def _opaque(picture: Image.Image) -> Image.Image:
    """The picture on white, or on black if it shows something light that was cut out."""
    from PIL import Image

    pixels = np.asarray(picture, np.float32)  # (height, width, 4)
    opacity = pixels[..., 3]
    edge = np.concatenate([*opacity[[0, -1]], *opacity[:, [0, -1]].T])
    light = np.sum((pixels[..., :3] @ GREY - LIGHT) * opacity) > 0
    ground = Image.new("RGBA", picture.size, "black" if light and edge.mean() < 127.5 else "white")
    return Image.alpha_composite(ground, picture).convert("RGB")


def _thumbnail(picture: Image.Image, thing: Array) -> Array:
    """The part with the object, (height, width, 3), with a longest edge of 28."""
    from PIL import Image

    rows, columns = np.flatnonzero(thing.any(axis=1)), np.flatnonzero(thing.any(axis=0))
    part = picture.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
    longest = max(part.size)
    width, height = (max(1, round(SIDE * size / longest)) for size in part.size)
    part.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(part.resize((width, height), Image.Resampling.NEAREST), np.float32)


def _sharpened(values: Array) -> Array:
    """Each value moved away from the Gaussian mean of its neighbours, as ImageMagick does it."""
    bell = np.exp(-(np.arange(-1, 2) ** 2) / 2)
    kernel = -np.outer(bell, bell)
    kernel[1, 1] = -2 * kernel.sum()
    kernel /= kernel.sum()
    height, width = values.shape
    padded = np.pad(values, 1, mode="edge")
    shares = [kernel[r, c] * padded[r : r + height, c : c + width] for r in range(3) for c in range(3)]
    return np.sum(shares, axis=0)  # type: ignore[no-any-return]


def _to_bytes(values: Array) -> Array:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _centred(values: Array) -> Array:
    """On a canvas of 28 x 28, starting at pixel 14 - size // 2, as in over 98% of the data set's images."""
    height, width = values.shape
    top, left = SIDE // 2 - height // 2, SIDE // 2 - width // 2
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    canvas[top : top + height, left : left + width] = values
    return canvas
