"""`pl export`: the masks of a finished run in the form that another program reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudolabel import console
from pseudolabel.errors import DataError, UsageError
from pseudolabel.recipes.loading import load_step
from pseudolabel.recipes.overrides import Overrides
from pseudolabel.recipes.steps import ExporterStep
from pseudolabel.records import ExportItem, ImageRecord
from pseudolabel.runs import layout, writing
from pseudolabel.runs.run import Run


@dataclass(frozen=True)
class Export:
    """What was exported.

    Attributes:
        out: the folder.
        to: the exporter.
        parameters: its parameters.
        images: how many.
        problems: lines in the run's list of problems: images that may have no mask.
        wrote: what the exporter says of its files.
        lost: a sentence for each thing that the form cannot hold.
    """

    out: str
    to: str
    parameters: dict[str, Any]
    images: int
    problems: int
    wrote: dict[str, Any]
    lost: list[str]

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return dataclasses.asdict(self)


def export(
    run: Path | str,
    out: Path | str,
    *,
    to: str = "grey",
    overrides: Overrides = (),
    overwrite: bool = False,
    new: bool = False,
    wait: bool = False,
    quiet: bool = False,
) -> Export:
    """Write the masks of a run in another form.

    Args:
        run: folder of a finished `pl generate` or `pl refine`.
        out: folder for the export; the same export is done again, another one is refused.
        to: an exporter by name; `pl methods` lists them.
        overrides: the exporter's parameters, `key=value`; `pl methods NAME` lists them.
        overwrite, new, wait: see `writing.open_run`.
        quiet: show no progress.

    Raises:
        DataError: the run is not finished; a mask is missing or is not the one the run has made.
        UsageError: no such exporter or parameter, or `out` is the run itself or another export.
    """
    step = load_step(ExporterStep, to, overrides)
    given, out = Run.open(run), Path(out)
    _check_folders(given, out)
    space = given.classes
    wants = step.component.traits.get("wants", ())
    fingerprint = {
        "to": to,
        "parameters": step.parameters(),
        "classes": list(space.names),
        "masks": given.digest(maps="maps" in wants),
    }
    with (
        writing.open_run(out, "export", fingerprint, overwrite=overwrite, new=new, wait=wait) as folder,
        console.progress(len(given.manifest), f"export to {to}", quiet) as bar,
    ):
        exported = step.component.run(_items(given, wants, bar), space, folder.path, step.params)
        place = folder.path
    problems = len(given.problems)
    if problems:
        listing = given.path / layout.PROBLEMS
        console.say(f"{listing}: names {problems} problems; images without a mask are left out")
    for sentence in exported.lost:
        console.say(f"{to}: {sentence}")
    return Export(
        out=str(place),
        to=to,
        parameters=step.parameters(),
        images=len(given.manifest),
        problems=problems,
        wrote=dict(exported.wrote),
        lost=list(exported.lost),
    )


def _check_folders(given: Run, out: Path) -> None:
    """Refuse a run without a mask, and an export into the run itself."""
    inside = given.path.resolve()
    if not given.manifest:
        raise DataError(f"{given.manifest.path}: lists no mask; see {given.path / layout.PROBLEMS}")
    if out.resolve() == inside or inside in out.resolve().parents:
        raise UsageError(f"{out}: lies in the run that is to be exported; choose another folder")


def _items(run: Run, wants: Sequence[str], bar: console.Bar) -> Iterator[ExportItem]:
    """Each image of the manifest, in its order, verified to be the one that the run has made.

    Raises:
        DataError: a file is missing or has changed, or the data list no longer has an image.
    """
    records = _records(run) if "images" in wants else {}
    for line in run.manifest.lines():
        item = str(line["id"])
        maps = tuple(run.maps(item, verify=True)) if "maps" in wants else None
        labels = tuple(line.get("labels", ()))
        yield ExportItem(item, labels, run.mask(item, verify=True), records.get(item), maps)
        bar.advance()


def _records(run: Run) -> dict[str, ImageRecord]:
    """The images' files, from the data that the run's recipe names."""
    data = run.recipe.data
    records = {record.id: record for record in data.component.run(data.params).records}
    gone = [item for item in run.manifest if item not in records]
    if gone:
        raise DataError(f"{run.path}: {len(gone)} images are no longer in its data: {gone[0]}; see data.root")
    return records
