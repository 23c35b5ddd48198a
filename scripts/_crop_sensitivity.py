"""What the crop-sensitivity experiment makes of its counts: the grid, the chunk's share, page, figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from _experiment import Values, between, drawn, figures_of, interval, percent, table, times_of
from _voc_maps import LEVELS, Images, matrices

from pseudolabel.metrics.confusion import Counts, defined

Cell = tuple[tuple[float, float], int]  # scale, seed
CELLS = (
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
EXAMPLE = (0.05, 0.30)
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
# what takes 100 crops to 150 as the authors sum them, in two exact steps, and what no chunk can touch
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
WORDS = {
    "jump": "100 to 150 crops, chunks of 100 (100 to 100 + 50)",
    "chunk": "of it: the second chunk (150 crops, 100 + 50 against one chunk)",
    "count": "of it: 50 more crops (one chunk, 100 to 150)",
    "count_abs": "100 to 150 crops, no chunks (abs_per_crop)",
    "jump_200": "150 to 200 crops, chunks of 100 (100 + 50 to 100 + 100)",
    "weight": "weighted by sigmoid against not, 200 crops",
    "abs": "abs_per_crop against chunks of 100, 200 crops",
    "per_visit": "divided by visits against not, 200 crops",
}
AT = ("fixed", "best")


def sums() -> dict[str, dict[str, Any]]:
    """Parameters of every sum that is taken from one pass; equal ones stand once (100 crops are one chunk
    whether it may hold 100 or 200)."""
    found: dict[str, dict[str, Any]] = {}
    for weight, chunks in (("sigmoid", (50, 100, 200)), ("none", (100, 200))):
        for count in COUNTS:
            for chunk in chunks:
                if chunk <= count or (chunk == 200 and count == 150):
                    found[f"{count}-{weight}-chunk{chunk}"] = {
                        "count": count,
                        "weight": weight,
                        "chunk": chunk,
                    }
            found[f"{count}-{weight}-abs"] = {"count": count, "weight": weight, "accumulate": "abs_per_crop"}
    for name in ("200-sigmoid-chunk100", "200-sigmoid-abs"):
        found[f"{name}-per-visit"] = {**found[name], "per_visit": True}
    return found


class Measured:
    """Figures of every sum of one cell, and the same on drawn sets of images."""

    def __init__(self, kept: Mapping[str, Any], chosen: Images, times: Values) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.drawn: dict[tuple[str, str], dict[str, Values]] = {}
        self.seconds = float(np.mean(kept["seconds"]))
        self.uncovered = dict(zip(COUNTS, np.mean(kept["uncovered"], axis=0).tolist(), strict=True))
        names, space = list(sums()), len(chosen.space.names)
        for place, name in enumerate(names):
            each = [
                matrices(kept[f"counts_{index}"][place], image.ids, space)
                for index, image in enumerate(chosen.images)
            ]
            self.rows[name], self.drawn[name, "fixed"], self.drawn[name, "best"] = _figures(
                np.stack(each), chosen.averaged, times
            )

    def step(self, name: str, at: str, what: str = "miou") -> Values:
        """One of STEPS on every drawn set."""
        after, before = STEPS[name]
        return self.drawn[after, at][what] - self.drawn[before, at][what]

    def value(self, name: str, at: str, what: str = "miou") -> float:
        """One of STEPS on the images themselves."""
        after, before = STEPS[name]
        return float(self.rows[after][at][what]) - float(self.rows[before][at][what])


def _figures(
    each: Counts, classes: Sequence[int], times: Values
) -> tuple[dict[str, Any], dict[str, Values], dict[str, Values]]:
    """Figures of (images, thresholds, 3, ...) at the fixed and the best threshold; both on drawn sets."""
    curve = figures_of(each.sum(axis=0), classes)
    best = int(np.nanargmax(curve["miou"]))
    row: dict[str, Any] = {}
    sets = []
    for at, index in zip(AT, (FIXED, best), strict=True):
        sets.append(drawn(each[:, index], times, classes))
        row[at] = {"threshold": LEVELS[index]}
        for what, values in curve.items():
            row[at][what] = defined(float(values[index]))
            row[at][f"{what}_interval"] = interval(sets[-1][what])
    row["curve"] = {
        what: [defined(round(float(v), 5)) for v in curve[what]] for what in ("miou", "ndr_recall")
    }
    return row, sets[0], sets[1]


def results(
    cells: Mapping[Cell, Mapping[str, Any]], cam: Counts, chosen: Images, repeated: tuple[float, float]
) -> dict[str, Any]:
    """Grid, steps with intervals, repeated cell, CAM, claims."""
    times = times_of(len(chosen.images))
    measured = {cell: Measured(kept, chosen, times) for cell, kept in cells.items()}
    first = {scale: one for (scale, seed), one in measured.items() if seed == 0}
    cam_row, *cam_drawn = _figures(cam, chosen.averaged, times)
    grid = [
        {
            "scale": list(scale),
            "uncovered": one.uncovered,
            "seconds_an_image": round(one.seconds, 3),
            "authors": [list(pair) for pair in AUTHORS[scale]],
            "sums": one.rows,
            "steps": {
                at: {
                    name: {"value": one.value(name, at), "interval": interval(one.step(name, at))}
                    for name in STEPS
                }
                for at in AT
            },
        }
        for scale, one in first.items()
    ]
    steps = {at: {name: _mean_step(first, name, at) for name in STEPS} for at in AT}
    for at in AT:
        steps[at]["share_of_chunk"] = _share(first, at)
    against = {}
    shown = first.get(EXAMPLE) or next(iter(first.values()))
    for index, at in enumerate(AT):
        name = "200-sigmoid-chunk100"
        against[at] = {
            what: {
                "value": float(shown.rows[name][at][what]) - float(cam_row[at][what]),
                "interval": interval(shown.drawn[name, at][what] - cam_drawn[index][what]),
            }
            for what in ("miou", "ndr_recall", "fg_precision")
        }
    seeds = {seed: one for (scale, seed), one in measured.items() if scale == repeated}
    found = {
        "versus": list(EXAMPLE if EXAMPLE in first else next(iter(first))),
        "grid": grid,
        "mean_over_cells": steps,
        "cam": cam_row,
        "crops_minus_cam": against,
        "seeds": {
            "scale": list(repeated),
            "rows": {str(seed): {n: one.rows[n] for n in SHOWN} for seed, one in seeds.items()},
            "jump": {str(seed): one.value("jump", "fixed") for seed, one in seeds.items()},
            "chunk": {str(seed): one.value("chunk", "fixed") for seed, one in seeds.items()},
        },
        "authors_jump": float(np.mean([AUTHORS[s][1][0] - AUTHORS[s][0][0] for s in first])),
    }
    found["claims"] = claims(found)
    return found


def _mean_step(first: Mapping[Any, Measured], name: str, at: str) -> dict[str, Any]:
    return {
        "value": float(np.mean([one.value(name, at) for one in first.values()])),
        "interval": interval(np.mean([one.step(name, at) for one in first.values()], axis=0)),
    }


def _share(first: Mapping[Any, Measured], at: str) -> dict[str, Any]:
    """Share of the jump that is the second chunk; where the jump may be 0 the interval is wide open."""
    value = [np.mean([one.value(name, at) for one in first.values()]) for name in ("chunk", "jump")]
    jump = np.mean([one.step("jump", at) for one in first.values()], axis=0)
    chunk = np.mean([one.step("chunk", at) for one in first.values()], axis=0)
    return {
        "value": float(value[0] / value[1]) if value[1] else None,
        "interval": interval(chunk / np.where(jump == 0, np.nan, jump)),
        "jump_below_zero": float((jump <= 0).mean()),
    }


def claims(found: Mapping[str, Any]) -> list[str]:
    """What the figures say, in words."""
    said = []
    for at, words in (("fixed", "at the threshold 0.10"), ("best", "at the best threshold of each")):
        steps = found["mean_over_cells"][at]
        jump, chunk, count = (steps[name] for name in ("jump", "chunk", "count"))
        share = steps["share_of_chunk"]
        said.append(
            f"From 100 to 150 crops, {words}, mean over the cells: {_points(jump)} points of mIoU "
            f"(authors at 0.10: {100 * found['authors_jump']:+.2f}). The second chunk brings "
            f"{_points(chunk)} of them, 50 more crops in one chunk {_points(count)}; the chunk's share is "
            f"{percent(share['value'], 0)} % ({between(share['interval'], 0)} %)."
        )
        said.append(
            f"Without chunks (abs_per_crop) 50 more crops bring {_points(steps['count_abs'])} points "
            f"{words}; abs_per_crop against chunks of 100 at 200 crops {_points(steps['abs'])}."
        )
        said.append(
            f"From 150 to 200 crops, {words}: {_points(steps['jump_200'])} points. Weight by score against "
            f"none {_points(steps['weight'])}; division by visits {_points(steps['per_visit'])}."
        )
    ours = [row["sums"]["200-sigmoid-chunk100"]["fixed"]["miou"] for row in found["grid"]]
    theirs = [row["authors"][2][0] for row in found["grid"]]
    if len(ours) > 2:
        said.append(
            f"Order of the scales at 200 crops and 0.10: rank correlation with the authors' "
            f"{_ranks(ours, theirs):+.2f} over {len(ours)} cells."
        )
    versus = found["crops_minus_cam"]["best"]
    scale = "{:g} to {:g}".format(*found["versus"])
    said.append(
        f"Crops (200, {scale}) against single-scale CAM, each at its best threshold: mIoU "
        f"{_points(versus['miou'])}, NDR-recall {_points(versus['ndr_recall'])}, FG-precision "
        f"{_points(versus['fg_precision'])} points (the authors: mIoU .430 against .437, more NDR)."
    )
    steps = found["mean_over_cells"]["fixed"]
    low, high = steps["chunk"]["interval"]
    if low is not None and high is not None:
        verdict = "the second chunk's part cannot be told from 0"
        if low > 0 or high < 0:
            most = (steps["share_of_chunk"]["value"] or 0) > 0.5
            verdict = (
                f"{'most' if most else 'a part'} of that step is the second chunk, whose signs no longer"
            )
            verdict += " cancel against those of the first"
        said.append(f"The authors' table reads as if 50 more crops raised the mIoU; here {verdict}.")
    return said


def _points(entry: Mapping[str, Any]) -> str:
    return f"{100 * float(entry['value']):+.2f} ({between(entry['interval'], 2, sign=True)})"


def _ranks(one: Sequence[float], other: Sequence[float]) -> float:
    """Rank correlation; equal values share no rank, which these have none of."""
    first, second = (np.argsort(np.argsort(values)) for values in (one, other))
    return float(np.corrcoef(first, second)[0, 1])


def page(result: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    about = (
        f"{result['images']} of {result['images_of_split']} images of `{result['split']}` (drawn by a "
        f"hash of their ids; list sha256 {result['list_sha256'][:12]}), classifier {result['backbone']} "
        f"(sha256 {result['classifier_sha256'][:12]}), crops of ratio 1 resized to {result['crop_size']} "
        f"pixels. Means over {', '.join(result['averaged_over'])}; the authors' are over 21 classes of all "
        "1464 images, another network and crops of 224, so compare differences, not levels. "
        "Intervals: 95 %, 1000 draws of images, the same draws for all that is compared; they show the "
        "spread over images, not over trainings. Best thresholds have seen the ground truth. "
        f"{result['machine']}, {result['threads']} threads, {result['seconds'] / 60:.0f} min this call "
        "(cells that were kept from before not counted)."
    )
    parts = [
        "# Random crops: count, scale and chunk\n",
        f"```\n{result['command']}\n```\n",
        "\n".join(f"- {claim}" for claim in result["claims"]) + "\n",
        "![mIoU over the count, and the parts of the jump](crop_sensitivity.png)\n",
        about + "\n",
        "## The grid at threshold 0.10, chunks of 100, sigmoid (mIoU / legacy NDR-mIoU, in %)\n",
        _grid(result["grid"], "fixed"),
        "## The same at each sum's best threshold\n",
        _grid(result["grid"], "best"),
        "## What makes the difference, mean over the cells (points of mIoU, 95 % interval)\n",
        _steps(result["mean_over_cells"]),
        f"## Every way to sum, scale {EXAMPLE[0]} to {EXAMPLE[1]} (in %)\n",
        _ways(result),
        "## Other draws of the crops, scale {} to {}\n".format(*result["seeds"]["scale"]),
        _repeated(result["seeds"]),
    ]
    return "\n".join(parts)


def _grid(rows: Sequence[Mapping[str, Any]], at: str) -> str:
    head = ["scale"] + [f"{who}{count}" for count in COUNTS for who in ("", "authors ")]
    head += ["uncovered at 200", "s/image, 200 crops, all sums"]
    lines = []
    for row in rows:
        cells = [f"{row['scale'][0]:.2f}-{row['scale'][1]:.2f}"]
        for count, theirs in zip(COUNTS, row["authors"], strict=True):
            mine = row["sums"][f"{count}-sigmoid-chunk100"][at]
            extra = f" (t {mine['threshold']:g})" if at == "best" else ""
            cells.append(f"{percent(mine['miou'])} / {percent(mine['ndr_miou_legacy'])}{extra}")
            cells.append(" / ".join(percent(value) for value in theirs))
        cells += [percent(row["uncovered"][200], 2), f"{row['seconds_an_image']:.2f}"]
        lines.append(cells)
    return table(head, lines) + "\n"


def _steps(steps: Mapping[str, Any]) -> str:
    lines = [[words, *(_points(steps[at][name]) for at in AT)] for name, words in WORDS.items()]
    return table(["step", "at 0.10", "at the best threshold"], lines) + "\n"


def _ways(result: Mapping[str, Any]) -> str:
    row = next((one for one in result["grid"] if tuple(one["scale"]) == EXAMPLE), result["grid"][0])
    head = ["sum", "mIoU at 0.10", "NDR-recall", "legacy NDR", "FG-prec.", "best t", "mIoU", "interval"]
    head += ["NDR-recall", "FG-prec."]
    named = {**row["sums"], "single-scale CAM": result["cam"]}
    lines = []
    for name, one in named.items():
        fixed, best = one["fixed"], one["best"]
        cells = [name, percent(fixed["miou"]), percent(fixed["ndr_recall"])]
        cells += [percent(fixed["ndr_miou_legacy"]), percent(fixed["fg_precision"]), f"{best['threshold']:g}"]
        cells += [percent(best["miou"]), between(best["miou_interval"]), percent(best["ndr_recall"])]
        lines.append([*cells, percent(best["fg_precision"])])
    return table(head, lines) + "\n"


def _repeated(seeds: Mapping[str, Any]) -> str:
    head = ["seed", *(f"{name}, mIoU at 0.10" for name in SHOWN), "jump, points", "of it the chunk"]
    lines = [
        [seed, *(percent(rows[name]["fixed"]["miou"], 2) for name in SHOWN)]
        + [f"{100 * seeds[what][seed]:+.2f}" for what in ("jump", "chunk")]
        for seed, rows in seeds["rows"].items()
    ]
    return table(head, lines) + "\n"
