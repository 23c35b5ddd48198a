"""Images to decode: one without any symmetry, and PNGs put together by hand."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ImageArray = NDArray[np.uint8]
HEIGHT, WIDTH = 24, 40
LOSSY = 3  # levels, of JPEG at its best on a smooth image: 2 of grey, and blue is 1.8 times its chroma


def shown_image() -> ImageArray:
    """A smooth image (H, W, 3) without any symmetry."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([40 + y * 5, 60 + x * 3, 200 - y * 2 - x], axis=2).astype(np.uint8)


SHOWN = shown_image()
GREY = np.repeat(SHOWN[:, :, :1], 3, axis=2)


def stored(shown: ImageArray, orientation: int) -> ImageArray:
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


def save(path: Path, pixels: ImageArray | Image.Image, kind: str, **options: object) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, kind, **options)
    return path


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *more: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = b"".join((head, *more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + body
