"""The result of `pl sweep`: a row a threshold, the best of them, and thresholds from elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pseudolabel.errors import UsageError
from pseudolabel.metrics.confusion import Counts, defined, figures
from pseudolabel.metrics.threshold_curves import best_of, mious, pick
from pseudolabel.recipes import composition
from pseudolabel.recipes.overrides import Overrides, as_texts
from pseudolabel.runs.run import Run
from pseudolabel.scoring import threshold_picks
from pseudolabel.scoring.counts import Sums
from pseudolabel.scoring.threshold_counts import Swept, count, require_maps
from pseudolabel.scoring.truth import of_reader

SCORE = "score 0..1"  # the unit of a key that is compared with scores
PICKED = "largest mIoU on these images, whose ground truth it sees; of equal ones the first"
FIGURES = ("miou", "dr_recall", "ndr_recall", "fg_precision", "fg_recall", "fg_hit", "coverage")


@dataclass(frozen=True)
class Sweep:
    """Every threshold of a run's background rule, scored; undefined figures are None.

    Attributes:
        rows: figures by threshold, ascending.
        best: the row with the largest mIoU.
        held_out: the best threshold of one half of the images, and its mIoU there and on the other half.
        key: of the recipe, that was swept.
        background: the background rule.
        picked: how `best` was picked.
        picks: thresholds from elsewhere, each on images that had no say in it.
        split: of the data, or None.
        images: how many were scored.
        average_over: class names that the means are taken over; None is all of them.
        classes_averaged: how many classes stand in the best row's mIoU.
        reference: the reference maps, or None.
        labels: where the run's labels came from.
    """

    rows: list[dict[str, Any]]
    best: dict[str, Any]
    held_out: dict[str, Any] | None
    key: str
    background: str
    picked: str
    picks: list[dict[str, Any]]
    split: str | None
    images: int
    average_over: list[str] | None
    classes_averaged: int
    reference: dict[str, Any] | None
    labels: str

    def as_dict(self) -> dict[str, Any]:
        """What sweep.json holds."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class PickSource:
    """Where thresholds are picked: on `count` images, on the images of a run, or on nothing (free)."""

    on: str
    count: int | None = None
    run: Run | None = None
    swept: Swept | None = None


def place_of(on: str, run: Run, swept: Swept, overrides: Overrides) -> PickSource:
    """What a word of --pick-on names.

    Raises:
        DataError, UsageError: no such split or run, other classes, or no maps of its images.
    """
    if on == threshold_picks.FREE:
        return PickSource(on)
    if on.lstrip("-").isdigit():
        return PickSource(on, count=int(on))
    there, keys = run, [*as_texts(overrides), f"data.split={on}"]
    if Path(on).is_dir() or "/" in on:
        try:
            there, keys = Run.open(on), list(as_texts(overrides))
        except UsageError as error:
            raise UsageError(
                f"--pick-on {on}: no run of `pl generate` ({error}); give its folder, a split, a number, "
                "or free"
            ) from error
    judged = of_reader(there.recipe_with(keys).data, within=there.listed)
    if judged.space != swept.judged.space:
        raise UsageError(f"--pick-on {on}: its classes are not those of {run.path}")
    require_maps(there, judged)
    return PickSource(on, run=there, swept=replace(swept, judged=judged, reference=None, free=False))


def picked(
    swept: Swept,
    places: Sequence[PickSource],
    sums: Sums,
    chosen: Sequence[int] | None,
    workers: int,
    quiet: bool,
) -> list[dict[str, Any]]:
    """A row for every rule and place that a threshold comes from."""
    if not places:
        return []
    scored = threshold_picks.Scored(sums.each, sums.total.shape, swept.values, chosen)
    rows: list[dict[str, Any]] = []
    for place in places:
        if place.run is not None and place.swept is not None:
            counts = count(place.run, place.swept, keep=False, workers=workers, quiet=quiet).total
            picked_ids = {record.id for record in place.swept.judged.records}
            rows.append(threshold_picks.by_other_images(scored, place.on, counts, picked_ids))
        elif place.count is not None:
            rows.append(threshold_picks.by_few_images(scored, place.count))
        else:
            in_scores = composition.swept_unit(swept.recipe.background) == SCORE
            rows += threshold_picks.without_truth(scored, sums.named, in_scores)
    return rows


def swept_result(
    swept: Swept, sums: Sums, chosen: Sequence[int] | None, picks: list[dict[str, Any]], reference: Any
) -> Sweep:
    """The result of counted thresholds.

    Args:
        swept: what was swept.
        sums: what was counted.
        chosen: class ids that means are taken over; None for all.
        picks: see `picked`.
        reference: the `ReferenceMaps`, or None.
    """
    rows = [_row(sums, index, value, chosen) for index, value in enumerate(swept.values)]
    best = best_of(mious(sums.total, chosen))
    judged, background = swept.judged, swept.recipe.background
    return Sweep(
        rows=rows,
        best={"threshold": None, "miou": None} if best is None else rows[best],
        held_out=_held_out(sums, swept.values, chosen),
        key=f"background.{composition.swept_key(background)}",
        background=background.component_name,
        picked=PICKED,
        picks=picks,
        split=judged.split,
        images=len(judged.records),
        average_over=None if chosen is None else [judged.space.names[c] for c in chosen],
        classes_averaged=0 if best is None else rows[best]["classes_averaged"],
        reference=None if reference is None else reference.as_dict(),
        labels=swept.recipe.labels.source,
    )


def _row(sums: Sums, index: int, value: float, chosen: Sequence[int] | None) -> dict[str, Any]:
    def named(name: str) -> Counts | None:
        return sums.named[name][index] if name in sums.named else None

    scored = figures(sums.total[index], dr=named("dr"), ndr=named("ndr"), average_over=chosen)
    row = {
        "threshold": value,
        "classes_averaged": scored.classes_averaged,
        **{name: defined(getattr(scored, name)) for name in FIGURES},
        **{name: defined(legacy) for name, legacy in scored.legacy.items()},
    }
    if "part" in sums.named:
        planted = figures(sums.total[index], dr=named("part"), ndr=named("body"), average_over=chosen)
        row |= {"part_recall": defined(planted.dr_recall), "body_recall": defined(planted.ndr_recall)}
    return row


def _held_out(sums: Sums, values: Sequence[float], chosen: Sequence[int] | None) -> dict[str, Any] | None:
    """Threshold picked on one half of the images, mIoU there and on the other half."""
    if not all(sums.images):
        return None
    taken = pick(*(mious(sums.named[f"half{half}"], chosen) for half in (0, 1)))
    if taken is None:
        return None
    return {
        "threshold": values[taken.index],
        "miou_picked": taken.picked,
        "miou": defined(taken.scored),
        "images_picked": sums.images[0],
        "images": sums.images[1],
    }
