"""from_image_file: real files, written by Pillow, become what the makers of the data set would have made of them."""

from __future__ import annotations

import io
import math
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from tinynet.datasets import convert, from_image_file
from tinynet.support.types import Array

SMOOTH, SHARP = Image.Resampling.BICUBIC, Image.Resampling.NEAREST


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for property tests, which can't use tmp_path."""
    return tmp_path_factory.mktemp("pictures")


def converted(picture: Image.Image, folder: Path, kind: str = "PNG", **settings: Any) -> Array:
    path = folder / f"picture.{kind.lower()}"
    picture.save(path, kind, **settings)
    image = from_image_file(path)
    assert (image.shape, image.dtype) == ((28, 28), np.uint8)
    return image


def block(
    size: tuple[int, int],
    box: tuple[int, int, int, int],
    color: Any = 0,
    background: Any = 255,
    mode: str = "L",
) -> Image.Image:
    """A picture (width, height) of one color with a box (left, top, right, bottom) of another."""
    picture = Image.new(mode, size, background)
    picture.paste(color, box)
    return picture


def expected_block(width: int, height: int) -> Array:
    """The expected image of a block: where it ends up, and how large."""
    longest = max(width, height)
    width, height = max(1, round(28 * width / longest)), max(1, round(28 * height / longest))
    image = np.zeros((28, 28), np.uint8)
    top, left = math.ceil((28 - height) / 2), math.ceil((28 - width) / 2)
    image[top : top + height, left : left + width] = 255
    return image


def enlarged(image: Array, how: Image.Resampling = SMOOTH, size: tuple[int, int] = (400, 300)) -> Image.Image:
    """An image of the data set as a picture on a white background, as in a shop."""
    side = min(size) - 20
    picture = Image.new("L", size, 255)
    place = (size[0] - side) // 2, (size[1] - side) // 2
    picture.paste(Image.fromarray(255 - image).resize((side, side), how), place)
    return picture


def noisy(picture: Image.Image) -> Image.Image:
    """The picture as a photo might show it: white is not quite white, and the paper has a grain."""
    noise = np.random.default_rng(0).normal(0, 4, (picture.height, picture.width))
    return Image.fromarray(np.clip(np.asarray(picture) * 0.94 + noise, 0, 255).astype(np.uint8))


def t_shirt(mode: str = "RGB", color: Any = (20, 40, 160), background: Any = (255, 255, 255)) -> Image.Image:
    """A picture that has no symmetry."""
    picture = Image.new(mode, (90, 120), background)
    for box in ((10, 20, 80, 45), (25, 20, 65, 110), (60, 60, 65, 114)):
        picture.paste(color, box)
    return picture


