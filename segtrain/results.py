"""What the commands of `seg` return: frozen dataclasses; `as_dict()` is what `--json` prints."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segtrain.inspection import MaskFault


class _Result:
    """Plain data of a dataclass."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True)
class TrainingSummary(_Result):
    """What `seg train` returns.

    Attributes:
        run: name of the run's folder.
        images: images that were trained on.
        epochs, steps: of the run so far, earlier calls included.
        steps_skipped: steps left out because of a value that is not finite.
        seconds: of this call.
        device: of this call.
        loss: mean loss of the last epoch; None where every step of it was left out.
        miou: share 0..1, of the last validation; None without one.
        best: the highest of all validations, or None.
        failed: images left out because they cannot be read.
    """

    run: str
    images: int
    epochs: int
    steps: int
    steps_skipped: int
    seconds: float
    device: str
    loss: float | None
    miou: float | None
    best: float | None
    failed: int


@dataclass(frozen=True)
class SegmentationEvaluation(_Result):
    """What `seg evaluate` returns and writes to evaluation.json; an undefined figure is None.

    Attributes:
        images: how many were scored.
        miou: share 0..1: mean IoU from one confusion matrix over the data set, background included.
        classes_averaged: how many classes stand in it.
        iou, recall, precision: by class name.
        fg_recall, fg_precision: means over the foreground classes.
        fg_hit: share of foreground pixels that are predicted as any foreground class.
        coverage: share of pixels whose prediction is not 255; a network predicts no 255.
        pixel_accuracy: share of pixels with the right class.
        averaged: how many classes stand in each of the other means.
        pooled: recalls over the pixels of all foreground classes together.
        confusion: (C+1, C+1); rows the truth, columns the prediction.
        reading_of_ignore: how a predicted 255 would be read.
        average_over: class names that the means are taken over.
        checkpoint: name, sha256 and epoch of the network.
        classes: names, background first.
        reader, split: what the images and their ground truth were read from.
        image_list: `images` scored, `listed` images of the data, `sha256` of the sorted ids.
        masks: that were trained on: `ground truth` or `pseudo-masks`.
        labels, labels_from: where the image labels of the pseudo-masks came from, where known.
        training_images: how many of the scored images were trained on; None where that is not known.
        threshold, postprocess: of the predicted masks: None and none, argmax decides.
        versions: of the packages that counted.
    """

    images: int
    miou: float | None
    classes_averaged: int
    iou: dict[str, float | None]
    recall: dict[str, float | None]
    precision: dict[str, float | None]
    fg_recall: float | None
    fg_precision: float | None
    fg_hit: float | None
    coverage: float | None
    pixel_accuracy: float | None
    averaged: dict[str, int]
    pooled: dict[str, float | None]
    confusion: list[list[int]]
    reading_of_ignore: str
    average_over: list[str]
    checkpoint: dict[str, Any]
    classes: list[str]
    reader: str
    split: str | None
    image_list: dict[str, Any]
    masks: str
    labels: str | None
    labels_from: str | None
    training_images: int | None
    threshold: dict[str, Any] | None
    postprocess: list[dict[str, Any]]
    versions: dict[str, str]


@dataclass(frozen=True)
class PredictionSummary(_Result):
    """What `seg predict` returns.

    Attributes:
        images, done, failed: images asked for, with a mask now, that stay without one.
        problems: lines of problems.jsonl: file, code, what, remedy.
        seconds, images_per_second: of this call.
        device: of this call.
    """

    images: int
    done: int
    failed: int
    problems: list[dict[str, Any]]
    seconds: float
    images_per_second: float
    device: str


@dataclass(frozen=True)
class CheckSummary(_Result):
    """What `seg check` returns.

    Attributes:
        images, good: pairs looked at, and pairs without a fault.
        faults: all of them, each file and fault once.
        all_ignored, background_only: ids of masks that are all 255, or background and 255 alone; legal.
        masks_not_listed: mask files that no listed image has.
        pixels: by class name, `ignore` for 255, over all good masks.
        failed: files with a fault.
        fixed: ids of masks that were mapped back from colours; None where it was not asked for.
    """

    images: int
    good: int
    faults: list[MaskFault]
    all_ignored: list[str]
    background_only: list[str]
    masks_not_listed: int
    pixels: dict[str, int]
    failed: int
    fixed: list[str] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data; without `fixed` where it was not asked for."""
        plain = dataclasses.asdict(self)
        if self.fixed is None:
            del plain["fixed"]
        return plain
