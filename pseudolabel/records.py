"""What flows along the line: records, label spaces, attribution, scores and label_scores.

Class ids: 0 background, 1..C foreground, 255 ignore. Sizes are height first.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pseudolabel.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

BACKGROUND = 0
IGNORE = 255
MOST_NAMES = 255  # background and 254 classes: a mask is 8 bit and 255 means ignore


class MaskSource(Protocol):
    """Ground truth of one image that is no PNG, for instance polygons; `str` of it names it in messages.

    It holds no array, is equal to a source of the same mask, and can be sent to a worker process.
    """

    def read(self) -> NDArray[np.uint8]:
        """(H, W) uint8 class ids of the image's size as shown: 0 background, 1..C, 255 ignore.

        Raises:
            DataError: it cannot be made; the message names the place.
        """
        ...

    def digest(self) -> str:
        """Text that changes when the mask does: sha256 of what it is made from."""
        ...


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a data set.

    Attributes:
        id: unique text, never parsed as a number; names every file made for this image.
        image: the image's file.
        labels: ascending foreground ids present, or None where nobody said.
        mask: ground truth, an indexed PNG or something that makes one; or None. `masks.read_mask` reads both.
    """

    id: str
    image: Path
    labels: tuple[int, ...] | None = None
    mask: Path | MaskSource | None = None


@dataclass(frozen=True, slots=True)
class LabelSpace:
    """Class names by id: `names[0]` is the background, `names[c]` class c.

    Raises:
        DataError: a name is empty, has blanks at its ends or a line break in it, or stands twice; or there is
            no foreground class.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise DataError(f"class list has {len(self.names)} names; it needs background and one class")
        unique: set[str] = set()
        for name in self.names:
            if not name.strip():
                raise DataError("class list has an empty name; give every class a name")
            if name != name.strip() or len(name.splitlines()) != 1:
                raise DataError(
                    f"class name {name!r} has blanks at its ends or a line break; rename the class"
                )
            if name in unique:
                raise DataError(f"class list names {name!r} twice; names are unique")
            unique.add(name)

    @classmethod
    def none(cls) -> LabelSpace:
        """No class but the background: of images that nobody has a class list for."""
        space = object.__new__(cls)
        object.__setattr__(space, "names", ("background",))
        return space

    @classmethod
    def read(cls, path: Path) -> LabelSpace:
        """The classes of a text file: a name a line, line number - 1 is the id, the first is the background.

        Blanks around a name, empty lines at the end and a BOM do not count. Bytes that are not UTF-8 come as
        surrogates, and `disk.write_text` writes them back as they were.

        Raises:
            DataError: the file cannot be read, an empty line between names, a name twice.
        """
        try:
            text = Path(path).read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff")
        except FileNotFoundError:
            raise DataError(f"{path}: there is no such file; give a class list") from None
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); give a class list") from error
        names = [line.strip() for line in text.splitlines()]
        while names and not names[-1]:
            names.pop()
        if "" in names:
            raise DataError(
                f"{path}:{names.index('') + 1}: blank line; line numbers are class ids, remove it"
            )
        try:
            return cls(tuple(names))
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    def text(self) -> str:
        """The file that `read` reads back."""
        return "".join(f"{name}\n" for name in self.names)

    def difference(self, other: LabelSpace) -> str | None:
        """The first id whose name is another in the other list, in words; None where the lists agree."""
        for index, (own, wanted) in enumerate(zip(self.names, other.names, strict=False)):
            if own != wanted:
                return f"id {index} is {own!r}, wanted {wanted!r}"
        if len(self.names) != len(other.names):
            return f"{len(self.names)} names, wanted {len(other.names)}"
        return None

    @property
    def foreground(self) -> int:
        """C, the number of classes without background; 0 of `none()`."""
        return len(self.names) - 1

    def id_of(self, name: str) -> int:
        """The id of a class name.

        Raises:
            DataError: unknown name; the nearest known one is named.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise DataError(f"{name!r} is not a class; {nearest(name, self.names)}") from None


