"""The classifier of a recipe beside its data: whether they fit, and what is left of the labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from pseudolabel.errors import DataError, UsageError
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.records import MOST_NAMES, Dataset

if TYPE_CHECKING:
    from pseudolabel.classifier.checkpoint import Loaded


def chosen_classifier(
    chosen: GenerateRecipe, data: Dataset, say: Callable[[str], None]
) -> tuple[Loaded, Dataset]:
    """Load the classifier and take away the labels that it cannot tell.

    Args:
        chosen: the recipe.
        data: what its reader gave.
        say: told where published weights came from, and how many labels fall away.

    Returns:
        The classifier, and the data with labels of its `known` classes only.

    Raises:
        UsageError: labels are to be given and the reader gives none.
        DataError: classifier refused, by a map method too (trait `fits`), more classes than a mask holds,
            or no image.
    """
    from pseudolabel.classifier.loading import load_chosen

    given = chosen.labels.source == "given"
    if given and not data.space.foreground:
        raise UsageError(
            f"labels.source: given, but reader {chosen.data.component_name!r} knows no labels; write "
            "labels: {source: predicted}, or label the images and take the reader 'table'"
        )
    loaded = load_chosen(chosen.classifier, data.space if data.space.foreground else None, given=given)
    if len(loaded.space.names) > MOST_NAMES:
        raise DataError(
            f"{chosen.classifier.checkpoint}: {loaded.space.foreground} classes; a mask holds at most "
            f"{MOST_NAMES - 1}"
        )
    for one in chosen.maps:
        method = one.method.component
        if "fits" in method.traits:
            method.traits["fits"](loaded.network)
    if not data.records:
        raise DataError("data: the list is empty; look at data.split")
    if loaded.source:
        say(loaded.source)
    return loaded, _of_known(loaded, data, say)


def _of_known(loaded: Loaded, data: Dataset, say: Callable[[str], None]) -> Dataset:
    if loaded.known is None:
        return data
    known = frozenset(loaded.known)
    dropped: dict[str, int] = {}
    records = []
    for record in data.records:
        kept = record.labels
        if kept is not None and not known.issuperset(kept):
            for label in kept:
                if label not in known:
                    dropped[loaded.space.names[label]] = dropped.get(loaded.space.names[label], 0) + 1
            kept = tuple(label for label in kept if label in known)
            record = replace(record, labels=kept)
        records.append(record)
    if dropped:
        told = ", ".join(f"{name} of {count} images" for name, count in dropped.items())
        say(f"left out: {told}; their pixels count as background")
    return replace(data, records=tuple(records))
