"""`pl export`: the masks of a finished run in the form that another program reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pseudolabel import console, registry
from pseudolabel.errors import DataError, UsageError
from pseudolabel.runs import layout, writing
from pseudolabel.runs.run import Run


def export(
    run: Path | str,
    out: Path | str,
    *,
    to: str = "grey",
    overwrite: bool = False,
    new: bool = False,
    wait: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Write the masks of a run in another form.

    Args:
        run: folder of a finished `pl generate` or `pl refine`.
        out: folder for the export; the same export is done again, another one is refused.
        to: an exporter by name; `pl methods` lists them.
        overwrite, new, wait: see `writing.open_run`.
        quiet: show no progress.

    Returns:
        `out`, `to`, `images`, `problems` (lines in the list of problems of the run: images that may have no
        mask) and what the exporter tells.

    Raises:
        DataError: the run is not finished; a mask is missing or is not the one the run has made.
        UsageError: no such exporter, or `out` is the run itself or another export.
    """
    exporter = registry.get("exporters", to)
    given, out = Run.open(run), Path(out)
    inside = given.path.resolve()
    if not given.manifest:
        raise DataError(f"{given.manifest.path}: lists no mask; see {given.path / layout.PROBLEMS}")
    space = given.classes
    if out.resolve() == inside or inside in out.resolve().parents:
        raise UsageError(f"{out}: lies in the run that is to be exported; choose another folder")
    fingerprint = {"to": to, "classes": list(space.names), "masks": given.digest()}
    with (
        writing.open_run(out, "export", fingerprint, overwrite=overwrite, new=new, wait=wait) as folder,
        console.progress(len(given.manifest), f"export to {to}", quiet) as bar,
    ):
        told = exporter.run(_masks(given, bar), space, folder.path, exporter.params())
        place = folder.path
    problems = len(given.problems)
    if problems:
        console.say(
            f"{given.path / layout.PROBLEMS}: names {problems} problems; images without a mask are left out"
        )
    return {**told, "out": str(place), "to": to, "images": len(given.manifest), "problems": problems}


def _masks(run: Run, bar: console.Bar) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Each mask of the manifest, in its order, verified to be the one that the run has made."""
    for item in run.manifest:
        yield item, run.mask(item, verify=True)
        bar.advance()
