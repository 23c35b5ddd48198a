"""Masks of a recipe from the stored maps of runs, and their counts at several thresholds.

The experiments use the package's line from maps to masks through this module only: `combined`,
`label_scores_of`, `masks_at`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pseudolabel import images, masks
from pseudolabel.metrics.regions import discriminative
from pseudolabel.pipeline import postprocessing
from pseudolabel.recipes.loading import plain_data
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.records import ImageRecord, LabelScores, Scores
from pseudolabel.runs import disk, layout
from pseudolabel.runs.maps import read_maps
from pseudolabel.superpixels.engine import kept_in
from scripts.experiments.cache import Arrays, cached
from scripts.experiments.voc_maps import ids_of

LEVELS = tuple(round(0.02 * step, 2) for step in range(1, 31))  # thresholds, scores in 0..1
GAUSSIAN = {"name": "smooth", "kernel": "gaussian", "size": 31, "sigma": 5.0}  # pixels of the original image
WALK = {"name": "random_walk", "steps": 64, "sigma": 5.0}  # tuned on train
BOX = {"name": "smooth", "kernel": "box", "size": 13}  # pixels of the original image, as the authors' code


@dataclass(frozen=True)
class Post:
    """Post-processing: the way from maps to masks.

    Attributes:
        filters: refiners of the raw maps.
        compete: classes compete (gradients only).
        superpixels: background by superpixels, in place of a constant.
        crf: dense CRF, settings of IRN.
    """

    filters: tuple[Mapping[str, Any], ...] = ()
    compete: bool = True
    superpixels: bool = False
    crf: bool = False

    @property
    def before(self) -> Post:
        """The same without the CRF."""
        return replace(self, crf=False)

    def refiners(self, scaled: Sequence[Mapping[str, Any]], gradients: bool) -> list[Mapping[str, Any]]:
        """Filter and scale; gradients compete and are scaled again (without a filter they compete first)."""
        if not (gradients and self.compete):
            return [*self.filters, *scaled]
        competition = {"name": "competition", "weight": 0.5}
        if not self.filters:
            return [competition, *scaled]
        return [*self.filters, *scaled, competition, *scaled]

    def after(self) -> dict[str, Any]:
        """Background and postprocessors as a recipe has them."""
        return {
            "background": {"name": "superpixel" if self.superpixels else "constant", "threshold": 0.2},
            "postprocess": [{"name": "crf", "preset": "irn"}] if self.crf else [],
        }


POSTS = {
    "none": Post(),
    "no competition": Post(compete=False),
    "box": Post((BOX,)),
    "Gaussian": Post((GAUSSIAN,)),
    "Gaussian, no competition": Post((GAUSSIAN,), compete=False),
    "superpixel mean": Post(({"name": "superpixel_mean"},)),
    "affinity": Post(({"name": "affinity"},)),
    "random walk": Post(({"name": "random_walk"},)),
    "longer walk": Post((WALK,)),
    "superpixel background": Post(superpixels=True),
    "box + superpixel background": Post((BOX,), superpixels=True),
    "Gaussian + superpixel background": Post((GAUSSIAN,), superpixels=True),
    "CRF": Post(crf=True),
    "box + CRF": Post((BOX,), crf=True),
    "Gaussian + CRF": Post((GAUSSIAN,), crf=True),
    "superpixel mean + CRF": Post(({"name": "superpixel_mean"},), crf=True),
    "longer walk + CRF": Post((WALK,), crf=True),
    "random walk + CRF": Post(({"name": "random_walk"},), crf=True),
    "superpixel background + CRF": Post(superpixels=True, crf=True),
    "box + superpixel background + CRF": Post((BOX,), superpixels=True, crf=True),
}


def is_stored(run: Path, record: ImageRecord) -> bool:
    """Whether a run holds maps of an image."""
    return (run / layout.maps_file(record.id)).is_file()


def maps_of(run: Path, record: ImageRecord) -> list[Scores]:
    """Stored maps of an image, one a branch of the run."""
    return read_maps(run / layout.maps_file(record.id))


def combined(maps: Sequence[Scores], image: NDArray[np.uint8], recipe: GenerateRecipe) -> Scores:
    """Scores of an image after the refiners and the fusion of a recipe."""
    with torch.no_grad():
        return postprocessing.combine(maps, image, [branch.refine for branch in recipe.maps], recipe.fuse)


def label_scores_of(maps: Sequence[Scores], image: NDArray[np.uint8], recipe: GenerateRecipe) -> LabelScores:
    """Label scores of an image after a recipe's background, without its postprocessors."""
    background, params = recipe.background.component, recipe.background.params
    shown = torch.from_numpy(image.copy())
    label_scores: LabelScores = background.run(combined(maps, image, recipe), shown, params)
    return label_scores


