"""How sure a figure is: percentile intervals over images drawn again with replacement.

Each draw takes as many images as there are, sums their confusion matrices and divides once, so a draw's
figure is the figure of a data set. It shows the spread over images, not over trainings. Two methods are
compared on the same draws: an image that is hard for both adds nothing to the spread of their difference.

Source: Efron 1979, percentile interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pseudolabel.metrics.confusion import Counts, Reading, Values, defined, iou, mean, read

SAMPLES = 1000  # draws of an interval
LEVEL = 0.95  # share of the draws that an interval holds
BLOCK = 64  # draws summed at once; bounds the memory, changes no result
EXACT = 2**53  # largest integer up to which float64 sums of counts are exact
FiguresOf = Callable[[Counts], Mapping[str, Values]]


@dataclass(frozen=True)
class Difference:
    """A figure of one method minus that of another, with its paired interval; NaN where undefined."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """As JSON, undefined ends null."""
        return {"difference": defined(self.value), "low": defined(self.low), "high": defined(self.high)}


def multiplicities(images: int, samples: int = SAMPLES, seed: int = 0) -> Values:
    """How often each image stands in each draw: (samples, images), rows sum to `images`."""
    random = np.random.default_rng(seed)
    return random.multinomial(images, np.full(images, 1 / images), size=samples).astype(np.float64)


def resampled(matrices: Counts, times: Values, figures_of: FiguresOf) -> dict[str, Values]:
    """Every figure on every draw.

    Args:
        matrices: (N, ...) int64, what was counted on each image.
        times: (samples, N) from `multiplicities`; the same for all methods compared, so that differences
            are paired.
        figures_of: figures (samples, ...) by name of counts (samples, ...) summed over images.

    Returns:
        each figure (samples, ...).

    Raises:
        ValueError: no image, or counts too large to be summed exactly.
    """
    flat = _flat(matrices).astype(np.float64)
    parts = []
    for start in range(0, len(times), BLOCK):
        sums = np.rint(times[start : start + BLOCK] @ flat).astype(np.int64)
        parts.append(figures_of(sums.reshape(-1, *matrices.shape[1:])))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def percentile_interval(values: Values, level: float = LEVEL) -> tuple[float, float]:
    """Interval that holds the share `level` of the defined values; NaN without any."""
    known = values[~np.isnan(values)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_differences(
    first: Counts,
    second: Counts,
    figures_of: FiguresOf,
    *,
    samples: int = SAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, Difference]:
    """The first method minus the second in every figure, with intervals over images.

    Args:
        first, second: (N, ...) int64, what was counted on each image, image by image the same ones. The
            order of the images does not matter.
        figures_of: figures (...) by name of counts (...) summed over images, any axes in front.
        samples: number of draws; every draw takes the same images for both methods.
        level: share 0..1 of the draws' differences that an interval holds.
        seed: of the draws.

    Returns:
        by figure. Draws where one of the two is undefined are left out of its interval.

    Raises:
        ValueError: the methods differ in images or classes, no image, or counts too large to be summed
            exactly.
    """
    if first.shape != second.shape:
        raise ValueError(f"bootstrap: counts are {first.shape} and {second.shape}; pairs have one shape")
    order = _order_of_pairs(_flat(first), _flat(second))
    first, second = first[order], second[order]
    times = multiplicities(len(first), samples, seed)
    drawn = [resampled(matrices, times, figures_of) for matrices in (first, second)]
    figures = [figures_of(matrices.sum(axis=0)) for matrices in (first, second)]
    return {
        name: Difference(
            float(figures[0][name] - figures[1][name]),
            *percentile_interval(drawn[0][name] - drawn[1][name], level),
        )
        for name in figures[0]
    }


def miou_interval(
    matrices: Counts,
    *,
    draws: int = SAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    reading: Reading = "background",
    average_over: Sequence[int] | None = None,
) -> tuple[float, float]:
    """Interval that holds the share `level` of the mIoUs of data sets drawn from these images.

    Args:
        matrices: (N, C+1, C+2) int64, one confusion matrix an image. Their order does not matter.
        draws: number of data sets.
        level: share 0..1.
        seed: of the draws.
        reading: of a predicted 255.
        average_over: class ids of the mean; None for all.

    Returns:
        low, high; NaN where no draw has a defined mIoU.

    Raises:
        ValueError: no image, or counts too large to be summed exactly.
    """
    count, names = len(matrices), matrices.shape[1]
    flat = _flat(matrices)
    # The draws pick by position: sorted, the same images give the same interval in any order.
    flat = flat[np.lexsort(flat.T[::-1])].astype(np.float64)
    random = np.random.default_rng(seed)
    classes = range(names) if average_over is None else average_over
    mious = []
    for start in range(0, draws, BLOCK):
        rows = min(BLOCK, draws - start)
        picked = random.integers(0, count, size=(rows, count))
        times = np.stack([np.bincount(row, minlength=count) for row in picked])
        sums = np.rint(times.astype(np.float64) @ flat).astype(np.int64).reshape(rows, *matrices.shape[1:])
        mious += [mean(values, classes)[0] for values in iou(read(sums, reading))]
    return percentile_interval(np.array(mious), level)


def _flat(matrices: Counts) -> Counts:
    """(N, M), a row an image, whose sums over N drawn images are exact in float64."""
    count = len(matrices)
    if count == 0:
        raise ValueError("bootstrap: no image")
    flat = matrices.reshape(count, -1)
    if int(flat.sum(axis=1).max()) * count >= EXACT:
        raise ValueError("bootstrap: counts are too large to be summed exactly")
    return flat


def _order_of_pairs(first: Counts, second: Counts) -> list[int]:
    """Order of the images by their counts, in which draws by position are the same for any list order.

    The smaller counts of a pair come first in its key, so that swapped methods have the same draws.
    """
    # counts are not negative: big-endian bytes sort as the numbers do
    rows = [[row.tobytes() for row in method.astype(">i8")] for method in (first, second)]
    keys = list(zip(*rows, strict=True))
    return sorted(range(len(keys)), key=lambda index: (*sorted(keys[index]), keys[index]))
