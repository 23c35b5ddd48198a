"""`pl sweep`: every threshold of a run's background, scored in one pass over its stored maps.

Refiners run once an image; the background rule gives the masks of all thresholds at once. Picking a threshold
sees ground truth, so the result says which images it was picked on, and beside the best row what a
threshold that was picked on one half of the images gives on the other half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel import console
from pseudolabel.errors import UsageError
from pseudolabel.metrics.confusion import Counts, averaged_ids, defined, figures, mean
from pseudolabel.metrics.confusion import iou as iou_of
from pseudolabel.metrics.confusion import read as read_as
from pseudolabel.recipes import composition
from pseudolabel.records import ImageRecord
from pseudolabel.runs import disk
from pseudolabel.scoring import threshold_picks
from pseudolabel.scoring.threshold_counts import Sums, Work, count, require_maps
from pseudolabel.scoring.truth import Reference, check_classes, of_reader, run_recipe

if TYPE_CHECKING:
    from pseudolabel.recipes.schema import GenerateRecipe
    from pseudolabel.recipes.steps import ReaderStep

GRID = tuple(round(0.02 * step, 2) for step in range(1, 31))  # 0.02 to 0.60, scores in 0..1
SCORE = "score 0..1"  # the unit of a key that is compared with scores
PICKED = "largest mIoU on these images, whose ground truth it sees; of equal ones the first"


def sweep(
    run: Path | str,
    *,
    reference: Path | str | None = None,
    thresholds: Sequence[float] | None = None,
    average_over: Sequence[str] | None = None,
    pick_on: Sequence[str] = (),
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
        thresholds: values of the background rule's swept key; None takes 0.02 to 0.60 by 0.02.
        average_over: class names that means are taken over; None for all.
        pick_on: where else thresholds come from, each scored on images that had no say in it: a number N
            (N images with ground truth, drawn 200 times), `free` (rules that need no ground truth), a split
            of the run's reader whose maps the run holds too, or the folder of another run.
        data: a reader in place of the run's own.
        overrides: `key=value` on the run's recipe: other refiners, another background rule, `data.root=...`.
        limit: the first so many images of the list only.
        workers: processes; no figure depends on them. 0 and 1 stay in this process.
        quiet: no progress, no hint.

    Returns:
        What was written: `rows` (one a threshold), `best`, `held_out`, `picks` (one a rule and place; `gap`
        is what the best threshold of the same images gains over it), `split`, `images`, ...

    Raises:
        DataError: maps or ground truth are missing or do not fit.
        UsageError: no thresholds for this background rule, one that it refuses, or an unknown class.
    """
    folder = Path(run)
    recipe = run_recipe(folder, overrides)
    key = composition.swept_key(recipe.background)
    values = _values(key, thresholds, recipe)
    judged = of_reader(data or recipe.data, limit)
    chosen = averaged_ids(judged.space, average_over)
    maps = Reference(Path(reference)) if reference is not None else None
    if maps is not None:
        maps.require(record.id for record in judged.records)
    check_classes(folder, judged.space)
    require_maps(folder, judged)
    # A worker is sent its few records; what it holds for all of them stays small.
    work = Work(
        folder,
        recipe,
        replace(judged, records=()),
        None if maps is None else maps.path,
        values,
        each=bool(pick_on),
        free=threshold_picks.FREE in pick_on,
    )
    sources = [_place(one, work, overrides) for one in dict.fromkeys(pick_on)]  # refuses before the long part
    sums = count(work, judged.records, workers, quiet)
    rows = [_row(sums, index, value, chosen) for index, value in enumerate(values)]
    best = _best([row["miou"] for row in rows])
    result = {
        "rows": rows,
        "best": {"threshold": None, "miou": None} if best is None else rows[best],
        "held_out": _held_out(sums, values, chosen),
        "key": f"background.{key}",
        "background": recipe.background.component_name,
        "picked": PICKED,
        "picks": _picked(work, sources, sums, chosen, workers, quiet),
        "split": judged.split,
        "images": len(judged.records),
        "average_over": None if chosen is None else [judged.space.names[c] for c in chosen],
        "classes_averaged": 0 if best is None else rows[best]["classes_averaged"],
        "reference": None if maps is None else maps.plain(),
        "labels": recipe.labels.source,
    }
    disk.write_json(folder / "sweep.json", result)
    from pseudolabel.figures.curves import sweep_curves

    over = f"{result['images']} images" + (f" of {judged.split}" if judged.split else "")
    disk.write_bytes(folder / "sweep.png", sweep_curves(rows, best, str(result["key"]), over))
    if maps is None and not quiet:
        console.say(
            "DR- and NDR-recall are undefined without reference maps: "
            f"`pl reference {folder}/recipe.yaml -o reference.safetensors`, then --reference"
        )
    return result


