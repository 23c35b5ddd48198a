"""The images of the contribution-window experiment."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from _contribution_window import Digits, Kind


def maps(measured: dict[Kind, list[dict[str, Any]]], test: Digits) -> bytes:
    """Maps of three digits of the data set, for the eye; stays beside what is kept, out of the results."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    image = Figure(figsize=(11, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(image)
    kinds = [kind for kind in measured if not kind.bias]
    shown = _examples([measured[kind][0] for kind in kinds if kind.kernel > 1], test)
    cells = image.subplots(len(shown), 1 + 2 * len(kinds), squeeze=False)
    for at, index in enumerate(shown):
        panels = [("digit", test.images[index, 0].numpy(), "gray")]
        for name, words in (("cam", "CAM"), ("saliency", "saliency")):
            panels += [
                (f"{words}, R = {kind.window}", measured[kind][0][f"{name}_example"][index], "magma")
                for kind in kinds
            ]
        for cell, (title, values, colour) in zip(cells[at], panels, strict=True):
            cell.imshow(np.asarray(values, dtype=np.float32), cmap=colour, vmin=0, vmax=1)
            if colour == "magma":
                cell.contour(test.images[index, 0].numpy(), [0.5], colors="#5dade2", linewidths=0.7)
            cell.set_xticks([])
            cell.set_yticks([])
            if at == 0:
                cell.set_title(title, fontsize=8)
    image.suptitle(
        "What CAM and saliency of the same network see of a digit (its outline in blue)", fontsize=11
    )
    buffer = io.BytesIO()
    image.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def figure(rows: Sequence[dict[str, Any]]) -> bytes:
    """Recalls over the window, and DR- against NDR-recall over the threshold."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = {1: "#b03a2e", 3: "#e67e22", 5: "#27ae60", 7: "#1b4f72"}
    plain = [row for row in rows if not row["bias"]]
    image = Figure(figsize=(11, 4.4), dpi=150, layout="constrained")
    FigureCanvasAgg(image)
    left, right = image.subplots(1, 2)
    windows = [row["window"] for row in plain]
    for name, line, marker in (("saliency", "-", "o"), ("cam", "--", "s")):
        for what, colour, words in (("ndr_recall", "#e67e22", "NDR"), ("dr_recall", "#27ae60", "DR")):
            entries = [row["correct"][name][what] for row in plain]
            label = f"{words}-recall, {'CAM' if name == 'cam' else name}"
            left.plot(
                windows, [_points(e["mean"]) for e in entries], line, color=colour, marker=marker, label=label
            )
            for window, entry in zip(windows, entries, strict=True):
                for value in entry["seeds"]:
                    left.plot(window, _points(value), ".", color=colour, alpha=0.35, markersize=4)
    left.set_xlabel("contribution window R, pixels a side")
    left.set_ylabel("%")
    left.set_xticks(windows)
    left.set_ylim(0, 102)
    left.set_title("Recalls at each map's best threshold (dots: seeds)", fontsize=10, loc="left")
    for row in plain:
        for name, line in (("saliency", "-"), ("cam", "--")):
            curve = row["correct"][name]["curve"]
            right.plot(
                [_points(v) for v in curve["dr_recall"]],
                [_points(v) for v in curve["ndr_recall"]],
                line,
                color=colours.get(row["kernel"], "#555555"),
                label=f"F = {row['kernel']}" if name == "saliency" else None,
            )
            best = row["correct"][name]
            right.plot(
                _points(best["dr_recall"]["mean"]),
                _points(best["ndr_recall"]["mean"]),
                "*" if name == "saliency" else "s",
                color=colours.get(row["kernel"], "#555555"),
                markersize=11 if name == "saliency" else 5,
            )
    right.set_xlabel("DR-recall, %")
    right.set_ylabel("NDR-recall, %")
    right.set_title("Every threshold; saliency solid, CAM dashed, marks: best mIoU", fontsize=10, loc="left")
    for axes in (left, right):
        axes.grid(color="#ecf0f1")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    buffer = io.BytesIO()
    image.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _examples(seeds: Sequence[dict[str, Any]], test: Digits) -> list[int]:
    """Three images of different digits that every shown network gets right, or the first ones."""
    count = min(64, len(test.digits))
    right = np.ones(count, dtype=bool)
    for one in seeds:
        right &= one["correct"][:count]
    found: list[int] = []
    for index in np.flatnonzero(right):
        if int(test.digits[index]) not in [int(test.digits[i]) for i in found]:
            found.append(int(index))
        if len(found) == 3:
            return found
    return list(range(min(3, count)))


def _points(value: float | None) -> float:
    return float("nan") if value is None else 100 * value
