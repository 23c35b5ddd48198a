"""Loss and validation mIoU over the epochs, as one image."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any


def draw(history: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG of the curves.

    Args:
        history: rows of metrics.jsonl: `epoch`, `loss`, and `miou` where it was validated.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for axes, key, title, colour in (
        (left, "loss", "training loss", "#3b6ea8"),
        (right, "miou", "validation mIoU", "#b5541c"),
    ):
        rows = [row for row in history if row.get(key) is not None]
        axes.plot([row["epoch"] for row in rows], [row[key] for row in rows], "o-", color=colour, ms=4)
        axes.set_title(title, loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if rows:
            last = rows[-1]
            axes.annotate(
                f"{last[key]:.3f}", (last["epoch"], last[key]), (0, 8), textcoords="offset points", ha="right"
            )
            axes.margins(y=0.2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
