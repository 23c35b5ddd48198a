"""Kinds of maps, what is done to them, and the counting of a cell, for the experiment on post-processing."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pseudolabel import images, masks
from pseudolabel.metrics.regions import discriminative
from pseudolabel.pipeline import postprocessing
from pseudolabel.recipes.loading import load_recipe, plain_data
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.records import ImageRecord
from pseudolabel.runs import disk
from pseudolabel.runs.maps import read_maps
from pseudolabel.superpixels.engine import kept_in

LEVELS = tuple(round(0.02 * step, 2) for step in range(1, 31))
AROUND = (0.8, 1.0, 1.25)  # times the threshold that was best before the CRF
GAUSSIAN = {"name": "smooth", "kernel": "gaussian", "size": 31, "sigma": 5.0}  # pixels of the original image
WALK = {"name": "random_walk", "steps": 64, "sigma": 5.0}  # tuned on train
BOX = {"name": "smooth", "kernel": "box", "size": 13}  # pixels, as the authors' code does it
REFERENCE = "cam"  # kind that DR and NDR come from: single-scale CAM of the original classifier


@dataclass(frozen=True)
class Kind:
    """Maps that are generated.

    Attributes:
        title: as the page calls it.
        method: name in `methods`.
        aggregate: steps, innermost first.
        keys: of the recipe, beside.
    """

    title: str
    method: Literal["cam", "saliency"]
    aggregate: tuple[Mapping[str, Any], ...] = ()
    keys: Mapping[str, Any] = field(default_factory=dict)

    def recipe(self, root: Path, split: str, classifier: Path) -> dict[str, Any]:
        """The recipe of `pl generate` that stores these maps."""
        return {
            "data": {"reader": "voc", "root": str(root), "split": split, "labels": "csv"},
            "classifier": {"checkpoint": str(classifier)},
            "maps": [{**self.source(), "refine": self.scaled()}],
            "background": {"name": "constant", "threshold": 0.2},
            "output": {"maps": True},
            **self.keys,
        }

    def source(self) -> dict[str, Any]:
        """Method and aggregators as a line of `maps` has them."""
        return {"method": {"name": self.method}, "aggregate": list(self.aggregate)}

    def scaled(self) -> list[Mapping[str, Any]]:
        """Onto 0..1: CAM by its maximum, gradients from their minimum to a quantile, as the authors do."""
        return [{"name": "normalise", "method": "max"}] if self.method == "cam" else [{"name": "normalise"}]


@dataclass(frozen=True)
class Mix:
    """Kinds that are fused, gradients after a Gaussian and without competition."""

    title: str
    parts: tuple[str, ...]
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Post:
    """What is done to maps before they are masks.

    Attributes:
        filters: refiners of the raw maps.
        compete: classes compete (gradients only).
        superpixels: they decide the background, in place of a constant.
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
        rival = {"name": "competition", "weight": 0.5}
        return [*self.filters, *scaled, rival, *scaled] if self.filters else [rival, *scaled]

    def after(self) -> dict[str, Any]:
        """Background and postprocessors as a recipe has them."""
        return {
            "background": {"name": "superpixel" if self.superpixels else "constant", "threshold": 0.2},
            "postprocess": [{"name": "crf", "preset": "irn"}] if self.crf else [],
        }


MANY = {"precision": "bf16", "batch": 8}  # kinds of many passes; the authors ran theirs in float16
CROPS = {"name": "random_crop", "count": 200}  # the rest is the authors': 224 pixels, 0.05 to 0.3
KINDS = {
    "cam": Kind("CAM", "cam"),
    "cam-multiscale": Kind("CAM, 4 scales + flip", "cam", ({"name": "multiscale"},)),
    "saliency": Kind("saliency", "saliency"),
    "saliency-multiscale": Kind(
        "saliency, scales 1, .5, 1.5 + flip",
        "saliency",
        ({"name": "multiscale", "scales": [1.0, 0.5, 1.5], "divide": "max"},),
    ),
    "crops": Kind("crop saliency, 200 crops", "saliency", (CROPS,), MANY),
    "crops-cam": Kind("CAM of the same crops", "cam", (CROPS,), MANY),
}
MIXES = {
    "cam+saliency": Mix("multi-scale CAM + multi-scale saliency", ("cam-multiscale", "saliency-multiscale")),
    "cam+saliency .3": Mix(
        "multi-scale CAM x .3 + multi-scale saliency x .7",
        ("cam-multiscale", "saliency-multiscale"),
        (0.3, 0.7),
    ),
    "cam+crops": Mix("multi-scale CAM + crop saliency", ("cam-multiscale", "crops")),
    "crops-cam+saliency": Mix("CAM of crops + multi-scale saliency", ("crops-cam", "saliency-multiscale")),
    "three": Mix(
        "multi-scale CAM x .3 + multi-scale saliency x .4 + crop saliency x .3",
        ("cam-multiscale", "saliency-multiscale", "crops"),
        (0.3, 0.4, 0.3),
    ),
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
    "superpixel resolve": Post(superpixels=True),
    "box + superpixel resolve": Post((BOX,), superpixels=True),
    "Gaussian + superpixel resolve": Post((GAUSSIAN,), superpixels=True),
    "CRF": Post(crf=True),
    "box + CRF": Post((BOX,), crf=True),
    "Gaussian + CRF": Post((GAUSSIAN,), crf=True),
    "superpixel mean + CRF": Post(({"name": "superpixel_mean"},), crf=True),
    "longer walk + CRF": Post((WALK,), crf=True),
    "random walk + CRF": Post(({"name": "random_walk"},), crf=True),
    "superpixel resolve + CRF": Post(superpixels=True, crf=True),
    "box + superpixel resolve + CRF": Post((BOX,), superpixels=True, crf=True),
}


