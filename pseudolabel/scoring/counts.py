"""Counting masks against the truth: matrices of one image, and their sums over the images of a score."""

from __future__ import annotations

import functools
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pseudolabel import console, draws
from pseudolabel import masks as mask_files
from pseudolabel.errors import DataError
from pseudolabel.metrics.confusion import Counts
from pseudolabel.metrics.regions import part_matrices, region_matrices
from pseudolabel.pipeline.workers import pool
from pseudolabel.records import ImageRecord
from pseudolabel.scoring.reference_maps import ReferenceMaps
from pseudolabel.scoring.truth import NAMED, Mask, Truth

CHUNK = 4  # images a worker takes at once
Job = TypeVar("Job")


@dataclass(frozen=True)
class Sparse:
    """The matrices (T, C+1, C+2) of one image, of which nearly all entries are 0."""

    places: NDArray[np.int32]
    counts: Counts

    @staticmethod
    def of(matrices: Counts) -> Sparse:
        """Keep what is not 0."""
        places = np.flatnonzero(matrices)
        return Sparse(places.astype(np.int32), matrices.ravel()[places])

    def dense(self, shape: tuple[int, ...]) -> Counts:
        """The matrices again."""
        matrices = np.zeros(math.prod(shape), np.int64)
        matrices[self.places] = self.counts
        return matrices.reshape(shape)


class Sums:
    """Counts summed over images.

    Attributes:
        named: matrices (T, C+1, C+2): `half0` and `half1` over the two halves of the set, `dr`, `ndr`, `part`
            and `body` over their regions where there are any; and what else was counted.
        each: matrices of every image, on request.
        faults: images that cannot be counted, and why.
        images: how many each half has.
    """

    def __init__(self) -> None:
        self.named: dict[str, Counts] = {}
        self.each: dict[str, Sparse] = {}
        self.faults: list[str] = []
        self.images = [0, 0]

    def add(self, item: str, counted: Mapping[str, Counts], keep: bool) -> None:
        """Add what was counted on one image; `keep` its matrices too."""
        half = half_of(item)
        for name, counts in counted.items():
            self._add(f"half{half}" if name == "whole" else name, counts)
        if keep:
            self.each[item] = Sparse.of(counted["whole"])
        self.images[half] += 1

    def join(self, other: Sums) -> None:
        """Add what was counted elsewhere, over other images."""
        for name, counts in other.named.items():
            self._add(name, counts)
        self.each |= other.each
        self.faults += other.faults
        self.images = [a + b for a, b in zip(self.images, other.images, strict=True)]

    @property
    def total(self) -> Counts:
        """(T, C+1, C+2) over all images."""
        halves = [self.named[f"half{half}"] for half in (0, 1) if self.images[half]]
        return halves[0] if len(halves) == 1 else halves[0] + halves[1]

    def _add(self, name: str, counts: Counts) -> None:
        self.named[name] = self.named[name] + counts if name in self.named else counts


def half_of(record_id: str) -> int:
    """Which half of the set an image is in: by its id, so that no list order matters."""
    return draws.seed_of("half", record_id) & 1


def matrices(
    judged: Truth, reference: ReferenceMaps | None, record: ImageRecord, truth: Mask, masks: Mask, place: Path
) -> dict[str, Counts]:
    """Matrices of several masks of one image.

    Args:
        judged: what the image belongs to.
        reference: tells DR from NDR, or None.
        record: the image.
        truth: (H, W) uint8, its ground truth.
        masks: (T, H, W) uint8.
        place: file that the masks come from, for messages.

    Returns:
        (T, C+1, C+2) int64 each: `whole`; with a reference `dr` and `ndr`; with parts `part` and `body`.

    Raises:
        DataError: a value outside the classes, or a part mask that does not fit.
    """
    names = len(judged.space.names)
    region = np.zeros(truth.shape, np.bool_) if reference is None else reference.region(record.id, truth)
    try:
        everywhere, dr, ndr = region_matrices(truth, masks, region, names)
    except ValueError:
        assert record.mask is not None
        for mask in masks:
            mask_files.check_values(mask, judged.space, place)
        mask_files.check_values(truth, judged.space, record.mask)
        raise
    counted = {"whole": everywhere}
    if reference is not None:
        counted |= {"dr": dr, "ndr": ndr}
    parts = judged.part(record, truth.shape)
    if parts is not None:
        counted["part"], counted["body"] = part_matrices(truth, masks, parts, names)
    return counted


def count(
    count_one: Callable[[Job], dict[str, Counts]],
    jobs: Iterable[tuple[str, Job]],
    total: int,
    *,
    keep: bool,
    workers: int,
    processes: bool,
    what: str,
    quiet: bool,
) -> Sums:
    """Counts summed over all images, each counted once.

    Args:
        count_one: counts of one image, `whole` among them; picklable where processes are used.
        jobs: (id, what `count_one` takes), taken as they are needed.
        total: how many.
        keep: the matrices of every image as well.
        workers: how many images at once, 0 does each in turn; no figure depends on it.
        processes: in as many processes instead of threads.
        what: is done to the images, for messages: scored, swept.
        quiet: no progress.

    Raises:
        DataError: images that cannot be counted; all of them are counted in the message.
    """
    sums = Sums()
    one_chunk = functools.partial(_chunk, count_one, keep)
    with (
        console.progress(total, what, quiet) as bar,
        pool(one_chunk, lambda _, sums: sums, workers=workers, processes=processes) as submit,
    ):
        waiting: deque[Future[Sums]] = deque()

        def settle() -> None:
            counted = waiting.popleft().result()
            sums.join(counted)
            bar.advance(sum(counted.images) + len(counted.faults))

        for chunk in _chunks(jobs):
            waiting.append(submit(chunk))
            if len(waiting) > 4 * workers:
                settle()
        while waiting:
            settle()
    if sums.faults:
        raise DataError(
            f"{len(sums.faults)} of {total} images cannot be {what}: "
            + "; ".join(sums.faults[:NAMED])
            + (f"; and {len(sums.faults) - NAMED} more" if len(sums.faults) > NAMED else "")
        )
    return sums


def _chunk(
    count_one: Callable[[Job], dict[str, Counts]], keep: bool, chunk: Sequence[tuple[str, Job]]
) -> Sums:
    sums = Sums()
    for item, job in chunk:
        try:
            counted = count_one(job)
        except DataError as fault:
            sums.faults.append(str(fault))
            continue
        sums.add(item, counted, keep)
    return sums


def _chunks(jobs: Iterable[tuple[str, Job]]) -> Iterator[tuple[tuple[str, Job], ...]]:
    """A few jobs at a time.

    Raises:
        DataError: an id stands twice.
    """
    left, ids = iter(jobs), set[str]()
    while chunk := tuple(itertools.islice(left, CHUNK)):
        for item, _ in chunk:
            if item in ids:
                raise DataError(f"{item}: stands twice in the list; list each image once")
            ids.add(item)
        yield chunk
