"""The figures of the contribution window: a row a variant of the network, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pseudolabel.metrics.bootstrap import multiplicities, resampled
from pseudolabel.metrics.confusion import Values, defined
from pseudolabel.metrics.figure_arrays import mean_of
from pseudolabel.metrics.threshold_curves import Curve, largest_with_precision
from scripts.experiments.cache import Arrays
from scripts.experiments.contribution_window.digits import Variant
from scripts.experiments.intervals import FIGURES, figures_of, interval

MAPS = ("cam", "saliency")
SUBSETS = ("correct", "all")  # of the test images: those classified correctly, and all
THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(100))


def row_of(variant: Variant, seeds: Sequence[Arrays]) -> dict[str, Any]:
    """All figures of one variant: over seeds, with intervals over images."""
    return {
        "kernel": variant.kernel,
        "bias": variant.bias,
        "window": variant.window,
        "accuracy": _spread([float(arrays["correct"].mean()) for arrays in seeds]),
        "exact": _zeros(seeds, "exact_"),
        "exact_sparse": _zeros(seeds, "sparse_"),
        **{subset: _subset(seeds, subset) for subset in SUBSETS},
    }


def _subset(seeds: Sequence[Arrays], subset: str) -> dict[str, Any]:
    """Both maps on one subset of the images, their difference."""
    entries: dict[str, Any] = {}
    samples: dict[str, dict[str, Values]] = {}
    for name in MAPS:
        samples[name] = _samples(seeds, name, subset)
        entries[name] = _entry(seeds, name, subset, samples[name])
    difference = {
        figure: {
            "mean": _difference(entries, figure),
            "interval": interval(samples["saliency"][figure] - samples["cam"][figure]),
        }
        for figure in FIGURES
    }
    at_equal_precision = _at_equal_precision(seeds, subset)
    return {**entries, "saliency_minus_cam": difference, "ndr_recall_at_cam_precision": at_equal_precision}


def _entry(seeds: Sequence[Arrays], name: str, subset: str, samples: dict[str, Values]) -> dict[str, Any]:
    """One map: threshold, figures there, curves."""
    best = [int(arrays[f"{name}_{subset}_best"]) for arrays in seeds]
    curves = [figures_of(arrays[f"{name}_{subset}_curve"]) for arrays in seeds]
    entry: dict[str, Any] = {"threshold": [THRESHOLDS[index] for index in best]}
    for figure in FIGURES:
        values = [float(curve[figure][index]) for curve, index in zip(curves, best, strict=True)]
        entry[figure] = {**_spread(values), "interval": interval(samples[figure])}
    entry["curve"] = {
        figure: [
            defined(float(value)) for value in mean_of(np.stack([curve[figure] for curve in curves]), axis=0)
        ]
        for figure in FIGURES
    }
    return entry


def _samples(seeds: Sequence[Arrays], name: str, subset: str) -> dict[str, Values]:
    """Each figure on bootstrap samples, mean over seeds; the same images for every seed and map."""
    samples = []
    for arrays in seeds:
        matrices = arrays[f"{name}_{subset}_images"].astype(np.int64)
        samples.append(resampled(matrices, multiplicities(len(matrices)), figures_of))
    return {figure: mean_of(np.stack([sample[figure] for sample in samples]), axis=0) for figure in FIGURES}


def _at_equal_precision(seeds: Sequence[Arrays], subset: str) -> dict[str, Any]:
    """Saliency's largest NDR-recall among the thresholds that are as precise as CAM at its best."""
    values = []
    for arrays in seeds:
        cam = figures_of(arrays[f"cam_{subset}_curve"][int(arrays[f"cam_{subset}_best"])])
        curve = figures_of(arrays[f"saliency_{subset}_curve"])
        saliency = Curve(precision=curve["fg_precision"], figure=curve["ndr_recall"])
        value = largest_with_precision(saliency, float(cam["fg_precision"]))
        values.append(float("nan") if value is None else value)
    return _spread(values)


def _difference(entries: dict[str, Any], figure: str) -> float | None:
    saliency, cam = (entries[name][figure]["mean"] for name in ("saliency", "cam"))
    return None if saliency is None or cam is None else saliency - cam


def _zeros(seeds: Sequence[Arrays], prefix: str) -> dict[str, Any]:
    """The exact-zero check over seeds."""
    values = {
        name[len(prefix) :]: [arrays[name].item() for arrays in seeds]
        for name in seeds[0]
        if name.startswith(prefix)
    }
    pixels = sum(values["pixels"])
    control = [value for value in values["control_nonzero"] if value >= 0]
    return {
        "images": sum(values["images"]),
        "pixels_checked": pixels,
        "largest_gradient_outside": max(values["largest"]) if pixels else None,
        "largest_gradient_anywhere": max(values["largest_anywhere"]),
        "zero_share": float(np.mean(values["zero_share"])),
        "active_share": float(np.mean(values["active_share"])),
        "control_pixels": sum(values["control_pixels"]) if control else None,
        "control_nonzero": sum(control) if control else None,
        "gradient_beyond_active_pixels": sum(values["beyond_active"]),
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    known = [value for value in values if not np.isnan(value)]
    return {
        "mean": float(np.mean(known)) if known else None,
        "spread": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "seeds": [defined(value) for value in values],
    }
