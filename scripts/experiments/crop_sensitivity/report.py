"""The page and the picture of the experiment on crop sensitivity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from scripts.experiments import charts
from scripts.experiments.crop_sensitivity.grid import AT, COUNTS, EXAMPLE, SHOWN, sums
from scripts.experiments.pages import between, commands, percent, points, table
from scripts.experiments.results import Experiment

NAME = "crop_sensitivity"
STEPS = {
    "jump": "100 to 150 crops, chunks of 100 (100 to 100 + 50)",
    "chunk": "of it: the second chunk (150 crops, 100 + 50 against one chunk)",
    "count": "of it: 50 more crops (one chunk, 100 to 150)",
    "count_abs": "100 to 150 crops, no chunks (abs_per_crop)",
    "jump_200": "150 to 200 crops, chunks of 100 (100 + 50 to 100 + 100)",
    "weight": "weighted by sigmoid against not, 200 crops",
    "abs": "abs_per_crop against chunks of 100, 200 crops",
    "per_visit": "divided by visits against not, 200 crops",
}


def page(result: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    parts = [
        "# Random crops: count, scale and chunk\n",
        commands(NAME, result),
        "\n".join(f"- {claim}" for claim in claims(result)) + "\n",
        "![mIoU over the count, and the parts of the jump](crop_sensitivity.png)\n",
        _about(result) + "\n",
        "## The grid at threshold 0.10, chunks of 100, sigmoid (mIoU / legacy NDR-mIoU, in %)\n",
        _grid(result["grid"], "fixed"),
        "## The same at each sum's best threshold\n",
        _grid(result["grid"], "best"),
        "## Parts of the difference, mean over the cells (points of mIoU, 95 % interval)\n",
        _steps(result["mean_over_cells"]),
        f"## Every way to sum, scale {EXAMPLE[0]} to {EXAMPLE[1]} (in %)\n",
        _ways(result),
        "## Other draws of the crops, scale {} to {}\n".format(*result["seeds"]["scale"]),
        _repeated(result["seeds"]),
    ]
    return "\n".join(parts)


def _about(result: Mapping[str, Any]) -> str:
    return (
        f"{result['images']} of {result['images_of_split']} images of `{result['split']}` (drawn by a "
        f"hash of their ids; list sha256 {result['list_sha256'][:12]}), classifier {result['backbone']} "
        f"(sha256 {result['classifier_sha256'][:12]}), crops of ratio 1 resized to {result['crop_size']} "
        f"pixels. Means over {', '.join(result['averaged_over'])}; the authors' are over 21 classes of all "
        "1464 images, another network and crops of 224, so compare differences, not levels. "
        "Intervals: 95 %, 1000 bootstrap samples of images, the same samples for everything compared; they "
        "show the spread over images, not over trainings. Best thresholds use the ground truth of these "
        f"images. {result['machine']}, {result['threads']} threads, {result['seconds'] / 60:.0f} min in the "
        "last call (cells kept from earlier calls not counted)."
    )


def claims(result: Mapping[str, Any]) -> list[str]:
    """The figures in sentences."""
    sentences = []
    for at, words in (("fixed", "at the threshold 0.10"), ("best", "at the best threshold of each")):
        steps = result["mean_over_cells"][at]
        share = steps["share_of_chunk"]
        sentences += [
            f"From 100 to 150 crops, {words}, mean over the cells: {points(steps['jump'], 2)} points of mIoU "
            f"(authors at 0.10: {100 * result['authors_jump']:+.2f}). The second chunk adds "
            f"{points(steps['chunk'], 2)} of them, 50 more crops in one chunk {points(steps['count'], 2)}; "
            f"the chunk's share is {percent(share['value'], 0)} % ({between(share['interval'], 0)} %).",
            f"Without chunks (abs_per_crop) 50 more crops add {points(steps['count_abs'], 2)} points "
            f"{words}; abs_per_crop against chunks of 100 at 200 crops {points(steps['abs'], 2)}.",
            f"From 150 to 200 crops, {words}: {points(steps['jump_200'], 2)} points. Weight by score against "
            f"none {points(steps['weight'], 2)}; division by visits {points(steps['per_visit'], 2)}.",
        ]
    ours = [row["sums"]["200-sigmoid-chunk100"]["fixed"]["miou"] for row in result["grid"]]
    authors = [row["authors"][2][0] for row in result["grid"]]
    if len(ours) > 2:
        sentences.append(
            f"Order of the scales at 200 crops and 0.10: rank correlation with the authors' "
            f"{_rank_correlation(ours, authors):+.2f} over {len(ours)} cells."
        )
    versus = {figure: points(entry, 2) for figure, entry in result["crops_minus_cam"]["best"].items()}
    scale = "{:g} to {:g}".format(*result["versus"])
    sentences.append(
        f"Crops (200, {scale}) against single-scale CAM, each at its best threshold: mIoU "
        f"{versus['miou']}, NDR-recall {versus['ndr_recall']}, FG-precision {versus['fg_precision']} points "
        "(the authors: mIoU .430 against .437, more NDR)."
    )
    return sentences + _verdict(result["mean_over_cells"]["fixed"])


def _verdict(steps: Mapping[str, Any]) -> list[str]:
    """What the authors' table suggests, and what the parts of the step show."""
    low, high = steps["chunk"]["interval"]
    if low is None or high is None:
        return []
    verdict = "the interval of the second chunk's part contains 0"
    if low > 0 or high < 0:
        part = "most" if (steps["share_of_chunk"]["value"] or 0) > 0.5 else "a part"
        verdict = f"{part} of that step is the second chunk, whose signs no longer cancel those of the first"
    return [f"The authors' table suggests that 50 more crops raise the mIoU; here {verdict}."]


