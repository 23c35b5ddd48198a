"""Where a threshold comes from, and what it is then worth on images that had no say in it.

A place is named by one word: a number N (N images with ground truth, drawn again and again), `free` (rules
that need no ground truth), a split of the run's own reader, or the folder of another run. What a place picks
is scored on the run's images that it has not seen, beside the best threshold of just those images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pseudolabel import draws
from pseudolabel.errors import UsageError
from pseudolabel.metrics import threshold_rules as rules
from pseudolabel.metrics.bootstrap import miou_interval
from pseudolabel.metrics.confusion import Counts, defined
from pseudolabel.metrics.threshold_curves import best_of, mious, pick
from pseudolabel.scoring.counts import Sparse

FREE = "free"
REPEATS = 200  # draws of N images
LEVEL = 0.95  # of every interval


@dataclass(frozen=True)
class Scored:
    """The images that thresholds are reported on.

    Attributes:
        each: matrices by image id.
        shape: (T, C+1, C+2) of them.
        values: the T thresholds.
        average_over: class ids of the mean; None for all.
    """

    each: dict[str, Sparse]
    shape: tuple[int, int, int]
    values: Sequence[float]
    average_over: Sequence[int] | None

    def summed(self, ids: Sequence[str]) -> Counts:
        """(T, C+1, C+2) summed over some images."""
        total = np.zeros(math.prod(self.shape), np.int64)
        for item in ids:
            total[self.each[item].places] += self.each[item].counts
        return total.reshape(self.shape)

    def at(self, index: int, ids: Sequence[str]) -> Counts:
        """(N, C+1, C+2) of some images at one threshold."""
        size = math.prod(self.shape[1:])
        matrices = np.zeros((len(ids), size), np.int64)
        for row, item in zip(matrices, ids, strict=True):
            sparse = self.each[item]
            inside = (sparse.places >= index * size) & (sparse.places < (index + 1) * size)
            row[sparse.places[inside] - index * size] = sparse.counts[inside]
        return matrices.reshape(len(ids), *self.shape[1:])

    def mious(self, counts: Counts) -> NDArray[np.float64]:
        """(T,) mIoU of (T, C+1, C+2); NaN where undefined."""
        return mious(counts, self.average_over)

    def report(self, index: int, ids: Sequence[str]) -> dict[str, Any]:
        """What one threshold is worth on some images, and what the best one is."""
        worth = self.mious(self.summed(ids))
        best = best_of(worth)
        low, high = miou_interval(self.at(index, ids), level=LEVEL, average_over=self.average_over)
        return {
            "threshold": self.values[index],
            "miou": defined(float(worth[index])),
            "interval": [defined(low), defined(high)],
            "interval_over": "images",
            "oracle": None if best is None else {"threshold": self.values[best], "miou": float(worth[best])},
            "gap": None if best is None else defined(float(worth[best] - worth[index])),
            "images": len(ids),
        }


def by_other_images(scored: Scored, on: str, counts: Counts, ids: set[str]) -> dict[str, Any]:
    """The best threshold of other images, on those of ours that are not among them.

    Args:
        scored: our images.
        on: what the others are called.
        counts: (T, C+1, C+2) summed over them.
        ids: of the others.

    Raises:
        UsageError: they have no mIoU, or all of ours are among them.
    """
    ours = [item for item in scored.each if item not in ids]
    if not ours:
        raise UsageError(
            f"--pick-on {on}: all {len(scored.each)} images of the run are among those picked on, so none is "
            "left to report on; take another split, a number, or free"
        )
    worth = scored.mious(counts)
    best = best_of(worth)
    if best is None:
        raise UsageError(f"--pick-on {on}: its {len(ids)} images have no defined mIoU")
    row = {"rule": "largest mIoU", "on": on, "sees_truth": True, "images_picked": len(ids)}
    return row | {"miou_picked": float(worth[best])} | scored.report(best, ours)


def by_few_images(scored: Scored, count: int, seed: int = 0) -> dict[str, Any]:
    """The best threshold of `count` images, on all others; median and interval over repeated draws.

    Raises:
        UsageError: there are not more images than that.
    """
    ids = sorted(scored.each)  # the same draws whatever the order of the list
    if not 1 <= count < len(ids):
        raise UsageError(
            f"--pick-on {count}: the run has {len(ids)} images; take 1 to {len(ids) - 1}, so that one "
            "is left to report on"
        )
    everything = scored.summed(ids)
    random = np.random.default_rng(draws.seed_of("pick", seed, count))
    picked, worth, gaps = [], [], []
    for _ in range(REPEATS):
        few = scored.summed([ids[place] for place in random.choice(len(ids), count, replace=False)])
        taken = pick(scored.mious(few), scored.mious(everything - few))
        if taken is None or math.isnan(taken.scored):
            continue
        picked.append(scored.values[taken.index])
        worth.append(taken.scored)
        gaps.append(taken.gap)
    row: dict[str, Any] = {
        "rule": "largest mIoU",
        "on": f"{count} images",
        "sees_truth": True,
        "images_picked": count,
        "images": len(ids) - count,
        "interval_over": f"{REPEATS} draws of {count} images",
        "seed": seed,
    }
    if not picked:
        return row | dict.fromkeys(("threshold", "thresholds", "miou", "interval", "gap"))
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return row | {
        "threshold": float(np.quantile(picked, 0.5, method="nearest")),
        "thresholds": np.quantile(picked, ends, method="nearest").tolist(),
        "miou": float(np.median(worth)),
        "interval": np.quantile(worth, ends).tolist(),
        "gap": float(np.median(gaps)),
    }


def without_truth(scored: Scored, sums: dict[str, Counts], in_scores: bool) -> list[dict[str, Any]]:
    """What each rule that needs no ground truth picks, on all images.

    Args:
        scored: our images; their truth only judges.
        sums: `histogram`, `transitions` and `edges` of `metrics.threshold_rules`, summed over them.
        in_scores: the thresholds are scores 0..1, so that a rule over the histogram may name one.
    """
    if "histogram" not in sums:
        return []  # no image has a class
    places: dict[str, tuple[int, float | None]] = {}
    if in_scores:
        for name, score in rules.from_histogram(sums["histogram"]).items():
            if score is not None:
                places[name] = rules.nearest_index(score, scored.values), score
    stable = rules.most_stable(sums["transitions"]) if len(scored.values) > 1 else None
    if stable is not None:
        places["stability"] = stable, None
    if sums["edges"].any():
        places["edges"] = int(np.argmax(sums["edges"])), None
    ids = list(scored.each)
    return [
        {"rule": name, "on": FREE, "sees_truth": False, "images_picked": 0, "exact": exact}
        | scored.report(index, ids)
        for name, (index, exact) in places.items()
    ]
