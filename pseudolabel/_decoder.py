"""The one place where picture files are opened: what they may be, how large, and whole.

The format is told from the content and must be on the list; the size is looked at before anything is decoded;
a damaged or truncated file is refused. Whatever Pillow raises comes out as one kind of error.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pseudolabel import _fault_plan
from pseudolabel.errors import DataFault

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
LIMIT = 64_000_000  # pixels; three bytes each make 192 MB
HEAD = 64  # bytes that tell one format from another

_SIGNATURES = (  # what people name .jpg or .png by mistake; offset, bytes, name
    (0, b"GIF8", "a GIF"),
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"version https://git-lfs", "a Git LFS pointer, whose picture was not fetched"),
    (4, b"ftypheic", "a HEIC picture"),
    (4, b"ftypheix", "a HEIC picture"),
    (4, b"ftypmif1", "a HEIF picture"),
    (4, b"ftypavif", "an AVIF picture"),
)


@contextlib.contextmanager
def opened(path: Path, formats: tuple[str, ...] = FORMATS, limit: int = LIMIT) -> Iterator[Image]:
    """A picture with its header read and its size within the limit; decoding is up to the caller.

    Args:
        path: the file.
        formats: Pillow's names of what is taken.
        limit: largest number of pixels.

    Raises:
        DataFault: anything that goes wrong in here, in the body of the `with` too.
    """
    path = Path(path)
    try:
        with _regular(path) as file:
            head = file.read(HEAD)
            file.seek(0)
            if not head:
                raise DataFault(f"{path}: is empty (0 bytes); copy it again")
            with _identified(path, file, head, formats) as picture:
                _check_size(path, picture.height, picture.width, limit)
                yield picture
    except DataFault:
        raise
    except MemoryError as error:
        raise DataFault(f"{path}: does not fit into memory; shrink it or free some memory") from error
    except OSError as error:
        if error.errno is not None:
            raise DataFault(f"{path}: cannot be read: {error.strerror}; check the path") from error
        raise DataFault(f"{path}: is damaged ({_told(error)}); copy or export it again") from error
    except Exception as error:  # the decoders raise whatever their parsers stumble over
        raise DataFault(f"{path}: is damaged ({_told(error)}); copy or export it again") from error


@contextlib.contextmanager
def _regular(path: Path) -> Iterator[IO[bytes]]:
    """A plain file opened for reading; never a fifo or a device, which could block or act."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise DataFault(f"{path}: is missing; check the list and the folder") from None
    except ValueError:
        raise DataFault(f"{path}: is no path (it holds a NUL); check the list") from None
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "no regular file (a device, pipe or socket)"
        raise DataFault(f"{path}: is {what}; only regular files are opened")
    _fault_plan.trip("decode", path)
    with open(path, "rb") as file:
        yield file


@contextlib.contextmanager
def _identified(path: Path, file: IO[bytes], head: bytes, formats: tuple[str, ...]) -> Iterator[Image]:
    from PIL import Image, ImageFile, UnidentifiedImageError

    ImageFile.LOAD_TRUNCATED_IMAGES = False  # somebody may have asked for tolerance; a cut file is refused
    try:
        picture = Image.open(file, formats=formats)
    except UnidentifiedImageError:
        wanted = ", ".join(formats)
        found = _told_by_content(head)
        raise DataFault(f"{path}: is {found}; wanted is {wanted}: save the picture as one of these") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataFault(f"{path}: has too many pixels ({_told(error)}); shrink it") from None
    with picture:
        yield picture


def _check_size(path: Path, height: int, width: int, limit: int) -> None:
    if height < 1 or width < 1:
        raise DataFault(f"{path}: is {height} x {width}; a picture has at least one pixel")
    if height * width > limit:
        raise DataFault(
            f"{path}: is {height} x {width}, {height * width / 1e6:.0f} million pixels, above the limit of "
            f"{limit / 1e6:.0f} million; shrink it"
        )


def _told_by_content(head: bytes) -> str:
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
    return "not a picture that can be told from its content"


def _told(error: BaseException) -> str:
    """An exception in a few words on one line."""
    text = " ".join(str(error).split())
    return (text[:117] + "...") if len(text) > 120 else text or type(error).__name__
