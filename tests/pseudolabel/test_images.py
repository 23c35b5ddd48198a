"""Photographs in every form that a file may have, whole and broken: F4, F5, F7."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageChops

from pseudolabel import _fault_plan, images
from pseudolabel.errors import DataFault

Picture = NDArray[np.uint8]
HEIGHT, WIDTH = 24, 40
LOSSY = 3  # levels, of JPEG at its best on a smooth picture: 2 of grey, and blue is 1.8 times its chroma


def shown_picture() -> Picture:
    """A smooth picture (H, W, 3) without any symmetry."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([40 + y * 5, 60 + x * 3, 200 - y * 2 - x], axis=2).astype(np.uint8)


SHOWN = shown_picture()
GREY = np.repeat(SHOWN[:, :, :1], 3, axis=2)


def stored(shown: Picture, orientation: int) -> Picture:
    """The pixels as stored, from the words of the EXIF standard: where the 0th row and column are shown."""
    row, column = {
        1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
        5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
    }[orientation]  # fmt: skip
    height, width = shown.shape[:2]
    sideways = row in ("left", "right")
    result = np.empty((width, height, 3) if sideways else shown.shape, np.uint8)
    for r, c in np.ndindex(result.shape[:2]):
        place = {
            "top": (r, None),
            "bottom": (height - 1 - r, None),
            "left": (None, r),
            "right": (None, width - 1 - r),
        }
        y, x = place[row]
        if sideways:
            y = c if column == "top" else height - 1 - c
        else:
            x = c if column == "left" else width - 1 - c
        result[r, c] = shown[y, x]
    return result


