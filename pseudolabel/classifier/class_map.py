"""A class map: which of ImageNet's 1000 classes make up each of yours.

    cat: [281, 282, 283, 284, 285]      # 0-based, as timm and torchvision count them

The logit of a class is the logsumexp of its ids' logits. An id serves one name; a name of the data's class
list without an id cannot be found by such a classifier and is refused until the recipe leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pseudolabel.errors import DataError, UsageError
from pseudolabel.recipes.yaml import read_plain
from pseudolabel.records import LabelSpace, nearest

IMAGENET = 1000  # logits of a classifier that a class map speaks of


@dataclass(frozen=True)
class ClassMap:
    """Names with their ids, in the order of the file.

    Attributes:
        path: of the file.
        ids: ascending ImageNet ids of each name; no id stands twice.
    """

    path: Path
    ids: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Mapped:
    """A class map on a class list.

    Attributes:
        space: the class list.
        known: ascending class ids that the classifier can tell.
        groups: ImageNet ids of each of them.
    """

    space: LabelSpace
    known: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]


def read_class_map(path: Path | str) -> ClassMap:
    """Read a class map.

    Raises:
        UsageError: not readable as plain YAML, not `name: [ids]`, an id outside 0..999, or one that serves
            two names; place and remedy are told.
    """
    file = Path(path).expanduser()
    data, place = read_plain(file, "class map")
    if not isinstance(data, dict) or not data:
        raise UsageError(f"{file}: a class map has a line a name, for instance `cat: [281, 282]`")
    owner: dict[int, str] = {}
    ids: dict[str, tuple[int, ...]] = {}
    for name, numbers in data.items():
        where = place((name,))
        if not name.strip() or name == "background":
            raise UsageError(f"{where}: {name!r} is no class of its own; take it out")
        if not isinstance(numbers, list) or not numbers:
            raise UsageError(
                f"{where}: {name!r} has no list of ids; write {name}: [281, 282], or take it out"
            )
        for index, number in enumerate(numbers):
            spot = place((name, index))
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < IMAGENET:
                raise UsageError(f"{spot}: {name!r} has {number!r}, not an ImageNet id of 0..{IMAGENET - 1}")
            other = owner.setdefault(number, name)
            if other != name:
                raise UsageError(f"{spot}: id {number} is {other!r} and {name!r}; an id serves one name")
            if number in numbers[:index]:
                raise UsageError(f"{spot}: {name!r} has id {number} twice; keep one")
        ids[name] = tuple(sorted(numbers))
    return ClassMap(file, ids)


def mapped(chosen: ClassMap, space: LabelSpace | None, leave_out: Sequence[str] = ()) -> Mapped:
    """The classes of a data set in the classifier's terms.

    Args:
        chosen: the class map.
        space: the data's class list; None takes the map's own names.
        leave_out: names that are not looked for.

    Raises:
        DataError: names without an id (all of them are named), an unknown name in `leave_out`, or nothing
            is left.
    """
    if space is None:
        space = LabelSpace(("background", *chosen.ids))
    for name in leave_out:
        if name not in space.names[1:]:
            hint = nearest(name, space.names[1:])
            raise DataError(f"classifier.leave_out: {name!r} is not a class of the data; {hint}")
    wanted = {c: name for c, name in enumerate(space.names) if c and name not in leave_out}
    missing = [name for name in wanted.values() if name not in chosen.ids]
    if missing:
        raise DataError(
            f"{chosen.path}: no ImageNet id for {', '.join(missing)}; give ids, or say "
            f"`classifier.leave_out: [{', '.join([*leave_out, *missing])}]` (then background)"
        )
    if not wanted:
        raise DataError("classifier.leave_out: no class is left; take names out of it")
    return Mapped(space, tuple(wanted), tuple(chosen.ids[name] for name in wanted.values()))
