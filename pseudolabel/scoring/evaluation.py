"""The result of `pl evaluate`: masks counted against the truth, and the figures of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pseudolabel import masks as mask_files
from pseudolabel.errors import DataError
from pseudolabel.metrics.bootstrap import miou_interval
from pseudolabel.metrics.confusion import READINGS, Counts, Reading, averaged_ids, defined, figures
from pseudolabel.records import ImageRecord
from pseudolabel.scoring import reference_maps
from pseudolabel.scoring.counts import Sums, count, matrices
from pseudolabel.scoring.provenance import Provenance
from pseudolabel.scoring.reference_maps import ReferenceMaps
from pseudolabel.scoring.truth import Truth, listed, size

DEFAULT: Reading = "background"
SPREAD = 256 << 20  # bytes of per-image matrices up to which the interval of mIoU is computed
LEVEL, DRAWS = 0.95, 1000  # of that interval


@dataclass(frozen=True)
class Evaluation:
    """Figures of masks over a data set, an undefined one None; by class means by class name.

    Attributes:
        images: how many were scored.
        miou: mean IoU from one confusion matrix over the data set, background included.
        classes_averaged: how many classes stand in it.
        iou, recall, precision: by class.
        fg_recall, fg_precision: means over the foreground classes.
        fg_hit: share of foreground pixels that are predicted as any foreground class.
        coverage: share of pixels whose prediction is not 255.
        pixel_accuracy: share of pixels with the right class.
        dr_recall, ndr_recall: recall on the discriminative region and on the rest of the objects.
        averaged: how many classes stand in each of the other means.
        pooled: recalls over the pixels of all foreground classes together.
        legacy: mean IoU over the masked truth, the authors' first "recall".
        confusion: rows the truth, columns the prediction.
        reading_of_ignore: how a predicted 255 was read.
        parts: recall on planted parts and bodies, where the data have them.
        readings: all of the above in every reading of a predicted 255.
        average_over: class names that the means are taken over; None is all of them.
        reference: the reference maps, or None.
        miou_interval: spread of `miou` over the images; None where there are too many.
        image_list, labels, labels_from, checkpoint, threshold, postprocess, versions: see `Provenance`.
        reader, split: what the truth was read from.
    """

    images: int
    miou: float | None
    classes_averaged: int
    iou: dict[str, float | None]
    recall: dict[str, float | None]
    precision: dict[str, float | None]
    fg_recall: float | None
    fg_precision: float | None
    fg_hit: float | None
    coverage: float | None
    pixel_accuracy: float | None
    dr_recall: float | None
    ndr_recall: float | None
    averaged: dict[str, int]
    pooled: dict[str, float | None]
    legacy: dict[str, float | None]
    confusion: list[list[int]]
    reading_of_ignore: str
    parts: dict[str, Any] | None
    readings: dict[str, dict[str, Any]]
    average_over: list[str] | None
    reference: dict[str, Any] | None
    miou_interval: dict[str, Any] | None
    image_list: dict[str, Any]
    labels: str | None
    labels_from: str | None
    checkpoint: dict[str, Any] | None
    threshold: dict[str, Any] | None
    postprocess: list[dict[str, Any]] | None
    versions: dict[str, str]
    reader: str
    split: str | None

    def as_dict(self) -> dict[str, Any]:
        """What evaluation.json holds."""
        return dataclasses.asdict(self)


def evaluated(
    judged: Truth,
    folder: Path,
    reference: ReferenceMaps | None,
    *,
    average_over: Sequence[str] | None,
    provenance: Provenance,
    workers: int,
    quiet: bool,
) -> Evaluation:
    """Score the masks of a folder.

    Args:
        judged: the images and their truth.
        folder: holds `<id>.png` for each of them.
        reference: tells DR from NDR, or None.
        average_over: class names that means are taken over, background too if it is to count; None for all.
        provenance: of the masks.
        workers: threads that read masks.
        quiet: no progress.

    Raises:
        DataError: an image has no mask, or cannot be counted.
        UsageError: an unknown class.
    """
    chosen = averaged_ids(judged.space, average_over)
    if reference is not None:
        reference.require(record.id for record in judged.records)
    sums = _count(judged, folder, reference, workers, quiet)
    readings: dict[str, dict[str, Any]] = {}
    for reading in READINGS:
        computed = figures(
            sums.total[0],
            reading,
            dr=_named(sums, "dr"),
            ndr=_named(sums, "ndr"),
            average_over=chosen,
        )
        readings[reading] = {**computed.plain(judged.space), "parts": _parts(sums, reading, chosen)}
    return Evaluation(
        images=len(judged.records),
        **readings[DEFAULT],
        readings=readings,
        average_over=None if chosen is None else [judged.space.names[c] for c in chosen],
        reference=None if reference is None else reference.as_dict(),
        miou_interval=_interval(sums, judged, chosen),
        **dataclasses.asdict(provenance),
        reader=judged.reader,
        split=judged.split,
    )


def _count(judged: Truth, folder: Path, reference: ReferenceMaps | None, workers: int, quiet: bool) -> Sums:
    """Matrices over all images, each counted once."""
    records = judged.records
    missing = [record.id for record in records if not (folder / f"{record.id}.png").is_file()]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(records)} images have no mask: {listed(missing)}; a score "
            "covers every listed image: finish the run, or score fewer with --limit"
        )
    names = len(judged.space.names)
    return count(
        functools.partial(_matrices, judged, folder, None if reference is None else reference.path),
        ((record.id, record) for record in records),
        len(records),
        keep=names * (names + 1) * 8 * len(records) <= SPREAD,
        workers=workers,
        processes=False,
        what="scored",
        quiet=quiet,
    )


def _matrices(judged: Truth, folder: Path, maps: Path | None, record: ImageRecord) -> dict[str, Counts]:
    path = folder / f"{record.id}.png"
    truth, predicted = judged.mask(record), mask_files.read_mask(path)
    if predicted.shape != truth.shape:
        raise DataError(f"{path}: mask is {size(predicted.shape)}, its truth {size(truth.shape)}")
    reference = None if maps is None else reference_maps.opened(maps)
    return matrices(judged, reference, record, truth, predicted[None], path)


def _named(sums: Sums, name: str) -> Counts | None:
    return sums.named[name][0] if name in sums.named else None


def _parts(sums: Sums, reading: Reading, chosen: Sequence[int] | None) -> dict[str, Any] | None:
    """Recall on the planted parts and bodies, mean over classes and pooled; None without part masks."""
    part, body = _named(sums, "part"), _named(sums, "body")
    if part is None or body is None:
        return None
    computed = figures(sums.total[0], reading, dr=part, ndr=body, average_over=chosen)
    return {
        "part_recall": defined(computed.dr_recall),
        "body_recall": defined(computed.ndr_recall),
        "pooled": {
            "part_recall": defined(computed.pooled["dr_recall"]),
            "body_recall": defined(computed.pooled["ndr_recall"]),
        },
        "pixels": {"part": int(part.sum()), "body": int(body.sum())},
    }


def _interval(sums: Sums, judged: Truth, chosen: Sequence[int] | None) -> dict[str, Any] | None:
    """Spread of the default reading's mIoU over images; None where the set is too large to keep."""
    if not sums.each:
        return None
    shape = sums.total[0].shape
    each = np.stack([sums.each[record.id].dense(shape) for record in judged.records])
    low, high = miou_interval(each, draws=DRAWS, level=LEVEL, average_over=chosen)
    return {"low": defined(low), "high": defined(high), "level": LEVEL, "draws": DRAWS}
