"""The page of the experiment on precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scripts.experiments.pages import commands, percent, table
from scripts.experiments.precision.measure import NAME, PRECISIONS
from scripts.experiments.results import Experiment


def page(result: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    head = ["recipe", "images", "pixels that differ", "mIoU float32", "bf16", "images/s float32", "bf16"]
    rows = []
    for row in result["recipes"]:
        cells = [row["recipe"], str(row["images"]), f"{percent(row['pixels_that_differ'], 2)} %"]
        cells += [percent(row[precision]["miou"], 2) for precision in PRECISIONS]
        rows.append([*cells, *(f"{row[precision]['images_per_second']:.2f}" for precision in PRECISIONS)])
    return "\n".join(["# bf16 against float32\n", commands(NAME, result), table(head, rows) + "\n"])


def main(words: Sequence[str] | None = None) -> None:
    """Write the page from the JSON file."""
    Experiment(NAME, words).report(__doc__, page)


if __name__ == "__main__":
    main()
