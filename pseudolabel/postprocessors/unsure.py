"""255 where the two strongest labels are nearly equal.

    keep(p) = first(p) - second(p) >= margin,   the two largest values of the label scores at p

After a CRF the values are probabilities and the margin is the CRF's; straight after a background rule they
are scores, and the margin is the distance to the background's score or to the next class.

Source: own choice; Ahn and Kwak 2018 (arXiv 1803.10464) and IRN leave unsure pixels out of their training.
"""

from __future__ import annotations

from torch import Tensor

from pseudolabel.records import LabelScores
from pseudolabel.registry import SAME, Parameters, component, parameter


class Unsure(Parameters):
    """How near is too near."""

    margin: float = parameter(
        0.1, ge=0, le=1, unit="difference of values 0..1", help="smaller differences become 255"
    )


@component(Unsure, takes=SAME, gives=SAME, flips=True, strength={"margin": 0.0})
def unsure(label_scores: LabelScores, image: Tensor, params: Unsure) -> LabelScores:
    """The same label scores, fewer pixels kept.

    Args:
        label_scores: values (K+1, H, W) float32, K >= 1.
        image: (H, W, 3) uint8 RGB; not looked at.
        params: see `Unsure`.

    Returns:
        LabelScores of the same values; `keep` false where the margin is smaller than wanted, and where it
        was.
    """
    first, second = label_scores.values.topk(2, dim=0).values
    return LabelScores(
        label_scores.ids, label_scores.values.clone(), label_scores.keep & (first - second >= params.margin)
    )
