"""Where a threshold comes from and what that costs: other images, a few images, rules without ground truth.

    python -m scripts.experiments.thresholds.measure CAM=runs/cam/val,runs/cam/train

Each argument is a title, a run of `pl generate` with stored maps that is reported on, and one over other
images. `gap` is the mIoU that the best threshold of the same images would have given beyond.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pseudolabel
from scripts.experiments.results import Experiment, say

NAME = "thresholds"
OTHER = "other images"  # `on` of the rule that picks on the second run


def main(words: Sequence[str] | None = None) -> None:
    """Sweep each run, write the picks."""
    experiment = Experiment(NAME, words)
    parser = experiment.parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="TITLE=RUN,OTHER")
    parser.add_argument("--few", type=int, nargs="+", default=[5, 20, 60], help="numbers of labelled images")
    parser.add_argument("--average-over", nargs="+")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--workers", type=int, default=2)
    options = experiment.options(parser)
    runs: list[dict[str, Any]] = []
    for text in options.runs:
        title, _, folders = text.partition("=")
        run, _, other = folders.partition(",")
        swept = pseudolabel.sweep(
            run,
            average_over=options.average_over,
            pick_on=[other, *map(str, options.few), "free"],
            overrides=options.overrides,
            workers=options.workers,
            quiet=True,
        )
        picks = [{**pick, "on": OTHER if pick["on"] == other else pick["on"]} for pick in swept.picks]
        runs.append({"title": title, "images": swept.images, "best": swept.best, "picks": picks})
        say(f"{title}: done")
    experiment.write(options.out, {**experiment.about(), "average_over": options.average_over, "runs": runs})


if __name__ == "__main__":
    main()
