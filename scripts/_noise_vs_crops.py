"""What the noise-or-crops experiment runs, and what it makes of it: figures, differences, page, figure."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _experiment import (
    FIGURES,
    Values,
    between,
    drawn,
    figures_of,
    interval,
    mean_of,
    miou,
    percent,
    table,
    times_of,
)
from _voc_maps import LEVELS, Images, InputImage, matrices
from scipy.stats import spearmanr

from pseudolabel.metrics.confusion import Counts, confusion, defined

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
        name: as the tables have it.
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
    found = [Row("CAM", "original", "cam", (), 1), Row("saliency", "original", "saliency", (), 1)]
    for name in ("gaussian", "mask"):
        found.append(Row(f"CAM, {name} classifier", name, "cam", (), 1))
        found.append(Row(f"saliency, {name} classifier", name, "saliency", (), 1))
    found.append(Row("crops", "original", "saliency", (many,), passes, True))
    more = ("random_crop", {**crop, "count": EQUAL * passes})
    found.append(Row("crops, equal pixels", "original", "saliency", (more,), EQUAL * passes))
    found.append(Row("crops, abs", "original", "saliency", (absolute,), passes, True))
    masked = (few, ("binary_mask", {"count": MASKS, "keep": KEEP}))
    found.append(Row("crops + mask", "original", "saliency", masked, passes, True))
    found.append(Row("crops of CAM", "original", "cam", (many,), passes, True))
    matched = [
        ("smoothgrad", "SmoothGrad", {"sigma": SIGMA}, SIGMA, "gaussian"),
        ("binary_mask", "BinaryMask", {"keep": KEEP}, KEEP, "mask"),
    ]
    for component, words, level, value, tuned in matched:
        around = ((component, {"count": passes, **level}),)
        found.append(Row(f"{words} {value:g}", "original", "saliency", around, passes, True))
        found.append(Row(f"{words} {value:g}, tuned", tuned, "saliency", around, passes, True))
    others = [("smoothgrad", "SmoothGrad", "sigma", s) for s in SIGMAS if s != SIGMA]
    others += [("binary_mask", "BinaryMask", "keep", k) for k in KEEPS if k != KEEP]
    for component, words, key, value in others:
        around = ((component, {"count": passes, key: value}),)
        found.append(Row(f"{words} {value:g}", "original", "saliency", around, passes))
    return found


def results(
    wanted: Sequence[Row], measured: Mapping[str, Sequence[Mapping[str, Any]]], chosen: Images
) -> dict[str, Any]:
    """A figure a row, paired differences, claims."""
    times = times_of(len(chosen.images))
    table_rows, sets = [], {}
    for row in wanted:
        entry, sets[row.name] = _row(row, measured[row.name], chosen, times)
        table_rows.append(entry)
    named = {entry["name"]: entry for entry in table_rows}
    differences = []
    for one, other in DIFFERENCES:
        if one in named and other in named:
            found: dict[str, Any] = {"row": one, "against": other}
            for what in FIGURES:
                value = (named[one][what] or 0.0) - (named[other][what] or 0.0)
                found[what] = {"value": value, "interval": interval(sets[one][what] - sets[other][what])}
            differences.append(found)
    return {"rows": table_rows, "differences": differences, "claims": claims(named, differences)}


def _row(
    row: Row, seeds: Sequence[Mapping[str, Any]], chosen: Images, times: Values
) -> tuple[dict[str, Any], dict[str, Values]]:
    names = len(chosen.space.names)
    curves, best, sets = [], [], []
    for kept in seeds:
        each = np.stack(
            [matrices(kept[f"counts_{index}"], image.ids, names) for index, image in enumerate(chosen.images)]
        )
        curves.append(figures_of(each.sum(axis=0), chosen.averaged))
        best.append(int(np.nanargmax(curves[-1]["miou"])))
        sets.append(drawn(each[:, best[-1]], times, chosen.averaged))
    together = {what: mean_of([one[what] for one in sets]) for what in sets[0]}
    entry: dict[str, Any] = {
        "name": row.name,
        "classifier": row.classifier,
        "method": row.method,
        "aggregators": [list(one) for one in row.aggregators],
        "passes": row.passes,
        "seconds_an_image": float(np.mean([np.mean(kept["seconds"]) for kept in seeds])),
        "threshold": [LEVELS[index] for index in best],
    }
    for what in FIGURES:
        values = [float(curve[what][index]) for curve, index in zip(curves, best, strict=True)]
        entry[what] = defined(float(np.mean(values)))
        entry[f"{what}_seeds"] = [defined(value) for value in values]
        entry[f"{what}_interval"] = interval(together[what])
    for what in ("miou", "ndr_recall", "dr_recall", "fg_precision"):
        entry[f"{what}_curve"] = [defined(round(float(v), 5)) for v in mean_of([c[what] for c in curves])]
    entry["stability"] = _stability(seeds[0], seeds[1], best[0], chosen) if len(seeds) > 1 else None
    return entry, together


def _stability(
    one: Mapping[str, Any], other: Mapping[str, Any], level: int, chosen: Images
) -> dict[str, Any]:
    """How alike two seeds are: mIoU between their masks at one threshold, rank correlation of their maps."""
    names = len(chosen.space.names)
    total: Counts = np.zeros((names, names + 1), np.int64)
    ranks = []
    for index in range(len(chosen.images)):
        first, second = (
            np.where(kept[f"exceeded_{index}"] > level, kept[f"label_{index}"], 0).astype(np.uint8)
            for kept in (one, other)
        )
        total += confusion(first, second, names)
        for a, b in zip(one[f"raw_{index}"], other[f"raw_{index}"], strict=True):
            if np.ptp(a) > 0 and np.ptp(b) > 0:
                ranks.append(float(spearmanr(a.ravel(), b.ravel()).statistic))
    return {"iou": defined(float(miou(total))), "rank_correlation": float(np.mean(ranks)), "maps": len(ranks)}


def claims(named: Mapping[str, Any], differences: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the figures say, in words."""
    said = []
    for entry in differences:
        parts = [
            f"{words} {_points(entry[what])}"
            for what, words in (
                ("miou", "mIoU"),
                ("ndr_recall", "NDR-recall"),
                ("fg_precision", "FG-precision"),
            )
        ]
        said.append(f"{entry['row']} against {entry['against']}: {', '.join(parts)} points.")
    for words, levels in (("SmoothGrad", SIGMAS), ("BinaryMask", KEEPS)):
        found = [(named[f"{words} {level:g}"], level) for level in levels if f"{words} {level:g}" in named]
        if found:
            best, level = max(found, key=lambda pair: pair[0]["miou"] or 0.0)
            said.append(
                f"{words} on the original classifier is best at {level:g}: mIoU {percent(best['miou'])} %, "
                f"NDR-recall {percent(best['ndr_recall'])} %."
            )
    stable = [entry for entry in named.values() if entry["stability"]]
    if stable:
        shown = ", ".join(
            f"{e['name']} {percent(e['stability']['iou'])} / {e['stability']['rank_correlation']:.2f}"
            for e in stable
        )
        said.append(
            f"Two seeds, mIoU of one's masks against the other's / rank correlation of maps: {shown}."
        )
    verdicts = {(entry["row"], entry["against"]): entry for entry in differences}
    for pair, words in (
        (("crops", "saliency"), "crops improve plain saliency without any tuning"),
        (("crops, equal pixels", "saliency"), "the same, as many pixels as the noise methods see"),
        (("crops", "SmoothGrad 0.15, tuned"), "crops beat SmoothGrad on its tuned classifier"),
        (("crops, equal pixels", "SmoothGrad 0.15, tuned"), "the same, as many pixels"),
        (("crops", "CAM"), "crops recover more of what CAM misses"),
    ):
        if pair in verdicts:
            what = "ndr_recall" if pair[1] == "CAM" else "miou"
            low, high = verdicts[pair][what]["interval"]
            held = low is not None and low > 0
            against = high is not None and high < 0
            said.append(
                f"The paper says that {words}: "
                + (
                    "here as well."
                    if held
                    else "here the opposite."
                    if against
                    else "here it cannot be told."
                )
            )
    return said