def masks_at(
    maps: Sequence[Scores], image: NDArray[np.uint8], recipe: GenerateRecipe, levels: Sequence[float]
) -> NDArray[np.uint8]:
    """Masks (levels, H, W) of a recipe at several thresholds of its background."""
    scores = combined(maps, image, recipe)
    with torch.no_grad():
        return postprocessing.sweep(scores, image, recipe.background, levels, recipe.postprocess)


@dataclass(frozen=True)
class Cell:
    """A recipe on stored maps at some thresholds; all that a worker process needs.

    Attributes:
        recipe: its classifier and its reader are not used.
        runs: folders of runs with stored maps, one a branch of the recipe.
        reference: folder of the run whose CAMs tell DR from NDR.
        levels: thresholds.
        superpixels: folder where superpixels are kept.
    """

    recipe: GenerateRecipe
    runs: tuple[Path, ...]
    reference: Path
    levels: tuple[float, ...]
    superpixels: Path

    def counts(self, record: ImageRecord) -> tuple[tuple[int, ...], NDArray[np.int32]]:
        """Pixels of one image by threshold, region (DR, else), truth and prediction among its ids.

        Returns:
            ids: ascending, 0 first.
            counts: (thresholds, 2, K, K) int32, K = len(ids).
        """
        assert record.mask is not None
        assert record.labels is not None
        truth, image = masks.read_mask(record.mask), images.read_image(record.image)
        maps = [maps_of(run, record)[0] for run in self.runs]
        with kept_in(self.superpixels):
            predictions = masks_at(maps, image, self.recipe, self.levels)
        cams = maps_of(self.reference, record)[0]
        region = discriminative(truth, cams.values.numpy(), record.labels)
        known = truth != 255
        ids = ids_of(truth, record.labels)
        place = np.zeros(256, np.int64)
        place[list(ids)] = np.arange(len(ids))
        base = (~region[known]).astype(np.int64) * len(ids) + place[truth[known]]
        size = 2 * len(ids) ** 2
        rows = [np.bincount(base * len(ids) + place[mask[known]], minlength=size) for mask in predictions]
        return ids, np.stack(rows).reshape(-1, 2, len(ids), len(ids)).astype(np.int32)


def cell_counts(cell: Cell, records: Sequence[ImageRecord], path: Path, workers: int) -> Arrays:
    """Counts of every image, kept in a file: a second call with the same cell reads them.

    Returns:
        `ids_<index>` and `counts_<index>` of each image.
    """
    plain = plain_data(cell.recipe)
    key = json.dumps(
        [
            [branch["refine"] for branch in plain["maps"]],
            {name: plain[name] for name in ("fuse", "background", "postprocess")},
            cell.levels,
            disk.digest([disk.read_json(run / layout.FINGERPRINT) for run in (*cell.runs, cell.reference)]),
            disk.digest([record.id for record in records]),
        ]
    )

    def count() -> Arrays:
        arrays: Arrays = {}
        with contextlib.ExitStack() as stack:
            results: Iterable[tuple[tuple[int, ...], NDArray[np.int32]]] = map(cell.counts, records)
            if workers > 1:
                spawn = get_context("spawn")
                pool = ProcessPoolExecutor(
                    workers, mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,)
                )
                results = stack.enter_context(pool).map(cell.counts, records, chunksize=4)
            for index, (ids, counts) in enumerate(results):
                arrays[f"ids_{index}"], arrays[f"counts_{index}"] = np.asarray(ids), counts
        return arrays

    return cached(path, key, count)
