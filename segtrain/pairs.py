"""Which image goes with which mask: the data's own masks, a folder of them, or a generated run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pseudolabel.errors import DataError
from pseudolabel.recipes.schema import validation_step
from pseudolabel.recipes.steps import ReaderStep
from pseudolabel.records import Dataset, LabelSpace
from pseudolabel.runs import disk, writing


@dataclass(frozen=True)
class Pair:
    """An image and its mask, or None where there is no mask."""

    id: str
    image: Path
    mask: Path | None


@dataclass(frozen=True)
class PairSet:
    """Pairs of one list.

    Attributes:
        pairs: in list order.
        space: classes that the masks may hold.
        folder: where the masks lie, or None where every record names its own.
        digests: sha256 of the mask by id, as the manifest of a generated run says; empty otherwise.
    """

    pairs: tuple[Pair, ...]
    space: LabelSpace
    folder: Path | None = None
    digests: Mapping[str, str] = field(default_factory=dict)


def read_data(data: ReaderStep, replaced: Mapping[str, Any] | None = None) -> Dataset:
    """The records of a reader step, some of its keys replaced.

    Raises:
        DataError: the list is empty, or what the reader refuses.
    """
    step = data if replaced is None else validation_step(data, dict(replaced))
    component, params = step.component, step.params
    dataset: Dataset = component.run(params)
    if not dataset.records:
        raise DataError(f"data: {step.reader} gives no image; look at its root and split")
    return dataset


def pair_up(dataset: Dataset, masks: str | None = None) -> PairSet:
    """Pairs of a data set.

    Args:
        dataset: images, and masks if `masks` is None.
        masks: a run of `pl generate` or a folder of `<id>.png`.

    Raises:
        DataError: there is no such folder, or the run is not finished.
    """
    if masks is None:
        return PairSet(tuple(Pair(r.id, r.image, r.mask) for r in dataset.records), dataset.space)
    root = Path(masks).expanduser()
    if not root.is_dir():
        raise DataError(f"masks: {root} is no folder; give a run of `pl generate` or a folder of <id>.png")
    folder, digests = root, {}
    if (root / writing.FINGERPRINT).exists():
        folder = root / "masks"
        if not (root / writing.MANIFEST).exists():
            raise DataError(f"masks: {root} is not finished; run the same `pl generate` again")
        digests = {
            str(row["id"]): str(row["sha256"]) for row in disk.read_json_lines(root / writing.MANIFEST)
        }
    pairs = tuple(Pair(r.id, r.image, folder / f"{r.id}.png") for r in dataset.records)
    return PairSet(pairs, dataset.space, folder, digests)
