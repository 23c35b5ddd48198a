"""The grid of scales, counts and ways to sum crops, and its figures."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pseudolabel.metrics.bootstrap import multiplicities, resampled
from pseudolabel.metrics.confusion import Counts, Values, defined
from scripts.experiments.intervals import best_index, difference, figures_of, interval
from scripts.experiments.voc_maps import LEVELS, Images

Scale = tuple[float, float]  # smallest and largest share of the image
Cell = tuple[Scale, int]  # scale, seed
SCALES: tuple[Scale, ...] = (
    (0.05, 0.10),
    (0.05, 0.15),
    (0.05, 0.20),
    (0.05, 0.30),
    (0.10, 0.15),
    (0.10, 0.20),
    (0.10, 0.30),
    (0.15, 0.20),
    (0.15, 0.30),
    (0.20, 0.30),
)
COUNTS = (100, 150, 200)
EXAMPLE: Scale = (0.05, 0.30)
SHOWN = ("100-sigmoid-chunk100", "150-sigmoid-chunk200", "150-sigmoid-chunk100", "200-sigmoid-abs")
FIXED = LEVELS.index(0.10)  # the authors' threshold in their grid
# mIoU and NDR-mIoU (old definition) of 100, 150 and 200 crops: the authors' notebook, VOC train, t = 0.10
AUTHORS = {
    (0.05, 0.10): ((0.3897, 0.3137), (0.4150, 0.3433), (0.4135, 0.3391)),
    (0.05, 0.15): ((0.3968, 0.3340), (0.4190, 0.3609), (0.4169, 0.3558)),
    (0.05, 0.20): ((0.3979, 0.3443), (0.4189, 0.3699), (0.4164, 0.3657)),
    (0.05, 0.30): ((0.3941, 0.3541), (0.4147, 0.3828), (0.4122, 0.3767)),
    (0.10, 0.15): ((0.3920, 0.3350), (0.4098, 0.3555), (0.4070, 0.3507)),
    (0.10, 0.20): ((0.3899, 0.3400), (0.4075, 0.3602), (0.4056, 0.3567)),
    (0.10, 0.30): ((0.3899, 0.3554), (0.4054, 0.3736), (0.4033, 0.3686)),
    (0.15, 0.20): ((0.3873, 0.3432), (0.4002, 0.3597), (0.3976, 0.3539)),
    (0.15, 0.30): ((0.3854, 0.3541), (0.3978, 0.3688), (0.3963, 0.3659)),
    (0.20, 0.30): ((0.3835, 0.3564), (0.3933, 0.3698), (0.3917, 0.3660)),
}
# the step from 100 to 150 crops as the authors sum them (`jump`) in two exact parts (`chunk`, `count`), and
# the steps beside it
STEPS = {
    "jump": ("150-sigmoid-chunk100", "100-sigmoid-chunk100"),
    "chunk": ("150-sigmoid-chunk100", "150-sigmoid-chunk200"),
    "count": ("150-sigmoid-chunk200", "100-sigmoid-chunk100"),
    "count_abs": ("150-sigmoid-abs", "100-sigmoid-abs"),
    "weight": ("200-sigmoid-chunk100", "200-none-chunk100"),
    "jump_200": ("200-sigmoid-chunk100", "150-sigmoid-chunk100"),
    "abs": ("200-sigmoid-abs", "200-sigmoid-chunk100"),
    "per_visit": ("200-sigmoid-chunk100-per-visit", "200-sigmoid-chunk100"),
}
AT = ("fixed", "best")  # thresholds that figures are given at
AGAINST_CAM = ("miou", "ndr_recall", "fg_precision")


def sums() -> dict[str, dict[str, Any]]:
    """Parameters of every sum that is taken from one pass; equal ones stand once (100 crops are one chunk
    whether it may hold 100 or 200)."""
    params: dict[str, dict[str, Any]] = {}
    for weight, chunks in (("sigmoid", (50, 100, 200)), ("none", (100, 200))):
        for count in COUNTS:
            for chunk in chunks:
                if chunk <= count or (chunk == 200 and count == 150):
                    keys = {"count": count, "weight": weight, "chunk": chunk}
                    params[f"{count}-{weight}-chunk{chunk}"] = keys
            absolute = {"count": count, "weight": weight, "accumulate": "abs_per_crop"}
            params[f"{count}-{weight}-abs"] = absolute
    for name in ("200-sigmoid-chunk100", "200-sigmoid-abs"):
        params[f"{name}-per-visit"] = {**params[name], "per_visit": True}
    return params


class Measured:
    """Figures of every sum of one cell, on the images themselves and on bootstrap samples."""

    def __init__(self, arrays: Mapping[str, Any], chosen: Images, times: Values) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.samples: dict[tuple[str, str], dict[str, Values]] = {}
        self.seconds = float(np.mean(arrays["seconds"]))
        self.uncovered = dict(zip(COUNTS, np.mean(arrays["uncovered"], axis=0).tolist(), strict=True))
        for place, name in enumerate(sums()):
            counts = chosen.matrices(arrays, place)
            self.rows[name], self.samples[name, "fixed"], self.samples[name, "best"] = _figures(
                counts, chosen.averaged, times
            )

    def sampled(self, name: str, at: str) -> Values:
        """mIoU of one of STEPS on every bootstrap sample."""
        after, before = STEPS[name]
        return self.samples[after, at]["miou"] - self.samples[before, at]["miou"]

    def value(self, name: str, at: str) -> float:
        """mIoU of one of STEPS on the images themselves."""
        after, before = STEPS[name]
        return float(self.rows[after][at]["miou"]) - float(self.rows[before][at]["miou"])


def _figures(
    each: Counts, classes: Sequence[int], times: Values
) -> tuple[dict[str, Any], dict[str, Values], dict[str, Values]]:
    """Figures of (images, thresholds, 3, ...) at the fixed and the best threshold; both on samples."""
    curve = figures_of(each.sum(axis=0), classes)
    best = best_index(curve["miou"])
    row: dict[str, Any] = {}
    samples = []
    for at, index in zip(AT, (FIXED, best), strict=True):
        samples.append(resampled(each[:, index], times, functools.partial(figures_of, classes=classes)))
        row[at] = {"threshold": LEVELS[index]}
        for figure, values in curve.items():
            row[at][figure] = defined(float(values[index]))
            row[at][f"{figure}_interval"] = interval(samples[-1][figure])
    row["curve"] = {
        figure: [defined(round(float(value), 5)) for value in curve[figure]]
        for figure in ("miou", "ndr_recall")
    }
    return row, samples[0], samples[1]


def results(
    cells: Mapping[Cell, Mapping[str, Any]], cam: Counts, chosen: Images, repeated: Scale
) -> dict[str, Any]:
    """Grid, steps with intervals, the cell with several seeds, CAM."""
    times = multiplicities(len(chosen.images))
    measured = {cell: Measured(arrays, chosen, times) for cell, arrays in cells.items()}
    first = {scale: cell for (scale, seed), cell in measured.items() if seed == 0}
    cam_row, *cam_samples = _figures(cam, chosen.averaged, times)
    steps = {at: {name: _mean_step(first, name, at) for name in STEPS} for at in AT}
    for at in AT:
        steps[at]["share_of_chunk"] = _share(first, at)
    versus = EXAMPLE if EXAMPLE in first else next(iter(first))
    crops, name = first[versus], "200-sigmoid-chunk100"
    seeds = {seed: cell for (scale, seed), cell in measured.items() if scale == repeated}
    return {
        "versus": list(versus),
        "grid": [_grid_row(scale, cell) for scale, cell in first.items()],
        "mean_over_cells": steps,
        "cam": cam_row,
        "crops_minus_cam": {
            at: difference(
                (crops.rows[name][at], cam_row[at]), (crops.samples[name, at], cam_at), AGAINST_CAM
            )
            for at, cam_at in zip(AT, cam_samples, strict=True)
        },
        "seeds": {
            "scale": list(repeated),
            "rows": {str(seed): {name: cell.rows[name] for name in SHOWN} for seed, cell in seeds.items()},
            "jump": {str(seed): cell.value("jump", "fixed") for seed, cell in seeds.items()},
            "chunk": {str(seed): cell.value("chunk", "fixed") for seed, cell in seeds.items()},
        },
        "authors_jump": float(np.mean([AUTHORS[scale][1][0] - AUTHORS[scale][0][0] for scale in first])),
    }


def _grid_row(scale: Scale, cell: Measured) -> dict[str, Any]:
    return {
        "scale": list(scale),
        "uncovered": {str(count): share for count, share in cell.uncovered.items()},
        "seconds_an_image": round(cell.seconds, 3),
        "authors": [list(pair) for pair in AUTHORS[scale]],
        "sums": cell.rows,
        "steps": {
            at: {
                name: {"value": cell.value(name, at), "interval": interval(cell.sampled(name, at))}
                for name in STEPS
            }
            for at in AT
        },
    }


def _mean_step(first: Mapping[Scale, Measured], name: str, at: str) -> dict[str, Any]:
    return {
        "value": float(np.mean([cell.value(name, at) for cell in first.values()])),
        "interval": interval(np.mean([cell.sampled(name, at) for cell in first.values()], axis=0)),
    }


def _share(first: Mapping[Scale, Measured], at: str) -> dict[str, Any]:
    """Share of the jump that is the second chunk; where the jump may be 0 the interval is wide."""
    chunk, jump = (np.mean([cell.value(name, at) for cell in first.values()]) for name in ("chunk", "jump"))
    chunks, jumps = (
        np.mean([cell.sampled(name, at) for cell in first.values()], axis=0) for name in ("chunk", "jump")
    )
    return {
        "value": float(chunk / jump) if jump else None,
        "interval": interval(chunks / np.where(jumps == 0, np.nan, jumps)),
        "jump_below_zero": float((jumps <= 0).mean()),
    }
