"""Counting for `pl sweep`: the masks of every threshold against the truth, an image at a time."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pseudolabel import console, draws, images
from pseudolabel import masks as mask_files
from pseudolabel.errors import DataError
from pseudolabel.metrics import threshold_rules
from pseudolabel.metrics.confusion import Counts
from pseudolabel.metrics.regions import part_matrices, region_matrices
from pseudolabel.pipeline import postprocessing
from pseudolabel.pipeline.stored_maps import read_maps
from pseudolabel.pipeline.workers import pool
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.records import IGNORE, ImageRecord, Scores
from pseudolabel.scoring.threshold_picks import Sparse
from pseudolabel.scoring.truth import NAMED, Reference, Truth, listed, size
from pseudolabel.superpixels.engine import kept_in

CHUNK = 4  # images a worker takes at once
SMALL = 16  # images below which processes cost more than they bring


@dataclass(frozen=True)
class Work:
    """What a worker needs to know.

    Attributes:
        run: folder with the stored maps.
        recipe: its refiners, background and postprocessors.
        judged: the ground truth, without its records.
        reference: file of reference maps, or None.
        values: thresholds.
        each: keep every image's matrices.
        free: count what rules without ground truth look at.
    """

    run: Path
    recipe: GenerateRecipe
    judged: Truth
    reference: Path | None
    values: tuple[float, ...]
    each: bool = False
    free: bool = False

    def maps_of(self, record: ImageRecord) -> Path:
        """The file of an image's stored maps."""
        return self.run / "maps" / f"{record.id}.safetensors"


class Sums:
    """Counts summed over images.

    Attributes:
        named: matrices (T, C+1, C+2), the two halves of the set apart as half0 and half1; on request what
            rules without ground truth look at.
        each: matrices of every image, on request.
        faults: images that cannot be counted, and why.
        images: how many each half has.
    """

    def __init__(self) -> None:
        self.named: dict[str, Counts] = {}
        self.each: dict[str, Sparse] = {}
        self.faults: list[str] = []
        self.images = [0, 0]

    def add(self, name: str, counts: Counts) -> None:
        """Add counts of one name."""
        self.named[name] = self.named[name] + counts if name in self.named else counts

    def join(self, other: Sums) -> None:
        """Add what was counted elsewhere, over other images."""
        for name, counts in other.named.items():
            self.add(name, counts)
        self.each |= other.each
        self.faults += other.faults
        self.images = [a + b for a, b in zip(self.images, other.images, strict=True)]

    @property
    def whole(self) -> Counts:
        """(T, C+1, C+2) over all images."""
        counts: Counts = sum(self.named[f"half{half}"] for half in (0, 1) if self.images[half])  # type: ignore[assignment]
        return counts


def require_maps(folder: Path, judged: Truth) -> None:
    """See that every image has stored maps.

    Raises:
        DataError: those that have none, counted and the first named.
    """
    records = judged.records
    missing = [r.id for r in records if not (folder / "maps" / f"{r.id}.safetensors").is_file()]
    if missing:
        raise DataError(
            f"{folder / 'maps'}: {len(missing)} of {len(records)} images have no stored maps: "
            f"{listed(missing)}; generate with --set output.maps=true"
        )


def count(work: Work, records: Sequence[ImageRecord], workers: int, quiet: bool) -> Sums:
    """Matrices over all images, each counted once.

    Raises:
        DataError: images that cannot be counted; all of them are counted in the message.
    """
    sums = Sums()
    with console.progress(len(records), "sweep", quiet) as bar:
        for one in _chunks(work, records, workers):
            sums.join(one)
            bar.advance(sum(one.images) + len(one.faults))
    if sums.faults:
        faults = sorted(sums.faults)
        raise DataError(
            f"{len(faults)} of {len(records)} images cannot be swept: "
            + "; ".join(faults[:NAMED])
            + (f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else "")
        )
    assert sum(sums.images) == len({record.id for record in records})
    return sums


