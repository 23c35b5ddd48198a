"""The page of the experiment on branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scripts.experiments.branches.measure import NAME
from scripts.experiments.pages import commands, table
from scripts.experiments.results import Experiment


def page(result: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    rows = []
    for name, row in result["rows"].items():
        peak = f"{row['peak_bytes'] / 1e9:.2f} GB" if "peak_bytes" in row else ""
        rate = f"{result['images'] / row['seconds']:.2f}"
        rows.append([name, f"{row['seconds']:.1f}", rate, f"{row['ratio_to_recipe']:.2f}", peak])
    head = ["what", "seconds", "images a second", "of the recipe's time", "memory at its peak"]
    text = (
        f"`{result['recipe']}` on {result['images']} images, {result['rounds']} interleaved rounds, medians. "
        "Branches that see the same views share one forward; a forward holds no more pixels than a batch of "
        "the images has. "
        "One thread of this machine multiplies bf16 matrices "
        f"{result['bf16_over_float32']:.2f} times as fast as float32 ones; that bounds what bf16 brings."
    )
    beside = [
        [
            name,
            f"{row['seconds']:.1f}",
            f"{row['seconds_before']:.1f}",
            f"{row['ratio']:.2f}",
            str(row["images"]),
        ]
        for name, row in result["beside"].items()
    ]
    return "\n".join(
        [
            "# Branches that share their forwards\n",
            text + "\n",
            commands(NAME, result),
            table(head, rows) + "\n",
            "Other recipes, in rounds of their own:\n",
            table(["recipe", "seconds", "before", "of the time before", "images"], beside) + "\n",
        ]
    )


def main(words: Sequence[str] | None = None) -> None:
    """Write the page from the JSON file."""
    Experiment(NAME, words).report(__doc__, page)


if __name__ == "__main__":
    main()
