"""Which items of a run are done: the manifest of a finished run and the journal of a running one.

In memory there are only ids and places in the two files, so that a million items fit. A line torn by a kill
is cut off at the next start; the item is then done again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pseudolabel.runs import fault_plan
from pseudolabel.runs.disk import json_line, machine_error, sync_folder, write_chunks
from pseudolabel.runs.layout import JOURNAL, MANIFEST
from pseudolabel.runs.manifest import line_at, offsets, parsed


class Ledger(Mapping[str, dict[str, Any]]):
    """Manifest lines by id, read from disk when asked for.

    Raises:
        DataError: the manifest holds a line that is none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[dict[str, Any]] = []  # what else the journal holds, in order
        self._places: dict[str, int] = {}  # offset in the manifest, or ~offset in the journal
        self._journal: int | None = None
        self._read_manifest()
        self._read_journal()

    def __getitem__(self, item: str) -> dict[str, Any]:
        line = json.loads(self._raw(item))
        assert isinstance(line, dict)
        return line

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._places))

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, item: object) -> bool:
        return item in self._places

    def forget(self, item: str) -> None:
        """Take an item, and what was noted of it, for not done."""
        if item in self._places:
            self._append({"forgotten": item})
            self._drop(item)

    def record(self, line: Mapping[str, Any]) -> None:
        """Append the line of a finished item; it lasts through a kill of the process."""
        self._places[line["id"]] = ~self._append(line)

    def note(self, note: Mapping[str, Any]) -> None:
        """Append something that is no item."""
        self._append({"note": note})
        self.notes.append(dict(note))

    def complete(self, order: Sequence[str]) -> None:
        """Write the manifest in list order, items of earlier lists behind, and drop the journal."""
        listed = set(order)
        if len(listed) != len(order):
            raise ValueError("an id stands twice in the order")
        rest = [item for item in self._places if item not in listed]
        write_chunks(self.folder / MANIFEST, self._lines(order, sorted(rest)))
        self.close()
        try:
            with contextlib.suppress(FileNotFoundError):
                fault_plan.trip("write", self.folder / JOURNAL)
                os.unlink(self.folder / JOURNAL)
            sync_folder(self.folder)
        except OSError as error:
            raise machine_error(self.folder / JOURNAL, error) from error
        self._places.clear()
        self._read_manifest()

    def close(self) -> None:
        """Close the journal; a later line opens it again."""
        if self._journal is not None:
            os.close(self._journal)
            self._journal = None

    def _drop(self, item: str) -> None:
        self._places.pop(item, None)
        self.notes = [note for note in self.notes if note.get("item") != item]

    def _lines(self, order: Iterable[str], rest: Iterable[str]) -> Iterator[bytes]:
        for items in (order, rest):
            for item in items:
                if item in self._places:
                    yield self._raw(item)

    def _raw(self, item: str) -> bytes:
        place = self._places[item]
        if place >= 0:
            return line_at(self.folder / MANIFEST, place)
        return line_at(self.folder / JOURNAL, ~place)

    def _append(self, row: Mapping[str, Any]) -> int:
        """Append a line in one write; returns its offset."""
        path = self.folder / JOURNAL
        data = json_line(row)
        try:
            if self._journal is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
                self._journal = os.open(path, flags, 0o666)
            start = os.lseek(self._journal, 0, os.SEEK_END)
            try:
                middle = len(data) // 2
                for part in (data[:middle], data[middle:]) if fault_plan.armed() else (data,):
                    fault_plan.trip("write", path)
                    if os.write(self._journal, part) != len(part):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._journal, start)
                raise
        except OSError as error:
            raise machine_error(path, error) from error
        return start

    def _read_manifest(self) -> None:
        path = self.folder / MANIFEST
        if path.exists():
            self._places |= offsets(path)

    def _read_journal(self) -> None:
        path = self.folder / JOURNAL
        if not path.exists():
            return
        offset = 0
        with open(path, "rb") as file:
            for line in file:
                row = parsed(line) or {}
                if isinstance(row.get("id"), str):
                    self._places[row["id"]] = ~offset
                elif isinstance(row.get("note"), dict):
                    self.notes.append(row["note"])
                elif isinstance(row.get("forgotten"), str):
                    self._drop(row["forgotten"])
                else:
                    break  # torn by a kill: this line and what might follow never happened
                offset += len(line)
        if offset < path.stat().st_size:
            try:
                os.truncate(path, offset)
            except OSError as error:
                raise machine_error(path, error) from error
