"""The page and the sheet of the experiment on components: image, truth, map and masks of each way.

The run that was measured must still be there, since the sheet shows its maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pseudolabel import images
from pseudolabel.figures.contact_sheet import contact_sheet
from pseudolabel.figures.heat import heat
from pseudolabel.figures.overlays import overlay
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.records import ImageRecord
from pseudolabel.runs.run import Run
from pseudolabel.scoring.truth import Truth, of_reader
from scripts.experiments.components.measure import NAME, recipe_of
from scripts.experiments.pages import commands, percent, table
from scripts.experiments.results import Experiment
from scripts.experiments.stored_maps import POSTS, maps_of, masks_at

CELL = 112  # pixels, long side of an image on the sheet


def page(result: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    rows = [
        [way["post"], f"{way['threshold']:g}", percent(float(np.mean(list(way["miou"].values()))))]
        for way in result["ways"]
    ]
    parts = [
        "# Images before and after each component\n",
        commands(NAME, result),
        f"![Images, ground truth, maps and masks]({NAME}.jpg)\n",
        f"Thresholds were picked on {result['images_picked']} other images of the run. Below each mask: its "
        "mIoU over the classes of the image, the threshold.\n",
        table(["post-processing", "threshold", "mean of the images' mIoU (%)"], rows) + "\n",
    ]
    return "\n".join(parts)


def sheet(result: Mapping[str, Any]) -> NDArray[np.uint8]:
    """A row an image."""
    run = Path(result["run"])
    recipe = Run.open(run).recipe
    truth = of_reader(recipe.data)
    records = {record.id: record for record in truth.records}
    ways = {way["post"]: recipe_of(recipe, POSTS[way["post"]]) for way in result["ways"]}
    rows, notes = [], []
    for name in result["images"]:
        cells, below = _row(records[name], truth, run, result["ways"], ways)
        rows.append(cells)
        notes.append(below)
    return contact_sheet(rows, ["image", "truth", "map", *ways], cell=CELL, notes=notes)


def _row(
    record: ImageRecord,
    truth: Truth,
    run: Path,
    ways: Sequence[Mapping[str, Any]],
    recipes: Mapping[str, GenerateRecipe],
) -> tuple[list[NDArray[np.uint8]], list[str]]:
    """Cells and notes of one image."""
    image, maps = images.read_image(record.image), maps_of(run, record)
    first = np.abs(maps[0].values[0].numpy())
    cells = [
        image,
        overlay(image, truth.mask(record)),
        heat(image, first, 0.0, float(np.quantile(first, 0.995))),
    ]
    notes = ["", "", truth.space.names[maps[0].ids[0]]]
    for way in ways:
        mask = masks_at(maps, image, recipes[way["post"]], (way["threshold"],))[0]
        cells.append(overlay(image, mask))
        notes.append(f"{percent(way['miou'][record.id], 0)} % at {way['threshold']:g}")
    return cells, notes


def main(words: Sequence[str] | None = None) -> None:
    """Write the page and the sheet from the JSON file and the run."""
    result, path = Experiment(NAME, words).report(__doc__, page)
    images.write_image(path.with_suffix(".jpg"), sheet(result))


if __name__ == "__main__":
    main()
