"""Maps of a classifier on some images of a data set in VOC layout, counted at every threshold at once.

The experiments make maps through this module: `bound` and `Subject.maps`.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pseudolabel import draws, images, masks, registry
from pseudolabel.classifier.checkpoint import LoadedClassifier, load_classifier
from pseudolabel.explain.method import BoundMethod, build, on_image
from pseudolabel.explain.model import Explained
from pseudolabel.metrics.confusion import Counts
from pseudolabel.metrics.regions import discriminative
from pseudolabel.records import ImageRecord, LabelScores, LabelSpace, Scores, Targets

LEVELS = tuple(round(0.01 * step, 2) for step in range(1, 61))  # thresholds, scores in 0..1
AVERAGED = "background cat cow dog horse person sheep"  # classes that the small set shows often enough
REFERENCE = "single-scale CAM of the original classifier, own class, above 0.25 of its maximum"
READING = "truth 255 is not counted; nothing is predicted 255"


@dataclass(frozen=True, eq=False)
class InputImage:
    """One image with its ground truth.

    Attributes:
        record: id, labels.
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) uint8.
        region: (H, W) bool, the discriminative region.
        ids: ascending class ids that its counts are kept for, 0 first.
    """

    record: ImageRecord
    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    region: NDArray[np.bool_]
    ids: tuple[int, ...]

    @property
    def labels(self) -> tuple[int, ...]:
        """Class ids present."""
        assert self.record.labels is not None
        return self.record.labels


class Subject:
    """A classifier with its normalisation of images."""

    def __init__(self, path: Path, batch: int) -> None:
        self.loaded: LoadedClassifier = load_classifier(path)
        self.model = Explained(self.loaded.network, batch=batch)
        self._mean, self._std = (
            torch.tensor(values).view(1, 3, 1, 1) for values in (self.loaded.mean, self.loaded.std)
        )

    def input(self, image: NDArray[np.uint8]) -> Tensor:
        """(1, 3, H, W) float32, normalised."""
        channels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
        return (channels.float() / 255 - self._mean) / self._std

    def maps(self, method: BoundMethod, image: InputImage, seed: int) -> Tensor:
        """Raw maps (K, H, W) of an image's labels."""
        attribution = method.explain(
            self.model, self.input(image.image), Targets.of([image.labels]), [(seed, image.record.id)]
        )
        return on_image(method.reduce(attribution.values).float(), image.truth.shape)


@dataclass(frozen=True)
class Images:
    """Some images of a split.

    Attributes:
        images: in the order of the draw.
        space: class names.
        averaged: ids that means are taken over.
        about: entries of a result that describe them.
    """

    images: tuple[InputImage, ...]
    space: LabelSpace
    averaged: tuple[int, ...]
    about: dict[str, Any]

    def matrices(self, arrays: Mapping[str, Any], *at: int) -> Counts:
        """Stored counts `counts_<index>` of all images (at some sum): (images, thresholds, 3, C+1, C+2)."""
        names = len(self.space.names)
        return np.stack(
            [
                matrices(arrays[f"counts_{index}"][at], image.ids, names)
                for index, image in enumerate(self.images)
            ]
        )


def add_options(parser: argparse.ArgumentParser, *, images: int, size: int) -> None:
    """Options of an experiment on drawn images, with the default number and the default crop size."""
    parser.add_argument("--root", type=Path, required=True, help="data set in VOC layout")
    parser.add_argument("--split", default="train")
    parser.add_argument("--images", type=int, default=images)
    parser.add_argument("--size", type=int, default=size, help="pixels a side that a crop is resized to")
    parser.add_argument("--average-over", default=AVERAGED, help="names of the classes of the means")


def draw_images(subject: Subject, root: Path, split: str, count: int, averaged: Sequence[str]) -> Images:
    """Draw so many images of a split by a hash of their ids, so that the list's order does not matter."""
    component = registry.get("readers", "voc")
    dataset = component.run(component.params.model_validate({"root": str(root), "split": split}))
    eligible = [record for record in dataset.records if record.labels and record.mask is not None]
    chosen = sorted(eligible, key=lambda record: draws.seed_of("subset", record.id))[:count]
    cam = bound("cam")
    input_images = []
    for record in chosen:
        assert record.mask is not None
        assert record.labels is not None
        image, truth = images.read_image(record.image), masks.read_mask(record.mask)
        ids = ids_of(truth, record.labels)
        bare = InputImage(record, image, truth, np.zeros(truth.shape, np.bool_), ids)
        region = discriminative(truth, subject.maps(cam, bare, 0).numpy(), record.labels)
        input_images.append(InputImage(record, image, truth, region, ids))
    listing = "\n".join(record.id for record in chosen)
    about = {
        "split": split,
        "images": len(chosen),
        "images_of_split": len(dataset.records),
        "list_sha256": hashlib.sha256(listing.encode()).hexdigest(),
        "classifier_sha256": subject.loaded.sha256,
        "backbone": subject.loaded.backbone,
        "averaged_over": list(averaged),
        "reference": REFERENCE,
        "reading_of_255": READING,
    }
    space: LabelSpace = dataset.space
    return Images(tuple(input_images), space, tuple(space.id_of(name) for name in averaged), about)


