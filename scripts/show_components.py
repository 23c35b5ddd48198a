"""Ten images before and after each component of post-processing, side by side.

    pl generate configs/demo/crops.yaml -o runs/demo-crops --set output.maps=true
    python scripts/show_components.py runs/demo-crops -o docs/results/components_scenes.jpg

The run must hold stored maps, its data ground truth. A column's threshold is the one of the largest mIoU on
the run's other images. Below each mask: its own mIoU over the classes of the image, the threshold.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from _experiment import miou, say
from _postprocessing import LEVELS, POSTS, Cell, Post
from _voc_maps import matrices
from numpy.typing import NDArray

from pseudolabel import draws, images
from pseudolabel.figures.contact_sheet import contact_sheet
from pseudolabel.figures.heat import heat
from pseudolabel.figures.overlays import overlay
from pseudolabel.metrics.confusion import confusion
from pseudolabel.pipeline import postprocessing
from pseudolabel.recipes.loading import load_recipe, plain_data
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.records import ImageRecord
from pseudolabel.runs.maps import read_maps
from pseudolabel.runs.run import Run
from pseudolabel.scoring.truth import Truth, of_reader

SHOWN = (
    "none",
    "box",
    "Gaussian",
    "superpixel mean",
    "affinity",
    "random walk",
    "superpixel resolve",
    "CRF",
    "box + superpixel resolve + CRF",
)


def main() -> None:
    """Pick thresholds, draw the sheet."""
    given = _options()
    recipe = Run.open(given.run).recipe
    if len(recipe.maps) != 1:
        raise SystemExit(f"{given.run}: holds {len(recipe.maps)} branches; take a run with one")
    judged = of_reader(recipe.data)
    able = [one for one in judged.records if one.labels and (given.run / _maps_of(one)).is_file()]
    ranked = sorted(able, key=lambda one: draws.seed_of("shown", one.id))
    shown, others = ranked[: given.count], ranked[given.count :][: given.others]
    ways: dict[str, tuple[GenerateRecipe, float]] = {}
    with tempfile.TemporaryDirectory() as superpixels:
        for name in given.post:
            chosen = _recipe(recipe, POSTS[name])
            ways[name] = chosen, _threshold(chosen, given.run, others, judged, Path(superpixels))
    drawn = [_row(record, judged, given.run, ways) for record in shown]
    heads = ["image", "truth", "map", *ways]
    sheet = contact_sheet([row for row, _ in drawn], heads, cell=given.cell, notes=[one for _, one in drawn])
    given.out.parent.mkdir(parents=True, exist_ok=True)
    images.write_image(given.out, sheet)
    say(f"wrote {given.out}")


def _recipe(recipe: GenerateRecipe, post: Post) -> GenerateRecipe:
    """The run's recipe with another way from its maps to masks."""
    plain = plain_data(recipe)
    cams = "cam" in plain["maps"][0]["method"]["name"]  # cam, grad_cam, layer_cam, ...
    scaled = {"name": "normalise", "method": "max"} if cams else {"name": "normalise"}
    plain["maps"][0]["refine"] = post.refiners([scaled], gradients=not cams)
    return load_recipe({**plain, **post.after()}, GenerateRecipe)


def _maps_of(record: ImageRecord) -> str:
    return f"maps/{record.id}.safetensors"


def _threshold(
    recipe: GenerateRecipe, run: Path, records: Sequence[ImageRecord], judged: Truth, superpixels: Path
) -> float:
    """The one of the largest mIoU on these images; before a CRF the one without it."""
    bare = recipe.model_copy(update={"postprocess": ()})
    cell = Cell(bare, (run / "maps",), run / "maps", LEVELS, superpixels)
    names = len(judged.space.names)
    sums = np.zeros((len(LEVELS), names, names + 1), np.int64)
    for record in records:
        ids, counts = cell.counts(record)
        sums += matrices(counts, ids, names)[:, 0]
    return LEVELS[int(np.nanargmax(miou(sums)))]


def _row(
    record: ImageRecord, judged: Truth, run: Path, ways: dict[str, tuple[GenerateRecipe, float]]
) -> tuple[list[NDArray[np.uint8]], list[str]]:
    """Cells and notes of one image."""
    image, truth = images.read_image(record.image), judged.mask(record)
    maps = read_maps(run / _maps_of(record))
    first = maps[0].values[0].numpy()
    high = float(np.quantile(np.abs(first), 0.995))
    assert record.labels is not None
    row = [image, overlay(image, truth), heat(image, np.abs(first), 0.0, high)]
    notes = ["", "", judged.space.names[record.labels[0]]]
    for recipe, level in ways.values():
        with torch.no_grad():
            scores = postprocessing.combine(maps, image, [one.refine for one in recipe.maps], recipe.fuse)
            mask = postprocessing.sweep(scores, image, recipe.background, (level,), recipe.postprocess)[0]
        row.append(overlay(image, mask))
        found = float(miou(confusion(truth, mask, len(judged.space.names))))
        notes.append(f"{100 * found:.0f} % at {level:g}")
    return row, notes


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="a run of `pl generate` with stored maps")
    parser.add_argument("--post", nargs="+", choices=POSTS, default=list(SHOWN))
    parser.add_argument("--count", type=int, default=10, help="images shown, drawn by their ids")
    parser.add_argument("--others", type=int, default=60, help="images that thresholds are picked on")
    parser.add_argument("--cell", type=int, default=150, help="long side of an image on the sheet (pixels)")
    parser.add_argument("-o", "--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