def makes_sense(name: str, post: Post) -> bool:
    """CAM never competes; what a mix is made of is filtered already."""
    if name in MIXES:
        return post.compete and not any(one in (BOX, GAUSSIAN) for one in post.filters)
    return KINDS[name].method == "saliency" or post.compete


def recipe_of(name: str, post: Post, root: Path, classifier: Path) -> GenerateRecipe:
    """The recipe of a kind or a mix with its post-processing; a mix is filtered after it was fused."""
    base = {
        "data": {"reader": "voc", "root": str(root), "split": "val", "labels": "csv"},
        "classifier": {"checkpoint": str(classifier)},
        **post.after(),
    }
    if name in MIXES:
        mix = MIXES[name]
        lines = []
        for part in (KINDS[one] for one in mix.parts):
            smoothed = [GAUSSIAN] if part.method == "saliency" else []
            lines.append({**part.source(), "refine": [*smoothed, *part.scaled()]})
        fuse = {"by": "mean", "weights": mix.weights, "refine": list(post.filters)}
        return load_recipe({**base, "maps": lines, "fuse": fuse}, GenerateRecipe)
    kind = KINDS[name]
    refiners = post.refiners(kind.scaled(), gradients=kind.method == "saliency")
    return load_recipe({**base, "maps": [{**kind.source(), "refine": refiners}]}, GenerateRecipe)


@dataclass(frozen=True)
class Cell:
    """A recipe on the stored maps of some kinds, at some thresholds; what a worker needs to know."""

    recipe: GenerateRecipe
    maps: tuple[Path, ...]  # folders, one a line of the recipe
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
        stored = [read_maps(folder / f"{record.id}.safetensors")[0] for folder in self.maps]
        refiners = [one.refine for one in self.recipe.maps]
        with kept_in(self.superpixels), torch.no_grad():
            scores = postprocessing.combine(stored, image, refiners, self.recipe.fuse)
            found = postprocessing.sweep(
                scores, image, self.recipe.background, self.levels, self.recipe.postprocess
            )
        cams = read_maps(self.reference / f"{record.id}.safetensors")[0]
        region = discriminative(truth, cams.values.numpy(), record.labels)
        known = truth != 255
        ids = tuple(sorted({0, *record.labels, *(int(one) for one in np.unique(truth[known]))}))
        place = np.zeros(256, np.int64)
        place[list(ids)] = np.arange(len(ids))
        base = (~region[known]).astype(np.int64) * len(ids) + place[truth[known]]
        size = 2 * len(ids) ** 2
        rows = [np.bincount(base * len(ids) + place[one[known]], minlength=size) for one in found]
        return ids, np.stack(rows).reshape(-1, 2, len(ids), len(ids)).astype(np.int32)


def measure(cell: Cell, records: Sequence[ImageRecord], path: Path, workers: int) -> dict[str, Any]:
    """Counts of every image, kept in a file: a second call with the same cell reads them.

    Returns:
        `ids_<index>` and `counts_<index>` of each image.
    """
    plain = plain_data(cell.recipe)
    asked = json.dumps(
        [
            [one["refine"] for one in plain["maps"]],
            {key: plain[key] for key in ("fuse", "background", "postprocess")},
            cell.levels,
            _digest([_fingerprint(folder) for folder in (*cell.maps, cell.reference)]),
            _digest([record.id for record in records]),
        ]
    )
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["asked"]) == asked:
                return {key: kept[key] for key in kept.files}
    found: dict[str, Any] = {"asked": asked}
    with contextlib.ExitStack() as stack:
        counted = map(cell.counts, records)
        if workers > 1:
            spawn = get_context("spawn")
            away = stack.enter_context(ProcessPoolExecutor(workers, mp_context=spawn, initializer=_alone))
            counted = away.map(cell.counts, records, chunksize=4)
        for index, (ids, counts) in enumerate(counted):
            found[f"ids_{index}"], found[f"counts_{index}"] = np.asarray(ids), counts
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **found)
    path.parent.mkdir(parents=True, exist_ok=True)
    disk.write_bytes(path, buffer.getvalue())
    return found


def _fingerprint(maps: Path) -> Any:
    """Of the run that stores these maps."""
    return json.loads((maps.parent / "fingerprint.json").read_text(encoding="utf-8"))


def _digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _alone() -> None:
    torch.set_num_threads(1)
