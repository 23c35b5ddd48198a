"""Background by power: the weaker the strongest class, the more background.

    b(p) = (1 - max_k s_k(p)) ** alpha

Source: Ahn and Kwak 2018 (arXiv 1803.10464), background score; the authors run it with alpha 4 (much
background) and 32 (little).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pseudolabel.records import LabelScores, Scores
from pseudolabel.registry import UNIT, Parameters, component, parameter


class Power(Parameters):
    """How fast the background gives way to a class."""

    alpha: float = parameter(16.0, gt=0, help="exponent; higher leaves less background")


def sweep(scores: Scores, image: Tensor, params: Power, thresholds: Sequence[float]) -> Tensor:
    """Masks (len(thresholds), H, W) uint8, one for each alpha, equal to resolving one at a time."""
    strongest = LabelScores.join(scores.values.new_full(scores.values.shape[1:], -torch.inf), scores).mask()
    top = scores.values.amax(dim=0)
    backgrounds = torch.stack([_background(scores, alpha) for alpha in thresholds])
    return torch.where(top > backgrounds, strongest, torch.zeros_like(strongest))


@component(Power, takes=UNIT, gives=UNIT, swept="alpha", sweep=sweep, flips=True)
def power(scores: Scores, image: Tensor, params: Power) -> LabelScores:
    """Background beside the classes of one image.

    Args:
        scores: values (K, H, W) float32 in [0, 1] of the K >= 1 classes present.
        image: (H, W, 3) uint8 RGB; only its size is looked at.
        params: see `Power`.

    Returns:
        LabelScores of (K+1, H, W) float32 in [0, 1], row 0 the background; every pixel is kept.

    Raises:
        ValueError: scores and image differ in size.
    """
    size, wanted = tuple(scores.values.shape[1:]), tuple(image.shape[:2])
    if size != wanted:
        raise ValueError(f"power: scores are {size}, the image {wanted}; resize the scores first")
    return LabelScores.join(_background(scores, params.alpha), scores)


def _background(scores: Scores, alpha: float) -> Tensor:
    # a map smoothed after its normalisation may exceed 1 by a rounding, and a root of less than 0 is NaN
    return (1 - scores.values.amax(dim=0)).clamp(min=0) ** alpha
