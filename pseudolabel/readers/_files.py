"""Ids and files named by lists: an id names one file, and no file outside its folder is opened."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from pseudolabel.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")  # in the order they are tried
LONGEST_ID = 230  # bytes of UTF-8: 255 are a file name's, the rest is for suffixes such as .safetensors


def below(root: Path, path: str) -> Path:
    """A path of the recipe: from root, unless it is absolute or of the home folder."""
    return root / Path(path).expanduser()


def stem(name: str) -> str:
    """A file name without its image suffix; other dots belong to the name."""
    low = name.lower()
    return next((name[: -len(end)] for end in SUFFIXES if low.endswith(end)), name)


def check_id(name: str, where: str) -> None:
    """Refuse an id that cannot name a file of its own in every folder made from it.

    Raises:
        DataError: it is empty, `.` or `..`, holds a separator or NUL, or is too long.
    """
    if not name or name in (".", "..") or any(sign in name for sign in "/\\\0"):
        raise DataError(f"{where}: {name!r} is not an image's name; an id is a file name without folders")
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > LONGEST_ID:
        raise DataError(f"{where}: the id has {size} bytes, {LONGEST_ID} fit; shorten {name[:40]!r}...")


def check_apart(ids: Sequence[tuple[str, str]]) -> None:
    """Refuse ids that would meet in one file name, also where the file system folds case or accents.

    Args:
        ids: (id, where it stands).

    Raises:
        DataError: two meet; both places are named.
    """
    by_folded: dict[str, tuple[str, str]] = {}
    for name, where in ids:
        folded = name.casefold() if name.isascii() else unicodedata.normalize("NFC", name).casefold()
        if folded in by_folded:
            other, first = by_folded[folded]
            if other == name:
                raise DataError(f"{where}: {name!r} stands here and at {first}; keep one of the lines")
            raise DataError(
                f"{where}: {name!r} and {other!r} ({first}) meet in one file name on some disks; rename one"
            )
        by_folded[folded] = name, where


def find(folder: Path, name: str, root: Path, where: str) -> Path | None:
    """The regular file `name` in a folder, or None where there is nothing.

    The folder and the root may be reached through links; a file that is itself a link must end
    inside one of them.

    Raises:
        DataError: it is no regular file, or a link that leaves the data.
    """
    place = os.path.join(folder, name)
    try:
        mode = os.lstat(place).st_mode
        if stat.S_ISLNK(mode):
            target = os.path.realpath(place)
            homes = (os.path.realpath(folder), os.path.realpath(root))
            if not any(os.path.commonpath((home, target)) == home for home in homes):
                raise DataError(f"{where}: {place} is a link that leaves {root}; put the file itself there")
            mode = os.stat(place).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: {place!r} cannot be opened ({error}); mend the name") from error
    if not stat.S_ISREG(mode):
        raise DataError(f"{where}: {place} is not a regular file; put an image there")
    return Path(place)


def find_image(folder: Path, name: str, root: Path, where: str) -> Path | None:
    """The image of an id: the first of the known suffixes in small letters, then in capitals."""
    for suffix in SUFFIXES:
        file = find(folder, name + suffix, root, where) or find(folder, name + suffix.upper(), root, where)
        if file is not None:
            return file
    return None


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not blank with their numbers, blanks around them and a BOM taken off.

    Bytes that are not UTF-8 come as surrogates, so that names of any bytes find their files.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    lines = enumerate(read_text(path).splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def read_text(path: Path) -> str:
    """A whole text file without its BOM.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few names for a message."""
    listed = list(names)
    return ", ".join(repr(name) for name in listed[:most]) + (", ..." if len(listed) > most else "")
