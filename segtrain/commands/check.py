"""`seg check`: every fault of the masks of a training at once, and indexed copies of coloured ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pseudolabel import console, masks
from pseudolabel.errors import DataError, PseudolabelError, UsageError
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.overrides import Overrides
from pseudolabel.records import ImageRecord, LabelSpace
from pseudolabel.runs import disk
from segtrain.inspection import Inspection, inspect
from segtrain.pairs import PairSet, pair_up, read_data
from segtrain.recipe import SegRecipe
from segtrain.results import CheckSummary

if TYPE_CHECKING:
    pass


def check(
    source: Path | str,
    *,
    images: Path | str | None = None,
    classes: Path | str | None = None,
    fix_from_palette: Path | str | None = None,
    overrides: Overrides = (),
    quiet: bool = False,
) -> CheckSummary:
    """Look at every mask and say all that is wrong.

    Args:
        source: a recipe of `seg train`, or a folder of masks.
        images: for a folder: the images, `<id>.<suffix>`.
        classes: for a folder: a file with a name a line, background first.
        fix_from_palette: a new folder for indexed copies of masks that hold RGB colours of the VOC
            palette; sound masks are copied as they are. Nothing else is repaired, no input is changed.
        overrides: of the recipe.
        quiet: show no progress.

    Returns:
        Every fault, and the pixels of each class in the good masks.

    Raises:
        UsageError: a folder without `images` or `classes`, or OUT is not empty.
        DataError: there is nothing to look at.
    """
    sets = _sets(Path(source), images, classes, overrides)
    inspected: list[tuple[PairSet, Inspection]] = []
    with console.progress(sum(len(pair_set.pairs) for pair_set in sets), "check", quiet) as bar:
        inspected = [(pair_set, inspect(pair_set, bar.advance)) for pair_set in sets]
    result = _joined(inspected)
    if fix_from_palette is not None:
        fixed = _fix(inspected, Path(fix_from_palette))
        result = dataclasses.replace(result, fixed=fixed, failed=result.failed - len(fixed))
    return result


def _sets(
    source: Path, images: Path | str | None, classes: Path | str | None, overrides: Overrides
) -> list[PairSet]:
    if not source.is_dir():
        recipe = load_recipe(source, SegRecipe, overrides)
        sets = [pair_up(read_data(recipe.data), recipe.masks)]
        if recipe.validation is not None:
            sets.append(pair_up(read_data(recipe.data, recipe.validation)))
        return sets
    if images is None or classes is None:
        raise UsageError(
            f"{source}: a folder of masks is checked against its images and classes; "
            "add --images DIR --classes FILE, or give a recipe"
        )
    space = LabelSpace.read(Path(classes))
    input_images = sorted(path for path in Path(images).iterdir() if path.is_file())
    if not input_images:
        raise DataError(f"{images}: holds no image; give the folder of the images")
    from pseudolabel.records import Dataset

    records = tuple(ImageRecord(path.stem, path) for path in input_images)
    return [pair_up(Dataset(records, space), str(source))]


def _joined(inspected: Sequence[tuple[PairSet, Inspection]]) -> CheckSummary:
    """The result over training and validation pairs; a file that stands in both is told once."""
    faults = list(dict.fromkeys(fault for _, inspection in inspected for fault in inspection.faults))
    names = [*inspected[0][0].space.names, "ignore"]
    pixels = dict.fromkeys(names, 0)
    for pair_set, inspection in inspected:
        for name, count in zip((*pair_set.space.names, "ignore"), inspection.pixels, strict=True):
            pixels[name] += int(count)
    return CheckSummary(
        images=sum(inspection.looked_at for _, inspection in inspected),
        good=sum(len(inspection.inputs) for _, inspection in inspected),
        faults=faults,
        all_ignored=[item for _, inspection in inspected for item in inspection.ignored],
        background_only=[item for _, inspection in inspected for item in inspection.background],
        masks_not_listed=len(inspected[0][1].unlisted),
        pixels=pixels,
        failed=len({fault.file for fault in faults}),
    )


def _fix(inspected: Sequence[tuple[PairSet, Inspection]], out: Path) -> list[str]:
    """Write the copies; returns the ids of the masks that were mapped back from colours."""
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out}: is not empty; repaired copies go to a new folder")
    fixed: list[str] = []
    for pair_set, inspection in inspected:
        coloured = {fault.id for fault in inspection.faults if fault.code in ("rgb", "alpha")}
        sound = {item for item, _, _ in inspection.inputs}
        for pair in pair_set.pairs:
            if not isinstance(pair.mask, Path) or pair.id not in coloured | sound:
                continue
            target = out / f"{pair.id}.png"
            if pair.id in sound:
                disk.write_bytes(target, pair.mask.read_bytes())
                continue
            try:
                ids = masks.read_colours(pair.mask)
                masks.check_values(ids, pair_set.space, pair.mask)
            except PseudolabelError as fault:
                console.say(fault)
                continue
            masks.write_mask(target, ids)
            fixed.append(pair.id)
    return fixed
