"""The rows of the experiment on noise and crops, and their figures."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from pseudolabel.metrics.bootstrap import multiplicities, resampled
from pseudolabel.metrics.confusion import Counts, Values, confusion, defined
from pseudolabel.metrics.figure_arrays import figure_arrays, mean_of
from scripts.experiments.intervals import FIGURES, best_index, difference, figures_of, interval
from scripts.experiments.voc_maps import LEVELS, Images

SIGMAS = (0.05, 0.1, 0.15, 0.2, 0.3)
KEEPS = (0.95, 0.9, 0.75, 0.5)
SIGMA, KEEP = 0.15, 0.9  # the levels that a classifier was tuned to
EQUAL = 7  # crops of 128 pixels have about as many pixels as one image of 384 x 288
MASKS = 4  # of crops + mask; each with its share of the crops
SCALE, RATIO = (0.05, 0.30), (0.85, 1.25)  # of crops, the authors' main run
SHOWN: tuple[str, ...] = ("CAM", "saliency", "SmoothGrad 0.15", "SmoothGrad 0.15, tuned", "BinaryMask 0.9")
SHOWN += ("BinaryMask 0.9, tuned", "crops", "crops, equal pixels", "crops + mask", "crops of CAM")
DIFFERENCES = (
    ("SmoothGrad 0.15", "saliency"),
    ("BinaryMask 0.9", "saliency"),
    ("crops", "saliency"),
    ("SmoothGrad 0.15, tuned", "SmoothGrad 0.15"),
    ("BinaryMask 0.9, tuned", "BinaryMask 0.9"),
    ("saliency, gaussian classifier", "saliency"),
    ("saliency, mask classifier", "saliency"),
    ("crops", "SmoothGrad 0.15, tuned"),
    ("crops", "BinaryMask 0.9, tuned"),
    ("crops, equal pixels", "saliency"),
    ("crops, equal pixels", "SmoothGrad 0.15, tuned"),
    ("crops, equal pixels", "CAM"),
    ("crops, abs", "crops"),
    ("crops + mask", "crops"),
    ("crops", "CAM"),
    ("crops of CAM", "CAM"),
    ("crops", "crops of CAM"),
)


@dataclass(frozen=True)
class Row:
    """One method on one classifier.

    Attributes:
        name: in the tables.
        classifier: `original`, `gaussian` or `mask`.
        method, aggregators: of the package, innermost first.
        passes: forwards of one image, and backwards where the method has one.
        repeated: whether it is run with every seed.
    """

    name: str
    classifier: str
    method: str
    aggregators: tuple[tuple[str, dict[str, Any]], ...]
    passes: int
    repeated: bool = False

    @property
    def stem(self) -> str:
        """The name as a file."""
        return self.name.replace(",", "").replace("+", "and").replace(" ", "-")


def rows(passes: int, size: int) -> list[Row]:
    """Every row, the quick ones first."""
    if passes % MASKS:
        raise SystemExit(f"--passes {passes}: not a multiple of {MASKS}, the masks of crops + mask")
    crop = {"scale": SCALE, "ratio": RATIO, "size": size}
    many = ("random_crop", {**crop, "count": passes})
    absolute = ("random_crop", {**crop, "count": passes, "accumulate": "abs_per_crop"})
    few = ("random_crop", {**crop, "count": passes // MASKS})
    more = ("random_crop", {**crop, "count": EQUAL * passes})
    masked = (few, ("binary_mask", {"count": MASKS, "keep": KEEP}))
    plain = [Row("CAM", "original", "cam", (), 1), Row("saliency", "original", "saliency", (), 1)]
    for name in ("gaussian", "mask"):
        plain.append(Row(f"CAM, {name} classifier", name, "cam", (), 1))
        plain.append(Row(f"saliency, {name} classifier", name, "saliency", (), 1))
    crops = [
        Row("crops", "original", "saliency", (many,), passes, True),
        Row("crops, equal pixels", "original", "saliency", (more,), EQUAL * passes),
        Row("crops, abs", "original", "saliency", (absolute,), passes, True),
        Row("crops + mask", "original", "saliency", masked, passes, True),
        Row("crops of CAM", "original", "cam", (many,), passes, True),
    ]
    return [*plain, *crops, *_noise_rows(passes)]


def _noise_rows(passes: int) -> list[Row]:
    """Noise at the level of a tuned classifier, on both classifiers; then the other levels."""
    noise: list[Row] = []
    for component, title, key, value, tuned in (
        ("smoothgrad", "SmoothGrad", "sigma", SIGMA, "gaussian"),
        ("binary_mask", "BinaryMask", "keep", KEEP, "mask"),
    ):
        around = ((component, {"count": passes, key: value}),)
        noise.append(Row(f"{title} {value:g}", "original", "saliency", around, passes, True))
        noise.append(Row(f"{title} {value:g}, tuned", tuned, "saliency", around, passes, True))
    others = [("smoothgrad", "SmoothGrad", "sigma", sigma) for sigma in SIGMAS if sigma != SIGMA]
    others += [("binary_mask", "BinaryMask", "keep", keep) for keep in KEEPS if keep != KEEP]
    for component, title, key, value in others:
        around = ((component, {"count": passes, key: value}),)
        noise.append(Row(f"{title} {value:g}", "original", "saliency", around, passes))
    return noise


def results(
    wanted: Sequence[Row], measured: Mapping[str, Sequence[Mapping[str, Any]]], chosen: Images
) -> dict[str, Any]:
    """The figures of each row, paired differences."""
    times = multiplicities(len(chosen.images))
    entries, samples = {}, {}
    for row in wanted:
        entries[row.name], samples[row.name] = _row(row, measured[row.name], chosen, times)
    differences = [
        {
            "row": row,
            "against": other,
            **difference((entries[row], entries[other]), (samples[row], samples[other])),
        }
        for row, other in DIFFERENCES
        if row in entries and other in entries
    ]
    return {"rows": list(entries.values()), "differences": differences}


def _row(
    row: Row, seeds: Sequence[Mapping[str, Any]], chosen: Images, times: Values
) -> tuple[dict[str, Any], dict[str, Values]]:
    curves, best, samples = [], [], []
    figures = functools.partial(figures_of, classes=chosen.averaged)
    for arrays in seeds:
        each = chosen.matrices(arrays)
        curves.append(figures(each.sum(axis=0)))
        best.append(best_index(curves[-1]["miou"]))
        samples.append(resampled(each[:, best[-1]], times, figures))
    together = {
        figure: mean_of(np.stack([sample[figure] for sample in samples]), axis=0) for figure in samples[0]
    }
    entry: dict[str, Any] = {
        "name": row.name,
        "classifier": row.classifier,
        "method": row.method,
        "aggregators": [list(aggregator) for aggregator in row.aggregators],
        "passes": row.passes,
        "seconds_an_image": float(np.mean([np.mean(arrays["seconds"]) for arrays in seeds])),
        "threshold": [LEVELS[index] for index in best],
    }
    for figure in FIGURES:
        values = [float(curve[figure][index]) for curve, index in zip(curves, best, strict=True)]
        entry[figure] = defined(float(np.mean(values)))
        entry[f"{figure}_seeds"] = [defined(value) for value in values]
        entry[f"{figure}_interval"] = interval(together[figure])
        mean_curve = mean_of(np.stack([curve[figure] for curve in curves]), axis=0)
        entry[f"{figure}_curve"] = [defined(round(float(value), 5)) for value in mean_curve]
    entry["stability"] = _stability(seeds[0], seeds[1], best[0], chosen) if len(seeds) > 1 else None
    return entry, together


def _stability(
    first: Mapping[str, Any], second: Mapping[str, Any], level: int, chosen: Images
) -> dict[str, Any]:
    """Agreement of two seeds: mIoU between their masks at one threshold, rank correlation of their maps."""
    names = len(chosen.space.names)
    total: Counts = np.zeros((names, names + 1), np.int64)
    ranks = []
    for index in range(len(chosen.images)):
        masks = [
            np.where(arrays[f"exceeded_{index}"] > level, arrays[f"label_{index}"], 0).astype(np.uint8)
            for arrays in (first, second)
        ]
        total += confusion(masks[0], masks[1], names)
        for a, b in zip(first[f"raw_{index}"], second[f"raw_{index}"], strict=True):
            if np.ptp(a) > 0 and np.ptp(b) > 0:
                ranks.append(float(spearmanr(a.ravel(), b.ravel()).statistic))
    return {
        "iou": defined(float(figure_arrays(total)["miou"])),
        "rank_correlation": float(np.mean(ranks)),
        "maps": len(ranks),
    }