def _rank_correlation(ours: Sequence[float], authors: Sequence[float]) -> float:
    """Spearman's; the values have no ties."""
    first, second = (np.argsort(np.argsort(values)) for values in (ours, authors))
    return float(np.corrcoef(first, second)[0, 1])


def _grid(rows: Sequence[Mapping[str, Any]], at: str) -> str:
    head = ["scale"] + [f"{source}{count}" for count in COUNTS for source in ("", "authors ")]
    head += ["uncovered at 200", "s/image, 200 crops, all sums"]
    lines = []
    for row in rows:
        cells = [f"{row['scale'][0]:.2f}-{row['scale'][1]:.2f}"]
        for count, authors in zip(COUNTS, row["authors"], strict=True):
            ours = row["sums"][f"{count}-sigmoid-chunk100"][at]
            threshold = f" (t {ours['threshold']:g})" if at == "best" else ""
            cells.append(f"{percent(ours['miou'])} / {percent(ours['ndr_miou_legacy'])}{threshold}")
            cells.append(" / ".join(percent(value) for value in authors))
        cells += [percent(row["uncovered"]["200"], 2), f"{row['seconds_an_image']:.2f}"]
        lines.append(cells)
    return table(head, lines) + "\n"


def _steps(steps: Mapping[str, Any]) -> str:
    lines = [[words, *(points(steps[at][name], 2) for at in AT)] for name, words in STEPS.items()]
    return table(["step", "at 0.10", "at the best threshold"], lines) + "\n"


def _ways(result: Mapping[str, Any]) -> str:
    row = next((row for row in result["grid"] if tuple(row["scale"]) == EXAMPLE), result["grid"][0])
    head = ["sum", "mIoU at 0.10", "NDR-recall", "legacy NDR", "FG-prec.", "best t", "mIoU", "interval"]
    head += ["NDR-recall", "FG-prec."]
    lines = []
    for name, at in {
        **{name: row["sums"][name] for name in sums()},
        "single-scale CAM": result["cam"],
    }.items():
        fixed, best = at["fixed"], at["best"]
        cells = [name, percent(fixed["miou"]), percent(fixed["ndr_recall"])]
        cells += [percent(fixed["ndr_miou_legacy"]), percent(fixed["fg_precision"]), f"{best['threshold']:g}"]
        cells += [percent(best["miou"]), between(best["miou_interval"]), percent(best["ndr_recall"])]
        lines.append([*cells, percent(best["fg_precision"])])
    return table(head, lines) + "\n"


