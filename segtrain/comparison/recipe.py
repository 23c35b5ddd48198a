"""What the recipe of `seg compare` holds; docs/recipes.md is made from here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from pseudolabel.recipes.section import Key, Section
from pseudolabel.registry import parameter


class CompareClassifier(Section):
    """The classifier of every candidate that makes masks: one to train, or one that is there."""

    recipe: str | None = parameter(
        None, help="a `pl train` recipe, its path seen from this file; trained first, into DIR/classifier"
    )
    run: str | None = parameter(
        None, help="a finished run of `pl train`; taken as it is, the recipe is then not looked at"
    )


class Candidate(Section):
    """One way to training masks: a recipe that makes them, a folder of them, or the truth."""

    name: str = parameter(min_length=1, help="what tables and images call it")
    recipe: str | None = parameter(None, help="a `pl generate` recipe, its path seen from this file")
    masks: str | None = parameter(None, help="`truth`, or a folder of <id>.png, in place of a recipe")
    set: tuple[str, ...] = parameter((), help="overrides of the recipe, `background.threshold=0.2`")

    def check(self) -> Iterator[tuple[Key, str]]:
        if (self.recipe is None) == (self.masks is None):
            yield (), "says both recipe and masks, or neither; a candidate has one of them"
        if self.set and self.recipe is None:
            yield ("set",), "overrides a recipe, and this candidate has none; leave it out"


class CompareRecipe(Section):
    """`seg compare`: several ways to masks, the same network trained on each, one table."""

    classifier: CompareClassifier = Field(default_factory=lambda: CompareClassifier())
    candidates: tuple[Candidate, ...] = parameter(
        min_length=1, help="what is compared, in the order of the table"
    )
    segmentation: str = parameter(help="a `seg train` recipe, its path seen from this file")
    data: dict[str, Any] | None = parameter(
        None, help="keys that replace those of the data of every recipe, {root: ...}"
    )
    report_on: dict[str, Any] = parameter(
        help="keys that replace those of the data where figures are reported, {split: val}"
    )
    threshold: Literal["recipe", "train"] = parameter(
        "recipe", help="each recipe's own; or the one of the best mIoU on the training split's masks"
    )
    average_over: tuple[str, ...] | None = parameter(
        None, help="classes that the means are taken over; null takes all"
    )
    images: int = parameter(8, ge=0, le=100, help="reporting images shown in the report")

    def check(self) -> Iterator[tuple[Key, str]]:
        for index, candidate in enumerate(self.candidates):
            for key, message in candidate.check():
                yield ("candidates", index, *key), message
        names = [candidate.name for candidate in self.candidates]
        for index, name in enumerate(names):
            if name in names[:index]:
                yield ("candidates", index, "name"), f"{name!r} stands twice; names are unique"
        if [candidate.masks for candidate in self.candidates].count("truth") > 1:
            yield ("candidates",), "more than one has the truth; the share is of one network"
        if not self.report_on:
            yield ("report_on",), "is empty; say which data to report on, {split: val}"


RECIPES: dict[str, type[Section]] = {"seg compare": CompareRecipe}