def _values(key: str, thresholds: Sequence[float] | None, recipe: GenerateRecipe) -> tuple[float, ...]:
    if thresholds is not None:
        values = tuple(float(value) for value in thresholds)
        if not values or any(not math.isfinite(value) for value in values):
            raise UsageError("sweep: thresholds are empty or not finite; for instance 0.02:0.6:0.02")
        return tuple(sorted(set(values)))
    if key != "threshold":
        raise UsageError(
            f"sweep: {recipe.background.component_name!r} is swept over {key!r}, which has no usual range; "
            "give --thresholds first:last:step"
        )
    return GRID


@dataclass(frozen=True)
class _Place:
    """Where a threshold is picked: `count` images, other images (`work`, `records`), or nowhere (free)."""

    on: str
    count: int | None = None
    work: Work | None = None
    records: tuple[ImageRecord, ...] = ()


def _place(on: str, work: Work, overrides: Sequence[str]) -> _Place:
    """What a word of --pick-on names.

    Raises:
        DataError, UsageError: no such split or run, other classes, or no maps of its images.
    """
    if on == threshold_picks.FREE:
        return _Place(on)
    if on.lstrip("-").isdigit():
        return _Place(on, count=int(on))
    folder, key = work.run, [*overrides, f"data.split={on}"]
    if (Path(on) / "recipe.yaml").is_file():
        folder, key = Path(on), list(overrides)
    elif Path(on).is_dir() or "/" in on:
        raise UsageError(
            f"--pick-on {on}: no run of `pl generate`; give its folder, a split, a number, or free"
        )
    judged = of_reader(run_recipe(folder, key).data)
    if judged.space != work.judged.space:
        raise UsageError(f"--pick-on {on}: its classes are not those of {work.run}")
    records = tuple(r for r in judged.records if (folder / "maps" / f"{r.id}.safetensors").is_file())
    if not records:
        instead = "give the folder of a run over it instead" if folder == work.run else "store them there"
        raise UsageError(f"--pick-on {on}: {folder} holds no maps of that split; {instead}")
    if folder == work.run:
        require_maps(folder, judged)  # another run may well cover the first images of its list only
    there = replace(
        work, run=folder, judged=replace(judged, records=()), reference=None, each=False, free=False
    )
    return _Place(on, work=there, records=records)


def _picked(
    work: Work,
    places: Sequence[_Place],
    sums: Sums,
    chosen: Sequence[int] | None,
    workers: int,
    quiet: bool,
) -> list[dict[str, Any]]:
    """A row for every rule and place that a threshold comes from."""
    names = len(work.judged.space.names)
    shape = (len(work.values), names, names + 1)
    scored = threshold_picks.Scored(sums.each, shape, work.values, chosen)
    rows: list[dict[str, Any]] = []
    for place in places:
        if place.work is not None:
            counts = count(place.work, place.records, workers, quiet).whole
            seen = {record.id for record in place.records}
            rows.append(threshold_picks.by_other_images(scored, place.on, counts, seen))
        elif place.count is not None:
            rows.append(threshold_picks.by_few_images(scored, place.count))
        else:
            rows += threshold_picks.without_truth(
                scored, sums.named, composition.swept_unit(work.recipe.background) == SCORE
            )
    return rows


def _row(sums: Sums, index: int, value: float, chosen: Sequence[int] | None) -> dict[str, Any]:
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


def _held_out(sums: Sums, values: Sequence[float], chosen: Sequence[int] | None) -> dict[str, Any] | None:
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
