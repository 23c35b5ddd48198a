"""Thresholds without ground truth: what the maps, the masks and the images say by themselves.

With the strongest score of every pixel, pooled over images, m its mean, and w_0, w_1, m_0, m_1 the
weights and means below and above t:

    mean           t = m
    cross_entropy  t that maximises  w_0 m_0 log m_0 + w_1 m_1 log m_1
    otsu           t that maximises  w_0 w_1 (m_0 - m_1)^2
    stability      t after which the masks change least: largest mIoU between the masks at t and at the
                   next value of the sweep
    edges          t whose mask borders lie on the strongest colour edges: largest sum over border pixels of
                   (rank of the colour step among all of the image - 1/2)

The first three find a score, the others one of the values of a sweep. Everything is counted in integers and
added over images, so that no order of images or workers shows.

Source: Li and Lee 1993 (minimum cross entropy), Otsu 1979; stability after Matas et al. 2002 (MSER); mean and
edges: own choice.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pseudolabel.metrics.confusion import Counts, iou, mean, read

BINS = 1000  # of the score 0..1
RANKS = 1_000_000  # steps of a rank, so that sums of them are integers
HISTOGRAM_RULES = ("mean", "cross_entropy", "otsu")
Masks = NDArray[np.uint8]


def histogram(scores: NDArray[np.float32]) -> Counts:
    """Pixels by their strongest score.

    Args:
        scores: (K, H, W) float32 in 0..1, K >= 1.

    Returns:
        (BINS,) int64; bin i holds scores from i / BINS to (i + 1) / BINS.
    """
    places = (scores.max(axis=0) * BINS).clip(0, BINS - 1).astype(np.int64)
    counts: Counts = np.bincount(places.ravel(), minlength=BINS)
    return counts


def from_histogram(counts: Counts) -> dict[str, float | None]:
    """The threshold of each rule that looks at the histogram alone.

    Args:
        counts: (BINS,) int64, `histogram` summed over images.

    Returns:
        score 0..1 by rule; None where all pixels are in one bin.
    """
    if np.count_nonzero(counts) < 2:
        return dict.fromkeys(HISTOGRAM_RULES)
    middles = (np.arange(BINS) + 0.5) / BINS
    weight = np.cumsum(counts) / counts.sum()
    first = np.cumsum(counts * middles) / counts.sum()
    total = first[-1]
    # both sides of a cut hold pixels between the first and the last bin that has some
    cuts = np.flatnonzero((weight > 0) & (weight < 1))
    below, above = weight[cuts], 1 - weight[cuts]
    low, high = first[cuts] / below, (total - first[cuts]) / above
    kept = below * low * np.log(low) + above * high * np.log(high)
    apart = below * above * (low - high) ** 2
    return {
        "mean": float(total),
        "cross_entropy": _edge(cuts, kept),
        "otsu": _edge(cuts, apart),
    }


def transitions(masks: Masks, names: int) -> Counts:
    """How labels change from each mask to the next.

    Args:
        masks: (T, H, W) uint8 class ids, 255 where the method abstains.
        names: classes with background, C + 1.

    Returns:
        (T - 1, names + 1, names + 1) int64, rows the earlier mask; the last row and column are 255.
    """
    labels = np.minimum(masks, names).astype(np.int64).reshape(len(masks), -1)
    side = names + 1
    counts: Counts = np.stack(
        [
            np.bincount(before * side + after, minlength=side * side).reshape(side, side)
            for before, after in itertools.pairwise(labels)
        ]
    )
    return counts


def most_stable(counts: Counts) -> int | None:
    """Index of the value after which the masks change least; of equal ones the first.

    Args:
        counts: (T - 1, names + 1, names + 1) int64, `transitions` summed over images.

    Returns:
        0..T-2, or None where no mask holds a class.
    """
    names = counts.shape[1] - 1
    matrices = counts[:, :names].copy()
    # 255 is read as background on both sides, as the scores do it
    matrices[:, 0] += counts[:, names]
    united = iou(read(matrices, "background"))
    # steps between masks of nothing but background are no agreement
    there = matrices[:, 1:].sum(axis=(1, 2)) > 0
    shares = [mean(row, range(names))[0] if some else -1.0 for row, some in zip(united, there, strict=True)]
    return int(np.argmax(shares)) if there.any() else None


def edge_excess(masks: Masks, image: NDArray[np.uint8]) -> Counts:
    """How much stronger than usual the colour steps across the borders of masks are.

    Args:
        masks: (T, H, W) uint8.
        image: (H, W, 3) uint8 RGB.

    Returns:
        (T,) int64: sum over neighbouring pixels of different labels of the rank of their colour step among
        all neighbours of this image, minus a half, in steps of 1 / RANKS. Borders drawn at random give 0.
    """
    soft = _box_sums(image)
    steps = [np.abs(np.diff(soft, axis=axis)).sum(axis=2) for axis in (0, 1)]
    amounts: Counts = np.bincount(np.concatenate([step.ravel() for step in steps]), minlength=1)
    if not amounts.sum():
        return np.zeros(len(masks), np.int64)
    # equal steps share the middle of their ranks: a flat image says nothing
    middles = 2 * np.cumsum(amounts) - amounts
    ranks = RANKS * middles // (2 * amounts.sum()) - RANKS // 2
    down, across = (ranks[step] for step in steps)
    sums = np.zeros(len(masks), np.int64)
    for index, mask in enumerate(masks):
        sums[index] = down[mask[1:] != mask[:-1]].sum() + across[mask[:, 1:] != mask[:, :-1]].sum()
    return sums


def nearest_index(value: float, values: Sequence[float]) -> int:
    """Index of the value of a sweep that is nearest; of equally near ones the first."""
    return int(np.argmin(np.abs(np.asarray(values) - value)))


def _edge(cuts: Counts, worth: NDArray[np.float64]) -> float:
    """The upper end of the bin after which it is best to cut."""
    return float((cuts[int(np.argmax(worth))] + 1) / BINS)


def _box_sums(image: NDArray[np.uint8]) -> Counts:
    """(H, W, 3) sums over 3 x 3 pixels, edges repeated: colour steps above the noise of one pixel."""
    wide = np.pad(image.astype(np.int64), ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    sums: Counts = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return sums
