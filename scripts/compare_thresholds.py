"""Where a threshold comes from and what that costs: other images, a few images, rules without ground truth.

    python scripts/compare_thresholds.py CAM=runs/cam/val,runs/cam/train -o docs/results/thresholds.json

Each argument is a title, a run of `pl generate` with stored maps that is reported on, and one over other
images. `gap` is the mIoU that the best threshold of the same images would have given beyond.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from _experiment import between, command, machine, percent, say, table

import pseudolabel
from pseudolabel.runs import disk


def main() -> None:
    """Sweep each run, write the picks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="TITLE=RUN,OTHER")
    parser.add_argument("--few", type=int, nargs="+", default=[5, 20, 60], help="numbers of labelled images")
    parser.add_argument("--average-over", nargs="+")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    found: dict[str, Any] = {}
    for text in given.runs:
        title, _, folders = text.partition("=")
        run, _, other = folders.partition(",")
        swept = pseudolabel.sweep(
            run,
            average_over=given.average_over,
            pick_on=[other, *map(str, given.few), "free"],
            overrides=given.overrides,
            workers=given.workers,
            quiet=True,
        )
        picks = [{**one, "on": "other images" if one["on"] == other else one["on"]} for one in swept.picks]
        found[title] = {"images": swept.images, "best": swept.best, "picks": picks}
        say(f"{title}: done")
    result = {"command": command(), **machine(), "average_over": given.average_over, "runs": found}
    disk.write_json(given.out, result)
    disk.write_text(given.out.with_suffix(".md"), _page(result))


def _page(result: dict[str, Any]) -> str:
    runs = result["runs"]
    best = {title: run["best"] for title, run in runs.items()}
    rows = []
    for first in next(iter(runs.values()))["picks"]:
        cells = []
        for run in runs.values():
            one = next((row for row in run["picks"] if _same(row, first)), None)
            cells.append("-" if one is None else _cell(one))
        rows.append([f"{first['rule']}, {_where(first)}", *cells])
    counted = [next(one["images_picked"] for one in run["picks"] if one["on"] == "other images")
               for run in runs.values()]  # fmt: skip
    limit = [f"{percent(one['miou'])} at {one['threshold']:g}" for one in best.values()]
    rows.append(["best threshold of these images", *limit])
    return "\n".join([
        "# Where a threshold comes from", "", "```", result["command"], "```", "",
        "mIoU in % at the picked threshold, its interval (95 % over images; for a number of images over "
        "draws of these), and the gap to the best threshold of the same images in points. Other images: "
        f"{', '.join(map(str, counted))}.", "",
        table(["rule, picked on", *runs], rows), "",
    ])  # fmt: skip


def _same(row: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(row["rule"] == other["rule"] and row["on"] == other["on"])


def _where(row: dict[str, Any]) -> str:
    if row["on"] == "free":
        return "no ground truth"
    if row["on"] == "other images":
        return "other images"
    return f"{row['images_picked']} of these images"


def _cell(row: dict[str, Any]) -> str:
    if row["miou"] is None:
        return "-"
    gap = 100 * row["gap"]
    return f"{percent(row['miou'])} ({between(row['interval'])}) at {row['threshold']:g}, gap {gap:.1f}"


if __name__ == "__main__":
    main()
