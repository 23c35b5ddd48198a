"""Two thresholds: surely a class, surely background, and 255 between.

    class(p)      = argmax_k s_k(p)   where max_k s_k(p) > high
    background(p)                     where max_k s_k(p) <= low
    255                               where low < max_k s_k(p) <= high

The same as two argmaxes, one beside a constant background `high`, one beside `low`: the class of the first,
background where both say so, 255 elsewhere. Swept is `high`: in the usual reading of 255 as background it
alone moves the mIoU. Where a CRF follows, it starts unsure between the thresholds, and 255 stays 255.

Source: IRN (jiwoon-ahn/irn, `cam_to_ir_label`), which takes 0.30 and 0.05 and runs a CRF after each argmax;
authors' code (sammarfy/WS3_lib) takes 0.45 and 0.15.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import model_validator
from torch import Tensor

from pseudolabel.records import IGNORE, LabelScores, Scores
from pseudolabel.registry import UNIT, Parameters, component, parameter


class DoubleThreshold(Parameters):
    """The score above which a class is sure, and the one up to which the background is."""

    high: float = parameter(0.3, ge=0, le=1, unit="score 0..1", help="a class must exceed it")
    low: float = parameter(0.05, ge=0, le=1, unit="score 0..1", help="background does not exceed it")

    @model_validator(mode="after")
    def _ordered(self) -> DoubleThreshold:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}; swap them, or lower low")
        return self


def sweep(scores: Scores, image: Tensor, params: DoubleThreshold, thresholds: Sequence[float]) -> Tensor:
    """Masks (len(thresholds), H, W) uint8 at every `high`, equal to resolving one at a time."""
    top = scores.values.amax(dim=0)
    strongest = LabelScores.join(torch.full_like(top, -torch.inf), scores).mask()
    below = (top > params.low).to(torch.uint8) * IGNORE
    levels = torch.tensor(list(thresholds), dtype=top.dtype, device=top.device)
    return torch.where(top > levels[:, None, None], strongest, below)


@component(DoubleThreshold, takes=UNIT, gives=UNIT, swept="high", sweep=sweep, flips=True)
def double_threshold(scores: Scores, image: Tensor, params: DoubleThreshold) -> LabelScores:
    """A constant background beside the classes of one image, and what lies between given up.

    Args:
        scores: values (K, H, W) float32 in [0, 1] of the K >= 1 classes present.
        image: (H, W, 3) uint8 RGB; only its size is looked at.
        params: see `DoubleThreshold`.

    Returns:
        LabelScores of (K+1, H, W) float32 in [0, 1], row 0 all `high`; kept outside (low, high].

    Raises:
        ValueError: scores and image differ in size.
    """
    size, wanted = tuple(scores.values.shape[1:]), tuple(image.shape[:2])
    if size != wanted:
        raise ValueError(f"double_threshold: scores are {size}, the image {wanted}; resize the scores first")
    label_scores = LabelScores.join(scores.values.new_full(size, params.high), scores)
    top = scores.values.amax(dim=0)
    return LabelScores(
        label_scores.ids, label_scores.values, (top > label_scores.values[0]) | (top <= params.low)
    )
