"""Images of a recipe to raw maps: data and classifier prepared, batches explained in lanes.

`prepare` loads the classifier and compares it with the data; `explained` gives one event for each image of
the list: it is done already, it cannot be done, or here are its maps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel.errors import DataError, UsageError
from pseudolabel.pipeline.driver import AlreadyDone, Event, NotDone
from pseudolabel.pipeline.postprocessing import ImageMaps
from pseudolabel.pipeline.reading import InputImage, plan, read_batch
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.overrides import Overrides
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.records import IGNORE, MOST_NAMES, Dataset, ImageRecord

if TYPE_CHECKING:
    import torch

    from pseudolabel.classifier.checkpoint import LoadedClassifier
    from pseudolabel.console import Stop
    from pseudolabel.pipeline.explained_classifier import ExplainedClassifier
    from pseudolabel.pipeline.lanes import Lanes

FILLS = {"background": 0, "ignore": IGNORE}  # mask of an image without a class, by `no_label`


@dataclass(frozen=True)
class Prepared:
    """A recipe with its data and classifier, which fit each other.

    Attributes:
        recipe: with every default filled in.
        data: the reader's, with labels of the classifier's known classes only.
        loaded: the classifier.
    """

    recipe: GenerateRecipe
    data: Dataset
    loaded: LoadedClassifier

    def lanes(self, device: torch.device) -> Lanes:
        """The classifier on its device, once for each lane."""
        from pseudolabel.pipeline.explained_classifier import ExplainedClassifier
        from pseudolabel.pipeline.lanes import Lanes

        recipe = self.recipe

        def classifier() -> ExplainedClassifier:
            return ExplainedClassifier(
                self.loaded, recipe.maps, device=device, batch=recipe.batch, precision=recipe.precision
            )

        return Lanes(classifier, device)


def check_limit(limit: int | None) -> None:
    """Refuse a limit that leaves no image.

    Raises:
        UsageError: it does.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: is not above 0 images")


def read_recipe(
    recipe: Path | str | Mapping[str, Any] | GenerateRecipe, overrides: Overrides = ()
) -> tuple[GenerateRecipe, Dataset]:
    """A recipe of `pl generate` and what its reader gives.

    Raises:
        UsageError: the recipe is refused.
        DataError: the data are refused.
    """
    settled = load_recipe(recipe, GenerateRecipe, overrides)
    data: Dataset = settled.data.component.run(settled.data.params)
    return settled, data


def prepare(recipe: GenerateRecipe, data: Dataset, say: Callable[[str], None]) -> Prepared:
    """Load the classifier and take away the labels that it cannot tell.

    Args:
        recipe: the recipe.
        data: what its reader gave.
        say: told where published weights came from, and how many labels fall away.

    Raises:
        UsageError: labels are to be given and the reader gives none.
        DataError: classifier refused, by a map method too (trait `fits`), more classes than a mask holds,
            or no image.
    """
    from pseudolabel.classifier.loading import load_chosen

    given = recipe.labels.source == "given"
    if given and not data.space.foreground:
        raise UsageError(
            f"labels.source: given, but reader {recipe.data.component_name!r} knows no labels; write "
            "labels: {source: predicted}, or label the images and take the reader 'table'"
        )
    loaded = load_chosen(recipe.classifier, data.space if data.space.foreground else None, given=given)
    if len(loaded.space.names) > MOST_NAMES:
        raise DataError(
            f"{recipe.classifier.checkpoint}: {loaded.space.foreground} classes; a mask holds at most "
            f"{MOST_NAMES - 1}"
        )
    for branch in recipe.maps:
        fits = branch.method.component.traits.get("fits")
        if fits is not None:
            fits(loaded.network)
    if not data.records:
        raise DataError("data: the list is empty; look at data.split")
    if loaded.source:
        say(loaded.source)
    return Prepared(recipe, _with_known_labels(loaded, data, say), loaded)


def _with_known_labels(loaded: LoadedClassifier, data: Dataset, say: Callable[[str], None]) -> Dataset:
    if loaded.known is None:
        return data
    known = frozenset(loaded.known)
    dropped: dict[str, int] = {}
    records = []
    for record in data.records:
        labels = record.labels
        if labels is not None and not known.issuperset(labels):
            for label in labels:
                if label not in known:
                    dropped[loaded.space.names[label]] = dropped.get(loaded.space.names[label], 0) + 1
            record = replace(record, labels=tuple(label for label in labels if label in known))
        records.append(record)
    if dropped:
        counts = ", ".join(f"{name} of {count} images" for name, count in dropped.items())
        say(f"left out: {counts}; their pixels count as background")
    return replace(data, records=tuple(records))