class TestSteps:
    @given(st.data(), st.integers(1, 90), st.integers(1, 90), st.integers(1, 9), st.integers(1, 9))
    def test_a_block_is_trimmed_resized_and_centred(
        self, folder: Path, data: st.DataObject, width: int, height: int, left: int, top: int
    ) -> None:
        size = width + left + data.draw(st.integers(1, 9)), height + top + data.draw(st.integers(1, 9))
        background, color = data.draw(
            st.tuples(st.integers(0, 255), st.integers(0, 255)).filter(
                lambda pair: abs(pair[0] - pair[1]) > 13
            )
        )
        if size == (28, 28):  # would be taken for an image of the data set
            size = 28, 29
        picture = block(size, (left, top, left + width, top + height), color, background)
        np.testing.assert_array_equal(converted(picture, folder), expected_block(width, height))

    @pytest.mark.parametrize(
        ("size", "box"),
        [
            ((5000, 20), (10, 5, 4990, 15)),
            ((20, 5000), (5, 10, 15, 4990)),
            ((3000, 1), (100, 0, 2900, 1)),
            ((1, 3000), (0, 100, 1, 2900)),
            ((2000, 2000), (500, 500, 1500, 1500)),
            ((3, 3), (1, 1, 2, 2)),
            ((3, 1), (1, 0, 2, 1)),
        ],
    )
    def test_extreme_sizes(self, folder: Path, size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
        image = converted(block(size, box), folder)
        expected = expected_block(box[2] - box[0], box[3] - box[1])
        assert abs(int((image > 127).sum()) - int((expected > 127).sum())) <= 28

    def test_a_hidden_corner_does_not_matter(self, folder: Path) -> None:
        picture = block((60, 60), (0, 0, 30, 20))
        np.testing.assert_array_equal(converted(picture, folder), expected_block(30, 20))

    def test_what_is_close_to_the_background_is_trimmed(self, folder: Path) -> None:
        picture = block((100, 100), (40, 40, 60, 50), 0, 240)
        picture.paste(235, (5, 5, 90, 30))
        np.testing.assert_array_equal(converted(picture, folder), expected_block(20, 10))
        picture.paste(225, (40, 5, 60, 30))  # not close
        assert converted(picture, folder)[0].any()

    def test_closeness_is_that_of_colors(self, folder: Path) -> None:
        blue, teal = (0, 0, 255), (0, 87, 0)  # nearly the same grey
        image = converted(block((50, 50), (10, 10, 30, 40), teal, blue, "RGB"), folder)
        np.testing.assert_array_equal(image, expected_block(20, 30))

    def test_the_longest_edge_loses_rows_and_columns(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of 56, every second one is kept as it is; none becomes a mean of two."""
        monkeypatch.setattr(convert, "_sharpened", lambda values: values)
        pixels = np.random.default_rng(0).choice(np.array([0, 100, 200], np.uint8), (56, 56))
        pixels[[0, 0, -1, -1], [0, -1, 0, -1]] = 255
        image = converted(Image.fromarray(pixels), folder)
        expected = 255 - pixels[1::2, 1::2]
        expected[-1, -1] = 0
        np.testing.assert_array_equal(image, expected)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 28), (28, 28), (9, 20)])
    def test_sharpening_leaves_the_flat_flat(self, shape: tuple[int, int]) -> None:
        np.testing.assert_allclose(convert._sharpened(np.full(shape, 7.0)), 7)

    def test_sharpening_is_imagemagicks(self) -> None:
        point = np.zeros((5, 5))
        point[2, 2] = 1
        side, corner = math.exp(-0.5), math.exp(-1)
        total = 1 + 4 * side + 4 * corner
        expected = np.zeros((5, 5))
        expected[1:4, 1:4] = [[-corner, -side, -corner], [-side, 2 * total, -side], [-corner, -side, -corner]]
        np.testing.assert_allclose(convert._sharpened(point), expected / (1 + total))

    def test_a_larger_picture_is_averaged_before_that(self, folder: Path) -> None:
        """Sixteen random black or white pixels are seldom all white; a single one is white half the time."""
        pixels = np.full((290, 290), 255, np.uint8)
        pixels[5:-5, 5:-5] = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (280, 280))
        pixels[4:-4, [4, -5]] = pixels[[4, -5], 4:-4] = 0
        assert (converted(Image.fromarray(pixels), folder) == 0).mean() < 0.05

    def test_a_picture_is_sharpened_then_scaled(self, folder: Path) -> None:
        pixels = np.full((30, 30), 255, np.uint8)
        pixels[1:-1, 1:-1] = np.random.default_rng(0).integers(0, 200, (28, 28))
        sharp = convert._sharpened(255.0 - pixels[1:-1, 1:-1])
        expected = np.clip(np.rint(sharp * 255 / sharp.max()), 0, 255)
        np.testing.assert_allclose(converted(Image.fromarray(pixels), folder), expected, atol=1)

    def test_what_is_lighter_than_a_light_background_is_background(self, folder: Path) -> None:
        picture = block((40, 40), (5, 5, 35, 35), 40, 200)
        picture.paste(200, (10, 10, 20, 20))
        expected = converted(picture, folder)
        picture.paste(250, (10, 10, 20, 20))
        np.testing.assert_array_equal(converted(picture, folder), expected)

    def test_the_brightest_pixel_becomes_255(self, folder: Path) -> None:
        pale = t_shirt("L", 200, 230)
        assert converted(pale, folder).max() == 255
        dark = ImageOps.invert(pale)  # means of its bytes are rounded, then scaled up eightfold
        np.testing.assert_allclose(converted(dark, folder), converted(pale, folder).astype(int), atol=20)


@pytest.mark.data
class TestImagesOfTheDataSet:
    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "I;16"])
    def test_one_of_28_by_28_stays_as_it_is(self, mode: str, folder: Path, fashion_mnist: Any) -> None:
        for image in fashion_mnist[1][0][:20]:
            picture = Image.fromarray(image)
            picture = (
                Image.fromarray(image.astype(np.uint16) * 257) if mode == "I;16" else picture.convert(mode)
            )
            np.testing.assert_array_equal(converted(picture, folder), image)

    def test_its_negative_is_a_picture_like_others(self, folder: Path, fashion_mnist: Any) -> None:
        for image in fashion_mnist[1][0][:20]:
            assert np.abs(converted(Image.fromarray(255 - image), folder).astype(int) - image).mean() < 60

    def test_as_a_jpeg_it_nearly_does(self, folder: Path, fashion_mnist: Any) -> None:
        for image in fashion_mnist[1][0][:20]:
            again = converted(Image.fromarray(image), folder, "JPEG", quality=95)
            assert np.abs(again.astype(int) - image).mean() < 3

    def test_in_all_of_them_the_brightest_pixel_is_white(self, fashion_mnist: Any) -> None:
        """The basis of step 4."""
        for images, _ in fashion_mnist:
            assert images.max(axis=(1, 2)).min() >= 254

    def test_in_nearly_all_of_them_the_odd_margin_comes_first(self, fashion_mnist: Any) -> None:
        """The basis of step 5."""
        for axis in (1, 2):
            inked = fashion_mnist[1][0].any(axis=axis)  # (n, 28)
            first, last = inked.argmax(axis=1), 27 - inked[:, ::-1].argmax(axis=1)
            assert (first == 14 - (last - first + 1) // 2).mean() > 0.98

    @pytest.mark.parametrize("light", [True, False])
    def test_without_sharpening_they_are_found_again(
        self, light: bool, folder: Path, fashion_mnist: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Enlarged, then trimmed, reduced to 28 and centered, an image is nearly the same again.

        The exceptions have an edge within 5% of the background, which is trimmed off.
        """
        monkeypatch.setattr(convert, "_sharpened", lambda values: values)
        errors = []
        for image in fashion_mnist[1][0][:100]:
            picture = enlarged(image, SHARP)
            again = converted(picture if light else ImageOps.invert(picture), folder)
            errors.append(np.abs(again.astype(int) - image).mean())
        assert np.mean(errors) < 4
        assert np.mean(np.array(errors) < 1) > 0.7

    # They are sharpened a second time: their edges become brighter, and the rest, after scaling to 255, darker.
    @pytest.mark.parametrize(
        ("change", "kind"),
        [
            (lambda picture: picture, "PNG"),
            (lambda picture: picture, "JPEG"),
            (ImageOps.invert, "PNG"),
            (lambda picture: ImageOps.colorize(picture, (0, 0, 90), (255, 255, 255)), "JPEG"),
            (lambda picture: ImageOps.colorize(picture, (0, 0, 0), (225, 225, 225)), "PNG"),
            (lambda picture: picture.resize((1000, 750), SMOOTH), "JPEG"),
            (lambda picture: noisy(picture.resize((1000, 750), SMOOTH)), "JPEG"),
            (lambda picture: picture.resize((80, 60), Image.Resampling.BOX), "PNG"),
        ],
        ids=["white", "jpeg", "black", "blue jpeg", "pale ground", "large jpeg", "noisy photo", "thumbnail"],
    )
    def test_as_pictures_they_come_near(
        self, change: Callable[[Image.Image], Image.Image], kind: str, folder: Path, fashion_mnist: Any
    ) -> None:
        images = fashion_mnist[1][0][:30]
        errors = [
            np.abs(converted(change(enlarged(image)), folder, kind).astype(int) - image).mean()
            for image in images
        ]
        assert np.mean(errors) < 22  # of 255; measured: 16 to 20
        assert np.max(errors) < 60


PLAIN = t_shirt()
SHADED = Image.fromarray(np.pad(np.arange(180, dtype=np.uint8).reshape(10, 18), 4, constant_values=255))


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block of entries: tag, type, count and data, which no writer checks."""
    place, directory, far = 14 + 12 * len(entries), struct.pack("<H", len(entries)), b""
    for tag, kind, count, content in sorted(entries):
        field = content.ljust(4, b"\0") if len(content) <= 4 else struct.pack("<I", place + len(far))
        far += content if len(content) > 4 else b""
        directory += struct.pack("<HHI", tag, kind, count) + field
    return b"Exif\0\0II*\0\x08\0\0\0" + directory + bytes(4) + far


SIDEWAYS = (0x112, 3, 1, b"\x06\0")
ODD_TAGS = {
    "resolution of -1/0": (0x11A, 10, 1, struct.pack("<ii", -1, 0)),
    "resolution of 0/0": (0x11A, 5, 1, struct.pack("<II", 0, 0)),
    "resolution of NaN": (0x11A, 11, 1, struct.pack("<f", math.nan)),
    "resolution of infinity": (0x11A, 12, 1, struct.pack("<d", math.inf)),
    "resolution in words": (0x11A, 2, 6, b"words\0"),
    "negative width": (0x100, 9, 1, struct.pack("<i", -5)),
    "width in words": (0x100, 2, 6, b"words\0"),
    "directory beyond the end": (0x8769, 4, 1, struct.pack("<I", 99_999)),
}


class TestKindsOfFiles:
    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_a_picture_taken_sideways_is_turned_upright(
        self, kind: str, orientation: int, folder: Path
    ) -> None:
        turns = Image.Transpose
        stored = {
            2: turns.FLIP_LEFT_RIGHT,
            3: turns.ROTATE_180,
            4: turns.FLIP_TOP_BOTTOM,
            5: turns.TRANSPOSE,
            6: turns.ROTATE_90,
            7: turns.TRANSVERSE,
            8: turns.ROTATE_270,
        }
        picture = PLAIN.transpose(stored[orientation]) if orientation > 1 else PLAIN
        exif = Image.Exif()
        exif[0x0112] = orientation
        settings = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
        image = converted(picture, folder, kind, exif=exif, **settings)
        assert np.abs(image.astype(int) - converted(PLAIN, folder)).mean() < (1 if kind == "JPEG" else 1e-9)

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    @pytest.mark.parametrize("odd", ODD_TAGS)
    def test_one_odd_tag_does_not_hide_the_orientation(self, odd: str, kind: str, folder: Path) -> None:
        picture = PLAIN.transpose(Image.Transpose.ROTATE_90)
        settings = {"PNG": {}, "JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}[kind]
        image = converted(picture, folder, kind, exif=exif(SIDEWAYS, ODD_TAGS[odd]), **settings)
        assert np.abs(image.astype(int) - converted(PLAIN, folder)).mean() < (1 if kind == "JPEG" else 1e-9)

    @pytest.mark.parametrize("kind", ["TIFF", "WEBP", "AVIF"])
    def test_other_kinds_are_turned_upright_too(self, kind: str, folder: Path) -> None:
        Image.init()
        if kind not in Image.SAVE:
            pytest.skip(f"this Pillow does not write {kind}")
        sideways = Image.Exif()
        sideways[0x0112] = 6
        image = converted(PLAIN.transpose(Image.Transpose.ROTATE_90), folder, kind, exif=sideways)
        assert np.abs(image.astype(int) - converted(PLAIN, folder)).mean() < 4

    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK"])
    def test_the_way_colors_are_stored_does_not_matter(self, mode: str, folder: Path) -> None:
        picture = t_shirt("RGB", (0, 0, 0)).convert(mode)
        image = converted(
            picture, folder, "JPEG" if mode == "CMYK" else "PNG", **{"quality": 100} if mode == "CMYK" else {}
        )
        expected = converted(t_shirt("L", 0, 255), folder)
        assert np.abs(image.astype(int) - expected).mean() < (2 if mode == "CMYK" else 1e-9)

    @pytest.mark.parametrize("settings", [{"progressive": True}, {"quality": 30}, {"keep_rgb": True}])
    def test_jpegs(self, settings: dict[str, Any], folder: Path) -> None:
        picture = PLAIN.resize((900, 1200), SHARP)
        image = converted(picture, folder, "JPEG", **settings)
        assert np.abs(image.astype(int) - converted(picture, folder)).mean() < 8

    def test_grey_of_16_bits(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        pixels = np.full((40, 50), 255, np.uint8)
        pixels[5:30, 8:40] = rng.integers(0, 200, (25, 32))
        deep = Image.fromarray(pixels.astype(np.uint16) * 257)
        np.testing.assert_array_equal(converted(deep, folder), converted(Image.fromarray(pixels), folder))

    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    @pytest.mark.parametrize("bits", [8, 10, 12, 14])
    def test_grey_that_uses_some_of_16_bits(self, bits: int, kind: str, folder: Path) -> None:
        pixels = np.asarray(SHADED, np.float64) / 255
        deep = Image.fromarray(np.rint(pixels * (2**bits - 1)).astype(np.uint16))
        assert np.abs(converted(deep, folder, kind).astype(int) - converted(SHADED, folder)).max() <= 1

    @pytest.mark.parametrize("scale", [1 / 255, 1, 257])
    @pytest.mark.parametrize("dtype", [np.int32, np.float32])
    def test_grey_of_32_bits(self, scale: float, dtype: Any, folder: Path) -> None:
        if dtype is np.int32 and scale < 1:
            return
        values = (np.asarray(SHADED, np.float64) * scale).astype(dtype)
        np.testing.assert_array_equal(
            converted(Image.fromarray(values), folder, "TIFF"), converted(SHADED, folder)
        )
        values[0, 0] = -1 if dtype is np.int32 else np.nan
        assert converted(Image.fromarray(values), folder, "TIFF").any()

    @pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG2000", "PPM", "TGA", "TIFF", "WEBP", "QOI", "AVIF"])
    def test_kinds_that_pillow_decodes(self, kind: str, folder: Path) -> None:
        Image.init()
        if kind not in Image.SAVE:
            pytest.skip(f"this Pillow does not write {kind}")
        settings = {"lossless": True} if kind == "WEBP" else {}
        image = converted(PLAIN, folder, kind, **settings)
        assert np.abs(image.astype(int) - converted(PLAIN, folder)).mean() < (2 if kind == "AVIF" else 1e-9)

    @pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
    def test_of_several_frames_the_first_counts(self, kind: str, folder: Path) -> None:
        other = PLAIN.transpose(Image.Transpose.ROTATE_180)
        settings = {"lossless": True} if kind == "WEBP" else {}
        image = converted(PLAIN, folder, kind, save_all=True, append_images=[other, other], **settings)
        np.testing.assert_array_equal(image, converted(PLAIN, folder))

    def test_what_other_programs_would_draw_is_refused(self, folder: Path, monkeypatch: Any) -> None:
        """Pillow starts Ghostscript for PostScript, which is a program, not a picture."""
        monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("started"))
        with pytest.raises(ValueError, match="got another kind of file"):
            converted(PLAIN, folder, "EPS")

    @pytest.mark.parametrize("grey", [0, 60, 200, 255])
    def test_what_is_cut_out_is_put_on_what_contrasts(self, grey: int, folder: Path) -> None:
        picture = t_shirt("RGBA", (grey, grey, grey, 255), (128, 128, 128, 0))
        np.testing.assert_allclose(converted(picture, folder), converted(PLAIN, folder), atol=1)

    def test_a_picture_with_round_corners_was_not_cut_out(self, folder: Path) -> None:
        picture = PLAIN.convert("RGBA")
        for corner in ((0, 0), (85, 0), (0, 115), (85, 115)):
            picture.paste((0, 0, 0, 0), (*corner, corner[0] + 5, corner[1] + 5))
        np.testing.assert_array_equal(converted(picture, folder), converted(PLAIN, folder))

    def test_transparent_parts_around_dark_things_count_as_white(self, folder: Path) -> None:
        expected = converted(PLAIN, folder)
        thing = Image.fromarray((np.asarray(PLAIN.convert("L")) < 255).astype(np.uint8) * 255)
        for hidden in ((0, 0, 0), (255, 0, 0)):  # the color behind the transparency
            picture = t_shirt("RGB", background=hidden)
            picture.putalpha(thing)
            np.testing.assert_array_equal(converted(picture, folder), expected)
            picture = t_shirt("RGB", background=hidden)
            np.testing.assert_array_equal(converted(picture, folder, transparency=hidden), expected)
        grey = t_shirt("L", 50, 0)
        np.testing.assert_array_equal(
            converted(grey, folder, transparency=0), converted(t_shirt("L", 50, 255), folder)
        )

    def test_a_palette_with_transparency(self, folder: Path) -> None:
        picture = Image.new("P", (90, 120), 0)
        picture.putpalette([9, 9, 9, 20, 40, 160])
        picture.paste(1, (20, 30, 60, 90))
        expected = expected_block(40, 60)
        for transparency in (0, b"\x00\xff"):
            np.testing.assert_array_equal(converted(picture, folder, transparency=transparency), expected)

    def test_names_that_are_strings_or_not_ascii(self, tmp_path: Path) -> None:
        path = tmp_path / "Überhemd 衬衫.PNG"
        PLAIN.save(path)
        np.testing.assert_array_equal(from_image_file(str(path)), from_image_file(path))

    def test_the_contents_count_not_the_suffix(self, tmp_path: Path) -> None:
        PLAIN.save(tmp_path / "picture.txt", "PNG")
        assert from_image_file(tmp_path / "picture.txt").any()


def saved(picture: Image.Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **settings)
    return buffer.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG that announces this size but has hardly any pixels."""
    chunks = [
        b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0),
        b"IDAT" + zlib.compress(b"\0\0"),
    ]
    pieces = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)


