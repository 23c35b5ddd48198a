"""The page of the experiment on thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scripts.experiments.pages import between, commands, percent, table
from scripts.experiments.results import Experiment
from scripts.experiments.thresholds.measure import NAME, OTHER


def page(result: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    runs = result["runs"]
    picks = [{(pick["rule"], pick["on"]): pick for pick in run["picks"]} for run in runs]
    rows = [
        [f"{rule}, {_source(pick)}", *(_cell(other.get((rule, on))) for other in picks)]
        for (rule, on), pick in picks[0].items()
    ]
    best = [f"{percent(run['best']['miou'])} at {run['best']['threshold']:g}" for run in runs]
    rows.append(["best threshold of these images", *best])
    counts = [next(pick["images_picked"] for pick in run["picks"] if pick["on"] == OTHER) for run in runs]
    parts = [
        "# Where a threshold comes from\n",
        commands(NAME, result),
        "mIoU in % at the picked threshold, its interval (95 % over images; for a number of images over "
        "draws of these), and the gap to the best threshold of the same images in points. Other images: "
        f"{', '.join(map(str, counts))}.\n",
        table(["rule, picked on", *(run["title"] for run in runs)], rows) + "\n",
    ]
    return "\n".join(parts)


def _source(pick: Mapping[str, Any]) -> str:
    if pick["on"] == "free":
        return "no ground truth"
    return OTHER if pick["on"] == OTHER else f"{pick['images_picked']} of these images"


def _cell(pick: Mapping[str, Any] | None) -> str:
    if pick is None or pick["miou"] is None:
        return "-"
    interval = between(pick["interval"])
    return f"{percent(pick['miou'])} ({interval}) at {pick['threshold']:g}, gap {100 * pick['gap']:.1f}"


def main(words: Sequence[str] | None = None) -> None:
    """Write the page from the JSON file."""
    Experiment(NAME, words).report(__doc__, page)


if __name__ == "__main__":
    main()
