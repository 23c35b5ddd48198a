"""Looking at every mask before a training: all faults at once, each with what was found and what to do.

A mask is read the one way there is; what cannot be read gets its code from its first bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pseudolabel import images, masks
from pseudolabel.errors import PseudolabelError
from pseudolabel.records import BACKGROUND, IGNORE, LabelSpace, MaskSource
from pseudolabel.runs import disk
from segtrain.pairs import Pair, PairSet

PNG = b"\x89PNG\r\n\x1a\n"
GREY, RGB, INDEXED, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6  # colour types of PNG


@dataclass(frozen=True)
class MaskFault:
    """One thing wrong with one file.

    Attributes:
        id: of the image.
        file: name of the mask or image.
        code: a short name.
        what, remedy: for a person.
    """

    id: str
    file: str
    code: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}; {self.remedy}"


@dataclass
class Inspection:
    """What was found in a set of pairs.

    Attributes:
        looked_at: pairs.
        faults: in list order.
        ignored, background: ids of masks that are all 255, or background and 255 alone; legal.
        unlisted: mask files of the folder that no listed image has, though there is such an image.
        pixels: pixels of each class id 0..C, then of 255, over all good masks.
        inputs: (id, sha256 of the image, sha256 of the mask) of the good pairs.
    """

    looked_at: int = 0
    faults: list[MaskFault] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    background: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    inputs: list[tuple[str, str, str]] = field(default_factory=list)


def inspect(pair_set: PairSet, advance: Callable[[], None] = lambda: None) -> Inspection:
    """Look at every pair, and at masks that no image has."""
    names = len(pair_set.space.names)
    result = Inspection(looked_at=len(pair_set.pairs), pixels=np.zeros(names + 1, dtype=np.int64))
    for pair in pair_set.pairs:
        faults, mask = look_at(pair, pair_set.space, pair_set.digest(pair.id))
        result.faults += faults
        if not faults and mask is not None:
            _note(result, pair, mask, names)
        advance()
    if pair_set.folder is not None:
        _look_for_strangers(pair_set, result)
    return result


def look_at(
    pair: Pair, space: LabelSpace, digest: str | None = None
) -> tuple[list[MaskFault], NDArray[np.uint8] | None]:
    """Faults of one pair, and its mask where it could be read.

    Args:
        pair: the image and its mask.
        space: classes that the mask may hold.
        digest: what the manifest of a generated run says of the mask; None for foreign masks.
    """
    faults: list[MaskFault] = []
    try:
        size: tuple[int, int] | None = images.read_image(pair.image).shape[:2]
    except (PseudolabelError, OSError) as error:
        faults.append(
            _fault_of(pair.id, pair.image, "image", error, "replace the image, or take it off the list")
        )
        size = None
    path = pair.mask
    if path is None or (isinstance(path, Path) and not path.exists()):
        name = pair.id if path is None else _name(path)
        faults.append(
            MaskFault(pair.id, name, "missing", "no mask", "make one, or take the image off the list")
        )
        return faults, None
    try:
        mask = masks.read_mask(path)
    except (PseudolabelError, OSError) as error:
        kind = _kind(path.read_bytes()) if isinstance(path, Path) else "unreadable"
        return [*faults, _fault_of(pair.id, path, kind, error, "write the mask again")], None
    try:
        masks.check_values(mask, space, path)
    except PseudolabelError as error:
        faults.append(_fault_of(pair.id, path, "values", error, "write the mask again"))
    try:
        masks.check_size(mask.shape, size or mask.shape, path)
    except PseudolabelError as error:
        faults.append(_fault_of(pair.id, path, "size", error, "write the mask again"))
    if not isinstance(path, Path):
        return faults, mask
    if digest is None:
        faults += _foreign(pair.id, path, mask, space)
    elif disk.sha256_file(path) != digest:
        what = "differs from its line in the manifest"
        faults.append(MaskFault(pair.id, path.name, "changed", what, "generate it again"))
    return faults, mask


def _foreign(id: str, path: Path, mask: NDArray[np.uint8], space: LabelSpace) -> list[MaskFault]:
    """What only masks of other hands may have: 0/255 for classes 0/1, a palette in another order."""
    if masks.looks_binary(mask):
        what = f"holds nothing but 0 and 255 ({int((mask == IGNORE).sum())} pixels of 255, which are ignored)"
        return [MaskFault(id, path.name, "binary", what, "0/255: did you mean classes 0/1?")]
    strange = _strange_palette(path.read_bytes(), space)
    if strange is None:
        return []
    index, other = strange
    what = f"index {index} ({space.names[index]}) has the colour of class {other} ({space.names[other]})"
    return [MaskFault(id, path.name, "palette", what, "bring its ids into the order of the class list")]


def _kind(raw: bytes) -> str:
    """The code of a file that is no mask, from its first bytes."""
    if not raw:
        return "empty"
    if raw.startswith(b"\xff\xd8"):
        return "jpeg"
    if not raw.startswith(PNG) or len(raw) < 33:
        return "unreadable"
    depth, colour = raw[24], raw[25]
    if colour in (GREY_ALPHA, RGB_ALPHA):
        return "alpha"
    if depth == 16:
        return "sixteen_bit"
    return {RGB: "rgb", GREY: "one_bit" if depth == 1 else "grey"}.get(colour, "unreadable")


def _strange_palette(raw: bytes, space: LabelSpace) -> tuple[int, int] | None:
    """An index that wears the VOC colour of another class: the ids are in another order."""
    at = raw.find(b"PLTE", 8)
    if raw[25] != INDEXED or at < 0:
        return None
    (length,) = struct.unpack(">I", raw[at - 4 : at])
    palette = np.frombuffer(raw[at + 4 : at + 4 + length // 3 * 3], dtype=np.uint8).reshape(-1, 3).tolist()
    classes = {
        tuple(colour): index for index, colour in enumerate(masks.PALETTE[: len(space.names)].tolist())
    }
    for index, colour in list(enumerate(palette))[1 : len(space.names)]:
        other = classes.get(tuple(colour), index)
        if other not in (index, BACKGROUND):
            return index, other
    return None


def _note(result: Inspection, pair: Pair, mask: NDArray[np.uint8], names: int) -> None:
    assert pair.mask is not None
    counts = np.bincount(mask.ravel(), minlength=256)
    result.pixels[:names] += counts[:names]
    result.pixels[names] += counts[IGNORE]
    if counts[IGNORE] == mask.size:
        result.ignored.append(pair.id)
    elif counts[BACKGROUND] + counts[IGNORE] == mask.size:
        result.background.append(pair.id)
    result.inputs.append((pair.id, disk.sha256_file(pair.image), masks.mask_digest(pair.mask)))


def _look_for_strangers(pair_set: PairSet, result: Inspection) -> None:
    """Masks that no listed image has: counted, and a fault where there is no such image at all."""
    assert pair_set.folder is not None
    listed = {pair.id for pair in pair_set.pairs}
    there = {
        image.stem for folder in {pair.image.parent for pair in pair_set.pairs} for image in folder.iterdir()
    }
    for file in sorted(pair_set.folder.glob("*.png")):
        if file.stem in listed:
            continue
        if file.stem in there:
            result.unlisted.append(file.stem)
        else:
            result.faults.append(
                MaskFault(
                    file.stem,
                    file.name,
                    "no_image",
                    "no image has this name",
                    "add the image, or move the mask",
                )
            )


def _name(source: Path | MaskSource) -> str:
    """What a mask is called in the list of faults."""
    return source.name if isinstance(source, Path) else str(source)


def _fault_of(id: str, path: Path | MaskSource, code: str, error: Exception, remedy: str) -> MaskFault:
    """A refusal of the decoder as a fault of the list."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    what, _, hint = text.removeprefix(f"{path}: ").partition("; ")
    return MaskFault(id, _name(path), code, what, hint or remedy)
