"""What must run: every recipe of a comparison read, filled in and checked before the first stage.

Paths of recipes are seen from the comparison's file, so that a folder of recipes can be moved; runs,
mask folders and data roots are seen from where the command is run, as for every other command.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudolabel.errors import UsageError
from pseudolabel.recipes.composition import swept_key
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.schema import GenerateRecipe, TrainRecipe, validation_step
from pseudolabel.recipes.steps import ReaderStep
from segtrain.comparison.recipe import CompareRecipe
from segtrain.recipe import SegRecipe

TRUTH = "truth"


@dataclass(frozen=True)
class CandidatePlan:
    """One row of the table.

    Attributes:
        name: as the recipe says.
        folder: of its runs below DIR/candidates; letters, digits and dashes only.
        recipe: the recipe file's name, or None.
        generate: what makes masks, by split (`train`, `report`); empty where masks are given.
        masks: a folder of masks, or None: made here, or the data's own.
        swept: the background rule's key that a threshold stands under, `threshold`.
    """

    name: str
    folder: str
    recipe: str | None
    generate: Mapping[str, GenerateRecipe]
    masks: str | None
    swept: str | None

    @property
    def truth(self) -> bool:
        """The data's own masks are trained on."""
        return not self.generate and self.masks is None


@dataclass(frozen=True)
class ComparisonPlan:
    """A comparison with every recipe read.

    Attributes:
        recipe: the comparison's own.
        classifier: what is trained first, or None.
        checkpoint: a finished run to take instead, or None: each recipe's own.
        candidates: in the order of the table.
        segmentation: the network's recipe, validated where it is reported; `masks` is filled in per
        candidate. train_data, report_data: readers of the training and of the reporting images.
    """

    recipe: CompareRecipe
    classifier: TrainRecipe | None
    checkpoint: str | None
    candidates: tuple[CandidatePlan, ...]
    segmentation: SegRecipe
    train_data: ReaderStep
    report_data: ReaderStep


def read(
    source: Path | str | Mapping[str, Any] | CompareRecipe, overrides: Sequence[str] = ()
) -> ComparisonPlan:
    """Read a comparison and every recipe that it names.

    Args:
        source: the comparison's file, plain data or a recipe; paths of the latter two are seen from the
            working directory.
        overrides: of the comparison's own keys; `data.root=X` reaches every recipe.

    Raises:
        UsageError: any of the recipes is refused; the comparison's key stands before the fault.
    """
    recipe = load_recipe(source, CompareRecipe, overrides)
    base = Path(source).parent if isinstance(source, (str, Path)) else Path()
    data = _settings(recipe.data or {})
    classifier = None
    if recipe.classifier.run is None and recipe.classifier.recipe is not None:
        classifier = _load(base, recipe.classifier.recipe, TrainRecipe, data, "classifier.recipe")
    means = [f"average_over={_text(list(recipe.average_over))}"] if recipe.average_over else []
    scored_on = f"validation={_text(recipe.report_on)}"
    segmentation = _load(base, recipe.segmentation, SegRecipe, [*data, *means, scored_on], "segmentation")
    candidates: list[CandidatePlan] = []
    for index, candidate in enumerate(recipe.candidates):
        folder = _folder(candidate.name, index, {other.folder for other in candidates})
        if candidate.recipe is None:
            masks = None if candidate.masks == TRUTH else candidate.masks
            candidates.append(CandidatePlan(candidate.name, folder, None, {}, masks, None))
            continue
        settings = [*data, *candidate.set, "output.maps=true"]
        if recipe.classifier.run is not None:
            settings.append(f"classifier.checkpoint={_text(recipe.classifier.run)}")
        key = f"candidates.{index}.recipe"
        train = _load(base, candidate.recipe, GenerateRecipe, settings, key)
        on_report = [*settings, *_settings(recipe.report_on)]
        report = _load(base, candidate.recipe, GenerateRecipe, on_report, key)
        name = Path(candidate.recipe).name
        both = {"train": train, "report": report}
        candidates.append(CandidatePlan(candidate.name, folder, name, both, None, _swept(train, recipe)))
    return ComparisonPlan(
        recipe,
        classifier,
        recipe.classifier.run,
        tuple(candidates),
        segmentation,
        segmentation.data,
        _reporting(segmentation.data, recipe.report_on),
    )


def _load(base: Path, path: str, model: Any, settings: Sequence[str], key: str) -> Any:
    try:
        return load_recipe(base / path, model, settings)
    except UsageError as fault:
        raise UsageError("\n".join(f"{key}: {line}" for line in str(fault).splitlines())) from fault


def _reporting(data: ReaderStep, report_on: dict[str, Any]) -> ReaderStep:
    try:
        return validation_step(data, report_on)
    except UsageError as fault:
        raise UsageError(f"report_on: {str(fault).removeprefix('recipe: ')}") from fault


def _settings(data: Mapping[str, Any]) -> list[str]:
    return [f"data.{key}={_text(value)}" for key, value in data.items()]


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # YAML reads an escaped pair as two half letters


def _swept(train: GenerateRecipe, recipe: CompareRecipe) -> str | None:
    """The key that the threshold stands under; a background rule without one keeps its recipe's values."""
    try:
        return swept_key(train.background)
    except UsageError:
        if recipe.threshold == "train":
            raise
        return None


def _folder(name: str, index: int, taken: set[str]) -> str:
    """A folder's name for a candidate: what is plain of its name, made unique by its place."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")[:40] or "candidate"
    return plain if plain not in taken else f"{plain}-{index + 1}"
