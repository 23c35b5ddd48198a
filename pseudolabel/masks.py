"""Masks in and out: 8-bit indexed PNGs whose values are class ids and whose colours are VOC's.

A mask is never converted, scaled or repaired on the way: what does not hold indices is refused.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pseudolabel.errors import DataError
from pseudolabel.images import FORMATS, LIMIT, opened
from pseudolabel.records import IGNORE, LabelSpace, MaskSource
from pseudolabel.runs import disk

SHOWN = 10  # values named in one message
THICK = 11  # pixels; a square of 255 this wide is no border


def _palette() -> NDArray[np.uint8]:
    """Bit 3j of the index is red's bit 7-j, 3j+1 green's, 3j+2 blue's (PASCAL VOC development kit)."""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            if 3 * bit + channel < 8:
                colours[:, channel] |= ((index >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours


PALETTE = _palette()  # (256, 3) uint8 RGB by class id
PALETTE.flags.writeable = False


def encode_mask(mask: NDArray[np.uint8], level: int = 6) -> bytes:
    """An indexed 8-bit PNG with all 256 colours; the same mask always gives the same bytes.

    Args:
        mask: (H, W) uint8 class ids.
        level: of compression, 0..9.

    Raises:
        ValueError: another shape or type.
    """
    from PIL import Image

    if mask.dtype != np.uint8 or mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"a mask is (H, W) uint8, not {mask.shape} {mask.dtype}")
    height, width = mask.shape
    image = Image.frombytes("P", (width, height), np.ascontiguousarray(mask).tobytes())
    image.putpalette(PALETTE.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def encode_grey(mask: NDArray[np.uint8], level: int = 6) -> bytes:
    """The ids as an 8-bit grey PNG, the form that every trainer reads rightly; see `encode_mask`."""
    from PIL import Image

    if mask.dtype != np.uint8 or mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"a mask is (H, W) uint8, not {mask.shape} {mask.dtype}")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(mask)).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def write_mask(path: Path, mask: NDArray[np.uint8]) -> None:
    """Put a mask in place, whole or not at all; see `encode_mask` and `disk.write_bytes`."""
    disk.write_bytes(path, encode_mask(mask))


def read_mask(source: Path | MaskSource, limit: int = LIMIT) -> NDArray[np.uint8]:
    """The class ids of a mask, exactly as stored; ground truth of every kind is read here.

    Args:
        source: an indexed PNG, or an 8-bit grey one; or what makes a mask.
        limit: largest number of pixels of a PNG.

    Returns:
        (H, W) uint8, writable.

    Raises:
        DataError: missing, damaged, or anything whose values are no indices; a hint says what it looks like.
    """
    if not isinstance(source, str | Path):
        mask = source.read()
        if mask.dtype != np.uint8 or mask.ndim != 2:
            raise DataError(f"{source}: gives a mask of {mask.dtype} {mask.shape}; a mask is (H, W) uint8")
        return mask
    path = Path(source)
    with opened(path, limit=limit) as image:
        if image.format != "PNG":
            lost = ": its ids are lost to compression" if image.format in ("JPEG", "MPO") else ""
            raise DataError(f"{path}: mask is a {image.format}{lost}; masks are 8-bit indexed or grey PNGs")
        depth, colour_type = _header(path)
        if image.getexif().get(0x0112, 1) != 1:
            raise DataError(f"{path}: mask asks to be turned (EXIF); save the mask as the image is shown")
        image.load()
        if image.mode == "P" or (image.mode == "L" and depth == 8):
            if "transparency" in image.info and colour_type == 0:
                raise DataError(f"{path}: mask is grey with a transparent value; save plain ids")
            return np.array(image)
        raise DataError(f"{path}: mask is {_kind(image.mode, depth)}; {_hint(np.asarray(image))}")


def mask_digest(source: Path | MaskSource) -> str:
    """Text that changes when a mask does: sha256 of its file, or what its source says."""
    return source.digest() if not isinstance(source, str | Path) else disk.sha256_file(Path(source))


def read_colours(path: Path, limit: int = LIMIT) -> NDArray[np.uint8]:
    """The ids of a mask that was saved as RGB colours of the VOC palette; made only when asked for.

    Returns:
        (H, W) uint8 class ids.

    Raises:
        DataError: no lossless RGB image, or a colour that is not in the palette (place named).
    """
    path = Path(path)
    with opened(path, tuple(kind for kind in FORMATS if kind != "JPEG"), limit) as image:
        image.load()
        pixels = np.asarray(image)
        if image.mode not in ("RGB", "RGBA"):
            raise DataError(f"{path}: is {image.mode}, not RGB colours; nothing to map back")
    ids, known = _by_colour(pixels)
    if not known.all():
        y, x = np.argwhere(~known)[0]
        raise DataError(
            f"{path}: colour {tuple(pixels[y, x, :3].tolist())} at row {y}, column {x} is not in the VOC "
            "palette; save the mask with its indices"
        )
    return ids


