"""A constant background: a pixel belongs to its strongest class where that exceeds the threshold.

    label(p) = argmax(threshold, s_1(p), ..., s_K(p)),   the background wins a tie

Source: authors' code (sammarfy/WS3_lib) and IRN (jiwoon-ahn/irn), which takes 0.15 for CAM.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pseudolabel.records import LabelScores, Scores
from pseudolabel.registry import UNIT, Parameters, component, parameter


class Constant(Parameters):
    """The score that a class must exceed."""

    threshold: float = parameter(0.15, ge=0, le=1, unit="score 0..1", help="score of the background")


def sweep(scores: Scores, image: Tensor, params: Constant, thresholds: Sequence[float]) -> Tensor:
    """Masks (len(thresholds), H, W) uint8 at every threshold, equal to resolving one at a time."""
    strongest = LabelScores.join(scores.values.new_full(scores.values.shape[1:], -torch.inf), scores).mask()
    top = scores.values.amax(dim=0)
    levels = torch.tensor(list(thresholds), dtype=top.dtype, device=top.device)
    return torch.where(top > levels[:, None, None], strongest, torch.zeros_like(strongest))


@component(Constant, takes=UNIT, gives=UNIT, swept="threshold", sweep=sweep, flips=True)
def constant(scores: Scores, image: Tensor, params: Constant) -> LabelScores:
    """A constant background beside the classes of one image.

    Args:
        scores: values (K, H, W) float32 in [0, 1] of the K >= 1 classes present.
        image: (H, W, 3) uint8 RGB; only its size is looked at.
        params: see `Constant`.

    Returns:
        LabelScores of (K+1, H, W) float32 in [0, 1], row 0 the threshold; every pixel is kept.

    Raises:
        ValueError: scores and image differ in size.
    """
    size, wanted = tuple(scores.values.shape[1:]), tuple(image.shape[:2])
    if size != wanted:
        raise ValueError(f"constant: scores are {size}, the image {wanted}; resize the scores first")
    return LabelScores.join(scores.values.new_full(size, params.threshold), scores)
