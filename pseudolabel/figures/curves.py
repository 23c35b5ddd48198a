"""Curves as PNG: what a threshold does to the scores."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = {
    "miou": ("mIoU", "#1b4f72", 2.6),
    "dr_recall": ("DR-recall", "#27ae60", 1.6),
    "ndr_recall": ("NDR-recall", "#e67e22", 1.6),
    "part_recall": ("recall on planted parts", "#27ae60", 1.2),
    "body_recall": ("recall on planted bodies", "#e67e22", 1.2),
    "fg_precision": ("FG-precision", "#8e44ad", 1.6),
}
DASHED = ("part_recall", "body_recall")  # known by construction, beside the measured ones


def sweep_curves(  # long: one chart
    rows: Sequence[Mapping[str, Any]], best: int | None, key: str, over: str
) -> bytes:
    """Scores against the threshold, the best one marked.

    Args:
        rows: figures in 0..1 or None, one a threshold, ascending.
        best: index of the row with the largest mIoU, or None.
        key: what was swept, the label of the axis.
        over: which images, for the title.

    Returns:
        a PNG of 1280 x 800 pixels; undefined figures leave gaps.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Figure and canvas by hand: pyplot would keep global state and might look for a screen.
    figure = Figure(figsize=(8, 5), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = [row["threshold"] for row in rows]
    for name, (label, colour, width) in SHOWN.items():
        heights = [row.get(name) for row in rows]
        if all(height is None for height in heights):
            continue
        axes.plot(
            places,
            [float("nan") if height is None else 100 * height for height in heights],
            label=label,
            color=colour,
            linewidth=width,
            linestyle="--" if name in DASHED else "-",
            marker="o" if len(rows) < 40 else None,
            markersize=width * 1.5,
        )
    if best is not None:
        place, height = rows[best]["threshold"], 100 * rows[best]["miou"]
        axes.axvline(place, color="#7f8c8d", linewidth=1, linestyle=":", zorder=0)
        axes.plot([place], [height], marker="*", markersize=15, color="#c0392b", linestyle="none", zorder=5)
        axes.annotate(
            f"mIoU {height:.1f} at {place:g}",
            (place, height),
            xytext=(10, 9),
            textcoords="offset points",
            color="#c0392b",
            fontweight="bold",
            bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
            zorder=6,
        )
    axes.set_xlabel(key)
    axes.set_ylabel("%")
    axes.set_ylim(0, 100)
    axes.grid(color="#ecf0f1", linewidth=1)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"Every threshold on {over}; * picked on their masks", fontsize=11, loc="left")
    if axes.get_legend_handles_labels()[0]:  # below the axes: no curve runs through it
        figure.legend(frameon=False, ncols=3, loc="outside lower center")
    buffer = io.BytesIO()
    # Without the program's name and date, the same figures give the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
