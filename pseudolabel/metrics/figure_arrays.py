"""The figures of many data sets at once, for instance of every threshold or of every bootstrap sample.

Each data set is a confusion matrix, or three where DR and NDR are known; the figures are those of
`confusion.figures`, with the axes in front kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pseudolabel.metrics.confusion import Counts, Reading, Values, iou, precision, read, recall


def figure_arrays(
    matrices: Counts,
    reading: Reading = "background",
    *,
    dr: Counts | None = None,
    ndr: Counts | None = None,
    average_over: Sequence[int] | None = None,
) -> dict[str, Values]:
    """Every figure that is one number for a data set.

    Args:
        matrices: (..., C+1, C+2) int64, summed over images.
        reading: of a predicted 255.
        dr, ndr: the same for the (non-)discriminative region, background row empty; None without a
            reference.
        average_over: class ids that the means over classes are taken over; None for all.

    Returns:
        figure (...) float64 by name, NaN where undefined: `miou`, `fg_recall`, `fg_precision`, `fg_hit`,
        `coverage`, `pixel_accuracy`; `dr_recall`, `dr_miou_legacy` with `dr`; `ndr_recall`,
        `ndr_miou_legacy` with `ndr`.
    """
    names = matrices.shape[-2]
    ids = np.arange(names) if average_over is None else np.asarray(average_over)
    foreground = ids[ids > 0]
    taken = read(matrices, reading)
    counted = matrices.sum(axis=(-2, -1))
    figures = {
        "miou": mean_of(iou(taken)[..., ids]),
        "fg_recall": mean_of(recall(taken)[..., foreground]),
        "fg_precision": mean_of(precision(taken)[..., foreground]),
        "fg_hit": _shares(taken[..., 1:, 1:names].sum(axis=(-2, -1)), taken[..., 1:, :].sum(axis=(-2, -1))),
        "coverage": _shares(counted - matrices[..., names].sum(axis=-1), counted),
        "pixel_accuracy": _shares(np.trace(taken, axis1=-2, axis2=-1), taken.sum(axis=(-2, -1))),
    }
    for name, region in (("dr", dr), ("ndr", ndr)):
        if region is not None:
            part = read(region, reading)
            figures[f"{name}_recall"] = mean_of(recall(part)[..., foreground])
            figures[f"{name}_miou_legacy"] = mean_of(iou(part)[..., ids])
    return figures


def mean_of(values: Values, axis: int = -1) -> Values:
    """Mean of the defined values along an axis, for instance over classes or seeds; NaN without any."""
    known = ~np.isnan(values)
    return _shares(np.where(known, values, 0.0).sum(axis=axis), known.sum(axis=axis))


def _shares(over: Values | Counts, under: Counts) -> Values:
    shares: Values = np.full(np.shape(under), np.nan)
    np.divide(over, under, out=shares, where=under > 0)
    return shares
