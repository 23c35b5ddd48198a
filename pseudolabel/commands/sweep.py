"""`pl sweep`: every threshold of a run's background, scored in one pass over its stored maps.

Refiners run once an image; the background rule gives the masks of all thresholds at once. Picking a threshold
sees ground truth, so the result says which images it was picked on, and beside the best row what a
threshold that was picked on one half of the images gives on the other half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pseudolabel import console
from pseudolabel.errors import UsageError
from pseudolabel.metrics.confusion import averaged_ids
from pseudolabel.recipes import composition
from pseudolabel.recipes.overrides import Overrides
from pseudolabel.runs import disk, layout
from pseudolabel.runs.run import Run
from pseudolabel.scoring import sweeping, threshold_picks
from pseudolabel.scoring.reference_maps import ReferenceMaps
from pseudolabel.scoring.sweeping import Sweep
from pseudolabel.scoring.threshold_counts import Swept, count, require_maps
from pseudolabel.scoring.truth import check_classes, of_reader

if TYPE_CHECKING:
    from pseudolabel.recipes.schema import GenerateRecipe
    from pseudolabel.recipes.steps import ReaderStep

GRID = tuple(round(0.02 * step, 2) for step in range(1, 31))  # 0.02 to 0.60, scores in 0..1


def sweep(  # long: ten arguments, each with its line
    run: Path | str,
    *,
    reference: Path | str | None = None,
    other_classifier: bool = False,
    thresholds: Sequence[float] | None = None,
    average_over: Sequence[str] | None = None,
    pick_on: Sequence[str] = (),
    data: ReaderStep | None = None,
    overrides: Overrides = (),
    limit: int | None = None,
    workers: int = 2,
    quiet: bool = False,
) -> Sweep:
    """Score thresholds over stored maps and write `sweep.json` and `sweep.png` into the run.

    Args:
        run: a run of `pl generate` with `output.maps`. The images that it was asked for are swept.
        reference: reference maps of `pl reference`; None leaves DR- and NDR-recall undefined.
        other_classifier: take reference maps that another classifier than the run's has made.
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
        What was written.

    Raises:
        DataError: maps or ground truth are missing, have changed or do not fit; the run is not finished.
        UsageError: no thresholds for this background rule, one that it refuses, or an unknown class.
    """
    given = Run.open(run)
    recipe = given.recipe_with(overrides)
    values = _values(thresholds, recipe)
    judged = of_reader(data or recipe.data, limit, given.listed)
    chosen = averaged_ids(judged.space, average_over)
    maps = ReferenceMaps(Path(reference)) if reference is not None else None
    if maps is not None:
        maps.check_classes(judged.space)
        if not other_classifier:
            maps.check_classifier(given)
        maps.require(record.id for record in judged.records)
    check_classes(given, judged.space)
    require_maps(given, judged)
    free = threshold_picks.FREE in pick_on
    swept = Swept(recipe, judged, None if maps is None else maps.path, values, free)
    # refuses before the long part
    places = [sweeping.place_of(on, given, swept, overrides) for on in dict.fromkeys(pick_on)]
    sums = count(given, swept, keep=bool(pick_on), workers=workers, quiet=quiet)
    picks = sweeping.picked(swept, places, sums, chosen, workers, quiet)
    result = sweeping.swept_result(swept, sums, chosen, picks, maps)
    _write(given.path, result)
    if maps is None and not quiet:
        console.say(
            "DR- and NDR-recall are undefined without reference maps: "
            f"`pl reference {given.path / layout.RECIPE} -o reference.safetensors`, then --reference"
        )
    return result


def _values(thresholds: Sequence[float] | None, recipe: GenerateRecipe) -> tuple[float, ...]:
    key = composition.swept_key(recipe.background)
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


def _write(folder: Path, result: Sweep) -> None:
    """Write the rows and their curves."""
    from pseudolabel.figures.curves import sweep_curves

    disk.write_json(folder / layout.SWEEP, result.as_dict())
    best = result.rows.index(result.best) if result.best in result.rows else None
    over = f"{result.images} images" + (f" of {result.split}" if result.split else "")
    disk.write_bytes(folder / layout.SWEEP_CURVES, sweep_curves(result.rows, best, result.key, over))
