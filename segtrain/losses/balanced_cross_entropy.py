"""Balanced cross entropy: background and foreground weigh the same.

    L = (mean over background pixels of CE + mean over foreground pixels of CE) / 2

CE is the one of `cross_entropy`. A side without a pixel in the batch contributes 0; the other keeps its
weight of one half.

Source: balanced loss of AdvCAM and RIB (jbeomlee93/AdvCAM, jbeomlee93/RIB).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pseudolabel.records import BACKGROUND, IGNORE
from pseudolabel.registry import component
from segtrain.loss import LossState, mean_over_groups
from segtrain.losses._cross_entropy import Smoothed, cross_entropy_of_pixels


def _sides(labels: Tensor) -> Tensor:
    """Two groups: (2, ...) bool, background and foreground."""
    return torch.stack([labels == BACKGROUND, (labels != BACKGROUND) & (labels != IGNORE)])


@component(Smoothed, additive=True, groups=_sides)
def balanced_cross_entropy(logits: Tensor, labels: Tensor, state: LossState, params: Smoothed) -> Tensor:
    """This forward's part of the batch's balanced cross entropy.

    Args:
        logits: (B, C+1, h, w) float.
        labels: (B, h, w) int64, 0..C or 255.
        state: counts (2,) of background and foreground pixels in the whole batch.
        params: see `Smoothed`.

    Returns:
        Scalar.
    """
    pixels = cross_entropy_of_pixels(logits, labels, params.label_smoothing)
    return mean_over_groups(pixels, _sides(labels), state)