def explained(
    prepared: Prepared,
    lanes: Lanes,
    records: Sequence[ImageRecord],
    stop: Stop,
    *,
    limit: int | None = None,
    finished: Mapping[str, Mapping[str, Any]] | None = None,
    workers: int = 2,
) -> Iterator[Event]:
    """One event for each image within the limit, batch by batch, in the order of the plan.

    Args:
        prepared: recipe, data and classifier.
        lanes: explain batches side by side.
        records: the whole list, from which batches are planned.
        stop: where it is requested, the events end.
        limit: only the first so many records.
        finished: manifest lines of what is done; None where nothing is.
        workers: threads that read images.
    """
    from pseudolabel.training.feed import ahead

    listed = dict.fromkeys(record.id for record in records[:limit])
    batches = plan(records, lanes.first.images, limit)
    read = partial(read_batch, listed=listed, finished={} if finished is None else finished)

    def read_ahead() -> Iterator[list[InputImage]]:
        for _, batch in ahead(batches, read, workers=workers, depth=workers + 2):
            yield batch

    work = partial(_explain_batch, prepared=prepared, stop=stop)
    for _, events in lanes.run(read_ahead(), work):
        if events is None:
            return
        yield from events


def _explain_batch(
    classifier: ExplainedClassifier, batch: list[InputImage], prepared: Prepared, stop: Stop
) -> list[Event] | None:
    """Events of the listed images of a batch; None where the run is to stop."""
    if stop.requested:
        return None
    classifier.model.leave = lambda: stop.leaving
    readable = [image for image in batch if image.values is not None]
    labels = _labels(classifier, readable, prepared)
    maps = _maps(classifier, readable, labels, prepared)
    return [_event(image, labels, maps, prepared) for image in batch if image.listed]


def _labels(
    classifier: ExplainedClassifier, readable: Sequence[InputImage], prepared: Prepared
) -> dict[str, tuple[int, ...] | None]:
    """Labels by id: () without a class, None where the classifier's scores are not finite."""
    source = prepared.recipe.labels
    if source.source == "given" or not readable:
        return {image.record.id: image.record.labels or () for image in readable}
    values = [image.values for image in readable if image.values is not None]
    predicted = classifier.predicted(classifier.inputs(values), source.threshold)
    return {image.record.id: row for image, row in zip(readable, predicted, strict=True)}


def _maps(
    classifier: ExplainedClassifier,
    readable: Sequence[InputImage],
    labels: Mapping[str, tuple[int, ...] | None],
    prepared: Prepared,
) -> dict[str, ImageMaps]:
    """Maps by id of the images that have a label, where at least one of them is wanted."""
    shown = [image for image in readable if labels[image.record.id]]
    if not any(image.wanted for image in shown):
        return {}
    start = time.monotonic()
    rows = [labels[image.record.id] or () for image in shown]
    values = [image.values for image in shown if image.values is not None]
    keys = [(prepared.recipe.seed, image.record.id) for image in shown]
    maps = classifier.maps(classifier.inputs(values), rows, keys)
    seconds = (time.monotonic() - start) / len(shown)
    maps_of: dict[str, ImageMaps] = {}
    for image, row, own, uncovered in zip(shown, rows, maps.values, maps.uncovered, strict=True):
        facts: dict[str, Any] = {"input_sha256": image.sha256}
        if uncovered is not None:
            facts["uncovered"] = uncovered
        assert image.values is not None
        item = image.record.id
        maps_of[item] = ImageMaps(item, row, image.values, own, facts=facts, seconds=seconds)
    return maps_of


def _event(
    image: InputImage,
    labels: Mapping[str, tuple[int, ...] | None],
    maps: Mapping[str, ImageMaps],
    prepared: Prepared,
) -> Event:
    """What is to be done about one image."""
    item, recipe = image.record.id, prepared.recipe
    if image.done:
        return AlreadyDone(item)
    if image.fault is not None or image.values is None:
        return NotDone(item, "unreadable", image.fault or "cannot be read", "mend or replace the file")
    if labels[item] is None:
        what = "the classifier's scores are NaN or infinite"
        return NotDone(item, "not_finite", what, "look at image and classifier")
    if item in maps:
        return maps[item]
    fill = FILLS.get(recipe.no_label)
    if fill is None:
        what = "has no label" if recipe.labels.source == "given" else "no class is predicted"
        remedy = "label it, take it off the list, or set no_label: background or ignore"
        return NotDone(item, "no_label", what, remedy)
    return ImageMaps(item, (), image.values, (), fill, {"input_sha256": image.sha256})
