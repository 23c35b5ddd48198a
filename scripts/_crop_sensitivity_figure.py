"""The images of the crop-sensitivity experiment."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from _crop_sensitivity import COUNTS, SHOWN
from _voc_maps import InputImage


def maps(example: Mapping[str, Any], image: InputImage) -> bytes:
    """Maps of one image of the data set, for the eye; stays beside what is kept, out of the results."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    whole = Figure(figsize=(12, 2.2), dpi=150, layout="constrained")
    FigureCanvasAgg(whole)
    titles = ("100 crops, one chunk", "150 crops, one chunk", "150 crops, 100 + 50", "200 crops, no chunk")
    cells = whole.subplots(1, 1 + len(SHOWN))
    cells[0].imshow(image.pixels)
    cells[0].contour(image.truth == image.labels[0], [0.5], colors="#f1c40f", linewidths=1)
    cells[0].set_title("image, truth outlined", fontsize=9)
    for axes, name, title in zip(cells[1:], SHOWN, titles, strict=True):
        axes.imshow(example[f"example_{name}"].astype(np.float32), cmap="magma", vmin=0, vmax=1)
        axes.contour(image.truth == image.labels[0], [0.5], colors="#5dade2", linewidths=0.8)
        axes.set_title(title, fontsize=9)
    for axes in cells:
        axes.set_xticks([])
        axes.set_yticks([])
    buffer = io.BytesIO()
    whole.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def figure(result: Mapping[str, Any]) -> bytes:
    """mIoU over the count beside the authors'; the parts of the jump by cell."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    whole = Figure(figsize=(12, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(whole)
    left, right = whole.subplots(1, 2)
    grid = result["grid"]

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
        left.plot(COUNTS, [mean(name) - base for name in names], "o-", color=colour, label=label)
    theirs = [100 * np.mean([row["authors"][index][0] for row in grid]) for index in range(3)]
    label = "the authors, chunks of 100"
    left.plot(COUNTS, [one - theirs[0] for one in theirs], "s--", color="#7f8c8d", label=label)
    left.axhline(0, color="#2c3e50", linewidth=0.8)
    left.set_xticks(COUNTS)
    left.set_xlabel("crops")
    left.set_ylabel("points of mIoU above 100 crops in one chunk")
    left.set_title("More crops or one more chunk? Mean over the cells", fontsize=10, loc="left")
    places = np.arange(len(grid))
    for offset, name, colour, label in (
        (-0.27, "authors", "#7f8c8d", "the authors' jump"),
        (0.0, "chunk", "#c0392b", "ours: the second chunk"),
        (0.27, "count", "#e67e22", "ours: 50 more crops, one chunk"),
    ):
        if name == "authors":
            tall = [100 * (row["authors"][1][0] - row["authors"][0][0]) for row in grid]
            right.bar(places + offset, tall, 0.26, color=colour, label=label)
            continue
        entries = [row["steps"]["fixed"][name] for row in grid]
        tall = [100 * entry["value"] for entry in entries]
        spans = np.array(
            [
                [100 * (e["value"] - (e["interval"][0] or 0)), 100 * ((e["interval"][1] or 0) - e["value"])]
                for e in entries
            ]
        )
        right.bar(places + offset, tall, 0.26, color=colour, label=label)
        right.errorbar(places + offset, tall, yerr=spans.clip(min=0).T, fmt="none", ecolor="#2c3e50", lw=0.8)
    right.axhline(0, color="#2c3e50", linewidth=0.8)
    right.set_xticks(
        places, [f"{row['scale'][0]:g}-{row['scale'][1]:g}" for row in grid], rotation=35, fontsize=8
    )
    right.set_xlabel("scale, share of the image")
    right.set_ylabel("points of mIoU, 100 to 150 crops")
    right.set_title("Where the jump comes from (95 % intervals over images)", fontsize=10, loc="left")
    for axes in (left, right):
        axes.grid(color="#ecf0f1")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.24))
    buffer = io.BytesIO()
    whole.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
