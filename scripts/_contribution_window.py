"""What the contribution-window experiment makes of its measurements: rows, claims, page, figure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _experiment import (
    FIGURES,
    Values,
    between,
    drawn,
    figures_of,
    interval,
    mean_of,
    percent,
    table,
    times_of,
)
from numpy.typing import NDArray
from torch import Tensor

from pseudolabel.metrics.confusion import defined

LAYERS = 5
MAPS = ("cam", "saliency")
THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(100))


@dataclass(frozen=True)
class Digits:
    """Images (N, 3, 28, 28) float32 in 0..1 and digits (N,)."""

    images: Tensor
    digits: Tensor

    def first(self, count: int | None) -> Digits:
        """The first so many."""
        return Digits(self.images[:count], self.digits[:count])

    @property
    def truth(self) -> NDArray[np.uint8]:
        """(N, 28, 28) uint8: digit + 1 where the intensity is above 0.5, else background."""
        inside = self.images[:, 0] > 0.5
        found: NDArray[np.uint8] = (inside * (self.digits + 1)[:, None, None]).to(torch.uint8).numpy()
        return found


@dataclass(frozen=True)
class Kind:
    """One kind of network: its kernel, with or without bias in the convolutions."""

    kernel: int
    bias: bool

    @property
    def window(self) -> int:
        """R, pixels a side that a feature cell sees."""
        return LAYERS * (self.kernel - 1) + 1

    def __str__(self) -> str:
        return f"{self.kernel}{' with bias' if self.bias else ''}"


def row_of(kind: Kind, seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All figures of one kind of network: over seeds, with intervals over images."""
    accuracy = [float(one["correct"].mean()) for one in seeds]
    row: dict[str, Any] = {
        "kernel": kind.kernel,
        "bias": kind.bias,
        "window": kind.window,
        "accuracy": _spread(accuracy),
        "exact": _exact_of(seeds, "exact_"),
        "exact_sparse": _exact_of(seeds, "sparse_"),
    }
    for subset in ("correct", "all"):
        row[subset] = {}
        draws_of: dict[str, dict[str, Values]] = {}
        for name in MAPS:
            entry: dict[str, Any] = {}
            best = [int(one[f"{name}_{subset}_best"]) for one in seeds]
            entry["threshold"] = [THRESHOLDS[index] for index in best]
            at_best = [
                figures_of(one[f"{name}_{subset}_curve"][index])
                for one, index in zip(seeds, best, strict=True)
            ]
            draws_of[name] = _drawn(seeds, name, subset)
            for what in FIGURES:
                values = [float(one[what]) for one in at_best]
                entry[what] = {**_spread(values), "interval": interval(draws_of[name][what])}
            curves = [figures_of(one[f"{name}_{subset}_curve"]) for one in seeds]
            entry["curve"] = {
                what: [defined(float(value)) for value in mean_of([c[what] for c in curves])]
                for what in FIGURES
            }
            row[subset][name] = entry
        row[subset]["saliency_minus_cam"] = {
            what: {
                "mean": _difference(row[subset], what),
                "interval": interval(draws_of["saliency"][what] - draws_of["cam"][what]),
            }
            for what in FIGURES
        }
        row[subset]["ndr_recall_at_cam_precision"] = _at_equal_precision(seeds, subset)
    return row


def _drawn(seeds: Sequence[dict[str, Any]], name: str, subset: str) -> dict[str, Values]:
    """Each figure on drawn sets of images, mean over seeds; the same images for every seed and map."""
    found = []
    for one in seeds:
        matrices = one[f"{name}_{subset}_images"].astype(np.int64)
        found.append(drawn(matrices, times_of(len(matrices))))
    return {what: mean_of([one[what] for one in found]) for what in FIGURES}


