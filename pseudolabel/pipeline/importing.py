"""Masks and maps of other programs made a run folder that every command accepts."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pseudolabel import images, masks
from pseudolabel.errors import DataError, UsageError
from pseudolabel.pipeline.driver import write_files
from pseudolabel.pipeline.explaining import FILLS
from pseudolabel.pipeline.postprocessing import (
    ImageMaps,
    ImageResult,
    PostprocessingPlan,
    postprocess_image,
)
from pseudolabel.recipes.loading import load_recipe, load_step, plain_data
from pseudolabel.recipes.overrides import Overrides
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.recipes.steps import ImporterStep
from pseudolabel.recipes.yaml import dump_recipe
from pseudolabel.records import BACKGROUND, IGNORE, ImageRecord, Imported, ImportItem, LabelSpace
from pseudolabel.runs import disk, layout, writing
from pseudolabel.runs.maps import encode_maps

REMEDY = "mend or remove it in the source"


@dataclass(frozen=True)
class ImportSummary:
    """What was imported.

    Attributes:
        run: the run folder.
        importer: the importer.
        parameters: its parameters.
        images: how many have a mask.
        failed: how many could not be taken; problems.jsonl says why.
        lost: a sentence for each thing of the source that the run folder cannot hold.
    """

    run: str
    importer: str
    parameters: dict[str, Any]
    images: int
    failed: int
    lost: list[str]

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return dataclasses.asdict(self)


def import_run(
    importer: str,
    source: Path | str,
    out: Path | str,
    *,
    overrides: Overrides = (),
    recipe: Path | str | Mapping[str, Any] | GenerateRecipe | None = None,
    overwrite: bool = False,
    new: bool = False,
    wait: bool = False,
) -> ImportSummary:
    """Make a run folder of what another program has written.

    Args:
        importer: by name.
        source: file or folder of that program.
        out: the run's folder; the same import is done again, another one is refused.
        overrides: the importer's parameters, `key=value`.
        recipe: of `pl generate`: its data name the images, and what follows its maps makes masks where the
            source has maps alone. Without it the folder has no recipe: it can be scored with --truth and
            exported, but neither swept nor refined.
        overwrite, new, wait: see `writing.open_run`.

    Raises:
        UsageError: importer, parameters, recipe or folder refused; maps alone and no recipe.
        DataError: the source is refused, or has other classes than the recipe's data.
    """
    step = load_step(ImporterStep, importer, overrides)
    settled = None if recipe is None else load_recipe(recipe, GenerateRecipe)
    imported: Imported = step.component.run(Path(source), step.params)
    records = {} if settled is None else _records(settled, imported.space)
    fingerprint = {
        "from": importer,
        "parameters": step.parameters(),
        "source": _digest(Path(source)),
        "recipe": None if settled is None else _decisive(settled),
    }
    with writing.open_run(out, "import", fingerprint, overwrite=overwrite, new=new, wait=wait) as folder:
        if settled is not None:
            disk.write_text(folder.path / layout.RECIPE, dump_recipe(settled))
        disk.write_text(folder.path / layout.CLASSES, imported.space.text())
        order, failed = _write(folder, imported, settled, records)
        listed = [item for item in records if item in order] if records else list(order)
        folder.complete(listed)
        summary = ImportSummary(
            str(folder.path), importer, step.parameters(), len(listed), failed, list(imported.lost)
        )
        disk.write_json(folder.path / layout.SUMMARY, summary.as_dict())
    return summary


def _write(
    folder: writing.RunFolder,
    imported: Imported,
    recipe: GenerateRecipe | None,
    records: Mapping[str, ImageRecord],
) -> tuple[dict[str, None], int]:
    """Write the files of every item; the ids that have a mask, and how many have none."""
    written: dict[str, None] = {}
    failed: set[str] = set()
    folder.finished()
    for item in imported.items:
        if item.id in written or item.id in failed:
            raise DataError(f"{item.id}: stands twice in the source; {REMEDY}")
        try:
            job, result = _result(item, imported.space, recipe, records)
            line = write_files(folder, job, result)
            if line is None:
                raise DataError(result.fault or f"{item.id}: has no mask")
        except DataError as error:
            folder.problem(item.id, "not_imported", str(error), REMEDY)
            failed.add(item.id)
            continue
        folder.record(line)
        written[item.id] = None
    return written, len(failed)


@dataclass(frozen=True)
class _Job:
    """An imported image, as its files are written."""

    id: str
    labels: tuple[int, ...]
    facts: Mapping[str, Any]


def _result(
    item: ImportItem,
    space: LabelSpace,
    recipe: GenerateRecipe | None,
    records: Mapping[str, ImageRecord],
) -> tuple[_Job, ImageResult]:
    """The mask and maps of an item.

    Raises:
        DataError: they do not fit their image, the classes or the recipe.
        UsageError: maps alone, and no recipe that says how they become a mask.
    """
    if records and item.id not in records:
        raise DataError(f"{item.id}: is no image of the recipe's data")
    labels = _labels(item)
    if any(not 1 <= label <= space.foreground for label in labels):
        raise DataError(f"{item.id}: labels {labels} are not within 1..{space.foreground}")
    for scores in item.maps or ():
        if scores.ids != labels:
            raise DataError(f"{item.id}: maps of classes {scores.ids}, {labels} wanted")
    if item.mask is not None:
        masks.check_values(item.mask, space, Path(item.id))
    if recipe is None:
        if item.mask is None:
            raise UsageError(f"{item.id}: has maps alone; give a recipe that makes masks of them")
        stored = None if item.maps is None else encode_maps(labels, item.maps)
        return _Job(item.id, labels, {}), ImageResult(item.mask, stored)
    path = records[item.id].image
    content = images.read_file(path)
    image = images.read_image(path, data=content)
    job = _Job(item.id, labels, {"input_sha256": disk.sha256_bytes(content)})
    if item.mask is not None:
        masks.check_size(item.mask.shape, image.shape[:2], Path(item.id))
    if item.maps is None:
        return job, ImageResult(item.mask)
    if len(item.maps) != len(recipe.maps):
        raise DataError(
            f"{item.id}: has maps of {len(item.maps)} branches, the recipe has {len(recipe.maps)}"
        )
    fill = FILLS.get(recipe.no_label)
    if fill is None and not labels and item.mask is None:
        raise DataError(f"{item.id}: has no label; set no_label: background or ignore")
    values = [scores.values.float().numpy() for scores in item.maps] if labels else []
    given = ImageMaps(item.id, labels, image, values, fill or 0)
    result = postprocess_image(given, replace(PostprocessingPlan.of(recipe), maps=True))
    if item.mask is not None and result.mask is not None:
        result = replace(result, mask=item.mask)
    return job, result


def _labels(item: ImportItem) -> tuple[int, ...]:
    """Labels as given, or those of the maps, or those of the mask."""
    if item.labels is not None:
        return item.labels
    if item.maps:
        return item.maps[0].ids
    if item.mask is None:
        raise DataError(f"{item.id}: has neither mask nor maps")
    return tuple(int(label) for label in np.unique(item.mask) if label not in (BACKGROUND, IGNORE))


def _records(recipe: GenerateRecipe, space: LabelSpace) -> dict[str, ImageRecord]:
    """The images of the recipe's data by id, in the order of its list.

    Raises:
        DataError: the data have other classes.
    """
    data = recipe.data.component.run(recipe.data.params)
    if data.space.foreground and data.space != space:
        raise DataError("the classes of the source are not those of the recipe's data; look at data.root")
    return {record.id: record for record in data.records}


def _decisive(recipe: GenerateRecipe) -> dict[str, Any]:
    """What of a recipe decides the bytes of an import."""
    plain = plain_data(recipe)
    for key in ("data", "classifier", "output", "batch", "precision", "seed", "labels"):
        del plain[key]
    return plain


def _digest(source: Path) -> str:
    """sha256 of a file, or of the names and contents of all files below a folder.

    Raises:
        DataError: there is no such file or folder.
    """
    if source.is_file():
        return disk.sha256_file(source)
    if not source.is_dir():
        raise DataError(f"{source}: there is no such file or folder; check the path")
    rows = hashlib.sha256()
    for path in _files(source):
        rows.update(disk.json_line([path.relative_to(source).as_posix(), disk.sha256_file(path)]))
    return rows.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path
