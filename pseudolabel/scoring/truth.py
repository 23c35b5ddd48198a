"""What masks are scored against: the images of a score with their ground truth and planted parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pseudolabel import masks as mask_files
from pseudolabel.errors import DataError
from pseudolabel.records import ImageRecord, LabelSpace
from pseudolabel.runs import layout
from pseudolabel.runs.run import Run

if TYPE_CHECKING:
    from pseudolabel.recipes.steps import ReaderStep
    from pseudolabel.records import Dataset

NAMED = 5  # images named in one message; all of them are counted
Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class Truth:
    """The images that a score covers, each with its ground truth.

    Attributes:
        records: in list order, ids unique, every mask given.
        space: the class names.
        parts: folder of part masks, or None.
        split: which part of the data set this is, or None where its reader has no such word.
        reader: the reader's name, or `folder`.
        listed: how many images the data list; more than `records` where a run or a limit covers fewer.
    """

    records: tuple[ImageRecord, ...]
    space: LabelSpace
    parts: Path | None
    split: str | None
    reader: str
    listed: int

    def mask(self, record: ImageRecord) -> Mask:
        """Ground truth (H, W) uint8 of one record."""
        assert record.mask is not None
        return mask_files.read_mask(record.mask)

    def part(self, record: ImageRecord, shape: tuple[int, ...]) -> Mask | None:
        """Part mask (H, W) uint8 of one record: 1 part, 2 body; None where the data has none.

        Raises:
            DataError: it is missing or of another size than the truth.
        """
        if self.parts is None:
            return None
        mask = mask_files.read_mask(self.parts / f"{record.id}.png")
        if mask.shape != shape:
            raise DataError(
                f"{self.parts / record.id}.png: part mask is {size(mask.shape)}, its truth {size(shape)}"
            )
        return mask


def of_reader(step: ReaderStep, limit: int | None = None, within: Collection[str] | None = None) -> Truth:
    """The ground truth that a reader gives.

    Args:
        step: the reader.
        limit: the first so many images; None takes all.
        within: ids that a run holds; None takes every image of the list.

    Raises:
        DataError: no image has ground truth, or only some have; the run holds no image of the list.
    """
    dataset: Dataset = step.component.run(step.params)
    records = _within(dataset.records, within)[:limit]
    if not records:
        raise DataError(
            f"{step.component_name}: its list shares no image with the run; look at data.root and data.split"
        )
    without = [record.id for record in records if record.mask is None]
    if len(without) == len(records):
        raise DataError(
            f"{step.component_name}: the data set has no ground truth ({len(records)} images), so nothing "
            "can be scored; name data that has masks"
        )
    if without:
        raise DataError(
            f"{step.component_name}: {len(without)} of {len(records)} images have no ground truth mask: "
            f"{listed(without)}; add their masks, or leave them out of the list"
        )
    split = step.parameters().get("split")
    return Truth(records, dataset.space, dataset.parts, split, step.component_name, len(dataset.records))


def of_folder(
    folder: Path,
    classes: Path,
    listing: Path | None = None,
    limit: int | None = None,
    within: Collection[str] | None = None,
) -> Truth:
    """The ground truth that lies in a folder of `<id>.png`.

    Args:
        folder: indexed masks.
        classes: text file, a class a line, line number - 1 = id, background first.
        listing: text file of ids, one a line; None takes every mask of the folder, by name.
        limit: the first so many images; None takes all.
        within: ids that a run holds; None takes every image of the list.

    Raises:
        DataError: nothing found, a listed mask is missing, an id is listed twice.
    """
    space = LabelSpace.read(classes)
    if listing is None:
        ids = png_ids(folder)
        if not ids:
            raise DataError(f"{folder}: holds no ground truth (no .png); give the folder of the true masks")
    else:
        ids = _listed_ids(listing)
        missing = [item for item in ids if not (folder / f"{item}.png").is_file()]
        if missing:
            raise DataError(
                f"{folder}: {len(missing)} of {len(ids)} listed images have no ground truth: "
                f"{listed(missing)}; add their masks, or leave them out of the list"
            )
    places = ((item, folder / f"{item}.png") for item in ids)
    records = _within([ImageRecord(item, path, None, path) for item, path in places], within)[:limit]
    if not records:
        raise DataError(f"{folder}: its masks share no image with the run")
    return Truth(records, space, None, None, "folder", len(ids))


def check_classes(run: Run, space: LabelSpace) -> None:
    """See that a run's masks have the classes of the data that they are scored against.

    Raises:
        DataError: the run's class list says other names.
    """
    if run.classes != space:
        raise DataError(
            f"{run.path / layout.CLASSES}: its classes are not those of the data; look at data.root and its "
            "class list"
        )


def png_ids(folder: Path) -> list[str]:
    """Ids of the masks in a folder, by name.

    Raises:
        DataError: there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of masks")
    return sorted(path.stem for path in folder.iterdir() if path.suffix.lower() == ".png")


def listed(ids: Sequence[str]) -> str:
    """The first few of many ids."""
    return ", ".join(ids[:NAMED]) + (", ..." if len(ids) > NAMED else "")


def size(shape: Sequence[int]) -> str:
    """A size as a person writes it, height first."""
    return " x ".join(str(side) for side in shape)


def _within(records: Sequence[ImageRecord], ids: Collection[str] | None) -> tuple[ImageRecord, ...]:
    return tuple(records) if ids is None else tuple(record for record in records if record.id in ids)


def _listed_ids(path: Path) -> list[str]:
    """The ids of a text file, one a line.

    Raises:
        DataError: it cannot be read, is empty, or lists an id twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a text file ({error})") from error
    ids = [line.strip() for line in text.splitlines() if line.strip()]
    if not ids:
        raise DataError(f"{path}: lists no image")
    counts = Counter(ids)
    twice = [item for item in counts if counts[item] > 1]
    if twice:
        raise DataError(f"{path}: {len(twice)} ids are listed twice: {listed(twice)}; list each once")
    return ids
