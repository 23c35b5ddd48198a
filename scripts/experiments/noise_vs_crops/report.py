"""The page and the picture of the experiment on noise and crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from scripts.experiments import charts
from scripts.experiments.intervals import FIGURES
from scripts.experiments.noise_vs_crops.rows import EQUAL, KEEP, KEEPS, MASKS, SHOWN, SIGMA, SIGMAS
from scripts.experiments.pages import between, commands, percent, points, table
from scripts.experiments.results import Experiment

NAME = "noise_vs_crops"
TITLES = {
    "miou": "mIoU",
    "ndr_recall": "NDR-recall",
    "dr_recall": "DR-recall",
    "fg_precision": "FG-precision",
}
# claims of the paper: rows, figure that decides, words
PAPER = (
    ("crops", "saliency", "miou", "crops improve plain saliency without any tuning"),
    (
        "crops, equal pixels",
        "saliency",
        "miou",
        "crops with as many pixels as the noise methods improve plain saliency",
    ),
    ("crops", "SmoothGrad 0.15, tuned", "miou", "crops beat SmoothGrad on its tuned classifier"),
    (
        "crops, equal pixels",
        "SmoothGrad 0.15, tuned",
        "miou",
        "crops with as many pixels beat SmoothGrad on its tuned classifier",
    ),
    ("crops", "CAM", "ndr_recall", "crops recover more of the object than CAM outside its region"),
)


def page(result: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    head = ["row", "classifier", "passes", "mIoU", "interval", "NDR-recall", "interval", "DR-recall"]
    head += ["FG-precision", "threshold", "IoU of two seeds", "rank corr.", "s/image"]
    differences = [
        [f"{entry['row']} - {entry['against']}", *(points(entry[figure]) for figure in FIGURES)]
        for entry in result["differences"]
    ]
    parts = [
        "# Noise or crops, at equal numbers of backward passes\n",
        commands(NAME, result),
        "\n".join(f"- {claim}" for claim in claims(result)) + "\n",
        "![mIoU against NDR-recall, and the noise level](noise_vs_crops.png)\n",
        table(head, [_cells(row) for row in result["rows"]]) + "\n",
        "## Paired differences (points, 95 % interval over images)\n",
        table(["rows", *(TITLES[figure] for figure in FIGURES)], differences) + "\n",
        _about(result) + "\n",
    ]
    return "\n".join(parts)


def _cells(row: Mapping[str, Any]) -> list[str]:
    stable = row["stability"]
    cells = [row["name"], row["classifier"], str(row["passes"]), percent(row["miou"])]
    cells += [between(row["miou_interval"]), percent(row["ndr_recall"])]
    cells += [between(row["ndr_recall_interval"]), percent(row["dr_recall"])]
    cells += [percent(row["fg_precision"]), ", ".join(f"{level:g}" for level in row["threshold"])]
    cells += [percent(stable["iou"]) if stable else "-"]
    return [*cells, f"{stable['rank_correlation']:.2f}" if stable else "-", f"{row['seconds_an_image']:.2f}"]


def _about(result: Mapping[str, Any]) -> str:
    return (
        f"In %. {result['images']} of {result['images_of_split']} images of `{result['split']}` (drawn by "
        f"a hash of their ids; list sha256 {result['list_sha256'][:12]}), {result['backbone']}; "
        f"{result['passes']} passes a class and image for every row but the single ones (crops of CAM: "
        f"as many forwards), crops resized to {result['crop_size']} pixels, so that one of their passes "
        f"costs less; 'crops, equal pixels' takes {EQUAL} times as many, in chunks of 100. Means over "
        f"{', '.join(result['averaged_over'])}. The threshold is each row's best one on these images, "
        "picked with their ground truth. DR and NDR (discriminative and non-discriminative regions): the "
        "original classifier's CAM for all rows. 'tuned': trained with the noise of that row "
        f"(sigma {SIGMA}, keep {KEEP}); other levels were not tuned. crops + mask: {MASKS} masks with "
        f"{result['passes'] // MASKS} crops each. Intervals: 1000 bootstrap samples of images; they show the "
        "spread over images, not over trainings. The authors published no readable table of these rows. "
        f"{result['machine']}, {result['threads']} threads, {result['seconds'] / 60:.0f} min in the last "
        "call (rows kept from earlier calls not counted)."
    )


def claims(result: Mapping[str, Any]) -> list[str]:
    """The figures in sentences."""
    sentences = []
    for entry in result["differences"]:
        gains = ", ".join(
            f"{TITLES[figure]} {points(entry[figure])}" for figure in ("miou", "ndr_recall", "fg_precision")
        )
        sentences.append(f"{entry['row']} against {entry['against']}: {gains} points.")
    named = {row["name"]: row for row in result["rows"]}
    for title, levels in (("SmoothGrad", SIGMAS), ("BinaryMask", KEEPS)):
        measured = [(named[f"{title} {level:g}"], level) for level in levels if f"{title} {level:g}" in named]
        if measured:
            best, level = max(measured, key=lambda pair: pair[0]["miou"] or 0.0)
            sentences.append(
                f"{title} on the original classifier is best at {level:g}: mIoU {percent(best['miou'])} %, "
                f"NDR-recall {percent(best['ndr_recall'])} %."
            )
    stable = [row for row in result["rows"] if row["stability"]]
    if stable:
        shown = ", ".join(
            f"{row['name']} {percent(row['stability']['iou'])} / {row['stability']['rank_correlation']:.2f}"
            for row in stable
        )
        sentences.append(
            f"Two seeds, mIoU between the masks of both / rank correlation of their maps: {shown}."
        )
    return sentences + _verdicts(result["differences"])


def _verdicts(differences: Sequence[Mapping[str, Any]]) -> list[str]:
    """The paper's claims beside the intervals."""
    entries = {(entry["row"], entry["against"]): entry for entry in differences}
    sentences = []
    for row, other, figure, words in PAPER:
        if (row, other) not in entries:
            continue
        low, high = entries[row, other][figure]["interval"]
        verdict = "undecided, the interval contains 0"
        if low is not None and low > 0:
            verdict = "yes"
        elif high is not None and high < 0:
            verdict = "no, the opposite"
        sentences.append(f"The paper states: {words}. Here: {verdict}.")
    return sentences


