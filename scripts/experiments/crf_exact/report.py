"""The page of the experiment on the exact CRF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scripts.experiments.crf_exact.measure import NAME, ROWS
from scripts.experiments.pages import commands, percent, points, table
from scripts.experiments.results import Experiment


def page(result: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    head = ["preset", "labels that differ: mean (range)", "mean change of Q", *ROWS, "exact - lattice"]
    rows = []
    for row in result["presets"]:
        labels = row["labels_that_differ"]
        low, high = (percent(end) for end in labels["range"])
        cells = [row["preset"], f"{percent(labels['mean'], 2)} % ({low} to {high})"]
        cells += [f"{row['mean_change_of_q']:.4f}", *(percent(row["miou"][name], 2) for name in ROWS)]
        rows.append([*cells, points(row["exact_minus_lattice"], 2)])
    parts = [
        "# The lattice of a dense CRF against its exact kernels\n",
        commands(NAME, result),
        f"{result['images']} images, {result['side']} pixels at the longer side; mIoU in %, its difference "
        "in points with the 95 % interval over images.\n",
        table(head, rows) + "\n",
    ]
    return "\n".join(parts)


def main(words: Sequence[str] | None = None) -> None:
    """Write the page from the JSON file."""
    Experiment(NAME, words).report(__doc__, page)


if __name__ == "__main__":
    main()
