"""What bf16 costs and gains: masks of the same recipe in float32 and in bf16, compared.

    python -m scripts.experiments.precision.measure configs/voc/cam.yaml configs/voc/saliency.yaml
        --set data.root=VOC2012 --set data.split=val

For each recipe: share of pixels whose class differs, mIoU of both, images a second of both.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import pseudolabel
from pseudolabel import masks
from scripts.experiments.results import Experiment, say

NAME = "precision"
PRECISIONS = ("float32", "bf16")


def main(words: Sequence[str] | None = None) -> None:
    """Run every recipe in both precisions, write the result."""
    experiment = Experiment(NAME, words)
    parser = experiment.parser(__doc__)
    parser.add_argument("recipes", type=Path, nargs="+")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--average-over", type=lambda text: text.split(","), default=None)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--device", default="auto")
    options = experiment.options(parser)
    recipes = [{"recipe": recipe.stem, **compared(recipe, options)} for recipe in options.recipes]
    experiment.write(options.out, {**experiment.about(), "recipes": recipes})


def compared(recipe: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One recipe in both precisions."""
    row: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        runs = {precision: Path(temporary) / precision for precision in PRECISIONS}
        for precision, run in runs.items():
            overrides = [*options.overrides, f"precision={precision}"]
            summary = pseudolabel.generate(
                recipe, run, overrides=overrides, device=options.device, limit=options.limit, quiet=True
            )
            scored = pseudolabel.evaluate(
                run, average_over=options.average_over, limit=options.limit, quiet=True
            )
            row[precision] = {"miou": scored.miou, "images_per_second": summary.images_per_second}
            row["images"] = scored.images
        pixels = different = 0
        for path in sorted((runs[PRECISIONS[0]] / "masks").iterdir()):
            first, second = (masks.read_mask(run / "masks" / path.name) for run in runs.values())
            pixels += first.size
            different += int(np.count_nonzero(first != second))
    row["pixels_that_differ"] = different / pixels
    say(f"{recipe.stem}: {row}")
    return row


if __name__ == "__main__":
    main()
