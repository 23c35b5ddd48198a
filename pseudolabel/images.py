"""Images in and out: whatever the file holds becomes RGB, 8 bit, as it is shown.

| in the file | becomes |
| --- | --- |
| EXIF orientation 1..8 | the image is turned, always; its mask must fit it as turned |
| grey, 1 bit | three equal channels |
| palette | its colours |
| alpha, a transparent colour | laid over white |
| CMYK, YCCK | RGB without a profile; Adobe's inverted values put right |
| 16 bit | 0..65535 scaled to 0..255, never clipped |
| 32 bit integers, floats | refused with the range found: nobody knows what is white |
| several frames | the first, with a warning (the previews in a camera's JPEG do not count) |
| colour profile | left aside, values as stored |

Image files are opened in one place, `opened`: the format is told from the content and must be on the list,
the
size is looked at before anything is decoded, a damaged or truncated file is refused. Whatever Pillow raises
comes out as one kind of error.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pseudolabel.errors import DataError
from pseudolabel.runs import disk, fault_plan

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
LIMIT = 64_000_000  # pixels; three bytes each make 192 MB
MOST_BYTES = 1 << 30  # of one file
HEAD = 64  # bytes that tell one format from another

_SIGNATURES = (  # what people name .jpg or .png by mistake; offset, bytes, name
    (0, b"GIF8", "a GIF"),
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"version https://git-lfs", "a Git LFS pointer, whose image was not fetched"),
    (4, b"ftypheic", "a HEIC image"),
    (4, b"ftypheix", "a HEIC image"),
    (4, b"ftypmif1", "a HEIF image"),
    (4, b"ftypavif", "an AVIF image"),
)
ORIENTATION = 0x0112  # EXIF tag
WHITE_IS_ZERO = 0  # TIFF PhotometricInterpretation
QUALITY = 92  # of JPEGs written, 1..95
DIM = 4096  # a 16-bit image below this uses 12 bits or fewer and comes out nearly black


class ImageWarning(UserWarning):
    """An image was read, but not all of it, or not as its maker may have meant."""


def read_file(path: Path) -> bytes:
    """The bytes of a regular file, so that it is opened once for its digest and its pixels.

    Raises:
        DataError: missing, no regular file, unreadable, or larger than any image within the limit.
    """
    path = Path(path)
    try:
        with _regular(path) as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check the path") from error
    if len(data) > MOST_BYTES:
        raise DataError(f"{path}: is larger than {MOST_BYTES >> 20} MiB; shrink it")
    return data


def read_image(path: Path, limit: int = LIMIT, data: bytes | None = None) -> NDArray[np.uint8]:
    """Decode an image.

    Args:
        path: a regular file, JPEG, PNG, BMP, TIFF or WebP by content; its suffix does not matter.
        limit: largest number of pixels, looked at before decoding.
        data: the content of the file where it has been read already; the file is then not opened.

    Returns:
        (H, W, 3) uint8 RGB, writable and contiguous, turned as EXIF says.

    Raises:
        DataError: missing, no regular file, damaged, truncated, too large, or of values nobody can show.
    """
    path = Path(path)
    with opened(path, limit=limit, data=data) as image:
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            warnings.warn(f"{path}: has several frames; the first is used", ImageWarning, stacklevel=2)
        image.load()
        return np.ascontiguousarray(_turned(_to_rgb(path, image), _orientation(image)))


def read_size(path: Path, limit: int = LIMIT, data: bytes | None = None) -> tuple[int, int]:
    """Height and width of an image as shown, from the header where the format allows it; see `read_image`.

    Raises:
        DataError: as `read_image`, as far as the header shows it.
    """
    with opened(Path(path), limit=limit, data=data) as image:
        height, width = image.height, image.width
        # Pillow tells a TIFF's size as turned, that of the others as stored.
        if image.format != "TIFF" and _orientation(image) >= 5:
            return width, height
        return height, width


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image for people, whole or not at all.

    Args:
        path: `.png`, `.jpg` or `.jpeg` tells the format.
        image: (H, W, 3) uint8.

    Raises:
        ValueError: another suffix, shape or type.
        MachineError: it cannot be written.
    """
    from PIL import Image

    formats = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
    kind = formats.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: images are written as .png or .jpg")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"{path}: an image is (H, W, 3) uint8, not {image.shape} {image.dtype}")
    buffer = io.BytesIO()
    options = {"compress_level": 6} if kind == "PNG" else {"quality": QUALITY, "subsampling": 0}
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, kind, **options)
    disk.write_bytes(path, buffer.getbuffer())


def rgb_of(image: Image) -> NDArray[np.uint8]:
    """An image that Pillow holds, as `read_image` gives a file's.

    Returns:
        (H, W, 3) uint8 RGB, writable and contiguous, turned as EXIF says.

    Raises:
        DataError: its file is damaged, or it has values nobody can show.
    """
    name = Path(getattr(image, "filename", "") or "image")
    try:
        image.load()
    except OSError as error:
        raise DataError(f"{name}: is damaged ({_text_of(error)}); copy or export it again") from error
    return np.ascontiguousarray(_turned(_to_rgb(name, image), _orientation(image)))


