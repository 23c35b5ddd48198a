"""The manifest of a run folder: a line an image that is done, read by id.

In memory there are only ids and offsets, so that a million images fit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pseudolabel.errors import DataError
from pseudolabel.runs.disk import unreadable


class Manifest(Mapping[str, dict[str, Any]]):
    """Lines of a manifest by id, in the order of the file; a line is read from disk when it is asked for.

    Raises:
        DataError: there is no such file, or it holds a line that is none (place named).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets = offsets(path)

    def __getitem__(self, item: str) -> dict[str, Any]:
        line = json.loads(line_at(self.path, self._offsets[item]))
        assert isinstance(line, dict)
        return line

    def __iter__(self) -> Iterator[str]:
        return iter(self._offsets)

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, item: object) -> bool:
        return item in self._offsets

    def lines(self) -> Iterator[dict[str, Any]]:
        """Every line in order, read in one go."""
        with open(self.path, "rb") as file:
            for line in file:
                yield json.loads(line)


def offsets(path: Path) -> dict[str, int]:
    """Where each line of a manifest begins, by id.

    Raises:
        DataError: the file is missing, a line lacks id or sha256, or an id stands twice.
        MachineError: it cannot be read.
    """
    places: dict[str, int] = {}
    offset = 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                row = parsed(line) or {}
                if not isinstance(row.get("id"), str) or not isinstance(row.get("sha256"), str):
                    raise DataError(f"{path}:{number}: is no manifest line; start again in a new folder")
                if row["id"] in places:
                    raise DataError(
                        f"{path}:{number}: {row['id']!r} stands twice; start again in a new folder"
                    )
                places[row["id"]] = offset
                offset += len(line)
    except OSError as error:
        raise unreadable(path, error) from error
    return places


def line_at(path: Path, offset: int) -> bytes:
    """The line that begins at an offset."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.readline()


def parsed(line: bytes) -> dict[str, Any] | None:
    """The object of a whole line; None where the line is torn or holds something else."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
