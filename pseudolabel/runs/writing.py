"""A run folder that is being written: one writer a folder, what is done, what went wrong.

    with writing.open_run(out, "generate", fingerprint) as run:
        done = run.finished()
        ...                                       # for every other item: files first, then its line
        disk.write_bytes(run.path / layout.mask_file(id), data)
        run.record({"id": id, "size": len(data), "sha256": disk.sha256_bytes(data), ...})
        run.complete(ids)

The names of the files stand in `pseudolabel.runs.layout`; `pseudolabel.runs.run` reads a finished folder.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pseudolabel.errors import DataError, UsageError
from pseudolabel.runs import fault_plan
from pseudolabel.runs.disk import (
    TEMPORARY,
    digest,
    guarded,
    json_line,
    machine_error,
    make_folder,
    read_json,
    read_json_lines,
    sha256_file,
    sweep,
    sync_folder,
    write_json,
    write_json_lines,
)
from pseudolabel.runs.layout import FINGERPRINT, LOCK, MASKS, PROBLEMS
from pseudolabel.runs.ledger import Ledger
from pseudolabel.runs.lock import Lock

FORMAT = 1  # of the run folder; another one does not continue
SHOWN = 6  # differences named in one message
PATIENCE = 1.0  # seconds between two writes of problems.jsonl


class RunFolder:
    """A locked run folder.

    Attributes:
        path: the folder, absolute, links in it resolved.
    """

    def __init__(self, path: Path, items: str, lock: Lock) -> None:
        self.path = path
        self._items = items
        self._lock = lock
        self._ledger = Ledger(path)
        self._verified = False
        self._problems: dict[bytes, dict[str, Any]] = {}  # by their line: each stands once
        self._next = 0.0  # when problems.jsonl may be written again, monotonic seconds
        self._stale = False

    @property
    def problems(self) -> tuple[dict[str, Any], ...]:
        """What `problem` was told, earlier runs' lines on finished items included."""
        return tuple(self._problems.values())

    def finished(self) -> Mapping[str, dict[str, Any]]:
        """Manifest lines of the finished items by id.

        An item counts if its file (and each of the line's `files`) has the size and sha256 that the line
        says; the others are taken for not done. The first call reads every file.
        """
        if not self._verified:
            for item in self._ledger:
                if not self._is_whole(self._ledger[item]):
                    self._ledger.forget(item)
            self._verified = True
            old = self.path / PROBLEMS
            listed = read_json_lines(old) if old.exists() else []
            kept = [row for row in listed if row.get("item") in self._ledger]
            noted = [note for note in self._ledger.notes if note.get("item") in self._ledger]
            self._problems.update((json_line(row), row) for row in (*kept, *noted))
            if len(kept) < len(listed):
                self._write_problems()
        return self._ledger

    def record(self, line: Mapping[str, Any]) -> None:
        """Say that an item is finished; its files must be in place.

        Args:
            line: `id`, `size` and `sha256` of the item's file, and what the command adds. `files` may hold
                further files, {path in the folder: {"size": bytes, "sha256": hexadecimal}}.

        Raises:
            MachineError: the journal cannot be written.
        """
        missing = {"id", "size", "sha256"} - line.keys()
        if missing:
            raise ValueError(f"manifest line lacks {', '.join(sorted(missing))}")
        self._ledger.record(line)

    def forget(self, item: str) -> None:
        """Take a finished item for not done, for instance because its input has changed."""
        self.finished()
        self._ledger.forget(item)
        kept = {key: row for key, row in self._problems.items() if row.get("item") != item}
        if len(kept) < len(self._problems):
            self._problems = kept
            self._write_problems()  # at once: after a kill the line would be taken for the new file's

    def problem(self, file: str | Path, code: str, what: str, remedy: str, item: str | None = None) -> None:
        """List something that went wrong.

        Args:
            file: what it is about.
            code: a short name such as `flat_map`.
            what: what was found.
            remedy: what to do.
            item: id of the item if it is finished nonetheless; such a line is kept when the run continues,
                where any other is found anew.
        """
        row = {"file": str(file), "code": code, "what": what, "remedy": remedy}
        if item is not None:
            row["item"] = item
            self._ledger.note(row)
        self._problems[json_line(row)] = row
        self._stale = True
        if time.monotonic() >= self._next:
            self._write_problems()

    def complete(self, order: Sequence[str]) -> None:
        """Write the manifest in list order and the problems; the journal goes.

        An item that is finished but not in `order` (of a longer list, earlier) keeps its line, behind.

        Raises:
            MachineError: the disk, or another process has taken the folder.
        """
        self.finished()
        self._lock.check()
        self._write_problems()
        self._ledger.complete(order)

    def close(self) -> None:
        """Write what is pending and free the folder."""
        try:
            if self._stale:
                self._write_problems()
        finally:
            self._ledger.close()
            self._lock.release()

    def _write_problems(self) -> None:
        start = time.monotonic()
        ordered = sorted(self._problems.values(), key=lambda row: (row["file"], row["code"], row["what"]))
        write_json_lines(self.path / PROBLEMS, ordered)
        end = time.monotonic()
        self._next = end + max(PATIENCE, 20 * (end - start))  # a long list must not stall the work
        self._stale = False

    def _is_whole(self, line: Mapping[str, Any]) -> bool:
        item = str(line["id"])
        files = {os.path.join(self._items, f"{item}.png"): line, **line.get("files", {})}
        return all(_matches(self.path / name, known) for name, known in files.items())


