"""Which image goes with which mask: the data's own masks, a folder of them, or a generated run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pseudolabel.errors import DataError
from pseudolabel.recipes.schema import validation_step
from pseudolabel.recipes.steps import ReaderStep
from pseudolabel.records import Dataset, LabelSpace, MaskSource
from pseudolabel.runs import layout
from pseudolabel.runs.run import Run


@dataclass(frozen=True)
class Pair:
    """An image and its mask, or None where there is no mask."""

    id: str
    image: Path
    mask: Path | MaskSource | None


@dataclass(frozen=True)
class PairSet:
    """Pairs of one list.

    Attributes:
        pairs: in list order.
        space: classes that the masks may hold.
        folder: where the masks lie, or None where every record names its own.
        run: the generated run that the masks are from, or None.
    """

    pairs: tuple[Pair, ...]
    space: LabelSpace
    folder: Path | None = None
    run: Run | None = None

    @property
    def labels(self) -> dict[str, str | None]:
        """Where the image labels of the masks came from, as their run says; None where that is not known."""
        stored = self.run is not None and (self.run.path / layout.SUMMARY).is_file()
        summary = self.run.summary if self.run is not None and stored else {}
        return {key: summary.get(key) for key in ("labels", "labels_from")}

    def digest(self, item: str) -> str | None:
        """sha256 of a mask as the manifest of the generated run says; None for a mask of other origin."""
        if self.run is None or item not in self.run.manifest:
            return None
        return str(self.run.manifest[item]["sha256"])


def read_data(
    data: ReaderStep, replaced: Mapping[str, Any] | None = None, limit: int | None = None
) -> Dataset:
    """The records of a reader step, some of its keys replaced; with a limit only the first ones.

    Raises:
        DataError: the list is empty, or what the reader refuses.
    """
    step = data if replaced is None else validation_step(data, dict(replaced))
    dataset: Dataset = step.component.run(step.params)
    dataset = replace(dataset, records=dataset.records[:limit])
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
    folder, run = root, None
    if (root / layout.FINGERPRINT).exists():
        run = Run.open(root)
        folder = root / layout.MASKS
    pairs = tuple(Pair(r.id, r.image, folder / f"{r.id}.png") for r in dataset.records)
    return PairSet(pairs, dataset.space, folder, run)