def _points(entry: Mapping[str, Any]) -> str:
    return f"{100 * float(entry['value']):+.1f} ({between(entry['interval'], sign=True)})"


def page(result: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    head = ["row", "classifier", "passes", "mIoU", "interval", "NDR-recall", "interval", "DR-recall"]
    head += ["FG-precision", "threshold", "IoU of two seeds", "rank corr.", "s/image"]
    lines = []
    for row in result["rows"]:
        stable = row["stability"]
        cells = [row["name"], row["classifier"], str(row["passes"]), percent(row["miou"])]
        cells += [between(row["miou_interval"]), percent(row["ndr_recall"])]
        cells += [between(row["ndr_recall_interval"]), percent(row["dr_recall"])]
        cells += [percent(row["fg_precision"]), ", ".join(f"{t:g}" for t in row["threshold"])]
        cells += [percent(stable["iou"]) if stable else "-"]
        cells += [f"{stable['rank_correlation']:.2f}" if stable else "-", f"{row['seconds_an_image']:.2f}"]
        lines.append(cells)
    steps = [
        [f"{one['row']} - {one['against']}", *(_points(one[what]) for what in FIGURES)]
        for one in result["differences"]
    ]
    parts = [
        "# Noise or crops, at equal numbers of backward passes\n",
        f"```\n{result['command']}\n```\n",
        "\n".join(f"- {claim}" for claim in result["claims"]) + "\n",
        "![mIoU against NDR-recall, and the noise level](noise_vs_crops.png)\n",
        table(head, lines) + "\n",
        "## Paired differences (points, 95 % interval over images)\n",
        table(["rows", "mIoU", "NDR-recall", "DR-recall", "FG-precision"], steps) + "\n",
        f"In %. {result['images']} of {result['images_of_split']} images of `{result['split']}` (drawn by "
        f"a hash of their ids; list sha256 {result['list_sha256'][:12]}), {result['backbone']}; "
        f"{result['passes']} passes a class and image for every row but the single ones (crops of CAM: "
        f"as many forwards), crops resized to {result['crop_size']} pixels, so that a pass of theirs costs "
        f"less; 'crops, equal pixels' takes {EQUAL} times as many, in chunks of 100. Means over "
        f"{', '.join(result['averaged_over'])}. The threshold is each row's best one on these images, "
        "which has seen their ground truth. DR and NDR: the original classifier's CAM for "
        f"all rows. 'tuned': trained with the noise of that row (sigma {SIGMA}, keep {KEEP}); other levels "
        f"were not tuned. crops + mask: {MASKS} masks with {result['passes'] // MASKS} crops each. "
        "Intervals: 1000 draws of images; they show the spread over images, not over trainings. The "
        "authors published no table of these rows that could be read. "
        f"{result['machine']}, {result['threads']} threads, {result['seconds'] / 60:.0f} min this call "
        "(rows kept from before not counted).\n",
    ]
    return "\n".join(parts)


def maps(
    result: Mapping[str, Any], measured: Mapping[str, Sequence[Mapping[str, Any]]], image: InputImage
) -> bytes:
    """Maps of one image of the data set, for the eye; stays beside what is kept, out of the results."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = _shown(result)
    columns = -(-(len(shown) + 1) // 2)
    whole = Figure(figsize=(12, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(whole)
    cells = whole.subplots(2, columns, squeeze=False).ravel()
    cells[0].imshow(image.pixels)
    cells[0].set_title("image, truth outlined", fontsize=8)
    for axes, name in zip(cells[1:], shown, strict=False):
        values = measured[name][0]["example"].astype(np.float32)
        axes.imshow(values, cmap="magma", vmin=0, vmax=1)
        axes.set_title(name, fontsize=8)
    for index, axes in enumerate(cells):
        if index > len(shown):
            axes.axis("off")
            continue
        axes.contour(image.truth == image.labels[0], [0.5], colors="#5dade2", linewidths=0.8)
        axes.set_xticks([])
        axes.set_yticks([])
    buffer = io.BytesIO()
    whole.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _shown(result: Mapping[str, Any]) -> list[str]:
    named = {row["name"] for row in result["rows"]}
    return [name for name in SHOWN if name in named]


def figure(result: Mapping[str, Any]) -> bytes:
    """mIoU against NDR-recall over the threshold; mIoU over the noise level."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    named = {row["name"]: row for row in result["rows"]}
    shown = _shown(result)
    whole = Figure(figsize=(12, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(whole)
    left, right = whole.subplots(1, 2)
    palette = ("#2c3e50", "#95a5a6", "#f0b27a", "#d35400", "#aed6f1", "#2471a3", "#27ae60", "#145a32")
    for name, colour in zip(shown, (*palette, "#8e44ad", "#c0392b"), strict=False):
        row = named[name]
        across, up = ([_percent(v) for v in row[f"{what}_curve"]] for what in ("ndr_recall", "miou"))
        left.plot(across, up, color=colour, label=name, linewidth=1.6)
        left.plot(_percent(row["ndr_recall"]), _percent(row["miou"]), "*", color=colour, markersize=10)
    left.set_xlabel("NDR-recall, %")
    left.set_ylabel("mIoU, %")
    left.set_title("Every threshold, * the best", fontsize=10, loc="left")
    left.legend(frameon=False, fontsize=7)
    kinds = (("SmoothGrad", SIGMAS, "#d35400", SIGMA), ("BinaryMask", KEEPS, "#2471a3", KEEP))
    for words, levels, colour, matched in kinds:
        at = [level for level in levels if f"{words} {level:g}" in named]
        noise = [level if words == "SmoothGrad" else 1 - level for level in at]
        label = f"{words} (noise: {'sigma' if words == 'SmoothGrad' else 'share removed'})"
        rows_of = [named[f"{words} {level:g}"] for level in at]
        right.plot(noise, [_percent(row["miou"]) for row in rows_of], "o-", color=colour, label=label)
        tuned = named.get(f"{words} {matched:g}, tuned")
        if tuned:
            place = matched if words == "SmoothGrad" else 1 - matched
            right.plot(
                place, _percent(tuned["miou"]), "D", color=colour, markersize=8, label=f"{words}, tuned"
            )
    lines = (("saliency", "#95a5a6"), ("CAM", "#2c3e50"), ("crops", "#27ae60"), ("crops of CAM", "#c0392b"))
    for name, colour in lines:
        if name in named:
            right.axhline(
                _percent(named[name]["miou"]), color=colour, linestyle="--", label=name, linewidth=1.2
            )
    right.set_xlabel("noise level")
    right.set_ylabel("mIoU at the best threshold, %")
    right.set_title("How much noise?", fontsize=10, loc="left")
    right.legend(frameon=False, fontsize=7)
    for axes in (left, right):
        axes.grid(color="#ecf0f1")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    whole.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _percent(value: float | None) -> float:
    return float("nan") if value is None else 100 * value