def _repeated(seeds: Mapping[str, Any]) -> str:
    head = ["seed", *(f"{name}, mIoU at 0.10" for name in SHOWN), "jump, points", "of it the chunk"]
    lines = [
        [seed, *(percent(rows[name]["fixed"]["miou"], 2) for name in SHOWN)]
        + [f"{100 * seeds[part][seed]:+.2f}" for part in ("jump", "chunk")]
        for seed, rows in seeds["rows"].items()
    ]
    return table(head, lines) + "\n"


def figure(result: Mapping[str, Any]) -> bytes:
    """mIoU over the count beside the authors'; the parts of the jump by cell."""
    figure = charts.canvas(12, 4.6)
    left, right = figure.subplots(1, 2)
    _draw_counts(left, result["grid"])
    _draw_parts(right, result["grid"])
    for axes in (left, right):
        charts.gridded(axes)
        axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.24))
    return charts.png(figure)


def _draw_counts(axes: Axes, grid: Sequence[Mapping[str, Any]]) -> None:
    def mean(name: str) -> float:
        return 100 * float(np.mean([row["sums"][name]["fixed"]["miou"] for row in grid]))

    base = mean("100-sigmoid-chunk100")
    for label, colour, rules in (
        ("chunks of 100 (authors' rule)", "#c0392b", ("chunk100", "chunk100", "chunk100")),
        ("one chunk", "#e67e22", ("chunk100", "chunk200", "chunk200")),
        ("chunks of 50", "#8e44ad", ("chunk50", "chunk50", "chunk50")),
        ("no chunk (abs_per_crop)", "#1b4f72", ("abs", "abs", "abs")),
    ):
        names = [f"{count}-sigmoid-{rule}" for count, rule in zip(COUNTS, rules, strict=True)]
        axes.plot(COUNTS, [mean(name) - base for name in names], "o-", color=colour, label=label)
    authors = [100 * float(np.mean([row["authors"][index][0] for row in grid])) for index in range(3)]
    label = "the authors, chunks of 100"
    axes.plot(COUNTS, [value - authors[0] for value in authors], "s--", color="#7f8c8d", label=label)
    axes.axhline(0, color="#2c3e50", linewidth=0.8)
    axes.set_xticks(COUNTS)
    axes.set_xlabel("crops")
    axes.set_ylabel("points of mIoU above 100 crops in one chunk")
    axes.set_title("More crops or one more chunk? Mean over the cells", fontsize=10, loc="left")


def _draw_parts(axes: Axes, grid: Sequence[Mapping[str, Any]]) -> None:
    places = np.arange(len(grid))
    authors = [100 * (row["authors"][1][0] - row["authors"][0][0]) for row in grid]
    axes.bar(places - 0.27, authors, 0.26, color="#7f8c8d", label="the authors' jump")
    for offset, name, colour, label in (
        (0.0, "chunk", "#c0392b", "ours: the second chunk"),
        (0.27, "count", "#e67e22", "ours: 50 more crops, one chunk"),
    ):
        entries = [row["steps"]["fixed"][name] for row in grid]
        heights = [100 * entry["value"] for entry in entries]
        ends = [[100 * (bound or 0) for bound in entry["interval"]] for entry in entries]
        below = [height - low for height, (low, _) in zip(heights, ends, strict=True)]
        above = [high - height for height, (_, high) in zip(heights, ends, strict=True)]
        spans = np.array([below, above]).clip(min=0)
        axes.bar(places + offset, heights, 0.26, color=colour, label=label)
        axes.errorbar(places + offset, heights, yerr=spans, fmt="none", ecolor="#2c3e50", lw=0.8)
    axes.axhline(0, color="#2c3e50", linewidth=0.8)
    scales = ["{:g}-{:g}".format(*row["scale"]) for row in grid]
    axes.set_xticks(places, scales, rotation=35, fontsize=8)
    axes.set_xlabel("scale, share of the image")
    axes.set_ylabel("points of mIoU, 100 to 150 crops")
    axes.set_title("Where the jump comes from (95 % intervals over images)", fontsize=10, loc="left")


def main(words: Sequence[str] | None = None) -> None:
    """Write the page and the picture from the JSON file."""
    Experiment(NAME, words).report(__doc__, page, figure)


if __name__ == "__main__":
    main()