def nearest(wrong: str, known: Iterable[str]) -> str:
    """A hint for a name that is not known: the nearest one, or all of them where none is near."""
    names = list(known)
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.5)
    if not close:
        folded = {name.casefold().strip(): name for name in names}
        close = [folded[wrong.casefold().strip()]] if wrong.casefold().strip() in folded else []
    if close:
        return f"did you mean {close[0]!r}?"
    return "known are " + ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a reader gives.

    Attributes:
        records: in list order, ids unique.
        space: the class names; `LabelSpace.none()` where the data has no classes of its own.
        parts: a folder of `<id>.png` where 1 marks the part that tells an object's class and 2 its
            body, or None; only scenes have one.
        labels_from: where the labels came from: `csv`, `txt` (a list of numbers), `xml` or `masks` (pixels
            of the ground truth); None where no labels are given.
    """

    records: tuple[ImageRecord, ...]
    space: LabelSpace
    parts: Path | None = None
    labels_from: str | None = None


@dataclass(frozen=True)
class Targets:
    """What is to be explained: a flat list of (image in the batch, class id 1..C).

    Attributes:
        images: (T,) index of the image in the batch; non-decreasing.
        classes: (T,) class id of the logit to explain.
    """

    images: tuple[int, ...]
    classes: tuple[int, ...]

    @staticmethod
    def of(labels: Iterable[Iterable[int]]) -> Targets:
        """All labels of a batch: one target per (image, label), images in order."""
        pairs = [(image, label) for image, row in enumerate(labels) for label in row]
        return Targets(tuple(image for image, _ in pairs), tuple(label for _, label in pairs))

    def slots(self) -> list[list[int]]:
        """Target indices by label slot: slot s holds the s-th label of every image that has one.

        The targets of one slot belong to different images, so one backward serves them all.
        """
        rank: dict[int, int] = {}
        slots: list[list[int]] = []
        for target, image in enumerate(self.images):
            slot = rank.get(image, 0)
            rank[image] = slot + 1
            if slot == len(slots):
                slots.append([])
            slots[slot].append(target)
        return slots


@dataclass(frozen=True, eq=False)
class Attribution:
    """What a map method gives for T targets.

    Attributes:
        values: (T, c, h', w') float32, signed; c = 3 for gradients, 1 for CAM-like maps.
        logits: (T,) float32, the score that was explained (over several views: their mean).
        totals: (T,) float32, logsumexp of all class logits of the same image, or None where a method
            does not tell; a weight by softmax needs it.
        uncovered: (T,) float32, share 0..1 of the image's pixels that no view covered, or None where
            every view is the whole image.
    """

    values: Tensor
    logits: Tensor
    totals: Tensor | None = None
    uncovered: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Scores:
    """Maps of the classes present in one image; an absent class does not exist.

    Attributes:
        ids: (K,) ascending foreground ids.
        values: (K, H, W) float32.
    """

    ids: tuple[int, ...]
    values: Tensor

    def replace(self, values: Tensor) -> Scores:
        """The same classes with other values."""
        return Scores(self.ids, values)


@dataclass(frozen=True, eq=False)
class LabelScores:
    """How much each pixel belongs to the background and to each class present.

    Attributes:
        ids: (0, ...) background first, then the ascending ids of the classes.
        values: (K+1, H, W) float32, row 0 the background.
        keep: (H, W) bool; a pixel that is not kept becomes 255.
    """

    ids: tuple[int, ...]
    values: Tensor
    keep: Tensor

    @staticmethod
    def join(background: Tensor, scores: Scores) -> LabelScores:
        """Background (H, W) put before the scores (K, H, W); every pixel is kept."""
        import torch

        values = torch.cat([background[None].to(scores.values.dtype), scores.values])
        keep = torch.ones(background.shape, dtype=torch.bool, device=background.device)
        return LabelScores((BACKGROUND, *scores.ids), values, keep)

    def rows(self) -> Tensor:
        """(H, W) int64 row of the largest value; the first of equal rows, so that background wins a tie."""
        import torch

        # torch.argmax does not promise which of equal rows it names
        best, top = torch.zeros(self.keep.shape, dtype=torch.int64, device=self.values.device), self.values[0]
        for row in range(1, len(self.ids)):
            best = torch.where(self.values[row] > top, row, best)
            top = torch.maximum(top, self.values[row])
        return best

    def mask(self) -> Tensor:
        """(H, W) uint8 class ids: argmax over rows, the first row wins a tie, 255 where not kept."""
        import torch

        table = torch.tensor(self.ids, dtype=torch.uint8, device=self.values.device)
        best = table[self.rows()]
        return torch.where(self.keep, best, torch.full_like(best, IGNORE))


@dataclass(frozen=True, slots=True)
class ObjectiveValue:
    """What an objective says of a batch.

    Attributes:
        loss: scalar float32 with a graph, to be minimised; a mean over the images of the batch.
        figures: further means over the images, for metrics.jsonl, by the names that the objective declares
            with the trait `figures`.
    """

    loss: Tensor
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ExportItem:
    """One image of a run, as an exporter is handed it.

    Attributes:
        id: unique text.
        labels: ascending foreground ids that the run made maps of; empty for an image without a class.
        mask: (H, W) uint8 class ids: 0 background, 1..C, 255 ignore.
        record: the image's file and ground truth; None unless the exporter `wants` "images".
        maps: for each branch the stored raw maps (K, H, W); None unless the exporter `wants` "maps".
    """

    id: str
    labels: tuple[int, ...]
    mask: NDArray[np.uint8]
    record: ImageRecord | None = None
    maps: tuple[Scores, ...] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image as shown."""
        return (int(self.mask.shape[0]), int(self.mask.shape[1]))


@dataclass(frozen=True)
class Exported:
    """What an exporter gives back.

    Attributes:
        wrote: what was written, JSON-able.
        lost: a sentence for each thing that the form cannot hold; empty where every id of every mask is kept.
    """

    wrote: Mapping[str, Any]
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ImportItem:
    """One image that an importer has read.

    Attributes:
        id: unique text, that of the image.
        mask: (H, W) uint8 class ids, or None where there are only maps.
        labels: ascending foreground ids, or None: those of the maps, or else those that the mask holds.
        maps: for each branch raw maps (K, h, w) float32, in ascending order of their ids; or None.
    """

    id: str
    mask: NDArray[np.uint8] | None = None
    labels: tuple[int, ...] | None = None
    maps: tuple[Scores, ...] | None = None


@dataclass(frozen=True)
class Imported:
    """What an importer gives.

    Attributes:
        space: the classes of masks and maps.
        items: one by one; read once.
        lost: a sentence for each thing of the source that a run folder cannot hold; complete once all items
            were taken.
    """

    space: LabelSpace
    items: Iterable[ImportItem]
    lost: Sequence[str] = ()
