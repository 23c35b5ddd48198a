"""Images in every form that a file may have."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from pseudolabel import images
from pseudolabel.errors import DataError
from tests.pseudolabel.image_files import (
    GREY,
    HEIGHT,
    LOSSY,
    SHOWN,
    WIDTH,
    ImageArray,
    chunk,
    png,
    save,
    stored,
)

FORMS: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {},
    "TIFF lzw": {"compression": "tiff_lzw"},
    "TIFF jpeg": {"compression": "jpeg", "quality": 100},
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", FORMS)
def test_every_orientation_is_shown_upright(form: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "x", stored(SHOWN, orientation), form.split()[0], exif=exif, **FORMS[form])
    image = images.read_image(path)
    assert image.shape == SHOWN.shape
    assert images.read_size(path) == (HEIGHT, WIDTH)
    assert image.flags.c_contiguous
    assert image.flags.writeable
    np.testing.assert_allclose(image.astype(int), SHOWN, atol=LOSSY if "J" in form.upper() else 0)


@pytest.mark.parametrize("orientation", [0, 9, 4711])
def test_a_senseless_orientation_is_none(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "x.png", SHOWN, "PNG", exif=exif)
    assert (images.read_image(path) == SHOWN).all()
    assert images.read_size(path) == (HEIGHT, WIDTH)


def test_orientation_behind_the_pixels_counts_for_the_size_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = png(2, 1, 8, 0, b"\0\1\2")
    late = data[:-12] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + data[-12:]
    (tmp_path / "x.png").write_bytes(late)
    assert images.read_image(tmp_path / "x.png")[:, :, 0].tolist() == [[1], [2]]
    assert images.read_size(tmp_path / "x.png") == (2, 1)


def few_colours() -> Image.Image:
    image = Image.fromarray(SHOWN[:, :, 0] // 8)
    palette = [channel for n in range(256) for channel in (n * 7 % 256, n * 3, 255 - n) if channel < 256][:96]
    image.putpalette(palette)
    assert image.mode == "P"
    return image


def sixteen(byte_order: str) -> Image.Image:
    values = SHOWN[:, :, 0].astype(np.uint16) * 257
    mode = "I;16B" if byte_order == ">" else "I;16"
    return Image.frombytes(mode, (WIDTH, HEIGHT), values.astype(f"{byte_order}u2").tobytes())


def over_white(alpha: ImageArray) -> ImageArray:
    share = alpha[:, :, None].astype(float) / 255
    return np.floor(SHOWN * share + 255 * (1 - share) + 0.5).astype(np.uint8)


ALPHA = (np.mgrid[:HEIGHT, :WIDTH][1] * 255 // (WIDTH - 1)).astype(np.uint8)
MODES: dict[str, tuple[Callable[[], Image.Image], str, ImageArray]] = {
    "grey": (lambda: Image.fromarray(SHOWN[:, :, 0]), "PNG", GREY),
    "grey bmp": (lambda: Image.fromarray(SHOWN[:, :, 0]), "BMP", GREY),
    "rgb bmp": (lambda: Image.fromarray(SHOWN), "BMP", SHOWN),
    "one bit": (
        lambda: Image.fromarray(SHOWN[:, :, 0] > 99), "PNG",
        np.repeat((SHOWN[:, :, :1] > 99).astype(np.uint8) * 255, 3, axis=2),
    ),
    "palette": (few_colours, "PNG", np.asarray(few_colours().convert("RGB"))),
    "palette bmp": (few_colours, "BMP", np.asarray(few_colours().convert("RGB"))),
    "alpha": (lambda: Image.fromarray(np.dstack([SHOWN, ALPHA])), "PNG", over_white(ALPHA)),
    "alpha webp": (lambda: Image.fromarray(np.dstack([SHOWN, ALPHA])), "WEBP", over_white(ALPHA)),
    "alpha tiff": (lambda: Image.fromarray(np.dstack([SHOWN, ALPHA])), "TIFF", over_white(ALPHA)),
    "grey and alpha": (
        lambda: Image.merge("LA", (Image.fromarray(SHOWN[:, :, 0]), Image.new("L", (WIDTH, HEIGHT), 255))),
        "PNG", GREY,
    ),
    "cmyk tiff": (lambda: Image.fromarray(SHOWN).convert("CMYK"), "TIFF", SHOWN),
    "cmyk jpeg of adobe": (lambda: Image.fromarray(SHOWN).convert("CMYK"), "JPEG", SHOWN),
    "16 bit": (lambda: sixteen("<"), "PNG", GREY),
    "16 bit tiff": (lambda: sixteen("<"), "TIFF", GREY),
    "16 bit big-endian tiff": (lambda: sixteen(">"), "TIFF", GREY),
    "ycbcr tiff": (lambda: Image.fromarray(SHOWN).convert("YCbCr"), "TIFF", SHOWN),
}  # fmt: skip


@pytest.mark.parametrize("name", MODES)
def test_every_mode_gives_the_same_image(name: str, tmp_path: Path) -> None:
    make, kind, expected = MODES[name]
    options = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True, "exact": True}}.get(kind, {})
    path = save(tmp_path / "x", make(), kind, **options)
    image = images.read_image(path)
    assert image.dtype == np.uint8
    inexact = LOSSY if kind == "JPEG" or "ycbcr" in name else 1 if "alpha" in name else 0
    np.testing.assert_allclose(image.astype(int), expected, atol=inexact)


def without_adobe(data: bytes) -> bytes:
    start = data.index(b"\xff\xee")
    length = struct.unpack(">H", data[start + 2 : start + 4])[0]
    return data[:start] + data[start + 2 + length :]


def test_cmyk_jpeg_without_adobes_mark_is_not_inverted(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    ImageChops.invert(Image.fromarray(SHOWN).convert("CMYK")).save(buffer, "JPEG", quality=100)
    (tmp_path / "x.jpg").write_bytes(without_adobe(buffer.getvalue()))
    np.testing.assert_allclose(images.read_image(tmp_path / "x.jpg").astype(int), SHOWN, atol=LOSSY)


def test_a_jpeg_in_ycck_is_read(tmp_path: Path) -> None:
    colours = np.asarray(Image.fromarray(255 - SHOWN).convert("YCbCr"))
    black = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    raw = 255 - np.concatenate([colours, black], axis=2)  # Pillow inverts what it writes
    buffer = io.BytesIO()
    Image.frombytes("CMYK", (WIDTH, HEIGHT), raw.tobytes()).save(buffer, "JPEG", quality=100)
    data = bytearray(buffer.getvalue())
    data[data.index(b"\xff\xee") + 15] = 2  # Adobe's mark says YCCK
    (tmp_path / "x.jpg").write_bytes(data)
    np.testing.assert_allclose(images.read_image(tmp_path / "x.jpg").astype(int), SHOWN, atol=2 * LOSSY)


def test_transparent_colours_are_white(tmp_path: Path) -> None:
    image = few_colours()
    first = int(np.asarray(image)[0, 0])
    path = save(tmp_path / "p.png", image, "PNG", transparency=first)
    expected = np.asarray(image.convert("RGB")).copy()
    expected[np.asarray(image) == first] = 255
    assert (images.read_image(path) == expected).all()
    path = save(tmp_path / "l.png", SHOWN[:, :, 0], "PNG", transparency=int(SHOWN[5, 5, 0]))
    expected = GREY.copy()
    expected[SHOWN[5, 5, 0] == GREY] = 255
    assert (images.read_image(path) == expected).all()


def test_sixteen_bits_are_scaled_and_never_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 5000).astype(np.uint16)
    (tmp_path / "x.png").write_bytes(png(5000, 1, 16, 0, b"\0" + ramp.astype(">u2").tobytes()))
    levels = images.read_image(tmp_path / "x.png")[0, :, 0]
    assert len(np.unique(levels)) == 256
    np.testing.assert_allclose(levels, ramp / 257, atol=0.5)
    colours = np.stack([ramp, ramp[::-1], ramp], axis=1).astype(">u2")
    (tmp_path / "x.png").write_bytes(png(5000, 1, 16, 2, b"\0" + colours.tobytes()))
    np.testing.assert_allclose(images.read_image(tmp_path / "x.png")[0], colours / 257, atol=1)


def test_sixteen_bits_with_white_at_zero_are_inverted(tmp_path: Path) -> None:
    save(tmp_path / "x.tif", sixteen("<"), "TIFF", tiffinfo={262: 0})
    assert (images.read_image(tmp_path / "x.tif") == 255 - GREY).all()


def test_twelve_bits_in_sixteen_are_dark_and_said_to_be(tmp_path: Path) -> None:
    values = SHOWN[:, :, 0].astype("<u2") * 16
    save(tmp_path / "x.png", Image.frombytes("I;16", (WIDTH, HEIGHT), values.tobytes()), "PNG")
    with pytest.warns(images.ImageWarning, match=r"its largest value is \d+ of 65535"):
        images.read_image(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("kind", "span"), [("float32", "floats (-1.5 to 3)"), ("int32", "32 bit integers (-1 to 3)")]
)
def test_values_without_a_white_are_refused_with_their_range(kind: str, span: str, tmp_path: Path) -> None:
    path = save(tmp_path / "x.tif", Image.fromarray(np.array([[-1.5, 3], [0, 1]], kind)), "TIFF")
    with pytest.raises(DataError) as raised:
        images.read_image(path)
    assert str(raised.value) == f"{path}: holds {span} of unknown white; save it as 8 or 16 bit"


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "PNG"])
def test_the_first_of_several_frames_with_a_warning(kind: str, tmp_path: Path) -> None:
    other = Image.fromarray(255 - SHOWN)
    options = {"lossless": True} if kind == "WEBP" else {}
    save(tmp_path / "x", SHOWN, kind, save_all=True, append_images=[other], **options)
    with pytest.warns(images.ImageWarning, match="has several frames; the first is used"):
        image = images.read_image(tmp_path / "x")
    assert (image == SHOWN).all()
    assert images.read_size(tmp_path / "x") == (HEIGHT, WIDTH)


def test_previews_in_a_cameras_jpeg_are_no_frames(tmp_path: Path) -> None:
    preview = Image.fromarray(SHOWN[::2, ::2])
    path = save(tmp_path / "x.jpg", SHOWN, "MPO", save_all=True, append_images=[preview], quality=100)
    np.testing.assert_allclose(images.read_image(path).astype(int), SHOWN, atol=3 * LOSSY)


def test_images_are_written_by_suffix(tmp_path: Path) -> None:
    images.write_image(tmp_path / "x.jpg", SHOWN)
    images.write_image(tmp_path / "x.PNG", SHOWN[:, ::-1])
    assert (tmp_path / "x.jpg").read_bytes()[:2] == b"\xff\xd8"
    np.testing.assert_allclose(images.read_image(tmp_path / "x.jpg").astype(int), SHOWN, atol=4 * LOSSY)
    assert (images.read_image(tmp_path / "x.PNG") == SHOWN[:, ::-1]).all()
    with pytest.raises(ValueError, match=r"\.png or \.jpg"):
        images.write_image(tmp_path / "x.gif", SHOWN)
    for wrong in (SHOWN[:, :, 0], SHOWN.astype(np.int64), np.zeros((2, 2, 4), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            images.write_image(tmp_path / "y.png", wrong)
    assert not (tmp_path / "y.png").exists()