def _at_equal_precision(seeds: Sequence[dict[str, Any]], subset: str) -> dict[str, Any]:
    """Saliency's NDR-recall at the lowest threshold that is as precise as CAM at its best."""
    values = []
    for one in seeds:
        cam = figures_of(one[f"cam_{subset}_curve"][int(one[f"cam_{subset}_best"])])
        curve = figures_of(one[f"saliency_{subset}_curve"])
        enough = np.flatnonzero(curve["fg_precision"] >= cam["fg_precision"])
        values.append(float(curve["ndr_recall"][enough].max()) if len(enough) else float("nan"))
    return _spread(values)


def _difference(entry: dict[str, Any], what: str) -> float | None:
    one, other = entry["saliency"][what]["mean"], entry["cam"][what]["mean"]
    return None if one is None or other is None else one - other


def _exact_of(seeds: Sequence[dict[str, Any]], prefix: str) -> dict[str, Any]:
    values = {
        key[len(prefix) :]: [one[key].item() if hasattr(one[key], "item") else one[key] for one in seeds]
        for key in seeds[0]
        if key.startswith(prefix)
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
    kept = [value for value in values if not np.isnan(value)]
    return {
        "mean": float(np.mean(kept)) if kept else None,
        "spread": float(np.std(kept, ddof=1)) if len(kept) > 1 else None,
        "seeds": [defined(value) for value in values],
    }


def _label(row: dict[str, Any]) -> str:
    return f"{row['kernel']}{' (bias)' if row['bias'] else ''}"


def claims(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What the figures say, in words, and what speaks against the paper."""
    found = []
    checked = [row for row in rows if not row["bias"]]
    pixels = sum(row[where]["pixels_checked"] for row in checked for where in ("exact", "exact_sparse"))
    largest = max(
        (row[where]["largest_gradient_outside"] or 0.0)
        for row in checked
        for where in ("exact", "exact_sparse")
    )
    found.append(
        f"Outside (R - 1) / 2 of every activated cell the gradient is "
        f"{'exactly 0' if largest == 0 else f'as large as {largest:.3g}, against the theorem'}, "
        f"on {pixels} pixels of networks without bias in their convolutions."
    )
    control = [row for row in checked if row["kernel"] > 1]
    if control:
        seen = ", ".join(f"{row['exact_sparse']['control_nonzero']} (F = {row['kernel']})" for row in control)
        found.append(f"With a zone one pixel narrower the same check finds gradients that are not 0: {seen}.")
    one = [row for row in checked if row["kernel"] == 1]
    if one:
        beyond = one[0]["exact"]["gradient_beyond_active_pixels"]
        found.append(f"F = 1: {beyond} pixels have a gradient without being activated themselves.")
    for row in rows:
        entry = row["correct"]
        difference = entry["saliency_minus_cam"]["ndr_recall"]
        if difference["mean"] is None:
            found.append(f"F = {_label(row)}: CAM misses nothing of the digits, so NDR-recall says nothing.")
            continue
        bounds = difference["interval"]
        verdict = (
            "more" if (bounds[0] or 0) > 0 else "less" if (bounds[1] or 0) < 0 else "no more and no less"
        )
        found.append(
            f"F = {_label(row)} (R = {row['window']}): of what CAM misses, saliency recovers "
            f"{percent(entry['saliency']['ndr_recall']['mean'])} %, CAM itself at its best threshold "
            f"{percent(entry['cam']['ndr_recall']['mean'])} %; {verdict} "
            f"({between(bounds, sign=True)} points)."
        )
    plain = [row for row in checked if row["correct"]["saliency"]["ndr_recall"]["mean"] is not None]
    values = [row["correct"]["saliency"]["ndr_recall"]["mean"] for row in plain]
    if len(values) > 1:
        steps = [after - before for before, after in itertools.pairwise(values)]
        rises = all(step > 0 for step in steps)
        shown = ", ".join(f"{percent(v)} (F = {r['kernel']})" for v, r in zip(values, plain, strict=True))
        found.append(
            f"Saliency's NDR-recall with the window: {shown}. The paper says that it rises with the window; "
            + (
                "here it does at every step."
                if rises
                else "here it does not at every step, which contradicts it."
            )
        )
    return found


def page(result: dict[str, Any]) -> str:
    """The results as Markdown."""
    minutes = result["seconds"] / 60
    parts = [
        "# Contribution window: MNIST digits, five convolutions of F x F\n",
        f"```\n{result['command']}\n```\n",
        "\n".join(f"- {claim}" for claim in result["claims"]) + "\n",
        "![Recalls over the window, DR- against NDR-recall](contribution_window.png)\n",
        "## Correctly classified test images\n",
        _scores(result["rows"], "correct"),
        "## All test images\n",
        _scores(result["rows"], "all"),
        f"In %, mean over seeds {', '.join(map(str, result['seeds']))}; ± is the standard deviation between "
        'seeds. "at equal precision": saliency\'s NDR-recall at the lowest threshold at which its '
        "FG-precision is that of CAM at its best. The threshold is each map's best one on these images "
        "(mIoU), so it has seen their ground truth. R: pixels a side that a feature cell sees.\n",
        "## Exact zeros, float64, direct convolution\n",
        _zeros(result["rows"]),
        "The largest absolute gradient outside (R - 1) / 2 of every activated cell. 'few active': the same "
        "network with a bias before its last ReLU that leaves only middle cells activated, on a larger "
        "canvas of faint noise, so that there is kind outside the zone and the inner layers are active up "
        "to its edge; 'not tested' where no pixel lies outside. Control: pixels with a gradient outside a "
        "zone one pixel narrower. On black, networks without bias reach less far than R: a first cell "
        "without a digit's pixel under it is 0.\n",
        f"{result['train_images']} training and {result['test_images']} test images (no official split), "
        f"{result['epochs']} epochs of "
        f"Adam in batches of {result['batch']}; "
        f"reference: {result['reference']}; truth: {result['truth']}. "
        f"{result['machine']}, {result['threads']} threads; this call {minutes:.0f} min "
        "(networks and measurements that were kept from before not counted).\n",
        "Without bias and with F = 1 every cell is its pixel's intensity times one fixed vector: all "
        "images get the same answer, CAM is the image and the gradient is flat, so that row has "
        "images of one digit only; the row with bias is beside it for that reason. The paper's own "
        "figures for MNIST were not to be had; what it says is compared in words.\n",
    ]
    return "\n".join(parts)


def _scores(rows: Sequence[dict[str, Any]], subset: str) -> str:
    head = ["F", "R", "accuracy", "map", "mIoU", "NDR-recall", "DR-recall", "FG-precision", "threshold"]
    head += ["NDR-recall, interval", "at equal precision"]
    lines = []
    for row in rows:
        for name in MAPS:
            entry = row[subset][name]
            cells = [_label(row), str(row["window"]), _cell(row["accuracy"]), name]
            cells += [_cell(entry[what]) for what in FIGURES]
            cells.append(", ".join(f"{value:g}" for value in entry["threshold"]))
            cells.append(between(entry["ndr_recall"]["interval"]))
            cells.append(_cell(row[subset]["ndr_recall_at_cam_precision"]) if name == "saliency" else "")
            lines.append(cells)
    return table(head, lines) + "\n"


def _cell(values: dict[str, Any]) -> str:
    spread = values["spread"]
    return percent(values["mean"]) + ("" if spread is None else f" ± {percent(spread)}")


def _zeros(rows: Sequence[dict[str, Any]]) -> str:
    head = ["F", "R", "images", "pixels outside", "largest gradient", "of at most", "exactly 0", "control"]
    lines = []
    for row in rows:
        for where, words in (("exact", ""), ("exact_sparse", ", few active")):
            entry = row[where]
            largest = entry["largest_gradient_outside"]
            lines.append(
                [
                    _label(row) + words,
                    str(row["window"]),
                    str(entry["images"]),
                    str(entry["pixels_checked"]),
                    "not tested" if largest is None else f"{largest:.3g}",
                    f"{entry['largest_gradient_anywhere']:.2g}",
                    percent(entry["zero_share"]),
                    "-" if entry["control_nonzero"] is None else str(entry["control_nonzero"]),
                ]
            )
    return table(head, lines) + "\n"