def _chunks(work: Work, records: Sequence[ImageRecord], workers: int) -> Iterator[Sums]:
    """Sums of a few images at a time, in any order: integers add up to the same."""
    chunks = [tuple(records[start : start + CHUNK]) for start in range(0, len(records), CHUNK)]
    one_chunk = functools.partial(_chunk, work)
    if workers <= 1 or len(records) < SMALL:
        yield from map(one_chunk, chunks)
        return
    with pool(one_chunk, lambda _, made: made, workers=workers, processes=True) as send:
        for future in as_completed([send(chunk) for chunk in chunks]):
            yield future.result()


def _chunk(work: Work, chunk: Sequence[ImageRecord]) -> Sums:
    import torch

    sums = Sums()
    maps = None if work.reference is None else Reference(work.reference)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as `pl generate` does it: sums over pixels must not depend on who does them
    try:
        for record in chunk:
            try:
                counted = _matrices(work, record, maps)
            except DataError as fault:
                sums.faults.append(str(fault))
                continue
            for name, counts in counted.items():
                sums.add(name, counts)
            if work.each:
                sums.each[record.id] = Sparse.of(counted[f"half{half_of(record.id)}"])
            sums.images[half_of(record.id)] += 1
    finally:
        torch.set_num_threads(threads)
    return sums


def _matrices(work: Work, record: ImageRecord, maps: Reference | None) -> dict[str, Counts]:
    names = len(work.judged.space.names)
    truth = work.judged.mask(record)
    maps_of_lines = read_maps(work.maps_of(record))
    found, unseen = _masks(work, record, maps_of_lines, truth.shape)
    region = np.zeros(truth.shape, np.bool_) if maps is None else maps.region(record.id, truth)
    try:
        whole, dr, ndr = region_matrices(truth, found, region, names)
    except ValueError as error:
        assert record.mask is not None
        mask_files.check_values(truth, work.judged.space, record.mask)
        raise DataError(f"{work.maps_of(record)}: {error}") from error
    counted = {f"half{half_of(record.id)}": whole, **unseen}
    if maps is not None:
        counted |= {"dr": dr, "ndr": ndr}
    parts = work.judged.part(record, truth.shape)
    if parts is not None:
        counted["part"], counted["body"] = part_matrices(truth, found, parts, names)
    return counted


def _masks(
    work: Work, record: ImageRecord, maps: Sequence[Scores], shape: tuple[int, ...]
) -> tuple[NDArray[np.uint8], dict[str, Counts]]:
    """(T, H, W) uint8 masks of one image at every threshold, and what rules without truth count on them."""
    recipe = work.recipe
    if len(maps) != len(recipe.maps):
        raise DataError(
            f"{work.maps_of(record)}: holds {len(maps)} branches, the recipe has {len(recipe.maps)}"
        )
    if not maps[0].ids:
        fill = IGNORE if recipe.no_label == "ignore" else 0
        return np.full((len(work.values), *shape), fill, np.uint8), {}
    for one in maps:
        if tuple(one.values.shape[1:]) != shape:
            raise DataError(
                f"{work.maps_of(record)}: maps are {size(one.values.shape[1:])}, the truth {size(shape)}"
            )
    image = images.read_image(record.image)
    folder = recipe.output.superpixels
    with kept_in(None if folder is None else Path(folder)):
        refined = postprocessing.combine(maps, image, [one.refine for one in recipe.maps], recipe.fuse)
        found = postprocessing.sweep(refined, image, recipe.background, work.values, recipe.postprocess)
    if not work.free:
        return found, {}
    return found, {
        "histogram": threshold_rules.histogram(refined.values.numpy()),
        "transitions": threshold_rules.transitions(found, len(work.judged.space.names)),
        "edges": threshold_rules.edge_excess(found, image),
    }


def half_of(record_id: str) -> int:
    """Which half of the set an image is in: by its id, so that no list order matters."""
    return draws.seed_of("half", record_id) & 1
