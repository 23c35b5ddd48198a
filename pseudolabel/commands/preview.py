"""`pl preview`: what a recipe does to a few images, on one sheet, before the long run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pseudolabel import console, images
from pseudolabel.commands._selection import named, spread
from pseudolabel.errors import MachineError, UsageError
from pseudolabel.pipeline.explaining import prepare, read_recipe
from pseudolabel.pipeline.previewing import Preview, PreviewSummary
from pseudolabel.recipes.overrides import Overrides
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.runs import disk, layout, writing

SHEET, RESULT = "preview.png", "preview.json"


def preview(
    recipe: Path | str | Mapping[str, Any] | GenerateRecipe,
    out: Path | str,
    *,
    count: int = 8,
    ids: Sequence[str] | None = None,
    overrides: Overrides = (),
    device: str = "auto",
    quiet: bool = False,
) -> PreviewSummary:
    """Do what `generate` does to a few images and show it; nothing of it is kept for the run.

    Args:
        recipe: of `pl generate`: a YAML file, plain data, or a recipe already read.
        out: a folder for previews alone; an older preview in it is replaced. Gets preview.png (the sheet),
            preview.json (the result), overlays/<id>.png, problems.jsonl.
        count: how many images, picked by `spread`.
        ids: these images instead, in this order.
        overrides: `background.threshold=0.2` and the like.
        device: auto, cpu, cuda or cuda:n.
        quiet: no progress.

    Returns:
        What preview.json holds, and the folder.

    Raises:
        UsageError: recipe, folder or an id refused.
        DataError: data or classifier refused.
        MachineError: device, memory, disk or lock.
        Interrupted: a signal came.
    """
    from pseudolabel.pipeline.explained_classifier import exact_kernels
    from pseudolabel.training.device import pick

    if count < 1:
        raise UsageError(f"--count {count}: is not above 0 images")
    settled, data = read_recipe(recipe, overrides)
    where = pick(device)
    prepared = prepare(settled, data, (lambda text: None) if quiet else console.say)
    records = prepared.data.records
    records = tuple(named(records, ids) if ids is not None else spread(records, count, settled.seed))
    _refuse_run(Path(out))
    with writing.open_run(out, "preview", {}) as folder:
        _clear(folder.path)
        lanes = prepared.lanes(where)
        for text in lanes.first.targets():
            if not quiet:
                console.say(text)
        sheet = Preview(prepared, lanes, folder)
        with exact_kernels():
            shown = sheet.show(records, quiet)
        summary = sheet.summary(shown, "named" if ids is not None else "spread")
        images.write_image(folder.path / SHEET, sheet.sheet(shown, summary))
        plain = summary.as_dict()
        del plain["run"]
        disk.write_json(folder.path / RESULT, plain)
        return summary


def _refuse_run(out: Path) -> None:
    """A preview writes over what it finds, which no run's masks must become."""
    path = out / layout.FINGERPRINT
    if path.is_file() and disk.read_json(path).get("kind") != "preview":
        raise UsageError(f"{out}: is a run's folder; give previews a folder of their own")


def _clear(folder: Path) -> None:
    """Take the older preview away; the folder is ours, its fingerprint says so."""
    try:
        overlays = sorted((folder / layout.OVERLAYS).rglob("*.png"))  # an id may name a folder
        for path in (folder / RESULT, folder / SHEET, folder / layout.PROBLEMS, *overlays):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise MachineError(f"{folder}: cannot be cleared ({error}); take another folder") from error
