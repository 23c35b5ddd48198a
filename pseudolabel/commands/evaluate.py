"""`pl evaluate`: scores of a folder of masks against ground truth.

Every listed image is counted exactly once; one that lacks its mask is refused, never left out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pseudolabel import __version__, console
from pseudolabel.errors import DataError, UsageError
from pseudolabel.recipes.overrides import Overrides
from pseudolabel.runs import disk, layout
from pseudolabel.runs.run import Run
from pseudolabel.scoring.evaluation import Evaluation, evaluated
from pseudolabel.scoring.provenance import provenance
from pseudolabel.scoring.reference_maps import ReferenceMaps
from pseudolabel.scoring.truth import Truth, check_classes, listed, of_folder, of_reader, png_ids

if TYPE_CHECKING:
    from pseudolabel.recipes.steps import ReaderStep


def evaluate(  # long: a dozen arguments, each with its line
    run: Path | str | None = None,
    *,
    masks: Path | str | None = None,
    truth: Path | str | None = None,
    classes: Path | str | None = None,
    listing: Path | str | None = None,
    data: ReaderStep | None = None,
    reference: Path | str | None = None,
    other_classifier: bool = False,
    average_over: Sequence[str] | None = None,
    overrides: Overrides = (),
    limit: int | None = None,
    out: Path | str | None = None,
    workers: int = 2,
    quiet: bool = False,
) -> Evaluation:
    """Score masks and write `evaluation.json`.

    Args:
        run: a finished run of `pl generate`; its recipe names the data, the images that it was asked for are
            scored.
        masks: a folder of `<id>.png` in place of a run.
        truth: folder of the true masks, where no run or `data` names them.
        classes: with `truth`: a name a line, line number - 1 = id, background first.
        listing: with `truth`: text file of the ids to score; without it every true mask counts, and a
            mask without a true one is refused.
        data: a reader in place of the run's own.
        reference: reference maps of `pl reference`; without them DR- and NDR-recall are undefined.
        other_classifier: take reference maps that another classifier than the run's has made.
        average_over: class names that means are taken over, background too if it is to count; None for all.
        overrides: `key=value` on the run's recipe, for instance `data.root=...`.
        limit: score the first so many images of the list only.
        out: the file, or the folder for `evaluation.json`; None writes into the run, or beside the masks.
        workers: threads that read masks.
        quiet: no progress, no hint.

    Returns:
        What was written: the figures in the default reading, all readings under `readings`, undefined
        figures None.

    Raises:
        DataError: a mask is missing, of another size, or holds other values; no ground truth; the run is not
            finished; the reference maps are of other classes or of another classifier.
        UsageError: the arguments do not fit together, or a class is unknown.
    """
    if (run is None) == (masks is None):
        raise UsageError("evaluate: give a run, or --masks DIR --truth DIR --classes FILE")
    if limit is not None and limit < 1:
        raise UsageError(f"evaluate: limit {limit} leaves no image")
    given = None if run is None else Run.open(run)
    folder = given.path / layout.MASKS if given is not None else Path(str(masks))
    within = None if given is None else given.listed
    recipe = None
    if truth is not None:
        if classes is None:
            raise UsageError("evaluate: --truth needs --classes FILE, a class name a line, background first")
        judged = of_folder(
            Path(truth), Path(classes), None if listing is None else Path(listing), limit, within
        )
        if listing is None and limit is None:
            _refuse_untrue(judged, folder, Path(truth), within)
    elif given is not None:
        recipe = given.recipe_with(overrides)
        judged = of_reader(data or recipe.data, limit, within)
    elif data is not None:
        judged = of_reader(data, limit)
    else:
        raise UsageError("evaluate: --masks needs --truth DIR and --classes FILE")
    if given is not None:
        check_classes(given, judged.space)
    maps = ReferenceMaps(Path(reference)) if reference is not None else None
    if maps is not None:
        maps.check_classes(judged.space)
        if given is not None and not other_classifier:
            maps.check_classifier(given)
    result = evaluated(
        judged,
        folder,
        maps,
        average_over=average_over,
        provenance=provenance(judged.records, judged.listed, given, recipe, __version__),
        workers=workers,
        quiet=quiet,
    )
    path = (folder if given is None else given.path) / layout.EVALUATION
    if out is not None:
        path = Path(out) if Path(out).suffix == ".json" else Path(out) / layout.EVALUATION
    disk.write_json(path, result.as_dict())
    if not quiet:
        _say(judged, given, limit, maps)
    return result


def _refuse_untrue(judged: Truth, folder: Path, truth: Path, within: Collection[str] | None) -> None:
    """Refuse masks that have no ground truth."""
    known = {record.id for record in judged.records}
    extra = [item for item in (png_ids(folder) if within is None else sorted(within)) if item not in known]
    if extra:
        raise DataError(
            f"{folder}: {len(extra)} masks have no ground truth in {truth}: {listed(extra)}; "
            "name the images to score with --list FILE"
        )


def _say(judged: Truth, given: Run | None, limit: int | None, maps: ReferenceMaps | None) -> None:
    """What is left out, and how the undefined figures come to be defined."""
    if given is not None and limit is None and len(judged.records) < judged.listed:
        console.say(f"{given.path}: was asked for {len(judged.records)} of the {judged.listed} listed images")
    if maps is None:
        recipe = "RECIPE" if given is None else given.path / layout.RECIPE
        console.say(
            "DR- and NDR-recall are undefined without reference maps: "
            f"`pl reference {recipe} -o reference.safetensors`, then --reference reference.safetensors"
        )