@contextlib.contextmanager
def open_run(
    out: Path | str,
    kind: str,
    fingerprint: Mapping[str, Any],
    *,
    overwrite: bool = False,
    new: bool = False,
    wait: bool = False,
    items: str = MASKS,
) -> Iterator[RunFolder]:
    """Lock an output folder for this run, making it where it is missing.

    A folder with the same kind and fingerprint is continued, `overwrite` or not.

    Args:
        out: the folder.
        kind: what writes there, for instance `generate`.
        fingerprint: all that decides the bytes, JSON-able; not paths, not the device, not the workers.
        overwrite: move a folder of another configuration aside to `OUT.old-1`, ...; nothing is deleted.
        new: where the folder holds anything, take `OUT-2`, `OUT-3`, ... instead.
        wait: wait for another process instead of refusing.
        items: folder of the items' files, `<id>.png`.

    Raises:
        UsageError: the folder belongs to another configuration (differences named) or holds strange files.
        MachineError: another process works in it, or it cannot be written to.
    """
    path = Path(os.path.realpath(out))
    wanted = {"kind": kind, "format": FORMAT, **fingerprint}
    digest(wanted)  # refuses what cannot be stored, before anything is made
    try:
        if new:
            path = _numbered(path)
        lock = _claim(path, wanted, overwrite, wait)
    except OSError as error:
        raise machine_error(path, error) from error
    try:
        with guarded(path):
            try:
                sweep(path)
            except OSError as error:
                raise machine_error(path, error) from error
            if not (path / FINGERPRINT).exists():
                write_json(path / FINGERPRINT, wanted)
            run = RunFolder(path, items, lock)
            try:
                yield run
            finally:
                run.close()
    finally:
        lock.release()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two nested mappings, as `dotted.key: old -> new`, keys in order."""
    before, after = dict(_flat(old)), dict(_flat(new))
    return [
        f"{key}: {_shown(before, key)} -> {_shown(after, key)}"
        for key in sorted(before.keys() | after.keys())
        if _shown(before, key) != _shown(after, key)
    ]


def _claim(path: Path, wanted: Mapping[str, Any], overwrite: bool, wait: bool) -> Lock:
    """The lock of a folder that is empty or of this fingerprint; another one is refused or moved."""
    while True:
        make_folder(path)
        _refuse_strange(path)
        lock = Lock(path, wait)
        try:
            _refuse_strange(path)  # looked at again: another process may have been here before the lock
            if not (path / FINGERPRINT).exists():
                return lock
            changes = differences(read_json(path / FINGERPRINT), wanted)
            if not changes:
                return lock
            if not overwrite:
                more = f"; and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
                raise UsageError(
                    f"{path}: made by another configuration ({'; '.join(changes[:SHOWN])}{more}); choose "
                    "another folder, --new for the next numbered one, or --overwrite to move this one aside"
                )
            _move_aside(path)
        except BaseException:
            lock.release()
            raise
        lock.forget()  # the lock file went with the old folder


def _refuse_strange(path: Path) -> None:
    names = set(os.listdir(path))
    ours = {name for name in names if name == LOCK or TEMPORARY.fullmatch(name)}
    strangers = sorted(names - ours)
    if strangers and FINGERPRINT not in names:
        raise UsageError(
            f"{path}: holds files that no run has made ({', '.join(strangers[:3])}"
            f"{', ...' if len(strangers) > 3 else ''}); choose an empty or a new folder"
        )


def _move_aside(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path / LOCK)
    number = 1
    while (old := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    fault_plan.trip("write", path)
    os.rename(path, old)
    sync_folder(path.parent)


def _numbered(path: Path) -> Path:
    """The path itself if nothing is there, else the next `path-N` that is free; made at once."""
    if not path.exists() or (path.is_dir() and not os.listdir(path)):
        return path
    make_folder(path.parent)
    number = 2
    while True:
        place = path.with_name(f"{path.name}-{number}")
        try:
            fault_plan.trip("write", place)
            os.mkdir(place)
        except FileExistsError:
            number += 1
            continue
        return place


def _matches(path: Path, known: Mapping[str, Any]) -> bool:
    """Whether a plain file has the size and sha256 that were written down."""
    try:
        if path.is_symlink() or path.stat().st_size != known["size"]:
            return False
        return bool(sha256_file(path) == known["sha256"])
    except (OSError, DataError):
        return False


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    pairs: Iterator[tuple[Any, Any]]
    if isinstance(value, Mapping) and value:
        pairs = iter(value.items())
    elif isinstance(value, list | tuple) and any(isinstance(each, Mapping | list | tuple) for each in value):
        pairs = iter(enumerate(value))
    else:
        yield prefix, value
        return
    for key, inner in pairs:
        yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))


def _shown(flat: Mapping[str, Any], key: str) -> str:
    if key not in flat:
        return "absent"
    value = flat[key]
    text = repr(list(value)) if isinstance(value, tuple) else repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... (digest {digest(value)[:8]})"
