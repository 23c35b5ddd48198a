"""What components need beside scores, image and parameters: loaded, digested, handed over by the caller."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel import images
from pseudolabel.recipes.composition import StepShape
from pseudolabel.registry import Need
from pseudolabel.runs import disk

if TYPE_CHECKING:
    from pseudolabel.classifier.checkpoint import LoadedClassifier
    from pseudolabel.recipes.schema import GenerateRecipe


def handed(step: StepShape, item: str) -> dict[str, Any]:
    """Keyword arguments of a step for one image.

    Args:
        step: its component says what it needs.
        item: id of the image.

    Raises:
        DataError: the network or the image's file cannot be read.
    """
    arguments: dict[str, Any] = {}
    for name, need in step.component.needs.items():
        path = Path(getattr(step.params, need.parameter)).expanduser()
        arguments[name] = (
            _network(path) if need.kind == "network" else images.read_file(_file(path, item, need))
        )
    return arguments


def decisive(recipe: GenerateRecipe, plain: dict[str, Any], ids: Sequence[str]) -> dict[str, Any]:
    """A recipe as plain data in which the digests of what its steps need stand in place of their paths.

    Args:
        recipe: the recipe.
        plain: the same as plain data; changed in place.
        ids: of the images, for needs of one file per image.
    """
    for step, data in _steps(recipe, plain):
        for need in step.component.needs.values():
            path = Path(getattr(step.params, need.parameter)).expanduser()
            if need.kind == "network":
                data[need.parameter] = _network(path).sha256
            else:
                data[need.parameter] = disk.digest(
                    [disk.sha256_file(_file(path, item, need)) for item in ids]
                )
    return plain


def _steps(recipe: GenerateRecipe, plain: dict[str, Any]) -> Iterator[tuple[StepShape, dict[str, Any]]]:
    """Every step after the maps beside its plain data."""
    for branch, data in zip(recipe.maps, plain["maps"], strict=True):
        yield from zip(branch.refine, data["refine"], strict=True)
    if recipe.fuse is not None:
        yield from zip(recipe.fuse.refine, plain["fuse"]["refine"], strict=True)
    yield recipe.background, plain["background"]
    yield from zip(recipe.postprocess, plain["postprocess"], strict=True)


def _file(folder: Path, item: str, need: Need) -> Path:
    return folder / f"{item}{need.suffix}"


@functools.lru_cache(maxsize=4)
def _network(path: Path) -> LoadedClassifier:
    """The classifier of a run, loaded once in each process."""
    from pseudolabel.classifier.checkpoint import load_classifier

    return load_classifier(path)
