"""Results of stages that are one document: kept beside what they were made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pseudolabel import __version__
from pseudolabel.masks import mask_digest
from pseudolabel.records import Dataset
from pseudolabel.runs import disk, layout


def kept(
    path: Path,
    key: Mapping[str, Any],
    make: Callable[[], dict[str, Any]],
    files: Mapping[Path, str | None] | None = None,
) -> dict[str, Any]:
    """A stage's result, made again only where what it was made from has changed.

    Args:
        path: where it is kept.
        key: what it was made from, JSON-able.
        make: makes it.
        files: what it must have left; a name is the result's key that holds the file's sha256.
    """
    key_digest = disk.digest({"version": __version__, **key})
    if path.is_file():
        stored = disk.read_json(path)
        if stored.get("made_from") == key_digest and all(
            file.is_file() and (name is None or disk.sha256_file(file) == stored["result"][name])
            for file, name in (files or {}).items()
        ):
            result: dict[str, Any] = stored["result"]
            return result
    result = make()
    disk.write_json(path, {"made_from": key_digest, "result": result})
    return result


def mark(run: Path) -> dict[str, Any]:
    """What tells a finished run from any other."""
    return contents(run, [layout.FINGERPRINT, layout.MANIFEST])


def contents(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """sha256 of those of the files that are there."""
    return {name: disk.sha256_file(folder / name) for name in names if (folder / name).is_file()}


def truth_of(data: Dataset) -> dict[str, Any]:
    """The true masks that a score depends on."""
    rows = [[r.id, mask_digest(r.mask) if r.mask is not None else None] for r in data.records]
    return {"truth": disk.digest(rows)}
