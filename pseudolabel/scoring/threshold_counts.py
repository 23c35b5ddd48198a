"""Counting for `pl sweep`: the masks of every threshold against the truth, an image at a time."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pseudolabel import images
from pseudolabel.errors import DataError
from pseudolabel.metrics import threshold_rules
from pseudolabel.metrics.confusion import Counts
from pseudolabel.pipeline import postprocessing
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.records import IGNORE, ImageRecord, Scores
from pseudolabel.runs import layout
from pseudolabel.runs.run import Run, StoredMaps
from pseudolabel.scoring import counts, reference_maps
from pseudolabel.scoring.counts import Sums
from pseudolabel.scoring.truth import Truth, listed, size
from pseudolabel.superpixels.engine import kept_in

SMALL = 16  # images below which processes cost more than they bring


@dataclass(frozen=True)
class Swept:
    """What is swept, and against what.

    Attributes:
        recipe: its refiners, background and postprocessors.
        judged: the images and their ground truth.
        reference: file of reference maps, or None.
        values: thresholds.
        free: count what rules without ground truth look at.
    """

    recipe: GenerateRecipe
    judged: Truth
    reference: Path | None
    values: tuple[float, ...]
    free: bool = False


@dataclass(frozen=True)
class _Stored:
    """An image and its stored maps: with `Swept` without its records, all that a worker is sent."""

    record: ImageRecord
    maps: StoredMaps


def require_maps(run: Run, judged: Truth) -> None:
    """See that every image has stored maps.

    Raises:
        DataError: those that have none, counted and the first named.
    """
    missing = [r.id for r in judged.records if not (run.path / layout.maps_file(r.id)).is_file()]
    if missing:
        raise DataError(
            f"{run.path / layout.MAPS}: {len(missing)} of {len(judged.records)} images have no stored maps: "
            f"{listed(missing)}; generate with --set output.maps=true"
        )


def count(run: Run, swept: Swept, *, keep: bool, workers: int, quiet: bool) -> Sums:
    """Matrices of every threshold over all images of a run, each counted once.

    Args:
        run: holds the stored maps.
        swept: the images with their truth, the thresholds, and what follows the maps.
        keep: the matrices of every image as well.
        workers: processes; 0 and 1 stay in this one.
        quiet: no progress.

    Raises:
        DataError: images that cannot be counted; all of them are counted in the message.
    """
    records = swept.judged.records
    small = replace(swept, judged=replace(swept.judged, records=()))

    def jobs() -> Iterator[tuple[str, _Stored]]:
        for record in records:
            yield record.id, _Stored(record, run.stored(record.id))

    alone = workers <= 1 or len(records) < SMALL
    return counts.count(
        functools.partial(_matrices, small),
        jobs(),
        len(records),
        keep=keep,
        workers=0 if alone else workers,
        processes=not alone,
        what="swept",
        quiet=quiet,
    )


def _matrices(swept: Swept, stored: _Stored) -> dict[str, Counts]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as `pl generate` does it: sums over pixels must not depend on who does them
    try:
        truth = swept.judged.mask(stored.record)
        masks, unseen = _masks(swept, stored, truth.shape)
        reference = None if swept.reference is None else reference_maps.opened(swept.reference)
        counted = counts.matrices(swept.judged, reference, stored.record, truth, masks, stored.maps.path)
        return {**counted, **unseen}
    finally:
        torch.set_num_threads(threads)


def _masks(
    swept: Swept, stored: _Stored, shape: tuple[int, ...]
) -> tuple[NDArray[np.uint8], dict[str, Counts]]:
    """(T, H, W) uint8 masks of one image at every threshold, and what rules without truth count on them."""
    recipe, path = swept.recipe, stored.maps.path
    maps: Sequence[Scores] = stored.maps.read()
    if len(maps) != len(recipe.maps):
        raise DataError(f"{path}: holds {len(maps)} branches, the recipe has {len(recipe.maps)}")
    if not maps[0].ids:
        fill = IGNORE if recipe.no_label == "ignore" else 0
        return np.full((len(swept.values), *shape), fill, np.uint8), {}
    for scores in maps:
        if tuple(scores.values.shape[1:]) != shape:
            raise DataError(f"{path}: maps are {size(scores.values.shape[1:])}, the truth {size(shape)}")
    record = stored.record
    content = images.read_file(record.image)
    stored.maps.check_image(record.image, content)
    image = images.read_image(record.image, data=content)
    folder = recipe.output.superpixels
    with kept_in(None if folder is None else Path(folder)):
        refined = postprocessing.combine(
            maps, image, [branch.refine for branch in recipe.maps], recipe.fuse, record.id
        )
        masks = postprocessing.sweep(
            refined, image, recipe.background, swept.values, recipe.postprocess, record.id
        )
    if not swept.free:
        return masks, {}
    return masks, {
        "histogram": threshold_rules.histogram(refined.values.numpy()),
        "transitions": threshold_rules.transitions(masks, len(swept.judged.space.names)),
        "edges": threshold_rules.edge_excess(masks, image),
    }
