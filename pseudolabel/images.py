"""Photographs in and out: whatever the file holds becomes RGB, 8 bit, as it is shown.

| in the file | becomes |
| --- | --- |
| EXIF orientation 1..8 | the picture is turned, always; its mask must fit it as turned |
| grey, 1 bit | three equal channels |
| palette | its colours |
| alpha, a transparent colour | laid over white |
| CMYK, YCCK | RGB without a profile; Adobe's inverted values put right |
| 16 bit | 0..65535 scaled to 0..255, never clipped |
| 32 bit integers, floats | refused with the range found: nobody knows what is white |
| several frames | the first, with a warning (the previews in a camera's JPEG do not count) |
| colour profile | left aside, values as stored |
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pseudolabel import storage
from pseudolabel._decoder import LIMIT, opened
from pseudolabel.errors import DataFault

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["LIMIT", "ImageWarning", "read_image", "read_size", "write_picture"]

ORIENTATION = 0x0112  # EXIF tag
WHITE_IS_ZERO = 0  # TIFF PhotometricInterpretation
QUALITY = 92  # of JPEGs written, 1..95
DIM = 4096  # a 16-bit picture below this uses 12 bits or fewer and comes out nearly black


class ImageWarning(UserWarning):
    """A picture was read, but not all of it, or not as its maker may have meant."""


def read_image(path: Path, limit: int = LIMIT) -> NDArray[np.uint8]:
    """Decode a photograph.

    Args:
        path: a regular file, JPEG, PNG, BMP, TIFF or WebP by content; its suffix does not matter.
        limit: largest number of pixels, looked at before decoding.

    Returns:
        (H, W, 3) uint8 RGB, writable and contiguous, turned as EXIF says.

    Raises:
        DataFault: missing, no regular file, damaged, truncated, too large, or of values nobody can show.
    """
    path = Path(path)
    with opened(path, limit=limit) as picture:
        if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
            warnings.warn(f"{path}: has several frames; the first is used", ImageWarning, stacklevel=2)
        picture.load()
        return np.ascontiguousarray(_turned(_rgb(path, picture), _orientation(picture)))


def read_size(path: Path, limit: int = LIMIT) -> tuple[int, int]:
    """Height and width of a photograph as shown, from the header where the format allows it.

    Raises:
        DataFault: as `read_image`, as far as the header shows it.
    """
    with opened(Path(path), limit=limit) as picture:
        height, width = picture.height, picture.width
        # Pillow tells a TIFF's size as turned, that of the others as stored.
        if picture.format != "TIFF" and _orientation(picture) >= 5:
            return width, height
        return height, width


def write_picture(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write a picture for people, whole or not at all.

    Args:
        path: `.png`, `.jpg` or `.jpeg` tells the format.
        rgb: (H, W, 3) uint8.

    Raises:
        ValueError: another suffix, shape or type.
        EnvironmentFault: it cannot be written.
    """
    from PIL import Image

    formats = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
    kind = formats.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: pictures are written as .png or .jpg")
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"{path}: a picture is (H, W, 3) uint8, not {rgb.shape} {rgb.dtype}")
    buffer = io.BytesIO()
    options = {"compress_level": 6} if kind == "PNG" else {"quality": QUALITY, "subsampling": 0}
    Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, kind, **options)
    storage.write_bytes(path, buffer.getbuffer())


def _orientation(picture: Image) -> int:
    """EXIF orientation 1..8; 1 where it is absent or senseless, and of a TIFF: Pillow turns it on loading."""
    found = picture.getexif().get(ORIENTATION, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Pixels as shown; 5 to 8 exchange height and width."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _rgb(path: Path, picture: Image) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of a loaded picture, not yet turned."""
    mode = picture.mode
    if mode.startswith("I;16") or (mode == "I" and picture.format == "PNG"):
        return _sixteen(path, picture)
    if mode in ("I", "F"):
        values = np.asarray(picture)
        finite = values[np.isfinite(values)]
        span = f"{finite.min():g} to {finite.max():g}" if finite.size else "no finite value"
        kind = "floats" if mode == "F" else "32 bit integers"
        raise DataFault(f"{path}: holds {kind} ({span}) of unknown white; save it as 8 or 16 bit")
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        return _over_white(np.asarray(picture.convert("RGBA")))
    if mode == "CMYK" and picture.format in ("JPEG", "MPO") and "adobe" not in picture.info:
        from PIL import ImageChops

        picture = ImageChops.invert(picture)  # Pillow took Adobe's inversion for granted
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _sixteen(path: Path, picture: Image) -> NDArray[np.uint8]:
    values = np.asarray(picture).astype(np.uint32)
    if picture.format == "TIFF" and getattr(picture, "tag_v2", {}).get(262) == WHITE_IS_ZERO:
        values = 65535 - values
    if values.max() < DIM:
        text = f"{path}: is 16 bit but its largest value is {values.max()} of 65535; it will be nearly black"
        warnings.warn(text, ImageWarning, stacklevel=3)
    grey = ((values * 255 + 32767) // 65535).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _over_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    alpha = rgba[:, :, 3:].astype(np.uint16)
    blended = rgba[:, :, :3] * alpha + 255 * (255 - alpha)  # at most 65025: fits 16 bits
    return ((blended + np.uint16(127)) // 255).astype(np.uint8)
