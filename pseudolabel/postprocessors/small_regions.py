"""Small connected regions of one label go to the label around them, or become 255.

    small: a region (4-connected, one label, kept) of fewer than share * H * W pixels
    surrounding: the label of the regions that are not small with the longest border to it (255 counts as
        one), of equal ones the lowest; a region that touches only small ones waits until a neighbour is
        decided; where all are small nothing changes

A moved pixel believes in its new label wholly (1, others 0).

Source: own choice; the usual cleaning of masks, as in scikit-image's `remove_small_objects`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pseudolabel.records import LabelScores
from pseudolabel.registry import SAME, Parameters, component, parameter

GIVEN_UP = -1  # the label of a pixel that is not kept


class SmallRegions(Parameters):
    """What is small, and what comes of it."""

    share: float = parameter(
        0.002, ge=0, le=1, unit="share of the image's pixels", help="regions below it are small"
    )
    to: Literal["surrounding", "ignore"] = parameter("surrounding", help="what a small region becomes")


@component(SmallRegions, takes=SAME, gives=SAME, device="cpu", flips=True, strength={"share": 0.0})
def small_regions(label_scores: LabelScores, image: Tensor, params: SmallRegions) -> LabelScores:
    """The label scores without its small regions.

    Args:
        label_scores: values (K+1, H, W) float32.
        image: (H, W, 3) uint8 RGB; not looked at.
        params: see `SmallRegions`.

    Returns:
        LabelScores of (K+1, H, W) float32, untouched outside small regions; nothing is kept that was not.
    """
    from skimage.measure import label

    keep = label_scores.keep.cpu().numpy()
    rows = np.where(keep, label_scores.rows().cpu().numpy(), GIVEN_UP)
    regions = label(rows, background=GIVEN_UP - 1, connectivity=1) - 1  # type: ignore[no-untyped-call]
    of_region = np.zeros(regions.max() + 1, np.int64)
    of_region[regions] = rows
    small = np.bincount(regions.ravel()) < params.share * rows.size
    small &= of_region != GIVEN_UP
    if not small.any():
        return LabelScores(label_scores.ids, label_scores.values.clone(), label_scores.keep.clone())
    if params.to == "ignore":
        given_up = torch.from_numpy(small[regions]).to(label_scores.keep.device)
        return LabelScores(label_scores.ids, label_scores.values.clone(), label_scores.keep & ~given_up)
    decided = _decided(of_region, small, _borders(regions), len(label_scores.ids))[regions]
    after = torch.from_numpy(decided).to(label_scores.values.device)
    moved = torch.from_numpy(decided != rows).to(label_scores.values.device)
    wholly = torch.zeros_like(label_scores.values).scatter_(0, after.clamp(min=0)[None], 1.0)
    kept = label_scores.keep & (after != GIVEN_UP)
    return LabelScores(label_scores.ids, torch.where(moved & kept, wholly, label_scores.values), kept)


def _borders(regions: NDArray[np.int64]) -> NDArray[np.int64]:
    """(P, 3): one region, another that it touches, and the length of their border; both ways round."""
    beside = np.stack([regions[:, :-1].ravel(), regions[:, 1:].ravel()])
    below = np.stack([regions[:-1].ravel(), regions[1:].ravel()])
    pairs = np.concatenate([beside, below], axis=1)
    pairs = pairs[:, pairs[0] != pairs[1]]
    neighbours, lengths = np.unique(np.concatenate([pairs, pairs[::-1]], axis=1), axis=1, return_counts=True)
    return np.stack([*neighbours, lengths], axis=1)


def _decided(
    of_region: NDArray[np.int64], small: NDArray[np.bool_], borders: NDArray[np.int64], rows: int
) -> NDArray[np.int64]:
    """The label of every region after small ones have gone to their surroundings."""
    after, open_ = of_region.copy(), small.copy()
    while open_.any():
        asking = borders[open_[borders[:, 0]] & ~open_[borders[:, 1]]]
        if not len(asking):
            break
        votes = np.zeros((len(after), rows + 1), np.int64)
        # the last column is 255: of equal lengths a label wins over it
        np.add.at(votes, (asking[:, 0], after[asking[:, 1]]), asking[:, 2])
        decided = np.unique(asking[:, 0])
        best = votes[decided].argmax(1)
        after[decided] = np.where(best == rows, GIVEN_UP, best)
        open_[decided] = False
    return after
