"""Pictures of results with matplotlib: a canvas, its PNG, axes, panels of maps."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

OUTLINE = "#5dade2"


@dataclass(frozen=True, eq=False)
class Panel:
    """An image or a map with the outline of its object.

    Attributes:
        title: above it.
        values: (H, W, 3) uint8 of an image, (H, W) in 0..1 of a map.
        outline: (H, W) bool.
    """

    title: str
    values: NDArray[Any]
    outline: NDArray[np.bool_]


def canvas(width: float, height: float, dpi: int = 150) -> Figure:
    """An empty picture of so many inches."""
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """The picture as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def gridded(axes: Axes) -> None:
    """A light grid behind the data, no frame above and to the right."""
    axes.grid(color="#ecf0f1")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def percent(value: float | None) -> float:
    """A share in %, NaN where it is undefined."""
    return float("nan") if value is None else 100 * value


def panels(rows: Sequence[Sequence[Panel]], width: float, height: float) -> bytes:
    """Images and maps in rows, as PNG."""
    figure = canvas(width, height)
    grid = figure.subplots(len(rows), max(len(row) for row in rows), squeeze=False)
    for line, row in zip(grid, rows, strict=True):
        for axes in line[len(row) :]:
            axes.axis("off")
        for axes, panel in zip(line, row, strict=False):
            if panel.values.ndim == 3:
                axes.imshow(panel.values)
            else:
                axes.imshow(panel.values.astype(np.float32), cmap="magma", vmin=0, vmax=1)
            axes.contour(panel.outline, [0.5], colors=OUTLINE, linewidths=0.8)
            axes.set_title(panel.title, fontsize=8)
            axes.set_xticks([])
            axes.set_yticks([])
    return png(figure)
