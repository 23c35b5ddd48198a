"""The one writer of files: under its final name a file is always whole, the old one or the new one.

New content goes to a temporary name in the same folder, is flushed and synced, renamed over the old file,
and the folder is synced, in this order. Leftovers of a killed process are swept by `sweep`, under the lock
of the run folder.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pseudolabel.errors import DataError, MachineError
from pseudolabel.runs import fault_plan

TEMPORARY = re.compile(r"\.tmp-\d+-\d+")  # process, number

_REMEDIES = {
    errno.ENOSPC: "free some space; what is finished is kept, the same command continues",
    errno.EDQUOT: "free some of your quota; what is finished is kept, the same command continues",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that can be written to",
    errno.ENAMETOOLONG: "use shorter names",
    errno.ENOTDIR: "a file stands where a folder is needed; move it or choose another folder",
    errno.EEXIST: "a file stands where a folder is needed; move it or choose another folder",
    errno.EISDIR: "a folder stands where the file is needed; move it or choose another folder",
    errno.ELOOP: "links inside an output folder are not followed; choose another folder",
    errno.EIO: "check the disk",
    errno.ENOENT: "it is gone; was the folder moved meanwhile?",
}

_numbers = itertools.count(1)
_roots: set[Path] = set()  # run folders open in this process: no link inside them is followed


def write_bytes(path: Path, data: bytes | bytearray | memoryview) -> None:
    """Put a whole file in place, making its folder where it is missing.

    Raises:
        MachineError: the disk, a permission, a link inside an open run folder; the old file is untouched.
    """
    view = memoryview(data)
    middle = len(view) // 2  # two steps, so that the fault plan can leave a torn file
    write_chunks(path, (view[:middle], view[middle:]))


def write_text(path: Path, text: str) -> None:
    """Put UTF-8 text in place as it is; bytes that were read with `surrogateescape` come back."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: Path, obj: Any) -> None:
    """Put one JSON document in place: sorted keys, indent 1, ASCII, newline at the end.

    Raises:
        ValueError: a number is not finite; the key is named (an undefined figure is None).
        MachineError: see `write_bytes`.
    """
    _refuse_nonfinite(obj, path.name)
    write_bytes(path, (json.dumps(obj, sort_keys=True, indent=1) + "\n").encode("ascii"))


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Put a file of one compact JSON document a line in place; rows are taken one by one."""
    write_chunks(path, (json_line(row) for row in rows))


def json_line(row: Any) -> bytes:
    """One row of a JSON lines file: ASCII, sorted keys, newline at the end.

    Raises:
        ValueError: a number is not finite.
    """
    _refuse_nonfinite(row, "line")
    return (json.dumps(row, sort_keys=True) + "\n").encode("ascii")


def write_chunks(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Put a file made of pieces in place; see `write_bytes`."""
    path = Path(path)
    try:
        _check_inside(path)
        make_folder(path.parent)
        temporary, descriptor = _open_temporary(path.parent)
        try:
            try:
                for chunk in chunks:
                    fault_plan.trip("write", path)
                    _write_all(descriptor, chunk)
                fault_plan.trip("write", path)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            fault_plan.trip("write", path)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise machine_error(path, error) from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each synced into its parent.

    Raises:
        OSError: as from the system.
    """
    if folder.is_dir():
        return
    missing = [folder]
    while not missing[-1].parent.is_dir() and missing[-1].parent != missing[-1]:
        missing.append(missing[-1].parent)
    for place in reversed(missing):
        fault_plan.trip("write", place)
        with contextlib.suppress(FileExistsError):
            os.mkdir(place)
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
        sync_folder(place.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a power cut."""
    fault_plan.trip("write", folder)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems without folder sync
            raise
    finally:
        os.close(descriptor)


def sweep(root: Path) -> int:
    """Remove the temporaries that a killed process left under a folder; returns how many.

    Only under the lock of the folder: a living writer's temporary would go as well.
    """
    count = 0
    for folder, _, names in os.walk(root):
        for name in names:
            if TEMPORARY.fullmatch(name):
                os.unlink(os.path.join(folder, name))
                count += 1
    return count


@contextlib.contextmanager
def guarded(root: Path) -> Iterator[None]:
    """While this lasts, writes below `root` never follow a link and never climb out of it."""
    _roots.add(root)
    try:
        yield
    finally:
        _roots.discard(root)


def machine_error(path: Path, error: OSError) -> MachineError:
    """What the system said, as one line with a remedy."""
    place = error.filename if isinstance(error.filename, str) else str(path)
    if TEMPORARY.fullmatch(os.path.basename(place)):
        place = str(path)
    code = errno.errorcode.get(error.errno or 0, "unknown")
    remedy = _REMEDIES.get(error.errno or 0, "see that the folder can be written to")
    return MachineError(f"{place}: cannot be written: {error.strerror or error} ({code}); {remedy}")


def read_json(path: Path) -> Any:
    """One JSON document.

    Raises:
        DataError: the file is missing or is no JSON.
        MachineError: it cannot be read.
    """
    try:
        return json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON ({error}); make it again") from error


def read_json_lines(path: Path) -> list[Any]:
    """The documents of a JSON lines file.

    Raises:
        DataError: the file is missing or a line is no JSON (place named).
        MachineError: it cannot be read.
    """
    rows = []
    for number, line in enumerate(_read(path).splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: is not JSON ({error}); make it again") from error
    return rows


def digest(obj: Any) -> str:
    """sha256 of the canonical JSON of an object: sorted keys, no blanks, ASCII.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(obj, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256_bytes(text.encode("ascii"))


def sha256_bytes(data: bytes) -> str:
    """sha256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """sha256 of a file in hexadecimal, read piece by piece.

    Raises:
        DataError: the file is missing.
        MachineError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error


def _read(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> DataError | MachineError:
    """What the system said of a file that cannot be read, as one line with a remedy."""
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        return DataError(f"{path}: is no file; check the path")
    code = errno.errorcode.get(error.errno or 0, "unknown")
    return MachineError(f"{path}: cannot be read: {error.strerror} ({code}); check permissions and disk")


def _open_temporary(folder: Path) -> tuple[Path, int]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    while True:
        temporary = folder / f".tmp-{os.getpid()}-{next(_numbers)}"
        fault_plan.trip("write", temporary)
        try:
            return temporary, os.open(temporary, flags, 0o666)
        except FileExistsError:  # left by a killed process that had our number
            continue


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _check_inside(path: Path) -> None:
    """Refuse a path below an open run folder that climbs, or that goes through a link."""
    for root in tuple(_roots):
        if root in path.parents:
            if ".." in path.relative_to(root).parts:
                raise OSError(errno.ELOOP, "the path climbs out of the output folder", str(path))
            for place in path.parents:
                if place == root:
                    break
                if place.is_symlink():
                    raise OSError(errno.ELOOP, "a link inside the output folder", str(place))


def _refuse_nonfinite(obj: Any, where: str) -> None:
    if isinstance(obj, float):
        if not math.isfinite(obj):
            raise ValueError(f"{where}: {obj} cannot be written; an undefined figure is null")
    elif isinstance(obj, dict):
        for key, value in obj.items():
            _refuse_nonfinite(value, f"{where}: {key}")
    elif isinstance(obj, list | tuple):
        for index, value in enumerate(obj):
            _refuse_nonfinite(value, f"{where}[{index}]")
