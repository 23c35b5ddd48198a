"""What masks are scored against: ground truth, planted parts, and the recorded reference maps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from pseudolabel import masks as mask_files
from pseudolabel.errors import DataError, UsageError
from pseudolabel.metrics.regions import RULES, Rule, discriminative
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.recipes.steps import ReaderStep
from pseudolabel.records import ImageRecord, LabelSpace
from pseudolabel.runs import disk

if TYPE_CHECKING:
    from pseudolabel.recipes.loading import load_recipe
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
    """

    records: tuple[ImageRecord, ...]
    space: LabelSpace
    parts: Path | None
    split: str | None
    reader: str

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
        found = mask_files.read_mask(self.parts / f"{record.id}.png")
        if found.shape != shape:
            raise DataError(
                f"{self.parts / record.id}.png: part mask is {size(found.shape)}, its truth {size(shape)}"
            )
        return found


def run_recipe(run: Path, overrides: Sequence[str] = ()) -> GenerateRecipe:
    """The recipe that a run folder was made from.

    Raises:
        UsageError: the folder holds none.
    """
    path = run / "recipe.yaml"
    if not path.is_file():
        raise UsageError(
            f"{run}: no recipe.yaml, so this is no run of `pl generate`; for a folder of masks give "
            "--masks DIR --truth DIR --classes FILE"
        )
    return load_recipe(path, GenerateRecipe, overrides)


def of_reader(step: ReaderStep, limit: int | None = None) -> Truth:
    """The ground truth that a reader gives.

    Args:
        step: the reader.
        limit: the first so many images; None takes all.

    Raises:
        DataError: no image has ground truth, or only some have.
    """
    component, params = step.component, step.params
    dataset: Dataset = component.run(params)
    records = dataset.records if limit is None else dataset.records[:limit]
    without = [record.id for record in records if record.mask is None]
    split = step.parameters().get("split")
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
    return Truth(records, dataset.space, dataset.parts, split, step.component_name)


def of_folder(folder: Path, classes: Path, listing: Path | None = None, limit: int | None = None) -> Truth:
    """The ground truth that lies in a folder of `<id>.png`.

    Args:
        folder: indexed masks.
        classes: text file, a class a line, line number - 1 = id, background first.
        listing: text file of ids, one a line; None takes every mask of the folder, by name.
        limit: the first so many images; None takes all.

    Raises:
        DataError: nothing found, a listed mask is missing, an id is listed twice.
    """
    space = LabelSpace(tuple(_lines(classes)))
    if listing is None:
        ids = png_ids(folder)
        if not ids:
            raise DataError(f"{folder}: holds no ground truth (no .png); give the folder of the true masks")
    else:
        ids = _lines(listing)
        seen: set[str] = set()
        twice = [one for one in ids if one in seen or seen.add(one)]  # type: ignore[func-returns-value]
        if twice:
            raise DataError(f"{listing}: {len(twice)} ids are listed twice: {listed(twice)}; list each once")
        if not ids:
            raise DataError(f"{listing}: lists no image")
        missing = [one for one in ids if not (folder / f"{one}.png").is_file()]
        if missing:
            raise DataError(
                f"{folder}: {len(missing)} of {len(ids)} listed images have no ground truth: "
                f"{listed(missing)}; add their masks, or leave them out of the list"
            )
    records = tuple(
        ImageRecord(one, folder / f"{one}.png", None, folder / f"{one}.png") for one in ids[:limit]
    )
    return Truth(records, space, None, None, "folder")


def check_classes(run: Path, space: LabelSpace) -> None:
    """See that a run's masks have the classes of the data that they are scored against.

    Raises:
        DataError: the run's `classes.txt` says other names.
    """
    path = run / "classes.txt"
    if path.is_file() and tuple(_lines(path)) != space.names:
        raise DataError(
            f"{path}: its classes are not those of the data; look at data.root and its class list"
        )


def png_ids(folder: Path) -> list[str]:
    """Ids of the masks in a folder, by name.

    Raises:
        DataError: there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of masks")
    return sorted(path.stem for path in folder.iterdir() if path.suffix.lower() == ".png")


class Reference:
    """Recorded single-scale CAMs of the original classifier, which tell DR from NDR.

    Attributes:
        threshold: share of a map's largest value above which a pixel is discriminative.
        rule: `own` or `any`.
        classes: {id: class ids of its maps}.
        path, sha256: the file.
    """

    def __init__(self, path: Path) -> None:
        """Open a reference file.

        Raises:
            DataError: it is missing, damaged, or holds no reference maps.
        """
        from safetensors import SafetensorError, safe_open

        if path.is_dir():
            path = path / "reference.safetensors"
        if not path.is_file():
            raise DataError(f"{path}: no reference maps; make them with `pl reference RECIPE -o {path.name}`")
        try:
            self._file = cast("Any", safe_open(path, framework="pt"))
            meta: dict[str, Any] = self._file.metadata() or {}
            self.threshold = float(meta["threshold"])
            self.rule: Rule = meta["rule"]
            self.classes = {one: tuple(ids) for one, ids in json.loads(meta["ids"]).items()}
        except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}: holds no reference maps ({type(error).__name__}: {error}); make them with "
                "`pl reference RECIPE -o FILE`"
            ) from error
        if self.rule not in RULES:
            raise DataError(f"{path}: rule {self.rule!r} is not one of {', '.join(RULES)}")
        self.path = path
        self.sha256 = disk.sha256_file(path)

    def require(self, ids: Iterable[str]) -> None:
        """Refuse a reference that lacks an image.

        Raises:
            DataError: the images without reference maps, counted and the first named.
        """
        missing = [one for one in ids if one not in self.classes]
        if missing:
            raise DataError(
                f"{self.path.name}: {len(missing)} images have no reference maps: {listed(missing)}; make "
                "the reference from the list that is scored"
            )

    def region(self, record_id: str, truth: Mask) -> NDArray[np.bool_]:
        """Discriminative region (H, W) bool of one image: its CAMs upsampled straight to (H, W).

        Args:
            record_id: the image.
            truth: (H, W) uint8 ground truth.
        """
        from torch.nn import functional

        ids = self.classes[record_id]
        if not ids:
            return np.zeros(truth.shape, dtype=np.bool_)
        maps = self._file.get_tensor(record_id).float()
        full = functional.interpolate(maps[None], size=truth.shape, mode="bilinear", align_corners=False)
        return discriminative(truth, full[0].numpy(), ids, self.threshold, self.rule)

    def plain(self) -> dict[str, Any]:
        """What an evaluation records of it."""
        return {
            "maps": self.path.name,
            "threshold": self.threshold,
            "rule": self.rule,
            "sha256": self.sha256,
        }


def listed(ids: Sequence[str]) -> str:
    """The first few of many ids."""
    return ", ".join(ids[:NAMED]) + (", ..." if len(ids) > NAMED else "")


def size(shape: Sequence[int]) -> str:
    """A size as a person writes it, height first."""
    return " x ".join(str(side) for side in shape)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a text file ({error})") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