def check_values(mask: NDArray[np.uint8], space: LabelSpace, path: Path | MaskSource) -> None:
    """See that a mask holds only 0..C and 255.

    Raises:
        DataError: other values; the first ten with their pixel counts and what they look like.
    """
    counts = np.bincount(mask.ravel(), minlength=256)
    strange = [int(value) for value in np.flatnonzero(counts) if space.foreground < value != IGNORE]
    if not strange:
        return
    named = ", ".join(f"{value} ({counts[value]} pixels)" for value in strange[:SHOWN])
    more = f" and {len(strange) - SHOWN} more" if len(strange) > SHOWN else ""
    hint = _hint_of_values(np.flatnonzero(counts).tolist(), space.foreground)
    raise DataError(
        f"{path}: mask holds {named}{more}; classes are 0 to {space.foreground}, and 255 means ignore: {hint}"
    )


def check_size(size: tuple[int, int], image: tuple[int, int], path: Path | MaskSource) -> None:
    """See that a mask has the size of its image as shown, both (H, W).

    Raises:
        DataError: it has another.
    """
    if size != image:
        raise DataError(
            f"{path}: mask is {size[0]} x {size[1]}, its image {image[0]} x {image[1]}; "
            "save the mask as the image is shown"
        )


def looks_binary(mask: NDArray[np.uint8]) -> bool:
    """Whether 0 and 255 are all there is and 255 is more than a border: 0/255 may stand for classes 0/1."""
    ignored = mask == IGNORE
    if not ignored.any() or ignored.all() or not (ignored | (mask == 0)).all():
        return False
    if min(mask.shape) < THICK:
        return bool(ignored.mean() > 0.2)
    total = np.pad(ignored.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = total[THICK:, THICK:] - total[:-THICK, THICK:] - total[THICK:, :-THICK] + total[:-THICK, :-THICK]
    return bool((inside == THICK * THICK).any())


def colour(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 colours of a mask's ids."""
    return PALETTE[mask]


def _header(path: Path) -> tuple[int, int]:
    """Bit depth and colour type of a PNG, which Pillow does not tell."""
    with open(path, "rb") as file:
        head = file.read(26)
    return head[24], head[25]


def _kind(mode: str, depth: int) -> str:
    if mode in ("L", "1"):
        return f"{depth}-bit grey"
    names = {"RGB": "RGB", "RGBA": "RGB with alpha", "LA": "grey with alpha"}
    return "16-bit grey" if mode.startswith("I") else names.get(mode, mode)


def _hint(pixels: NDArray[np.generic]) -> str:
    """What a file that holds no indices looks like, and the way out."""
    if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] >= 3:
        if _by_colour(pixels.astype(np.uint8))[1].all():
            return "looks like RGB colours of the VOC palette: `seg check --fix-from-palette`"
        if (pixels[:, :, 0] == pixels[:, :, 1]).all() and (pixels[:, :, 1] == pixels[:, :, 2]).all():
            return "its three channels are equal: save one of them as 8-bit grey"
        return "save the class ids as an 8-bit indexed or grey PNG"
    if pixels.dtype == np.bool_:
        return "0/255: did you mean classes 0/1? save the ids as 8-bit values 0 and 1"
    if pixels.ndim == 2 and pixels.size and int(pixels.max()) <= IGNORE:
        return "its values fit 8 bits: save them as 8-bit grey"
    return "save the class ids as an 8-bit indexed or grey PNG"


def _hint_of_values(values: Iterable[int], foreground: int) -> str:
    distinct = set(values)
    luma = (PALETTE[: foreground + 1] @ np.array([299, 587, 114]) + 500) // 1000
    # Rounding differs by one between libraries; 220 is the grey of the palette's last colour.
    if len(distinct) > 1 and all(
        min(abs(int(grey) - value) for grey in (*luma, 220)) <= 1 for value in distinct
    ):
        return "looks like a palette mask that was read as grey; save its indices"
    if max(distinct - {IGNORE}) == foreground + 1:
        return "ids may be shifted by one; background is 0 and the first class 1"
    return "check the class list and how the mask was saved"


def _by_colour(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(H, W) ids by VOC colour, and where the colour is in the palette (and opaque)."""
    keys = (PALETTE.astype(np.int64) * (65536, 256, 1)).sum(axis=1)
    order = np.argsort(keys)
    wanted = (pixels[:, :, :3].astype(np.int64) * (65536, 256, 1)).sum(axis=2)
    slot = np.minimum(np.searchsorted(keys[order], wanted), 255)
    ids = order[slot].astype(np.uint8)
    known = keys[order][slot] == wanted
    if pixels.shape[2] == 4:
        known &= pixels[:, :, 3] == 255
    return ids, known
