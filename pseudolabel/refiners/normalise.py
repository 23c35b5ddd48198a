"""Normalisation: every map onto 0..1, per class or over all classes of an image.

    quantile: lo = min S, hi = the `quantile` of S (the nearest sample);  out = (min(S, hi) - lo) / (hi - lo)
    minmax:   the same with hi = max S
    max:      out = max(S, 0) / (max S + 1e-5)

Where hi = lo the map says nothing (it is constant, up to fewer pixels than the quantile cuts off), and
it becomes 0 everywhere.

Source: authors' code (sammarfy/WS3_lib), `normalise`, quantile 0.995, and its CAM notebook (max).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pseudolabel.records import Scores
from pseudolabel.registry import SAME, UNIT, Parameters, component, parameter

MARGIN = 1e-5  # in units of the scores, added to the maximum by the authors and by IRN


class Normalise(Parameters):
    """What becomes 0 and what becomes 1."""

    method: Literal["quantile", "minmax", "max"] = parameter(
        "quantile", help="quantile: minimum to a quantile; minmax: minimum to maximum; max: 0 to maximum"
    )
    quantile: float = parameter(0.995, gt=0, le=1, unit="share 0..1", help="what becomes 1, by quantile")
    per: Literal["class", "image"] = parameter("class", help="the range is found per class, or over all")


@component(Normalise, takes=SAME, gives=UNIT, flips=True)
def normalise(scores: Scores, image: Tensor, params: Normalise) -> Scores:
    """Scores of one image on 0..1.

    Args:
        scores: values (K, H, W) float32 of the K >= 1 classes present, in any range.
        image: (H, W, 3) uint8 RGB; not looked at.
        params: see `Normalise`.

    Returns:
        Scores (K, H, W) float32 in [0, 1]; a constant map gives zeros.
    """
    values = scores.values
    flat = values.flatten(1) if params.per == "class" else values.reshape(1, -1)
    if params.method == "max":
        # Below zero CAM has no attribution; an all-negative map has the maximum 0.
        high = flat.amax(dim=1).clamp(min=0) + MARGIN
        return scores.replace(values.clamp(min=0) / high[:, None, None])
    low = flat.amin(dim=1)
    high = flat.amax(dim=1) if params.method == "minmax" else _nearest_quantile(flat, params.quantile)
    span = (high - low)[:, None, None]
    share = ((values - low[:, None, None]) / span).clamp(0, 1)
    return scores.replace(torch.where(span == 0, 0.0, share))


def _nearest_quantile(flat: Tensor, share: float) -> Tensor:
    """Per row of (R, N) the sample nearest to the quantile, halves to the even one (as NumPy and torch).

    `torch.quantile` sorts the whole row and refuses more than 16 million pixels; one order statistic will do.
    """
    rank = round(share * (flat.shape[1] - 1))
    return flat.kthvalue(rank + 1, dim=1).values