def announcing(kind: str, width: int, height: int) -> bytes:
    """A small file whose header announces a picture of this size."""
    content = bytearray(saved(Image.new("RGB", (9, 9)), kind))
    place, form = {"GIF": (6, "<HH"), "BMP": (18, "<ii")}[kind]
    struct.pack_into(form, content, place, width, height)
    return bytes(content)


LONG_TEXT = PngImagePlugin.PngInfo()
LONG_TEXT.add_text("comment", "x" * 3_000_000, zip=True)
PNG, JPEG, GIF = saved(PLAIN, "PNG"), saved(PLAIN, "JPEG"), saved(PLAIN, "GIF")
UNSEEN = "expected an object on a plain background, got a picture of one brightness"
REFUSED = {
    "text": (b"a shirt, blue", "expected a picture, such as a PNG or JPEG file, got another kind of file"),
    "nothing": (b"", "expected a picture"),
    "PDF": (saved(PLAIN, "PDF"), "expected a picture"),
    "half a GIF": (GIF[: len(GIF) // 2], "the picture is damaged: .*truncated"),
    "huge GIF": (announcing("GIF", 60_000, 60_000), "the picture is too large: .*; make it smaller"),
    "huge BMP": (announcing("BMP", 60_000, 60_000), "the picture is too large: .*; make it smaller"),
    "huge TIFF": (
        saved(Image.new("1", (50_000, 10_000)), "TIFF", compression="group4"),
        "the picture is too large: .*; make it smaller",
    ),
    "half a PNG": (PNG[: len(PNG) // 2], "the picture is damaged: .*; use another copy"),
    "half a JPEG": (JPEG[: len(JPEG) // 2], "the picture is damaged: .*truncated"),
    "the beginning of a PNG": (PNG[:20], "expected a picture|the picture is damaged"),
    "PNG without pixels": (png_of(5, 5), "the picture is damaged"),
    "PNG with a text that is a bomb": (
        saved(PLAIN, "PNG", pnginfo=LONG_TEXT),
        "the picture is damaged: Decompressed data too large",
    ),
    "huge": (png_of(50_000, 50_000), r"the picture is too large: .*2500000000 pixels.*; make it smaller"),
    "one pixel": (saved(Image.new("RGB", (1, 1)), "PNG"), UNSEEN),
    "one white pixel": (saved(Image.new("L", (1, 1), 255), "PNG"), UNSEEN),
    "black": (saved(Image.new("L", (28, 28)), "PNG"), UNSEEN),
    "grey": (saved(Image.new("L", (28, 28), 99), "PNG"), UNSEEN),
    "white": (saved(Image.new("RGB", (300, 200), "white"), "JPEG"), UNSEEN),
    "transparent": (saved(Image.new("RGBA", (30, 20), (9, 9, 9, 0)), "PNG"), UNSEEN),
    "pale": (saved(block((50, 50), (9, 9, 30, 30), 245), "PNG"), UNSEEN),
    "one grey": (saved(block((50, 50), (9, 9, 30, 30), (0, 0, 255), (29, 29, 29), "RGB"), "PNG"), UNSEEN),
}


class TestRefused:
    @pytest.mark.parametrize("name", REFUSED)
    def test_bad_files_are_explained(self, name: str, tmp_path: Path) -> None:
        content, message = REFUSED[name]
        path = tmp_path / "bad.png"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            from_image_file(path)
        assert str(caught.value).startswith(f"{path}: ")

    def test_no_file_and_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"nothing\.png"):
            from_image_file(tmp_path / "nothing.png")
        with pytest.raises(OSError, match=tmp_path.name):
            from_image_file(tmp_path)

    def test_large_pictures_are_used_without_a_warning(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "picture.png"
        PLAIN.save(path)  # 10,800 pixels
        expected = from_image_file(path)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9_000)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            np.testing.assert_array_equal(from_image_file(path), expected)
        assert not caught
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5_000)
        with pytest.raises(ValueError, match="too large"):
            from_image_file(path)

    def test_metadata_that_makes_no_sense_does_no_harm(self, folder: Path) -> None:
        for exif in (
            b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff",
            b"Exif\x00\x00nonsense",
            b"Exif\x00\x00",
        ):
            image = converted(PLAIN, folder, "JPEG", exif=exif, quality=95)
            assert np.abs(image.astype(int) - converted(PLAIN, folder)).mean() < 4

    @given(
        st.data(),
        st.sampled_from([PNG, JPEG, GIF, *(saved(SHADED, kind) for kind in ("BMP", "TIFF", "WEBP"))]),
    )
    def test_damage_gives_a_picture_or_an_explanation(
        self, folder: Path, data: st.DataObject, content: bytes
    ) -> None:
        damaged = bytearray(content[: data.draw(st.integers(0, len(content)))])
        for _ in range(data.draw(st.integers(0, 3)) if damaged else 0):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        path = folder / "damaged"
        path.write_bytes(damaged)
        try:
            image = from_image_file(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017  (it may also succeed)
        else:
            assert (image.shape, image.dtype) == ((28, 28), np.uint8)


def test_pillow_is_imported_when_first_used() -> None:
    code = "import sys, tinynet; sys.exit('PIL' in sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
