"""A method's figures over its thresholds: which threshold is taken, and methods at equal precision.

A map method has no threshold of its own. Methods are compared at the threshold of their largest mIoU, picked
on images with ground truth, or where their FG-precision is equal: the recalls of two methods say little as
long as one of them may label more pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pseudolabel.metrics.confusion import Counts, Values, iou, mean, read


@dataclass(frozen=True)
class Pick:
    """A threshold picked on some images and scored on others.

    Attributes:
        index: of the threshold.
        picked: its mIoU on the images that it was picked on.
        scored: its mIoU on the images that are scored; NaN where undefined.
        largest: the largest mIoU of any threshold on the images that are scored; NaN where undefined.
        largest_index: its threshold, or None.
    """

    index: int
    picked: float
    scored: float
    largest: float
    largest_index: int | None

    @property
    def gap(self) -> float:
        """What a threshold picked on the scored images themselves would gain; NaN where undefined."""
        return self.largest - self.scored


@dataclass(frozen=True)
class Curve:
    """A figure and the FG-precision of a method at ascending thresholds, (T,) each; NaN where undefined."""

    precision: Values
    figure: Values


def mious(counts: Counts, average_over: Sequence[int] | None) -> Values:
    """(T,) mIoU of (T, C+1, C+2), 255 read as background; NaN where undefined."""
    classes = range(counts.shape[1]) if average_over is None else average_over
    return np.array([mean(values, classes)[0] for values in iou(read(counts, "background"))])


def best_of(values: Values) -> int | None:
    """Index of the largest defined value, of equal ones the first; None without any."""
    return None if np.isnan(values).all() else int(np.nanargmax(values))


def pick(picking: Values, scoring: Values) -> Pick | None:
    """The threshold of the largest mIoU on some images, and its mIoU on others.

    Args:
        picking: (T,) mIoU on the images that decide.
        scoring: (T,) mIoU on the images that are scored; they have no say.

    Returns:
        None where no mIoU of `picking` is defined.
    """
    index, largest = best_of(picking), best_of(scoring)
    if index is None:
        return None
    highest = float("nan") if largest is None else float(scoring[largest])
    return Pick(index, float(picking[index]), float(scoring[index]), highest, largest)


def at_precision(curve: Curve, precision: float) -> float | None:
    """The figure where a method's FG-precision equals a given one.

    The curve runs in straight lines from each threshold to the next one. Of the places where its precision
    is the given one, that of the lowest threshold counts: it labels the most pixels. Between thresholds i
    and i + 1 with precisions p, q and figures f, g it gives f + (g - f) (precision - p) / (q - p).

    Args:
        curve: of the method.
        precision: share 0..1, for instance that of another method at its best threshold.

    Returns:
        None where the precision is not reached: all thresholds are less precise, or all are more precise.
        Thresholds whose precision is undefined are left out; an undefined figure gives None.
    """
    known = ~np.isnan(curve.precision)
    points = list(zip(curve.precision[known].tolist(), curve.figure[known].tolist(), strict=True))
    if points and points[0][0] == precision:
        return _number(points[0][1])
    for (before, figure), (after, following) in pairwise(points):
        if after == precision:
            return _number(following)
        if min(before, after) < precision < max(before, after):
            return _number(figure + (following - figure) * (precision - before) / (after - before))
    return None


def difference_at_precision(first: Curve, second: Curve, precision: float) -> float | None:
    """The first method's figure minus the second's where both have one FG-precision; see `at_precision`.

    Returns:
        None where one of them does not reach it.
    """
    values = at_precision(first, precision), at_precision(second, precision)
    return None if values[0] is None or values[1] is None else values[0] - values[1]


def largest_with_precision(curve: Curve, precision: float) -> float | None:
    """The largest figure among the thresholds that are at least as precise as a given precision.

    In contrast to `at_precision` it takes thresholds as they are and asks for no point at exactly this
    precision: a method that is always more precise has one, too.

    Returns:
        None where no threshold is that precise, or the figure is undefined at all that are.
    """
    enough = curve.figure[curve.precision >= precision]
    best = best_of(enough) if len(enough) else None
    return None if best is None else float(enough[best])


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
