"""Figures of the counts that experiments keep, and their intervals over images as a result file holds them.

Counts are (..., 3, C+1, C+2): whole image, DR and NDR. What is computed stands in `pseudolabel.metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pseudolabel.metrics.bootstrap import percentile_interval
from pseudolabel.metrics.confusion import Counts, Values, defined
from pseudolabel.metrics.figure_arrays import figure_arrays
from pseudolabel.metrics.threshold_curves import best_of

FIGURES = ("miou", "ndr_recall", "dr_recall", "fg_precision")


def figures_of(counts: Counts, classes: Sequence[int] | None = None) -> dict[str, Values]:
    """Figures of summed counts.

    Args:
        counts: (..., 3, C+1, C+2) int64: whole, DR, NDR.
        classes: ids that means are taken over, 0 among them; None for all.

    Returns:
        each figure (...): `miou`, `dr_recall`, `ndr_recall`, `fg_precision`, `ndr_miou_legacy`.
    """
    total, dr, ndr = (counts[..., index, :, :] for index in range(3))
    figures = figure_arrays(total, dr=dr, ndr=ndr, average_over=classes)
    return {
        name: figures[name] for name in ("miou", "dr_recall", "ndr_recall", "fg_precision", "ndr_miou_legacy")
    }


def best_index(mious: Values) -> int:
    """Index of the threshold of the largest mIoU, of equal ones the first."""
    index = best_of(mious)
    if index is None:
        raise SystemExit("no threshold has a defined mIoU: the images show none of the averaged classes")
    return index


def interval(values: Values) -> list[float | None]:
    """Percentile interval of a figure on every bootstrap sample; [None, None] where it is undefined."""
    return [defined(end) for end in percentile_interval(values)]


def difference(
    rows: tuple[Mapping[str, Any], Mapping[str, Any]],
    samples: tuple[Mapping[str, Values], Mapping[str, Values]],
    figures: Sequence[str] = FIGURES,
) -> dict[str, dict[str, Any]]:
    """The first row minus the second in every figure, with the paired interval.

    Args:
        rows: figures on the images themselves.
        samples: the same on the same bootstrap samples.
        figures: their names.
    """
    return {
        name: {
            "value": None if None in (rows[0][name], rows[1][name]) else rows[0][name] - rows[1][name],
            "interval": interval(samples[0][name] - samples[1][name]),
        }
        for name in figures
    }
