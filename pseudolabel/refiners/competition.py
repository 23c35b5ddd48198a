"""Competition: what speaks for the other classes present speaks against this one.

    out_c = max(0, S_c - weight * sum_{c' != c} S_c')

Source: authors' code (sammarfy/WS3_lib), `compete`, weight 0.5; meant for saliency, not for CAM.
By hand: (0.8, 0.4) -> (0.6, 0); (0.9, 0.5, 0.1) -> (0.6, 0, 0).
"""

from __future__ import annotations

from torch import Tensor

from pseudolabel.records import Scores
from pseudolabel.registry import SAME, Parameters, component, parameter


class Competition(Parameters):
    """How strongly the classes of one image push each other away."""

    weight: float = parameter(0.5, ge=0, help="share of the other classes' scores that is taken off")


@component(Competition, takes=SAME, gives=SAME, strength={"weight": 0.0}, flips=True)
def competition(scores: Scores, image: Tensor, params: Competition) -> Scores:
    """Scores of one image after its classes have competed at every pixel.

    Args:
        scores: values (K, H, W) float32 of the K >= 1 classes present, in any range.
        image: (H, W, 3) uint8 RGB; not looked at.
        params: see `Competition`.

    Returns:
        Scores (K, H, W) float32, never negative, no higher than they were where those were positive.
        The scores of a single class come back as they are, negative ones as 0.
    """
    values = scores.values
    others = values.sum(dim=0) - values
    return scores.replace((values - params.weight * others).clamp(min=0))
