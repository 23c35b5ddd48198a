"""All that decides the training of a classifier, read and compared before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from pseudolabel import weights
from pseudolabel.classifier.network import Classifier
from pseudolabel.draws import seed_of
from pseudolabel.errors import DataError
from pseudolabel.recipes.loading import plain_data
from pseudolabel.recipes.schema import TrainRecipe, validation_step
from pseudolabel.recipes.steps import ReaderStep
from pseudolabel.records import Dataset, ImageRecord
from pseudolabel.runs import disk

LATER_KEYS = ("noise", "objective", "on_nan")  # left out of the fingerprint at their defaults


@dataclass(frozen=True)
class TrainingStart:
    """What a training begins with.

    Attributes:
        recipe: see `TrainRecipe`.
        training, validation: images with labels of one class list.
        network: with its start values, before any weights are loaded.
        mean, std: RGB in 0..1.
        fingerprint: what decides the weights, JSON-able.
    """

    recipe: TrainRecipe
    training: Dataset
    validation: Dataset | None
    network: Classifier
    mean: weights.RGB
    std: weights.RGB
    fingerprint: dict[str, Any]


def prepare(recipe: TrainRecipe, limit: int | None = None) -> TrainingStart:
    """Read data and weights and compare them; writes nothing.

    Args:
        recipe: see `TrainRecipe`.
        limit: only the first images of each list.

    Raises:
        DataError: labels, images or weights refused, or two class lists.
    """
    training = _dataset(recipe.data, "data", limit)
    validation = None
    if recipe.validation is not None:
        validation = _dataset(validation_step(recipe.data, recipe.validation), "validation", limit)
        if validation.space != training.space:
            raise DataError(
                f"validation: classes {', '.join(validation.space.names)} are not those of data, "
                f"{', '.join(training.space.names)}; give both one class list"
            )
    kept = recipe.network
    decided = weights.digest(kept.backbone, kept.weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(recipe.seed, "network"))
        network = Classifier(kept.backbone, training.space.foreground, output_stride=kept.output_stride)
    mean, std = kept.mean, kept.std
    if mean is None or std is None:
        own = weights.normalisation(kept.backbone, kept.weights)
        mean, std = mean or own[0], std or own[1]
    decisive = fingerprint(recipe, decided, training, validation, mean, std)
    return TrainingStart(recipe, training, validation, network, mean, std, decisive)


def fingerprint(
    recipe: TrainRecipe,
    decided: str,
    training: Dataset,
    validation: Dataset | None,
    mean: weights.RGB,
    std: weights.RGB,
) -> dict[str, Any]:
    """All that decides the bytes but the number of epochs, which may be raised later.

    Args:
        recipe: see `TrainRecipe`.
        decided: digest of the start weights.
        training, validation, mean, std: see `TrainingStart`.
    """
    plain = plain_data(recipe)
    del plain["data"], plain["validation"], plain["schedule"]["epochs"]
    for key in LATER_KEYS:  # so that it stays that of runs from before the key
        default = TrainRecipe.model_fields[key].get_default(call_default_factory=True)
        if getattr(recipe, key) == default:
            del plain[key]
    if recipe.schedule.last_batch == "keep":
        del plain["schedule"]["last_batch"]
    plain["network"] |= {"weights": decided, "mean": list(mean), "std": list(std)}
    return {
        "recipe": plain,
        "classes": list(training.space.names),
        "images": _input(training.records),
        "validation": _input(validation.records) if validation else None,
    }


def _dataset(step: ReaderStep, key: str, limit: int | None) -> Dataset:
    """Read a data set whose every image must have labels."""
    dataset: Dataset = step.component.run(step.params)
    dataset = replace(dataset, records=dataset.records[:limit])
    if not dataset.records:
        raise DataError(f"{key}: the list is empty; look at {key}.split")
    for record in dataset.records:
        if record.labels is None:
            raise DataError(f"{key}: {record.id}: no labels given; label it or take it off the list")
    return dataset


def _input(records: Sequence[ImageRecord]) -> dict[str, Any]:
    """Number and digest of a list: ids, labels and sizes of the files."""
    try:
        rows = [[record.id, list(record.labels or ()), record.image.stat().st_size] for record in records]
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); mend the list") from error
    return {"count": len(records), "digest": disk.digest(rows)}
