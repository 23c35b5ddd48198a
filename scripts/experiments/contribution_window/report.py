"""The page and the picture of the experiment on the contribution window."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from scripts.experiments import charts
from scripts.experiments.contribution_window.rows import MAPS
from scripts.experiments.intervals import FIGURES
from scripts.experiments.pages import between, commands, percent, table
from scripts.experiments.results import Experiment

NAME = "contribution_window"
COLOURS = {1: "#b03a2e", 3: "#e67e22", 5: "#27ae60", 7: "#1b4f72"}  # by kernel
Row = Mapping[str, Any]


def page(result: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    rows = result["rows"]
    parts = [
        "# Contribution window: MNIST digits, five convolutions of F x F\n",
        commands(NAME, result),
        "\n".join(f"- {claim}" for claim in claims(rows)) + "\n",
        "![Recalls over the window, DR- against NDR-recall](contribution_window.png)\n",
        "## Correctly classified test images\n",
        _scores(rows, "correct"),
        "## All test images\n",
        _scores(rows, "all"),
        f"In %, mean over seeds {', '.join(map(str, result['seeds']))}; ± is the standard deviation between "
        'seeds. "at equal precision": saliency\'s NDR-recall at the lowest threshold at which its '
        "FG-precision is that of CAM at its best. DR and NDR: pixels of the digit inside and outside the "
        "region that CAM highlights. The threshold is each map's best one on these images (mIoU), picked "
        "with their ground truth. R: pixels a side that a feature cell sees.\n",
        "## Exact zeros, float64, direct convolution\n",
        _zeros(rows),
        "The largest absolute gradient outside (R - 1) / 2 of every activated cell. 'few active': the same "
        "network with a bias before its last ReLU that leaves only middle cells activated, on a larger "
        "canvas of faint noise, so that there are pixels outside the zone and the inner layers are active up "
        "to its edge; 'not tested' where no pixel lies outside. Control: pixels with a gradient outside a "
        "zone one pixel narrower. On black, networks without bias reach less far than R: a first cell "
        "without a digit's pixel under it is 0.\n",
        f"{result['train_images']} training and {result['test_images']} test images (no official split), "
        f"{result['epochs']} epochs of Adam in batches of {result['batch']}; "
        f"reference: {result['reference']}; truth: {result['truth']}. "
        f"{result['machine']}, {result['threads']} threads; {result['seconds'] / 60:.0f} min in the last "
        "call (networks and measurements kept from earlier calls not counted).\n",
        "Without bias and with F = 1 every cell is its pixel's intensity times one fixed vector: all "
        "images get the same answer, CAM is the image and the gradient is flat, so that row has "
        "images of one digit only; the row with bias is beside it for that reason. The paper's own "
        "figures for MNIST were not available; its statements are compared in words.\n",
    ]
    return "\n".join(parts)


def _label(row: Row) -> str:
    return f"{row['kernel']}{' (bias)' if row['bias'] else ''}"


def claims(rows: Sequence[Row]) -> list[str]:
    """The figures in sentences, those that contradict the paper included."""
    plain = [row for row in rows if not row["bias"]]
    return [*_zero_claims(plain), *(_recall_claim(row) for row in rows), *_window_claim(plain)]


def _zero_claims(plain: Sequence[Row]) -> list[str]:
    checks = [row[check] for row in plain for check in ("exact", "exact_sparse")]
    pixels = sum(check["pixels_checked"] for check in checks)
    largest = max((check["largest_gradient_outside"] or 0.0 for check in checks), default=0.0)
    size = "exactly 0" if largest == 0 else f"as large as {largest:.3g}, against the theorem"
    sentences = [
        f"Outside (R - 1) / 2 of every activated cell the gradient is {size}, "
        f"on {pixels} pixels of networks without bias in their convolutions."
    ]
    control = [
        f"{row['exact_sparse']['control_nonzero']} (F = {row['kernel']})"
        for row in plain
        if row["kernel"] > 1
    ]
    if control:
        sentences.append(
            "With a zone one pixel narrower the same check gives gradients that are not 0: "
            f"{', '.join(control)}."
        )
    for row in plain:
        if row["kernel"] == 1:
            beyond = row["exact"]["gradient_beyond_active_pixels"]
            sentences.append(f"F = 1: {beyond} pixels have a gradient without being activated themselves.")
    return sentences


def _recall_claim(row: Row) -> str:
    entry = row["correct"]
    difference = entry["saliency_minus_cam"]["ndr_recall"]
    if difference["mean"] is None:
        return f"F = {_label(row)}: CAM misses no pixel of the digits, so that NDR-recall is undefined."
    low, high = difference["interval"]
    verdict = "more" if (low or 0) > 0 else "less" if (high or 0) < 0 else "no more and no less"
    return (
        f"F = {_label(row)} (R = {row['window']}): of what CAM misses, saliency recovers "
        f"{percent(entry['saliency']['ndr_recall']['mean'])} %, CAM itself at its best threshold "
        f"{percent(entry['cam']['ndr_recall']['mean'])} %; {verdict} "
        f"({between((low, high), sign=True)} points)."
    )


def _window_claim(plain: Sequence[Row]) -> list[str]:
    recalls = {row["kernel"]: row["correct"]["saliency"]["ndr_recall"]["mean"] for row in plain}
    known = {kernel: value for kernel, value in recalls.items() if value is not None}
    if len(known) < 2:
        return []
    rises = all(after > before for before, after in itertools.pairwise(known.values()))
    shown = ", ".join(f"{percent(value)} (F = {kernel})" for kernel, value in known.items())
    verdict = "does at every step" if rises else "does not at every step, which contradicts the paper"
    return [
        f"Saliency's NDR-recall with the window: {shown}. The paper says that it rises with the window; "
        f"here it {verdict}."
    ]


def _scores(rows: Sequence[Row], subset: str) -> str:
    head = ["F", "R", "accuracy", "map", "mIoU", "NDR-recall", "DR-recall", "FG-precision", "threshold"]
    head += ["NDR-recall, interval", "at equal precision"]
    lines = []
    for row in rows:
        for name in MAPS:
            entry = row[subset][name]
            cells = [_label(row), str(row["window"]), _cell(row["accuracy"]), name]
            cells += [_cell(entry[figure]) for figure in FIGURES]
            cells.append(", ".join(f"{value:g}" for value in entry["threshold"]))
            cells.append(between(entry["ndr_recall"]["interval"]))
            cells.append(_cell(row[subset]["ndr_recall_at_cam_precision"]) if name == "saliency" else "")
            lines.append(cells)
    return table(head, lines) + "\n"


def _cell(values: Mapping[str, Any]) -> str:
    spread = values["spread"]
    return percent(values["mean"]) + ("" if spread is None else f" ± {percent(spread)}")


def _zeros(rows: Sequence[Row]) -> str:
    head = ["F", "R", "images", "pixels outside", "largest gradient", "of at most", "exactly 0", "control"]
    lines = []
    for row in rows:
        for check, words in (("exact", ""), ("exact_sparse", ", few active")):
            entry = row[check]
            largest, control = entry["largest_gradient_outside"], entry["control_nonzero"]
            cells = [_label(row) + words, str(row["window"]), str(entry["images"])]
            cells += [str(entry["pixels_checked"]), "not tested" if largest is None else f"{largest:.3g}"]
            cells += [f"{entry['largest_gradient_anywhere']:.2g}", percent(entry["zero_share"])]
            lines.append([*cells, "-" if control is None else str(control)])
    return table(head, lines) + "\n"


def figure(result: Mapping[str, Any]) -> bytes:
    """Recalls over the window, and DR- against NDR-recall over the threshold."""
    plain = [row for row in result["rows"] if not row["bias"]]
    figure = charts.canvas(11, 4.4)
    left, right = figure.subplots(1, 2)
    _draw_windows(left, plain)
    _draw_thresholds(right, plain)
    for axes in (left, right):
        charts.gridded(axes)
        axes.legend(frameon=False, fontsize=8)
    return charts.png(figure)


def _draw_windows(axes: Axes, plain: Sequence[Row]) -> None:
    windows = [row["window"] for row in plain]
    for name, title, line, marker in (("saliency", "saliency", "-", "o"), ("cam", "CAM", "--", "s")):
        for figure, colour, region in (("ndr_recall", "#e67e22", "NDR"), ("dr_recall", "#27ae60", "DR")):
            entries = [row["correct"][name][figure] for row in plain]
            means = [charts.percent(entry["mean"]) for entry in entries]
            label = f"{region}-recall, {title}"
            axes.plot(windows, means, line, color=colour, marker=marker, label=label)
            for window, entry in zip(windows, entries, strict=True):
                for value in entry["seeds"]:
                    axes.plot(window, charts.percent(value), ".", color=colour, alpha=0.35, markersize=4)
    axes.set_xlabel("contribution window R, pixels a side")
    axes.set_ylabel("%")
    axes.set_xticks(windows)
    axes.set_ylim(0, 102)
    axes.set_title("Recalls at each map's best threshold (dots: seeds)", fontsize=10, loc="left")


def _draw_thresholds(axes: Axes, plain: Sequence[Row]) -> None:
    for row in plain:
        colour = COLOURS.get(row["kernel"], "#555555")
        for name, line, mark, size in (("saliency", "-", "*", 11), ("cam", "--", "s", 5)):
            entry = row["correct"][name]
            across, up = (
                [charts.percent(value) for value in entry["curve"][figure]]
                for figure in ("dr_recall", "ndr_recall")
            )
            best = [charts.percent(entry[figure]["mean"]) for figure in ("dr_recall", "ndr_recall")]
            label = f"F = {row['kernel']}" if name == "saliency" else None
            axes.plot(across, up, line, color=colour, label=label)
            axes.plot(*best, mark, color=colour, markersize=size)
    axes.set_xlabel("DR-recall, %")
    axes.set_ylabel("NDR-recall, %")
    axes.set_title("Every threshold; saliency solid, CAM dashed, marks: best mIoU", fontsize=10, loc="left")


def main(words: Sequence[str] | None = None) -> None:
    """Write the page and the picture from the JSON file."""
    Experiment(NAME, words).report(__doc__, page, figure)


if __name__ == "__main__":
    main()
