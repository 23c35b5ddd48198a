"""Scores of masks: one int64 confusion matrix over the data set, divided once at the end.

Rows are the truth 0..C, columns the prediction 0..C and one more for a predicted 255; pixels whose
truth is 255 are dropped. With D the diagonal, row and col the sums of a class:

    IoU = D / (row + col - D)      recall = D / row      precision = D / col

An absent class (0/0) is NaN and left out of means. A predicted 255 has three readings, all of them
from the one matrix: `background` adds its column to column 0, `ignore` drops those pixels, `wrong`
counts them in the truth's row and in no class's column.

Source: chainercv's calc_semantic_segmentation_confusion, its class count fixed at C+1; the readings of
a predicted 255: IRN (background) and ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pseudolabel.errors import UsageError
from pseudolabel.records import IGNORE, LabelSpace, nearest

Reading = Literal["background", "ignore", "wrong"]
READINGS: tuple[Reading, ...] = ("background", "ignore", "wrong")

Mask = NDArray[np.uint8]
Counts = NDArray[np.int64]
Values = NDArray[np.float64]


def confusion(truth: Mask, prediction: Mask, names: int) -> Counts:
    """Confusion matrix of one image.

    Args:
        truth: (H, W) uint8 class ids 0..names-1, 255 where nobody knows.
        prediction: (H, W) uint8 class ids 0..names-1, 255 where the method abstains.
        names: classes with background, C + 1.

    Returns:
        (names, names + 1) int64; the last column is a predicted 255.

    Raises:
        ValueError: sizes or dtypes differ, or a value is outside the classes.
    """
    counts: Counts = by_region(truth, prediction[None], np.zeros_like(truth), 1, names)[0, 0]
    return counts


def by_region(truth: Mask, predictions: Mask, region: Mask, regions: int, names: int) -> Counts:
    """Confusion matrices of several predictions of one image, apart for each region of the image.

    Args:
        truth: (H, W) uint8 as for `confusion`.
        predictions: (T, H, W) uint8.
        region: (H, W) uint8, the region 0..regions-1 that a pixel belongs to.
        regions: their number.
        names: classes with background, C + 1.

    Returns:
        (T, regions, names, names + 1) int64; their sum over regions is `confusion`.

    Raises:
        ValueError: sizes or dtypes differ, or a value is outside the classes or regions.
    """
    for what, array in (("truth", truth), ("prediction", predictions), ("region", region)):
        if array.dtype != np.uint8:
            raise ValueError(f"{what} is {array.dtype}; class ids are uint8")
    if predictions.shape[1:] != truth.shape or region.shape != truth.shape:
        raise ValueError(
            f"prediction is {_size(predictions.shape[1:])}, its truth {_size(truth.shape)}; "
            "a mask has the size of its image"
        )
    if region.size and int(region.max()) >= regions:
        raise ValueError(f"region {int(region.max())} is not below {regions}")
    # One histogram over (region, truth, prediction) bytes: the full 256 x 256 costs no more than
    # looking the classes up, and shows a value outside the classes without a pass of its own.
    base = (region.astype(np.int64) << 16 | truth.astype(np.int64) << 8).ravel()
    counts = np.empty((len(predictions), regions, names, names + 1), dtype=np.int64)
    for index, prediction in enumerate(predictions):
        joint = np.bincount(base + prediction.ravel(), minlength=regions << 16)
        joint = joint.reshape(regions, 256, 256)
        counts[index, :, :, :names] = joint[:, :names, :names]
        counts[index, :, :, names] = joint[:, :names, IGNORE]
        # Void pixels are not counted, but a mask with foreign values is refused as a whole.
        void = joint[:, IGNORE, :names].sum() + joint[:, IGNORE, IGNORE].sum()
        if counts[index].sum() + void != truth.size:
            _refuse("truth", joint.sum(axis=(0, 2)), names)
            _refuse("prediction", joint.sum(axis=(0, 1)), names)
    return counts


def read(matrix: Counts, reading: Reading) -> Counts:
    """The matrix under one reading of a predicted 255.

    Args:
        matrix: (..., C+1, C+2) int64 as counted.
        reading: `background`, `ignore` or `wrong`.

    Returns:
        the same shape; the last column is zero except in `wrong`.
    """
    out = matrix.copy()
    if reading == "background":
        out[..., 0] += out[..., -1]
    if reading != "wrong":
        out[..., -1] = 0
    return out


def iou(read_matrix: Counts) -> Values:
    """IoU (..., C+1) of a matrix that has been read; NaN for an absent class."""
    hit, row, col = _sums(read_matrix)
    return _ratio(hit, row + col - hit)


def recall(read_matrix: Counts) -> Values:
    """Recall (..., C+1) of a matrix that has been read; NaN where the truth lacks the class."""
    hit, row, _ = _sums(read_matrix)
    return _ratio(hit, row)


def precision(read_matrix: Counts) -> Values:
    """Precision (..., C+1) of a matrix that has been read; NaN where the class is not predicted."""
    hit, _, col = _sums(read_matrix)
    return _ratio(hit, col)


def mean(values: Values, classes: Iterable[int]) -> tuple[float, int]:
    """Mean of the defined values among some classes, and how many there were; (NaN, 0) without any."""
    kept = [float(values[c]) for c in classes if not math.isnan(values[c])]
    return (math.fsum(kept) / len(kept), len(kept)) if kept else (math.nan, 0)


@dataclass(frozen=True)
class Figures:
    """The figures of a data set under one reading of a predicted 255; NaN where undefined.

    Attributes:
        reading: the reading.
        miou: mean IoU over the averaged classes, background included; not a mean over images.
        classes_averaged: how many classes stand in `miou`.
        iou, recall, precision: (C+1,) by class.
        fg_recall, fg_precision: means over the averaged foreground classes.
        fg_hit: share of foreground pixels predicted as any foreground class.
        coverage: share of non-void pixels whose prediction is not 255; the same in every reading.
        pixel_accuracy: share of pixels with the right class.
        dr_recall, ndr_recall: means over foreground classes on the regions; NaN without a reference.
        pooled: fg, dr and ndr recall over the pixels of all foreground classes together.
        legacy: mean IoU over the masked truth, the authors' first "recall" (until 3 March 2023).
        averaged: how many classes stand in each of the other means.
        confusion: (C+1, C+1) int64, (C+1, C+2) in `wrong`.
    """

    reading: Reading
    miou: float
    classes_averaged: int
    iou: Values
    recall: Values
    precision: Values
    fg_recall: float
    fg_precision: float
    fg_hit: float
    coverage: float
    pixel_accuracy: float
    dr_recall: float
    ndr_recall: float
    pooled: dict[str, float]
    legacy: dict[str, float]
    confusion: Counts
    averaged: dict[str, int] = field(default_factory=dict)

    def plain(self, space: LabelSpace) -> dict[str, Any]:
        """As JSON: classes by name, undefined figures null."""
        by_name = {
            what: {name: defined(float(v)) for name, v in zip(space.names, values, strict=True)}
            for what, values in (("iou", self.iou), ("recall", self.recall), ("precision", self.precision))
        }
        return {
            **{what: defined(getattr(self, what)) for what in _SINGLE},
            **by_name,
            "classes_averaged": self.classes_averaged,
            "averaged": dict(self.averaged),
            "pooled": {what: defined(value) for what, value in self.pooled.items()},
            "legacy": {what: defined(value) for what, value in self.legacy.items()},
            "confusion": self.confusion.tolist(),
            "reading_of_ignore": self.reading,
        }


_SINGLE = (
    "miou",
    "fg_recall",
    "fg_precision",
    "fg_hit",
    "coverage",
    "pixel_accuracy",
    "dr_recall",
    "ndr_recall",
)


def figures(
    matrix: Counts,
    reading: Reading = "background",
    *,
    dr: Counts | None = None,
    ndr: Counts | None = None,
    average_over: Sequence[int] | None = None,
) -> Figures:
    """All figures from whole-set matrices, divided once in float64.

    Args:
        matrix: (C+1, C+2) int64, summed over all images.
        reading: of a predicted 255.
        dr, ndr: the same for the (non-)discriminative region, background row empty; None without
            a reference.
        average_over: class ids that the means over classes are taken over; None for all. The matrix
            stays whole, and so do the shares of pixels (pooled, hit, coverage, accuracy).
    """
    names = len(matrix)
    classes = tuple(range(names)) if average_over is None else tuple(average_over)
    foreground = tuple(c for c in classes if c > 0)
    taken = read(matrix, reading)
    union = iou(taken)
    miou, counted = mean(union, classes)
    fg_recall, fg_recall_classes = mean(recall(taken), foreground)
    fg_precision, fg_precision_classes = mean(precision(taken), foreground)
    averaged = {"fg_recall": fg_recall_classes, "fg_precision": fg_precision_classes}
    regional = {"dr_recall": math.nan, "ndr_recall": math.nan}
    pooled = {"fg_recall": _pooled(taken), "dr_recall": math.nan, "ndr_recall": math.nan}
    legacy = {"dr_miou_legacy": math.nan, "ndr_miou_legacy": math.nan}
    for what, region in (("dr", dr), ("ndr", ndr)):
        if region is None:
            continue
        part = read(region, reading)
        regional[f"{what}_recall"], averaged[f"{what}_recall"] = mean(recall(part), foreground)
        pooled[f"{what}_recall"] = _pooled(part)
        legacy[f"{what}_miou_legacy"], averaged[f"{what}_miou_legacy"] = mean(iou(part), classes)
    total = int(matrix.sum())
    return Figures(
        reading=reading,
        miou=miou,
        classes_averaged=counted,
        iou=union,
        recall=recall(taken),
        precision=precision(taken),
        fg_recall=fg_recall,
        fg_precision=fg_precision,
        fg_hit=_share(int(taken[1:, 1:names].sum()), int(taken[1:].sum())),
        coverage=_share(total - int(matrix[:, names].sum()), total),
        pixel_accuracy=_share(int(np.trace(taken)), int(taken.sum())),
        dr_recall=regional["dr_recall"],
        ndr_recall=regional["ndr_recall"],
        pooled=pooled,
        legacy=legacy,
        confusion=taken if reading == "wrong" else taken[:, :names],
        averaged=averaged,
    )


def averaged_ids(space: LabelSpace, names: Sequence[str] | None) -> tuple[int, ...] | None:
    """Ids of the classes that means are taken over, ascending; None means all of them.

    Raises:
        UsageError: a name is no class (the nearest is named), or the list is empty.
    """
    if names is None:
        return None
    for name in names:
        if name not in space.names:
            raise UsageError(f"average over: {name!r} is not a class; {nearest(name, space.names)}")
    if not names:
        raise UsageError("average over: no class is named; name some, or leave it out for all")
    return tuple(sorted({space.names.index(name) for name in names}))


def defined(value: float) -> float | None:
    """The value, or None (null in JSON) where it is undefined."""
    return None if math.isnan(value) else float(value)


def _sums(read_matrix: Counts) -> tuple[Counts, Counts, Counts]:
    names = read_matrix.shape[-2]
    hit = np.diagonal(read_matrix, axis1=-2, axis2=-1)
    return hit, read_matrix.sum(axis=-1), read_matrix[..., :names].sum(axis=-2)


def _ratio(over: Counts, under: Counts) -> Values:
    out: Values = np.full(over.shape, np.nan)
    np.divide(over, under, out=out, where=under > 0)
    return out


def _pooled(taken: Counts) -> float:
    return _share(int(np.trace(taken) - taken[0, 0]), int(taken[1:].sum()))


def _share(over: int, under: int) -> float:
    return over / under if under else math.nan


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(side) for side in shape)


def _refuse(what: str, histogram: Counts, names: int) -> None:
    foreign = [int(v) for v in np.flatnonzero(histogram) if names <= v < IGNORE]
    if foreign:
        listing = ", ".join(f"{v} ({int(histogram[v])} pixels)" for v in foreign[:10])
        raise ValueError(f"{what} holds {listing}; its classes are 0..{names - 1}, and 255")