def ids_of(truth: NDArray[np.uint8], labels: Sequence[int]) -> tuple[int, ...]:
    """Class ids of an image's labels and ground truth, ascending, 0 first, without 255."""
    return tuple(sorted({0, *labels, *(int(value) for value in np.unique(truth) if value != 255)}))


def bound(
    method: str, *aggregators: tuple[str, Mapping[str, Any]], params: Mapping[str, Any] | None = None
) -> BoundMethod:
    """A method of the package with its aggregators, innermost first."""
    component = registry.get("methods", method)
    bare = build((component, component.params.model_validate(dict(params or {}))))
    return functools.reduce(lambda inner, step: aggregated(inner, *step), aggregators, bare)


def aggregated(inner: BoundMethod, name: str, keys: Mapping[str, Any]) -> BoundMethod:
    """A method within an aggregator of the package; several around one `inner` share its views."""
    component = registry.get("aggregators", name)
    method: BoundMethod = component.run(inner, component.params.model_validate(dict(keys)))
    return method


def refined(name: str, scores: Scores, image: NDArray[np.uint8], **params: Any) -> Scores:
    """One refiner of the package on the scores of an image."""
    component = registry.get("refiners", name)
    result: Scores = component.run(
        scores, torch.from_numpy(image.copy()), component.params.model_validate(params)
    )
    return result


def unit(raw: Tensor, image: InputImage, method: str) -> Scores:
    """Raw maps in 0..1 as the authors do it without post-processing: CAM by its maximum, gradients after
    competition by the 0.995 quantile."""
    scores = Scores(image.labels, raw)
    if method == "cam":
        return refined("normalise", scores, image.image, method="max")
    return refined("normalise", refined("competition", scores, image.image, weight=0.5), image.image)


def strongest(scores: Scores) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The strongest class (H, W) and its score: all that a constant background looks at."""
    low = scores.values.new_full(scores.values.shape[1:], -torch.inf)
    return LabelScores.join(low, scores).mask().numpy(), scores.values.amax(dim=0).numpy()


def counts(scores: Scores, image: InputImage) -> NDArray[np.int32]:
    """Pixels by threshold, region (DR, else), truth and prediction among the image's ids.

    Equal to the masks of the background rule `constant` at every threshold, counted mask by mask; here each
    pixel is sorted in once, by how many thresholds it exceeds.

    Returns:
        (thresholds, 2, K, K) int32, K = len(image.ids).
    """
    label, top = strongest(scores)
    known = image.truth != 255
    ids = np.asarray(image.ids)
    exceeded = np.searchsorted(np.asarray(LEVELS, np.float32), top[known], side="left")
    region = (~image.region[known]).astype(np.int64)
    truth, predicted = np.searchsorted(ids, image.truth[known]), np.searchsorted(ids, label[known])
    size = len(ids)
    code = ((exceeded * 2 + region) * size + truth) * size + predicted
    joint = np.bincount(code, minlength=(len(LEVELS) + 1) * 2 * size * size)
    joint = joint.reshape(len(LEVELS) + 1, 2, size, size)
    # at threshold number i the pixels that exceed more than i thresholds have a class, the others none
    above = joint[::-1].cumsum(axis=0)[::-1][1:]
    rest = joint.sum(axis=0) - above
    at_thresholds = above.copy()
    at_thresholds[..., 0] += rest.sum(axis=-1)
    return at_thresholds.astype(np.int32)


def matrices(compact: NDArray[np.int32], ids: Sequence[int], names: int) -> Counts:
    """(..., 2, K, K) as kept -> (..., 3, C+1, C+2) int64: whole, DR, NDR with an empty background row."""
    full: Counts = np.zeros((*compact.shape[:-3], 3, names, names + 1), np.int64)
    for region in (0, 1):
        place = full[..., 1 + region, :, :]
        for row, truth in enumerate(ids):
            place[..., truth, list(ids)] = compact[..., region, row, :]
    full[..., 0, :, :] = full[..., 1, :, :] + full[..., 2, :, :]
    full[..., 1:, 0, :] = 0
    return full
