"""Charts of a comparison as SVG: scores by candidate, and what every threshold would have given."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Paul Tol's bright scheme, apart for colour-blind eyes; the truth is grey.
COLOURS = ("#4477AA", "#EE6677", "#228833", "#AA3377", "#CCBB44", "#66CCEE")
TRUTH = "#8A9099"
MOST_NAMED = 8  # curves in a legend
INK, GRID = "#20262E", "#E6E9ED"
STYLE: Any = {
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": "#B5BBC3",
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "comparison",  # the same figures give the same bytes
    "svg.fonttype": "none",  # letters stay letters: a browser has fonts for any script
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],  # the first is what widths are measured in
    "text.parse_math": False,  # a name with dollar signs is a name
}


def colours(candidates: Sequence[Mapping[str, Any]]) -> list[str]:
    """A colour for each candidate, the same in every chart."""
    chosen, used = [], 0
    for candidate in candidates:
        if candidate["kind"] == "truth":
            chosen.append(TRUTH)
        else:
            chosen.append(COLOURS[used % len(COLOURS)])
            used += 1
    return chosen


def scores(candidates: Sequence[Mapping[str, Any]]) -> str:
    """Bars of the network's mIoU and of the masks' mIoU, DR- and NDR-recall; undefined ones are left out."""
    panels: list[tuple[str, list[float | None]]] = [
        ("network mIoU", [candidate["network"]["miou"] for candidate in candidates]),
        ("mask mIoU", [_figure(candidate, "miou") for candidate in candidates]),
        ("mask DR-recall", [_figure(candidate, "dr_recall") for candidate in candidates]),
        ("mask NDR-recall", [_figure(candidate, "ndr_recall") for candidate in candidates]),
    ]
    panels = [(title, values) for title, values in panels if any(value is not None for value in values)]

    def draw(figure: Figure) -> None:
        axes_row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, values) in zip(axes_row, panels, strict=True):
            _bars(axes, title, values, colours(candidates))
        axes_row[0].set_yticks(
            range(len(candidates)), [_short(candidate["name"]) for candidate in candidates]
        )

    return _svg(draw, (2.7 * len(panels) + 1, 0.42 * len(candidates) + 0.75))


def thresholds(candidates: Sequence[Mapping[str, Any]], split: str) -> str | None:
    """Masks' mIoU over the threshold and over NDR-recall, the threshold that was taken marked.

    Returns:
        SVG, or None where no candidate was swept.
    """
    paint = colours(candidates)
    swept = [
        (candidate, colour) for candidate, colour in zip(candidates, paint, strict=True) if candidate["sweep"]
    ]
    if not swept:
        return None
    regions = any(row["ndr_recall"] is not None for candidate, _ in swept for row in candidate["sweep"])

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2 if regions else 1, sharey=True, squeeze=False)[0]
        for axes, key in zip(panels, ("threshold", "ndr_recall"), strict=False):
            for candidate, colour in swept:
                _curve(axes, candidate, key, colour)
            axes.grid(color=GRID)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        panels[0].set_xlabel("threshold")
        panels[0].set_ylabel(f"mask mIoU on {_short(split)}, %")
        if regions:
            panels[1].set_xlabel(f"mask NDR-recall on {_short(split)}, %")
        if len(swept) <= MOST_NAMED:  # more would bury the curves; the table's dots tell them apart
            panels[-1].legend(frameon=False, loc="best")

    return _svg(draw, (11.8 if regions else 6.0, 3.7))


def _curve(axes: Axes, candidate: Mapping[str, Any], key: str, colour: str) -> None:
    scale = 1 if key == "threshold" else 100
    rows = [row for row in candidate["sweep"] if row["miou"] is not None and row[key] is not None]
    across, up = [scale * row[key] for row in rows], [100 * row["miou"] for row in rows]
    axes.plot(across, up, color=colour, linewidth=2, label=_short(candidate["name"]))
    taken = [i for i, row in enumerate(rows) if abs(row["threshold"] - candidate["threshold"]) < 1e-9]
    for i in taken:
        axes.plot(across[i], up[i], "o", color=colour, markersize=7, markeredgecolor="white")


def _bars(axes: Axes, title: str, values: Sequence[float | None], paint: Sequence[str]) -> None:
    for place, (value, colour) in enumerate(zip(values, paint, strict=True)):
        if value is None:
            axes.text(2, place, "–", va="center", color=TRUTH)
            continue
        axes.barh(place, 100 * value, color=colour, height=0.68)
        axes.text(100 * value + 1.5, place, f"{100 * value:.1f}", va="center", fontweight="bold")
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
    axes.set_xlim(0, 116)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_ylim(len(values) - 0.45, -0.55)
    axes.grid(axis="x", color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _svg(draw: Any, size: tuple[float, float]) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of the measuring, not the showing
        # Figure and canvas by hand: pyplot would keep global state and might look for a screen.
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _figure(candidate: Mapping[str, Any], key: str) -> float | None:
    value = (candidate["report"] or {}).get(key)
    return None if value is None else float(value)


def _short(text: str) -> str:
    """A name that fits beside a bar; what does not print is left out, for XML cannot hold it."""
    shown = "".join(letter for letter in " ".join(text.split()) if letter.isprintable())
    return shown if len(shown) <= 24 else shown[:23] + "…"
