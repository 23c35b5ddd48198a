"""Kinds of maps, single and fused, and the recipe of each with its post-processing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.schema import GenerateRecipe
from scripts.experiments.stored_maps import BOX, GAUSSIAN, Post

REFERENCE = "cam"  # kind that DR and NDR come from: single-scale CAM of the original classifier


@dataclass(frozen=True)
class Kind:
    """Maps that are generated.

    Attributes:
        title: on the page.
        method: name in `methods`.
        aggregate: steps, innermost first.
        keys: further keys of the recipe.
    """

    title: str
    method: Literal["cam", "saliency"]
    aggregate: tuple[Mapping[str, Any], ...] = ()
    keys: Mapping[str, Any] = field(default_factory=dict)

    def recipe(self, root: Path, split: str, classifier: Path) -> dict[str, Any]:
        """The recipe of `pl generate` that stores these maps."""
        return {
            **data(root, split, classifier),
            "maps": [{**self.source(), "refine": self.scaled()}],
            "background": {"name": "constant", "threshold": 0.2},
            "output": {"maps": True},
            **self.keys,
        }

    def source(self) -> dict[str, Any]:
        """Method and aggregators as a branch of `maps` has them."""
        return {"method": {"name": self.method}, "aggregate": list(self.aggregate)}

    def scaled(self) -> list[Mapping[str, Any]]:
        """Onto 0..1: CAM by its maximum, gradients from their minimum to a quantile, as the authors do."""
        return [{"name": "normalise", "method": "max"}] if self.method == "cam" else [{"name": "normalise"}]


@dataclass(frozen=True)
class Mix:
    """Kinds that are fused, gradients after a Gaussian and without competition.

    Attributes:
        title: on the page.
        parts: names of kinds.
        weights: of the mean; None for equal ones.
    """

    title: str
    parts: tuple[str, ...]
    weights: tuple[float, ...] | None = None


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


def parts_of(name: str) -> tuple[str, ...]:
    """Kinds whose stored maps a kind or a mix needs."""
    return MIXES[name].parts if name in MIXES else (name,)


def makes_sense(name: str, post: Post) -> bool:
    """CAM never competes; the parts of a mix are filtered already."""
    if name in MIXES:
        return post.compete and not any(step in (BOX, GAUSSIAN) for step in post.filters)
    return KINDS[name].method == "saliency" or post.compete


def data(root: Path, split: str, classifier: Path) -> dict[str, Any]:
    """Reader and classifier as a recipe has them."""
    return {
        "data": {"reader": "voc", "root": str(root), "split": split, "labels": "csv"},
        "classifier": {"checkpoint": str(classifier)},
    }


def recipe_of(name: str, post: Post, root: Path, classifier: Path) -> GenerateRecipe:
    """The recipe of a kind or a mix with its post-processing; a mix is filtered after it was fused."""
    base = {**data(root, "val", classifier), **post.after()}
    if name in MIXES:
        mix = MIXES[name]
        branches = []
        for part in (KINDS[kind] for kind in mix.parts):
            smoothed = [GAUSSIAN] if part.method == "saliency" else []
            branches.append({**part.source(), "refine": [*smoothed, *part.scaled()]})
        fuse = {"by": "mean", "weights": mix.weights, "refine": list(post.filters)}
        return load_recipe({**base, "maps": branches, "fuse": fuse}, GenerateRecipe)
    kind = KINDS[name]
    refiners = post.refiners(kind.scaled(), gradients=kind.method == "saliency")
    return load_recipe({**base, "maps": [{**kind.source(), "refine": refiners}]}, GenerateRecipe)