def save(path: Path, pixels: Picture | Image.Image, kind: str, **options: object) -> Path:
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(path, kind, **options)
    return path


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *more: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = b"".join((head, *more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + body


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
def test_f5_every_orientation_is_shown_upright(form: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "x", stored(SHOWN, orientation), form.split()[0], exif=exif, **FORMS[form])
    found = images.read_image(path)
    assert found.shape == SHOWN.shape
    assert images.read_size(path) == (HEIGHT, WIDTH)
    assert found.flags.c_contiguous
    assert found.flags.writeable
    np.testing.assert_allclose(found.astype(int), SHOWN, atol=LOSSY if "J" in form.upper() else 0)


@pytest.mark.parametrize("orientation", [0, 9, 4711])
def test_f5_a_senseless_orientation_is_none(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "x.png", SHOWN, "PNG", exif=exif)
    assert (images.read_image(path) == SHOWN).all()
    assert images.read_size(path) == (HEIGHT, WIDTH)


def test_f5_orientation_behind_the_pixels_counts_for_the_size_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = png(2, 1, 8, 0, b"\0\1\2")
    late = data[:-12] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + data[-12:]
    (tmp_path / "x.png").write_bytes(late)
    assert images.read_image(tmp_path / "x.png")[:, :, 0].tolist() == [[1], [2]]
    assert images.read_size(tmp_path / "x.png") == (2, 1)


def few_colours() -> Image.Image:
    picture = Image.fromarray(SHOWN[:, :, 0] // 8)
    palette = [channel for n in range(256) for channel in (n * 7 % 256, n * 3, 255 - n) if channel < 256][:96]
    picture.putpalette(palette)
    assert picture.mode == "P"
    return picture


def sixteen(byte_order: str) -> Image.Image:
    values = SHOWN[:, :, 0].astype(np.uint16) * 257
    mode = "I;16B" if byte_order == ">" else "I;16"
    return Image.frombytes(mode, (WIDTH, HEIGHT), values.astype(f"{byte_order}u2").tobytes())


def over_white(alpha: Picture) -> Picture:
    share = alpha[:, :, None].astype(float) / 255
    return np.floor(SHOWN * share + 255 * (1 - share) + 0.5).astype(np.uint8)


ALPHA = (np.mgrid[:HEIGHT, :WIDTH][1] * 255 // (WIDTH - 1)).astype(np.uint8)
MODES: dict[str, tuple[Callable[[], Image.Image], str, Picture]] = {
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
def test_f5_every_mode_gives_the_same_picture(name: str, tmp_path: Path) -> None:
    make, kind, expected = MODES[name]
    options = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True, "exact": True}}.get(kind, {})
    path = save(tmp_path / "x", make(), kind, **options)
    found = images.read_image(path)
    assert found.dtype == np.uint8
    inexact = LOSSY if kind == "JPEG" or "ycbcr" in name else 1 if "alpha" in name else 0
    np.testing.assert_allclose(found.astype(int), expected, atol=inexact)


def without_adobe(data: bytes) -> bytes:
    start = data.index(b"\xff\xee")
    length = struct.unpack(">H", data[start + 2 : start + 4])[0]
    return data[:start] + data[start + 2 + length :]


def test_f5_cmyk_jpeg_without_adobes_mark_is_not_inverted(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    ImageChops.invert(Image.fromarray(SHOWN).convert("CMYK")).save(buffer, "JPEG", quality=100)
    (tmp_path / "x.jpg").write_bytes(without_adobe(buffer.getvalue()))
    np.testing.assert_allclose(images.read_image(tmp_path / "x.jpg").astype(int), SHOWN, atol=LOSSY)


def test_f5_ycck_jpeg(tmp_path: Path) -> None:
    colours = np.asarray(Image.fromarray(255 - SHOWN).convert("YCbCr"))
    black = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    raw = 255 - np.concatenate([colours, black], axis=2)  # Pillow inverts what it writes
    buffer = io.BytesIO()
    Image.frombytes("CMYK", (WIDTH, HEIGHT), raw.tobytes()).save(buffer, "JPEG", quality=100)
    data = bytearray(buffer.getvalue())
    data[data.index(b"\xff\xee") + 15] = 2  # Adobe's mark says YCCK
    (tmp_path / "x.jpg").write_bytes(data)
    np.testing.assert_allclose(images.read_image(tmp_path / "x.jpg").astype(int), SHOWN, atol=2 * LOSSY)


def test_f5_transparent_colours_are_white(tmp_path: Path) -> None:
    picture = few_colours()
    first = int(np.asarray(picture)[0, 0])
    path = save(tmp_path / "p.png", picture, "PNG", transparency=first)
    expected = np.asarray(picture.convert("RGB")).copy()
    expected[np.asarray(picture) == first] = 255
    assert (images.read_image(path) == expected).all()
    path = save(tmp_path / "l.png", SHOWN[:, :, 0], "PNG", transparency=int(SHOWN[5, 5, 0]))
    expected = GREY.copy()
    expected[SHOWN[5, 5, 0] == GREY] = 255
    assert (images.read_image(path) == expected).all()


def test_f5_sixteen_bits_are_scaled_and_never_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 5000).astype(np.uint16)
    (tmp_path / "x.png").write_bytes(png(5000, 1, 16, 0, b"\0" + ramp.astype(">u2").tobytes()))
    found = images.read_image(tmp_path / "x.png")[0, :, 0]
    assert len(np.unique(found)) == 256
    np.testing.assert_allclose(found, ramp / 257, atol=0.5)
    colours = np.stack([ramp, ramp[::-1], ramp], axis=1).astype(">u2")
    (tmp_path / "x.png").write_bytes(png(5000, 1, 16, 2, b"\0" + colours.tobytes()))
    np.testing.assert_allclose(images.read_image(tmp_path / "x.png")[0], colours / 257, atol=1)


def test_f5_sixteen_bits_with_white_at_zero(tmp_path: Path) -> None:
    save(tmp_path / "x.tif", sixteen("<"), "TIFF", tiffinfo={262: 0})
    assert (images.read_image(tmp_path / "x.tif") == 255 - GREY).all()


def test_f5_twelve_bits_in_sixteen_are_dark_and_said_to_be(tmp_path: Path) -> None:
    values = SHOWN[:, :, 0].astype("<u2") * 16
    save(tmp_path / "x.png", Image.frombytes("I;16", (WIDTH, HEIGHT), values.tobytes()), "PNG")
    with pytest.warns(images.ImageWarning, match=r"its largest value is \d+ of 65535"):
        images.read_image(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("kind", "span"), [("float32", "floats (-1.5 to 3)"), ("int32", "32 bit integers (-1 to 3)")]
)
def test_f5_values_without_a_white_are_refused_with_their_range(kind: str, span: str, tmp_path: Path) -> None:
    path = save(tmp_path / "x.tif", Image.fromarray(np.array([[-1.5, 3], [0, 1]], kind)), "TIFF")
    with pytest.raises(DataFault) as raised:
        images.read_image(path)
    assert str(raised.value) == f"{path}: holds {span} of unknown white; save it as 8 or 16 bit"


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "PNG"])
def test_f5_the_first_of_several_frames_with_a_warning(kind: str, tmp_path: Path) -> None:
    other = Image.fromarray(255 - SHOWN)
    options = {"lossless": True} if kind == "WEBP" else {}
    save(tmp_path / "x", SHOWN, kind, save_all=True, append_images=[other], **options)
    with pytest.warns(images.ImageWarning, match="has several frames; the first is used"):
        found = images.read_image(tmp_path / "x")
    assert (found == SHOWN).all()
    assert images.read_size(tmp_path / "x") == (HEIGHT, WIDTH)


def test_f5_previews_in_a_cameras_jpeg_are_no_frames(tmp_path: Path) -> None:
    preview = Image.fromarray(SHOWN[::2, ::2])
    path = save(tmp_path / "x.jpg", SHOWN, "MPO", save_all=True, append_images=[preview], quality=100)
    np.testing.assert_allclose(images.read_image(path).astype(int), SHOWN, atol=3 * LOSSY)


def test_f4_the_content_tells_the_format(tmp_path: Path) -> None:
    save(tmp_path / "x.jpg", SHOWN, "PNG")
    assert (images.read_image(tmp_path / "x.jpg") == SHOWN).all()


STRANGE = {
    "an HTML page": b"\xef\xbb\xbf\n<!DOCTYPE html><html><body>404</body></html>",
    "XML or SVG text": b"<?xml version='1.0'?><svg/>",
    "a GIF": b"GIF89a\1\0\1\0\0\0\0;",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "a PDF": b"%PDF-1.7\n",
    "filled with zero bytes": bytes(5000),
    "a Git LFS pointer, whose picture was not fetched": b"version https://git-lfs.github.com/spec/v1\n",
    "a HEIC picture": b"\0\0\0\x18ftypheic\0\0\0\0",
    "not a picture that can be told from its content": b"hello",
}


@pytest.mark.parametrize("found", STRANGE)
def test_f4_other_content_is_refused_by_name(found: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(STRANGE[found])
    for read in (images.read_image, images.read_size):
        with pytest.raises(DataFault) as raised:
            read(path)
        assert str(raised.value) == (
            f"{path}: is {found}; wanted is JPEG, PNG, BMP, TIFF, WEBP: save the picture as one of these"
        )


def test_f4_no_regular_file(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "gone")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for name, text in (
        ("folder.jpg", "is a folder; only regular files are opened"),
        ("fifo.jpg", "is no regular file"),
        ("/dev/zero", "is no regular file"),
        ("empty.jpg", r"is empty \(0 bytes\)"),
        ("gone.jpg", "is missing"),
        ("nowhere.jpg", "is missing"),
        ("loop.jpg", "cannot be read"),
        ("nul\0.jpg", "is no path"),
        ("n" * 300, "cannot be read: File name too long"),
        ("empty.jpg/x.jpg", "cannot be read: Not a directory"),
    ):
        with pytest.raises(DataFault, match=text):
            images.read_image(tmp_path / name)


@pytest.mark.parametrize("what", ["EIO", "EACCES", "memory"])
def test_f4_a_planned_fault_of_the_decoder(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "x.png", SHOWN, "PNG")
    monkeypatch.setenv(_fault_plan.VARIABLE, f"decode:2:{what}")
    assert images.read_image(tmp_path / "x.png").shape == SHOWN.shape
    with pytest.raises(DataFault, match=r"x\.png: (cannot be read|does not fit into memory)"):
        images.read_image(tmp_path / "x.png")
    assert images.read_image(tmp_path / "x.png").shape == SHOWN.shape


def small(kind: str) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(SHOWN[:9, :11]).convert("P" if kind == "PNG" else "RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if kind in ("JPEG", "PNG") else {}
    options |= {"quality": 30} if kind == "JPEG" else {}
    options |= {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_f4_cuts_and_flips_give_a_picture_or_our_error(kind: str, tmp_path: Path) -> None:
    data = small(kind)
    path = tmp_path / "x"
    path.write_bytes(data)
    whole = images.read_image(path)
    draw = np.random.default_rng(0)
    outcomes = {"whole": 0, "other": 0, "refused": 0}
    # As outside of the tests: what Pillow warns of is no error.
    with warnings.catch_warnings(action="ignore"), open(path, "r+b") as file:
        for place in range(0, len(data), max(1, len(data) // 250)):
            flipped = bytearray(data)
            flipped[place] ^= 0xFF if place % 2 else 1 << int(draw.integers(8))
            for mutant in (data[:place], bytes(flipped)):
                file.seek(0)
                file.write(mutant)
                file.truncate()
                file.flush()
                outcome = outcome_of(path, whole)
                outcomes[outcome] += 1
                assert len(mutant) == len(data) or outcome != "other", "a cut picture has no other pixels"
    assert outcomes["refused"] > 50
    assert outcomes["whole"] + outcomes["other"] > 0


def outcome_of(path: Path, whole: Picture) -> str:
    with contextlib.suppress(DataFault):
        images.read_size(path)
    try:
        found = images.read_image(path)
    except DataFault as fault:
        message = str(fault)
    else:
        assert found.dtype == np.uint8
        assert found.ndim == 3
        return "whole" if found.shape == whole.shape and (found == whole).all() else "other"
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return "refused"


def test_f4_a_truncated_file_is_refused_even_where_somebody_asked_for_tolerance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import ImageFile

    save(tmp_path / "x.jpg", SHOWN, "JPEG")
    data = (tmp_path / "x.jpg").read_bytes()
    (tmp_path / "x.jpg").write_bytes(data[:-60])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with Image.open(tmp_path / "x.jpg") as picture:
        picture.load()  # so they would get a half picture
    with pytest.raises(DataFault, match="is damaged"):
        images.read_image(tmp_path / "x.jpg")


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (31, 33), (2, 20_000)])
def test_f7_sizes_at_the_edge(size: tuple[int, int], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    images.write_picture(tmp_path / "x.png", pixels)
    assert (images.read_image(tmp_path / "x.png") == pixels).all()
    assert images.read_size(tmp_path / "x.png") == size


@functools.cache
def bombs() -> dict[str, bytes]:
    """Small files of more than 64 million pixels."""
    canvas = (16383).to_bytes(3, "little") * 2
    lossless = (16383 | 16383 << 14).to_bytes(4, "little")
    return {
        "png": png(20_000, 10_000, 1, 0, bytes(2501 * 10_000)),
        "png of 4 giga": png(65_000, 65_000, 8, 2, b""),
        "jpeg": b"\xff\xd8\xff\xc0\0\x11\x08\xff\xdc\xff\xdc\3\1\x11\0\2\x11\0\3\x11\0\xff\xd9",
        "bmp": b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 30_000, 30_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "webp": b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + canvas + bytes(40),
        "lossless webp": b"RIFF\x40\0\0\0WEBPVP8L\x20\0\0\0\x2f" + lossless + bytes(40),
        "lossy webp": b"RIFF\x40\0\0\0WEBPVP8 \x20\0\0\0\x30\1\0\x9d\1\x2a\xff\x3f\xff\x3f" + bytes(40),
        "just above the limit": png(8001, 8000, 1, 0, b""),
    }


@pytest.mark.parametrize("name", bombs())
def test_f7_a_bomb_is_refused_from_its_header(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bombs()[name])
    assert path.stat().st_size < 30_000
    for read in (images.read_image, images.read_size):
        start = time.perf_counter()
        with pytest.raises(
            DataFault, match=r"(million pixels, above the limit of 64|too many pixels).*; shrink it"
        ):
            read(path)
        assert time.process_time() - start < 1


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the system does not tell a peak of memory"
)
def test_f7_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    for number, data in enumerate(bombs().values()):
        (tmp_path / str(number)).write_bytes(data)
    text = zlib.compress(bytes(150_000_000), 1)
    for number, more in enumerate(
        (
            [chunk(b"zTXt", b"Comment\0\0" + text)],
            [chunk(b"iTXt", b"Comment\0\1\0\0\0" + text)],
            [chunk(b"iCCP", b"profile\0\0" + text)],
            [chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1_000_000), 1))] * 150,
        )
    ):
        (tmp_path / f"text{number}").write_bytes(png(1, 1, 8, 0, b"\0\7", *more))
    program = """
import pathlib, re, sys
from pseudolabel import images, errors
said = []
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        images.read_image(path)
        said.append(path.name + " was read")
    except errors.DataFault:
        pass
assert "torch" not in sys.modules
most = re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())
print(said, int(most[1]) // 1000)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    said, _, megabytes = done.stdout.strip().rpartition(" ")
    assert said in ("[]", "['text2 was read']"), "a profile that is too large may be left aside"
    assert int(megabytes) < 200


def test_f7_the_limit_is_of_pixels_and_can_be_set(tmp_path: Path) -> None:
    images.write_picture(tmp_path / "x.png", SHOWN)
    assert images.read_image(tmp_path / "x.png", limit=HEIGHT * WIDTH).shape == SHOWN.shape
    for read in (images.read_image, images.read_size):
        with pytest.raises(DataFault, match=f"is {HEIGHT} x {WIDTH}, "):
            read(tmp_path / "x.png", limit=HEIGHT * WIDTH - 1)


def test_pictures_are_written_by_suffix(tmp_path: Path) -> None:
    images.write_picture(tmp_path / "x.jpg", SHOWN)
    images.write_picture(tmp_path / "x.PNG", SHOWN[:, ::-1])
    assert (tmp_path / "x.jpg").read_bytes()[:2] == b"\xff\xd8"
    np.testing.assert_allclose(images.read_image(tmp_path / "x.jpg").astype(int), SHOWN, atol=4 * LOSSY)
    assert (images.read_image(tmp_path / "x.PNG") == SHOWN[:, ::-1]).all()
    with pytest.raises(ValueError, match=r"\.png or \.jpg"):
        images.write_picture(tmp_path / "x.gif", SHOWN)
    for wrong in (SHOWN[:, :, 0], SHOWN.astype(np.int64), np.zeros((2, 2, 4), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            images.write_picture(tmp_path / "y.png", wrong)
    assert not (tmp_path / "y.png").exists()
