"""`pl sweep`: every threshold of a run's resolver, scored in one pass over its stored maps.

Refiners run once an image; the resolver gives the masks of all thresholds at once. Picking a threshold
sees ground truth, so the result says which images it was picked on, and beside the best row what a
threshold that was picked on one half of the images gives on the other half.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pseudolabel import console, draws, images, line, storage
from pseudolabel import masks as mask_files
from pseudolabel.errors import DataFault, UsageFault
from pseudolabel.metrics.confusion import Counts, averaged_ids, defined, figures, mean
from pseudolabel.metrics.confusion import iou as iou_of
from pseudolabel.metrics.confusion import read as read_as
from pseudolabel.metrics.regions import part_matrices, region_matrices
from pseudolabel.records import IGNORE, ImageRecord, Scores
from pseudolabel.schema import GenerateRecipe
from pseudolabel.superpixels.engine import kept_in
from pseudolabel.verbs._items import read_maps
from pseudolabel.verbs._pool import pool
from pseudolabel.verbs._truth import (
    NAMED,
    Reference,
    Truth,
    check_classes,
    listed,
    of_reader,
    run_recipe,
    size,
)

if TYPE_CHECKING:
    from pseudolabel.recipe import ReaderStep

GRID = tuple(round(0.02 * step, 2) for step in range(1, 31))  # 0.02 to 0.60, scores in 0..1
CHUNK = 4  # images a worker takes at once
SMALL = 16  # images below which processes cost more than they bring
PICKED = "largest mIoU on these images, whose ground truth it sees; of equal ones the first"


def sweep(
    run: Path | str,
    *,
    reference: Path | str | None = None,
    thresholds: Sequence[float] | None = None,
    average_over: Sequence[str] | None = None,
    data: ReaderStep | None = None,
    overrides: Sequence[str] = (),
    limit: int | None = None,
    workers: int = 2,
    quiet: bool = False,
) -> dict[str, Any]:
    """Score thresholds over stored maps and write `sweep.json` and `sweep.png` into the run.

    Args:
        run: a run of `pl generate` with `output.maps`.
        reference: reference maps of `pl reference`; None leaves DR- and NDR-recall undefined.
        thresholds: values of the resolver's swept key; None takes 0.02 to 0.60 by 0.02.
        average_over: class names that means are taken over; None for all.
        data: a reader in place of the run's own.
        overrides: `key=value` on the run's recipe: other refiners, another resolver, `data.root=...`.
        limit: the first so many images of the list only.
        workers: processes; no figure depends on them. 0 and 1 stay in this process.
        quiet: no progress, no hint.

    Returns:
        What was written: `rows` (one a threshold), `best`, `held_out`, `split`, `images`, ...

    Raises:
        DataFault: maps or ground truth are missing or do not fit.
        UsageFault: no thresholds for this resolver, one that it refuses, or an unknown class.
    """
    folder = Path(run)
    recipe = run_recipe(folder, overrides)
    key = line.swept_key(recipe.resolver)
    values = _values(key, thresholds, recipe)
    judged = of_reader(data or recipe.data, limit)
    chosen = averaged_ids(judged.space, average_over)
    maps = Reference(Path(reference)) if reference is not None else None
    if maps is not None:
        maps.require(record.id for record in judged.records)
    check_classes(folder, judged.space)
    _require_maps(folder, judged)
    # A worker is sent its few records; what it holds for all of them stays small.
    work = _Work(folder, recipe, replace(judged, records=()), None if maps is None else maps.path, values)
    sums = _count(work, judged.records, workers, quiet)
    rows = [_row(sums, index, value, chosen) for index, value in enumerate(values)]
    best = _best([row["miou"] for row in rows])
    result = {
        "rows": rows,
        "best": {"threshold": None, "miou": None} if best is None else rows[best],
        "held_out": _held_out(sums, values, chosen),
        "key": f"resolver.{key}",
        "resolver": recipe.resolver.brick_name,
        "picked": PICKED,
        "split": judged.split,
        "images": len(judged.records),
        "average_over": None if chosen is None else [judged.space.names[c] for c in chosen],
        "classes_averaged": 0 if best is None else rows[best]["classes_averaged"],
        "reference": None if maps is None else maps.plain(),
        "labels": recipe.labels.source,
    }
    storage.write_json(folder / "sweep.json", result)
    from pseudolabel.figures.curves import sweep_curves

    over = f"{result['images']} images" + (f" of {judged.split}" if judged.split else "")
    storage.write_bytes(folder / "sweep.png", sweep_curves(rows, best, str(result["key"]), over))
    if maps is None and not quiet:
        console.say(
            "DR- and NDR-recall are undefined without reference maps: "
            f"`pl reference {folder}/recipe.yaml -o reference.safetensors`, then --reference"
        )
    return result


@dataclass(frozen=True)
class _Work:
    """What a worker needs to know; `judged` comes without its records."""

    run: Path
    recipe: GenerateRecipe
    judged: Truth
    reference: Path | None
    values: tuple[float, ...]

    def maps_of(self, record: ImageRecord) -> Path:
        return self.run / "maps" / f"{record.id}.safetensors"


class _Sums:
    """Matrices (T, C+1, C+2) summed over images; `halves` keeps the two halves of the set apart."""

    def __init__(self) -> None:
        self.named: dict[str, Counts] = {}
        self.faults: list[str] = []
        self.images = [0, 0]

    def add(self, name: str, counts: Counts) -> None:
        self.named[name] = self.named[name] + counts if name in self.named else counts

    def join(self, other: _Sums) -> None:
        for name, counts in other.named.items():
            self.add(name, counts)
        self.faults += other.faults
        self.images = [a + b for a, b in zip(self.images, other.images, strict=True)]

    @property
    def whole(self) -> Counts:
        counts: Counts = sum(self.named[f"half{half}"] for half in (0, 1) if self.images[half])  # type: ignore[assignment]
        return counts


def _values(key: str, thresholds: Sequence[float] | None, recipe: GenerateRecipe) -> tuple[float, ...]:
    if thresholds is not None:
        values = tuple(float(value) for value in thresholds)
        if not values or any(not math.isfinite(value) for value in values):
            raise UsageFault("sweep: thresholds are empty or not finite; for instance 0.02:0.6:0.02")
        return tuple(sorted(set(values)))
    if key != "threshold":
        raise UsageFault(
            f"sweep: {recipe.resolver.brick_name!r} is swept over {key!r}, which has no usual range; "
            "give --thresholds first:last:step"
        )
    return GRID


def _require_maps(folder: Path, judged: Truth) -> None:
    records = judged.records
    missing = [r.id for r in records if not (folder / "maps" / f"{r.id}.safetensors").is_file()]
    if missing:
        raise DataFault(
            f"{folder / 'maps'}: {len(missing)} of {len(records)} images have no stored maps: "
            f"{listed(missing)}; generate with --set output.maps=true"
        )


def _count(work: _Work, records: Sequence[ImageRecord], workers: int, quiet: bool) -> _Sums:
    """Matrices over all images, each counted once.

    Raises:
        DataFault: images that cannot be counted; all of them are counted in the message.
    """
    sums = _Sums()
    with console.progress(len(records), "sweep", quiet) as bar:
        for one in _chunks(work, records, workers):
            sums.join(one)
            bar.advance(sum(one.images) + len(one.faults))
    if sums.faults:
        faults = sorted(sums.faults)
        raise DataFault(
            f"{len(faults)} of {len(records)} images cannot be swept: "
            + "; ".join(faults[:NAMED])
            + (f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else "")
        )
    assert sum(sums.images) == len({record.id for record in records})
    return sums


def _chunks(work: _Work, records: Sequence[ImageRecord], workers: int) -> Iterator[_Sums]:
    """Sums of a few images at a time, in any order: integers add up to the same."""
    chunks = [tuple(records[start : start + CHUNK]) for start in range(0, len(records), CHUNK)]
    count = functools.partial(_chunk, work)
    if workers <= 1 or len(records) < SMALL:
        yield from map(count, chunks)
        return
    with pool(count, lambda _, made: made, workers=workers, processes=True) as send:
        for future in as_completed([send(chunk) for chunk in chunks]):
            yield future.result()


def _chunk(work: _Work, chunk: Sequence[ImageRecord]) -> _Sums:
    import torch

    sums = _Sums()
    maps = None if work.reference is None else Reference(work.reference)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as `pl generate` does it: sums over pixels must not depend on who does them
    try:
        for record in chunk:
            try:
                counted = _matrices(work, record, maps)
            except DataFault as fault:
                sums.faults.append(str(fault))
                continue
            for name, counts in counted.items():
                sums.add(name, counts)
            sums.images[_half(record.id)] += 1
    finally:
        torch.set_num_threads(threads)
    return sums


def _matrices(work: _Work, record: ImageRecord, maps: Reference | None) -> dict[str, Counts]:
    names = len(work.judged.space.names)
    truth = work.judged.mask(record)
    maps_of_lines = read_maps(work.maps_of(record))
    found = _masks(work, record, maps_of_lines, truth.shape)
    region = np.zeros(truth.shape, np.bool_) if maps is None else maps.region(record.id, truth)
    try:
        whole, dr, ndr = region_matrices(truth, found, region, names)
    except ValueError as error:
        assert record.mask is not None
        mask_files.check_values(truth, work.judged.space, record.mask)
        raise DataFault(f"{work.maps_of(record)}: {error}") from error
    counted = {f"half{_half(record.id)}": whole}
    if maps is not None:
        counted |= {"dr": dr, "ndr": ndr}
    parts = work.judged.part(record, truth.shape)
    if parts is not None:
        counted["part"], counted["body"] = part_matrices(truth, found, parts, names)
    return counted


def _masks(
    work: _Work, record: ImageRecord, maps: Sequence[Scores], shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    """(T, H, W) uint8 masks of one image at every threshold."""
    recipe = work.recipe
    if len(maps) != len(recipe.maps):
        raise DataFault(
            f"{work.maps_of(record)}: holds {len(maps)} lines of maps, the recipe has {len(recipe.maps)}"
        )
    if not maps[0].ids:
        fill = IGNORE if recipe.no_label == "ignore" else 0
        return np.full((len(work.values), *shape), fill, np.uint8)
    for one in maps:
        if tuple(one.values.shape[1:]) != shape:
            raise DataFault(
                f"{work.maps_of(record)}: maps are {size(one.values.shape[1:])}, the truth {size(shape)}"
            )
    picture = images.read_image(record.image)
    folder = recipe.output.superpixels
    with kept_in(None if folder is None else Path(folder)):
        refined = line.combine(maps, picture, [one.refiners for one in recipe.maps], recipe.fuse)
        return line.sweep(refined, picture, recipe.resolver, work.values, recipe.finish)


def _half(record_id: str) -> int:
    """Which half of the set an image is in: by its id, so that no list order matters."""
    return draws.seed_of("half", record_id) & 1


def _row(sums: _Sums, index: int, value: float, chosen: Sequence[int] | None) -> dict[str, Any]:
    def part(name: str) -> Counts | None:
        return sums.named[name][index] if name in sums.named else None

    found = figures(sums.whole[index], dr=part("dr"), ndr=part("ndr"), average_over=chosen)
    row = {
        "threshold": value,
        "classes_averaged": found.classes_averaged,
        **{
            name: defined(getattr(found, name))
            for name in (
                "miou",
                "dr_recall",
                "ndr_recall",
                "fg_precision",
                "fg_recall",
                "fg_hit",
                "coverage",
            )
        },
        **{name: defined(legacy) for name, legacy in found.legacy.items()},
    }
    if "part" in sums.named:
        planted = figures(sums.whole[index], dr=part("part"), ndr=part("body"), average_over=chosen)
        row |= {"part_recall": defined(planted.dr_recall), "body_recall": defined(planted.ndr_recall)}
    return row


def _best(mious: Sequence[float | None]) -> int | None:
    known = [(miou, -index) for index, miou in enumerate(mious) if miou is not None]
    return -max(known)[1] if known else None


def _held_out(sums: _Sums, values: Sequence[float], chosen: Sequence[int] | None) -> dict[str, Any] | None:
    """Threshold picked on one half of the images, mIoU there and on the other half."""
    if not all(sums.images):
        return None
    picked, scored = (_mious(sums.named[f"half{half}"], chosen) for half in (0, 1))
    best = _best(picked)
    if best is None:
        return None
    return {
        "threshold": values[best],
        "miou_picked": picked[best],
        "miou": scored[best],
        "images_picked": sums.images[0],
        "images": sums.images[1],
    }


def _mious(counts: Counts, chosen: Sequence[int] | None) -> list[float | None]:
    ious = iou_of(read_as(counts, "background"))
    classes = range(counts.shape[1]) if chosen is None else chosen
    return [defined(mean(one, classes)[0]) for one in ious]
