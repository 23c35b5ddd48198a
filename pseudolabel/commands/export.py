"""`pl export`: the masks of a finished run in the form that another program reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pseudolabel import console, masks, registry
from pseudolabel.errors import DataError, UsageError
from pseudolabel.records import LabelSpace
from pseudolabel.runs import disk, writing

CLASSES = "classes.txt"


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
    run, out = Path(run), Path(out)
    exporter = registry.get("exporters", to)
    rows = _manifest(run)
    space = LabelSpace(_names(run / CLASSES))
    if out.resolve() == run.resolve() or run.resolve() in out.resolve().parents:
        raise UsageError(f"{out}: lies in the run that is to be exported; choose another folder")
    fingerprint = {"to": to, "classes": list(space.names), "masks": disk.digest(_digests(rows))}
    with (
        writing.open_run(out, "export", fingerprint, overwrite=overwrite, new=new, wait=wait) as folder,
        console.progress(len(rows), f"export to {to}", quiet) as bar,
    ):
        told = exporter.run(_masks(run, rows, bar), space, folder.path, exporter.params())
        place = folder.path
    listed = run / writing.PROBLEMS
    problems = len(disk.read_json_lines(listed)) if listed.exists() else 0
    if problems:
        console.say(f"{listed}: names {problems} problems; an image without a mask is not in the export")
    return {**told, "out": str(place), "to": to, "images": len(rows), "problems": problems}


def _manifest(run: Path) -> list[dict[str, Any]]:
    path = run / writing.MANIFEST
    if not run.is_dir():
        raise DataError(f"{run}: is no folder; give a run of `pl generate`")
    if not path.exists():
        raise DataError(f"{run}: is not finished (no {writing.MANIFEST}); run the same `pl generate` again")
    rows: list[dict[str, Any]] = disk.read_json_lines(path)
    if not rows:
        raise DataError(f"{path}: lists no mask; see {run / writing.PROBLEMS}")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not {"id", "sha256"} <= row.keys():
            raise DataError(f"{path}:{number}: is no manifest line; run the same `pl generate` again")
    return rows


def _names(path: Path) -> tuple[str, ...]:
    try:
        return tuple(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); run the same `pl generate` again") from error


def _digests(rows: list[dict[str, Any]]) -> list[list[str]]:
    return [[row["id"], row["sha256"]] for row in rows]


def _masks(
    run: Path, rows: list[dict[str, Any]], bar: console.Bar
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Each mask of the manifest, in its order, seen to be the one that the run has made."""
    for row in rows:
        path = run / "masks" / f"{row['id']}.png"
        if not path.exists():
            raise DataError(f"{path}: is missing; run the same `pl generate` again, it makes what is missing")
        if disk.sha256_file(path) != row["sha256"]:
            raise DataError(f"{path}: has changed since the run made it; run the same `pl generate` again")
        yield row["id"], masks.read_mask(path)
        bar.advance()
