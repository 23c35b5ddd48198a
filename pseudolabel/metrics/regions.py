"""Where the classifier looks: discriminative (DR) and non-discriminative (NDR) regions of a class.

    DR of class c:  truth is c  and  CAM_c / (max CAM_c + 1e-5) > threshold
    NDR of class c: every other pixel whose truth is c

CAM is the recorded single-scale CAM of the original classifier, so that all methods are scored against
the same split. Background and void belong to neither region, hence DR + NDR = foreground in integers.

Source: Maruf et al. 2023 (arXiv 2308.11052) and the authors' evaluation; the threshold 0.25 follows from
their CAM notebook.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pseudolabel.metrics.confusion import Counts, Mask, by_region

Rule = Literal["own", "any"]
RULES: tuple[Rule, ...] = get_args(Rule)
THRESHOLD = 0.25  # share of the class's largest CAM value
FLOOR = 1e-5  # added to the largest value, as the authors and IRN do
PART, BODY = 1, 2  # values of a part mask


def discriminative(
    truth: Mask,
    maps: NDArray[np.float32],
    ids: Sequence[int],
    threshold: float = THRESHOLD,
    rule: Rule = "own",
) -> NDArray[np.bool_]:
    """Pixels of the discriminative region, all classes together.

    Args:
        truth: (H, W) uint8 class ids, 255 void.
        maps: (K, H, W) float32, the reference CAMs of one image, at least 0, not normalised.
        ids: their K class ids. A class without a map has no discriminative region.
        threshold: share of a map's largest value.
        rule: `own`, a pixel is judged by the map of its own class; `any`, by the largest of all.

    Returns:
        (H, W) bool; the truth at a pixel tells whose region it is. False on background and void.

    Raises:
        ValueError: sizes differ, or the rule is unknown.
    """
    if maps.shape != (len(ids), *truth.shape):
        raise ValueError(f"reference maps are {maps.shape}, wanted {(len(ids), *truth.shape)}")
    if rule not in RULES:
        raise ValueError(f"rule {rule!r} is not one of {', '.join(RULES)}")
    region: NDArray[np.bool_] = np.zeros(truth.shape, dtype=np.bool_)
    for class_id, values in zip(ids, maps, strict=True):
        above = values / (values.max() + np.float32(FLOOR)) > np.float32(threshold)
        region |= above & (truth == class_id) if rule == "own" else above
    return region & (truth > 0) & (truth < 255)


def region_matrices(
    truth: Mask, predictions: Mask, region: NDArray[np.bool_], names: int
) -> tuple[Counts, Counts, Counts]:
    """Confusion on the whole image, on DR and on NDR.

    Args:
        truth: (H, W) uint8.
        predictions: (T, H, W) uint8, for instance of T thresholds.
        region: (H, W) bool from `discriminative`.
        names: C + 1.

    Returns:
        whole, DR, NDR: each (T, names, names + 1) int64; the background row of DR and NDR is empty.
    """
    counts = by_region(truth, predictions, region.astype(np.uint8), 2, names)
    total = counts.sum(axis=1)
    counts[:, :, 0] = 0
    return total, counts[:, 1], counts[:, 0]


def part_matrices(truth: Mask, predictions: Mask, parts: Mask, names: int) -> tuple[Counts, Counts]:
    """Confusion on the planted parts and on the planted bodies of the objects.

    Args:
        truth, predictions, names: as for `region_matrices`.
        parts: (H, W) uint8, 1 the part that tells the class, 2 the body, anything else neither.

    Returns:
        part, body: each (T, names, names + 1) int64, background row empty.
    """
    code = np.where((parts == PART) | (parts == BODY), parts, 0).astype(np.uint8)
    counts = by_region(truth, predictions, code, 3, names)
    counts[:, :, 0] = 0
    return counts[:, PART], counts[:, BODY]