def figure(result: Mapping[str, Any]) -> bytes:
    """mIoU against NDR-recall over the threshold; mIoU over the noise level."""
    named = {row["name"]: row for row in result["rows"]}
    figure = charts.canvas(12, 5)
    left, right = figure.subplots(1, 2)
    _draw_thresholds(left, named)
    _draw_levels(right, named)
    for axes in (left, right):
        charts.gridded(axes)
    return charts.png(figure)


def _draw_thresholds(axes: Axes, named: Mapping[str, Any]) -> None:
    palette = ("#2c3e50", "#95a5a6", "#f0b27a", "#d35400", "#aed6f1", "#2471a3", "#27ae60", "#145a32")
    shown = [name for name in SHOWN if name in named]
    for name, colour in zip(shown, (*palette, "#8e44ad", "#c0392b"), strict=False):
        row = named[name]
        across, up = (
            [charts.percent(value) for value in row[f"{figure}_curve"]] for figure in ("ndr_recall", "miou")
        )
        best = charts.percent(row["ndr_recall"]), charts.percent(row["miou"])
        axes.plot(across, up, color=colour, label=name, linewidth=1.6)
        axes.plot(*best, "*", color=colour, markersize=10)
    axes.set_xlabel("NDR-recall, %")
    axes.set_ylabel("mIoU, %")
    axes.set_title("Every threshold, * the best", fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=7)


def _draw_levels(axes: Axes, named: Mapping[str, Any]) -> None:
    kinds = (("SmoothGrad", SIGMAS, "#d35400", SIGMA), ("BinaryMask", KEEPS, "#2471a3", KEEP))
    for title, levels, colour, matched in kinds:
        gaussian = title == "SmoothGrad"
        measured = [level for level in levels if f"{title} {level:g}" in named]
        noise = [level if gaussian else 1 - level for level in measured]
        heights = [charts.percent(named[f"{title} {level:g}"]["miou"]) for level in measured]
        label = f"{title} (noise: {'sigma' if gaussian else 'share removed'})"
        axes.plot(noise, heights, "o-", color=colour, label=label)
        tuned = named.get(f"{title} {matched:g}, tuned")
        if tuned:
            at = matched if gaussian else 1 - matched
            height = charts.percent(tuned["miou"])
            axes.plot(at, height, "D", color=colour, markersize=8, label=f"{title}, tuned")
    lines = (("saliency", "#95a5a6"), ("CAM", "#2c3e50"), ("crops", "#27ae60"), ("crops of CAM", "#c0392b"))
    for name, colour in lines:
        if name in named:
            height = charts.percent(named[name]["miou"])
            axes.axhline(height, color=colour, linestyle="--", label=name, linewidth=1.2)
    axes.set_xlabel("noise level")
    axes.set_ylabel("mIoU at the best threshold, %")
    axes.set_title("How much noise?", fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=7)


def main(words: Sequence[str] | None = None) -> None:
    """Write the page and the picture from the JSON file."""
    Experiment(NAME, words).report(__doc__, page, figure)


if __name__ == "__main__":
    main()
