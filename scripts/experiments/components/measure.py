"""Thresholds of each way from maps to masks, and its mIoU on ten images of a run.

    pl generate configs/demo/crops.yaml -o runs/demo-crops --set output.maps=true
    python -m scripts.experiments.components.measure runs/demo-crops

The run must hold stored maps, its data ground truth. The threshold of a way is the one of the largest mIoU on
the run's other images; `report` draws the ten images with their masks.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pseudolabel import draws, images
from pseudolabel.metrics.confusion import confusion
from pseudolabel.metrics.figure_arrays import figure_arrays
from pseudolabel.recipes.loading import load_recipe, plain_data
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.records import ImageRecord
from pseudolabel.runs.run import Run
from pseudolabel.scoring.truth import Truth, of_reader
from scripts.experiments.intervals import best_index
from scripts.experiments.results import Experiment, say
from scripts.experiments.stored_maps import LEVELS, POSTS, Cell, Post, is_stored, maps_of, masks_at
from scripts.experiments.voc_maps import matrices

NAME = "components"
SHOWN = (
    "none",
    "box",
    "Gaussian",
    "superpixel mean",
    "affinity",
    "random walk",
    "superpixel background",
    "CRF",
    "box + superpixel background + CRF",
)


def main(words: Sequence[str] | None = None) -> None:
    """Pick thresholds, score the images that are shown, write the result."""
    experiment = Experiment(NAME, words)
    options = _options(experiment)
    recipe = Run.open(options.run).recipe
    if len(recipe.maps) != 1:
        raise SystemExit(f"{options.run}: holds {len(recipe.maps)} branches; take a run with one")
    truth = of_reader(recipe.data)
    able = [record for record in truth.records if record.labels and is_stored(options.run, record)]
    ranked = sorted(able, key=lambda record: draws.seed_of("shown", record.id))
    shown, others = ranked[: options.count], ranked[options.count :][: options.others]
    ways: list[dict[str, Any]] = []
    for name in options.post:
        way = recipe_of(recipe, POSTS[name])
        level = _threshold(way, options.run, others, truth)
        scores = {record.id: _miou(record, truth, options.run, way, level) for record in shown}
        ways.append({"post": name, "threshold": level, "miou": scores})
        say(f"{name}: threshold {level:g}")
    result = {
        **experiment.about(),
        "run": str(options.run),
        "images_picked": len(others),
        "images": [record.id for record in shown],
        "ways": ways,
    }
    experiment.write(options.out, result)


def recipe_of(recipe: GenerateRecipe, post: Post) -> GenerateRecipe:
    """The run's recipe with another way from its maps to masks."""
    plain = plain_data(recipe)
    cams = "cam" in plain["maps"][0]["method"]["name"]  # cam, grad_cam, layer_cam, ...
    scaled = {"name": "normalise", "method": "max"} if cams else {"name": "normalise"}
    plain["maps"][0]["refine"] = post.refiners([scaled], gradients=not cams)
    return load_recipe({**plain, **post.after()}, GenerateRecipe)


def _threshold(recipe: GenerateRecipe, run: Path, records: Sequence[ImageRecord], truth: Truth) -> float:
    """The one of the largest mIoU on these images; before a CRF the one without it."""
    bare = recipe.model_copy(update={"postprocess": ()})
    names = len(truth.space.names)
    sums = np.zeros((len(LEVELS), names, names + 1), np.int64)
    with tempfile.TemporaryDirectory() as superpixels:
        cell = Cell(bare, (run,), run, LEVELS, Path(superpixels))
        for record in records:
            ids, counts = cell.counts(record)
            sums += matrices(counts, ids, names)[:, 0]
    return LEVELS[best_index(figure_arrays(sums)["miou"])]


def _miou(record: ImageRecord, truth: Truth, run: Path, recipe: GenerateRecipe, level: float) -> float:
    """mIoU of one image's mask over the classes of the image."""
    mask = masks_at(maps_of(run, record), images.read_image(record.image), recipe, (level,))[0]
    counts = confusion(truth.mask(record), mask, len(truth.space.names))
    return float(figure_arrays(counts)["miou"])


def _options(experiment: Experiment) -> argparse.Namespace:
    parser = experiment.parser(__doc__)
    parser.add_argument("run", type=Path, help="a run of `pl generate` with stored maps")
    parser.add_argument("--post", nargs="+", choices=POSTS, default=list(SHOWN))
    parser.add_argument("--count", type=int, default=10, help="images shown, drawn by their ids")
    parser.add_argument("--others", type=int, default=60, help="images that thresholds are picked on")
    return experiment.options(parser)


if __name__ == "__main__":
    main()
