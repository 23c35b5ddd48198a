"""How well a classifier knows the classes of images it has not seen: AP a class and their mean.

Images go in whole, at one long side; the pooled features of a whole image give its logits. Batches
hold images of equal size only (padding would move the average), planned from the list alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pseudolabel import images
from pseudolabel.classifier.augmentation import ImageArray, normalised, resized
from pseudolabel.classifier.average_precision import average_precision
from pseudolabel.classifier.network import Classifier
from pseudolabel.classifier.noise import perturbed
from pseudolabel.recipes.schema import Noise
from pseudolabel.records import ImageRecord, LabelSpace
from pseudolabel.training import ranks
from pseudolabel.training.feed import ahead

if TYPE_CHECKING:
    from lightning_fabric import Fabric

COMMON = 10  # images; a class with fewer makes a mean jump, so a mean over the others stands beside


@dataclass(frozen=True)
class Preprocessing:
    """How images reach the network.

    Attributes:
        mean, std: RGB in 0..1.
        long_side: of validation images in pixels; 0 leaves them.
        batch: images of one forward at most.
        workers: threads that decode.
        channels_last: memory layout.
        noise: perturbation of each image, drawn from (seed, id), or None.
        seed: see `noise`.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    long_side: int
    batch: int
    workers: int
    channels_last: bool = True
    noise: Noise | None = None
    seed: int = 0


def logits_of(
    network: Classifier,
    records: Sequence[ImageRecord],
    view: Preprocessing,
    fabric: Fabric,
    advance: Callable[[int], None],
) -> NDArray[np.float32]:
    """(N, C) logits of N images, in list order.

    Args:
        network: on the device of the fabric; left in evaluation mode.
        records: images.
        view: see `Preprocessing`.
        fabric: device, precision, and ranks over which the batches are dealt.
        advance: told the number of images done; may raise to stop.

    Raises:
        DataError: an image cannot be read; a score of a part of the list would be no score.
    """
    network.eval()
    logits = np.zeros((len(records), network.classes), np.float32)
    layout = torch.channels_last if view.channels_last else torch.contiguous_format

    def load(rows: list[int]) -> list[ImageArray]:
        return [resized(images.read_image(records[row].image), view.long_side) for row in rows]

    plan = _equal_sizes(records, view)[fabric.global_rank :: fabric.world_size]
    for rows, input_images in ahead(plan, load, workers=view.workers, depth=2 * view.workers):
        batch = normalised(input_images, view.mean, view.std, fabric.device)
        if view.noise is not None:
            keys = [(view.seed, "noise", records[row].id, "validation") for row in rows]
            batch = perturbed(batch, keys, view.noise)
        batch = batch.contiguous(memory_format=layout)
        with torch.inference_mode(), fabric.autocast():
            logits[rows] = network(batch).float().cpu().numpy()
        advance(len(rows))
    # each row was made by one rank and is 0 on the others, so that the sum is exact
    everyone: NDArray[np.float32] = ranks.add(fabric, torch.from_numpy(logits)).numpy()
    return everyone


def score(logits: NDArray[np.float32], records: Sequence[ImageRecord], space: LabelSpace) -> dict[str, Any]:
    """Average precisions.

    Args:
        logits: (N, C) finite.
        records: their images, labels known.
        space: class names.

    Returns:
        images; map over the classes that have a positive (None where none has); classes_averaged;
        ap and positives by class name; common: the same mean over classes with at least 10 images.
    """
    present = np.zeros(logits.shape, bool)
    for row, record in enumerate(records):
        for label in record.labels or ():
            present[row, label - 1] = True
    names = space.names[1:]
    ap = {name: average_precision(logits[:, c], present[:, c]) for c, name in enumerate(names)}
    positives = {name: int(present[:, c].sum()) for c, name in enumerate(names)}
    common = [name for name in names if positives[name] >= COMMON]
    return {
        "images": len(records),
        "map": _mean(ap, names),
        "classes_averaged": sum(value is not None for value in ap.values()),
        "ap": ap,
        "positives": positives,
        "common": {"at_least": COMMON, "classes": common, "map": _mean(ap, common)},
    }


def _mean(ap: Mapping[str, float | None], names: Sequence[str]) -> float | None:
    values = [value for name in names if (value := ap[name]) is not None]
    return float(np.mean(values)) if values else None


def _equal_sizes(records: Sequence[ImageRecord], view: Preprocessing) -> list[list[int]]:
    """Rows grouped by the size of their image, in order of first appearance, in batches."""
    groups: dict[tuple[int, int], list[int]] = {}
    for row, record in enumerate(records):
        groups.setdefault(images.read_size(record.image), []).append(row)
    return [
        rows[start : start + view.batch]
        for rows in groups.values()
        for start in range(0, len(rows), view.batch)
    ]
