"""Figures of confusion counts with bootstrap intervals over images, paired where methods are compared.

Source: Efron 1979, percentile interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pseudolabel.metrics.confusion import Counts, iou, precision, read, recall

Values = NDArray[np.float64]
SAMPLES = 1000  # bootstrap samples of an interval
LEVEL = 0.95
FIGURES = ("miou", "ndr_recall", "dr_recall", "fg_precision")
BLOCK = 100  # samples summed at once: bounds the memory


def multiplicities(images: int, samples: int = SAMPLES, seed: int = 0) -> Values:
    """How often each image stands in each bootstrap sample: (samples, images), rows sum to `images`."""
    random = np.random.default_rng(seed)
    return random.multinomial(images, np.full(images, 1 / images), size=samples).astype(np.float64)


def resampled(matrices: Counts, times: Values, classes: Sequence[int] | None = None) -> dict[str, Values]:
    """Every figure on every bootstrap sample.

    Args:
        matrices: (images, 3, C+1, C+2) int64: whole, DR and NDR of each image.
        times: from `multiplicities`; the same for all methods compared, so that differences are paired.
        classes: see `figures_of`.

    Returns:
        each figure (samples,).
    """
    flat = matrices.reshape(len(matrices), -1).astype(np.float64)
    parts = []
    for start in range(0, len(times), BLOCK):
        sums = np.rint(times[start : start + BLOCK] @ flat).astype(np.int64)
        parts.append(figures_of(sums.reshape(-1, *matrices.shape[1:]), classes))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def interval(values: Values, level: float = LEVEL) -> list[float | None]:
    """Percentile interval of the defined values; [None, None] without any."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return [None, None]
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


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
            "value": float(rows[0][name] or 0.0) - float(rows[1][name] or 0.0),
            "interval": interval(samples[0][name] - samples[1][name]),
        }
        for name in figures
    }


def miou(matrices: Counts) -> Values:
    """(..., C+1, C+2) -> (...) mean IoU over all classes present, background included."""
    return _mean(iou(read(matrices, "background")), axis=-1)


def figures_of(counts: Counts, classes: Sequence[int] | None = None) -> dict[str, Values]:
    """Figures of summed matrices, as `pl evaluate` has them.

    Args:
        counts: (..., 3, C+1, C+2) int64: whole, DR, NDR.
        classes: ids that means are taken over, 0 among them; None for all.

    Returns:
        each figure (...): `miou`, `dr_recall`, `ndr_recall`, `fg_precision`, `ndr_miou_legacy`.
    """
    taken = read(counts, "background")
    ids = np.arange(counts.shape[-2]) if classes is None else np.asarray(classes)
    foreground = ids[ids > 0]
    overall, dr, ndr = (taken[..., index, :, :] for index in range(3))
    return {
        "miou": _mean(iou(overall)[..., ids], axis=-1),
        "dr_recall": _mean(recall(dr)[..., foreground], axis=-1),
        "ndr_recall": _mean(recall(ndr)[..., foreground], axis=-1),
        "fg_precision": _mean(precision(overall)[..., foreground], axis=-1),
        "ndr_miou_legacy": _mean(iou(ndr)[..., ids], axis=-1),
    }


def mean_of(values: Sequence[Values]) -> Values:
    """Mean of the defined values over a first axis, for instance over seeds."""
    return _mean(np.stack(values), axis=0)


def _mean(values: Values, axis: int) -> Values:
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    mean: Values = np.full(count.shape, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean
