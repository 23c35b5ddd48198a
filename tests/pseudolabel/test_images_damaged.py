"""Images that are broken, strange, huge or tiny."""

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
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel import images
from pseudolabel.errors import DataError
from pseudolabel.runs import fault_plan
from tests.pseudolabel.image_files import (
    HEIGHT,
    SHOWN,
    WIDTH,
    ImageArray,
    chunk,
    png,
    save,
)


def test_the_content_tells_the_format(tmp_path: Path) -> None:
    save(tmp_path / "x.jpg", SHOWN, "PNG")
    assert (images.read_image(tmp_path / "x.jpg") == SHOWN).all()


STRANGE = {
    "an HTML page": b"\xef\xbb\xbf\n<!DOCTYPE html><html><body>404</body></html>",
    "XML or SVG text": b"<?xml version='1.0'?><svg/>",
    "a GIF": b"GIF89a\1\0\1\0\0\0\0;",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "a PDF": b"%PDF-1.7\n",
    "filled with zero bytes": bytes(5000),
    "a Git LFS pointer, whose image was not fetched": b"version https://git-lfs.github.com/spec/v1\n",
    "a HEIC image": b"\0\0\0\x18ftypheic\0\0\0\0",
    "not an image that can be told from its content": b"hello",
}


@pytest.mark.parametrize("content", STRANGE)
def test_other_content_is_refused_by_name(content: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(STRANGE[content])
    for read in (images.read_image, images.read_size):
        with pytest.raises(DataError) as raised:
            read(path)
        assert str(raised.value) == (
            f"{path}: is {content}; wanted is JPEG, PNG, BMP, TIFF, WEBP: save the image as one of these"
        )


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
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
        with pytest.raises(DataError, match=text):
            images.read_image(tmp_path / name)


@pytest.mark.parametrize("what", ["EIO", "EACCES", "memory"])
def test_a_planned_fault_of_the_decoder_is_our_error(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "x.png", SHOWN, "PNG")
    monkeypatch.setenv(fault_plan.VARIABLE, f"decode:2:{what}")
    assert images.read_image(tmp_path / "x.png").shape == SHOWN.shape
    with pytest.raises(DataError, match=r"x\.png: (cannot be read|does not fit into memory)"):
        images.read_image(tmp_path / "x.png")
    assert images.read_image(tmp_path / "x.png").shape == SHOWN.shape


def small(kind: str) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(SHOWN[:9, :11]).convert("P" if kind == "PNG" else "RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if kind in ("JPEG", "PNG") else {}
    options |= {"quality": 30} if kind == "JPEG" else {}
    options |= {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_cuts_and_flips_give_an_image_or_our_error(kind: str, tmp_path: Path) -> None:
    data = small(kind)
    path = tmp_path / "x"
    path.write_bytes(data)
    intact = images.read_image(path)
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
                outcome = outcome_of(path, intact)
                outcomes[outcome] += 1
                assert len(mutant) == len(data) or outcome != "other", "a cut image has no other pixels"
    assert outcomes["refused"] > 50
    assert outcomes["whole"] + outcomes["other"] > 0


def outcome_of(path: Path, intact: ImageArray) -> str:
    with contextlib.suppress(DataError):
        images.read_size(path)
    try:
        image = images.read_image(path)
    except DataError as fault:
        message = str(fault)
    else:
        assert image.dtype == np.uint8
        assert image.ndim == 3
        return "whole" if image.shape == intact.shape and (image == intact).all() else "other"
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return "refused"


def test_a_truncated_file_is_refused_even_where_somebody_asked_for_tolerance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import ImageFile

    save(tmp_path / "x.jpg", SHOWN, "JPEG")
    data = (tmp_path / "x.jpg").read_bytes()
    (tmp_path / "x.jpg").write_bytes(data[:-60])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with Image.open(tmp_path / "x.jpg") as image:
        image.load()  # so they would get a half image
    with pytest.raises(DataError, match="is damaged"):
        images.read_image(tmp_path / "x.jpg")


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (31, 33), (2, 20_000)])
def test_images_of_the_smallest_and_oddest_sizes_come_back(size: tuple[int, int], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    images.write_image(tmp_path / "x.png", pixels)
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
def test_a_bomb_is_refused_from_its_header(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bombs()[name])
    assert path.stat().st_size < 30_000
    for read in (images.read_image, images.read_size):
        start = time.perf_counter()
        with pytest.raises(
            DataError, match=r"(million pixels, above the limit of 64|too many pixels).*; shrink it"
        ):
            read(path)
        assert time.process_time() - start < 1


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the system does not tell a peak of memory"
)
def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
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
    except errors.DataError:
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


def test_the_limit_is_of_pixels_and_can_be_set(tmp_path: Path) -> None:
    images.write_image(tmp_path / "x.png", SHOWN)
    assert images.read_image(tmp_path / "x.png", limit=HEIGHT * WIDTH).shape == SHOWN.shape
    for read in (images.read_image, images.read_size):
        with pytest.raises(DataError, match=f"is {HEIGHT} x {WIDTH}, "):
            read(tmp_path / "x.png", limit=HEIGHT * WIDTH - 1)