def _orientation(image: Image) -> int:
    """EXIF orientation 1..8; 1 where it is absent or senseless, and of a TIFF: Pillow turns it on loading."""
    orientation = image.getexif().get(ORIENTATION, 1)
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Pixels as shown; 5 to 8 exchange height and width."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _to_rgb(path: Path, image: Image) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of a loaded image, not yet turned."""
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format == "PNG"):
        return _sixteen(path, image)
    if mode in ("I", "F"):
        values = np.asarray(image)
        finite = values[np.isfinite(values)]
        span = f"{finite.min():g} to {finite.max():g}" if finite.size else "no finite value"
        kind = "floats" if mode == "F" else "32 bit integers"
        raise DataError(f"{path}: holds {kind} ({span}) of unknown white; save it as 8 or 16 bit")
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _over_white(np.asarray(image.convert("RGBA")))
    if mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        from PIL import ImageChops

        image = ImageChops.invert(image)  # Pillow took Adobe's inversion for granted
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _sixteen(path: Path, image: Image) -> NDArray[np.uint8]:
    values = np.asarray(image).astype(np.uint32)
    if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(262) == WHITE_IS_ZERO:
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


@contextlib.contextmanager
def opened(
    path: Path, formats: tuple[str, ...] = FORMATS, limit: int = LIMIT, data: bytes | None = None
) -> Iterator[Image]:
    """An image with its header read and its size within the limit; decoding is up to the caller.

    Args:
        path: the file.
        formats: Pillow's names of what is taken.
        limit: largest number of pixels.
        data: the content of the file where it has been read already.

    Raises:
        DataError: anything that goes wrong in here, in the body of the `with` too.
    """
    path = Path(path)
    try:
        with _regular(path) if data is None else io.BytesIO(data) as file:
            head = file.read(HEAD)
            file.seek(0)
            if not head:
                raise DataError(f"{path}: is empty (0 bytes); copy it again")
            with _identified(path, file, head, formats) as image:
                _check_size(path, image.height, image.width, limit)
                yield image
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{path}: does not fit into memory; shrink it or free some memory") from error
    except OSError as error:
        if error.errno is not None:
            raise DataError(f"{path}: cannot be read: {error.strerror}; check the path") from error
        raise DataError(f"{path}: is damaged ({_text_of(error)}); copy or export it again") from error
    except Exception as error:  # the decoders raise whatever their parsers stumble over
        raise DataError(f"{path}: is damaged ({_text_of(error)}); copy or export it again") from error


@contextlib.contextmanager
def _regular(path: Path) -> Iterator[IO[bytes]]:
    """A plain file opened for reading; never a fifo or a device, which could block or act."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; check the list and the folder") from None
    except ValueError:
        raise DataError(f"{path}: is no path (it holds a NUL); check the list") from None
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "no regular file (a device, pipe or socket)"
        raise DataError(f"{path}: is {what}; only regular files are opened")
    fault_plan.trip("decode", path)
    with open(path, "rb") as file:
        yield file


@contextlib.contextmanager
def _identified(path: Path, file: IO[bytes], head: bytes, formats: tuple[str, ...]) -> Iterator[Image]:
    from PIL import Image, ImageFile, UnidentifiedImageError

    ImageFile.LOAD_TRUNCATED_IMAGES = False  # somebody may have asked for tolerance; a cut file is refused
    try:
        image = Image.open(file, formats=formats)
    except UnidentifiedImageError:
        wanted = ", ".join(formats)
        content = _kind_of(head)
        raise DataError(f"{path}: is {content}; wanted is {wanted}: save the image as one of these") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: has too many pixels ({_text_of(error)}); shrink it") from None
    with image:
        yield image


def _check_size(path: Path, height: int, width: int, limit: int) -> None:
    if height < 1 or width < 1:
        raise DataError(f"{path}: is {height} x {width}; an image has at least one pixel")
    if height * width > limit:
        raise DataError(
            f"{path}: is {height} x {width}, {height * width / 1e6:.0f} million pixels, above the limit of "
            f"{limit / 1e6:.0f} million; shrink it"
        )


def _kind_of(head: bytes) -> str:
    for offset, mark, name in _SIGNATURES:
        if head[offset : offset + len(mark)] == mark:
            return name
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page"
    if start.startswith(b"<"):
        return "XML or SVG text"
    if not head.strip(b"\x00"):
        return "filled with zero bytes"
    return "not an image that can be told from its content"


def _text_of(error: BaseException) -> str:
    """An exception in a few words on one line."""
    text = " ".join(str(error).split())
    return (text[:117] + "...") if len(text) > 120 else text or type(error).__name__
