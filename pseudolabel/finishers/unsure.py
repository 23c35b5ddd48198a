"""255 where the two strongest labels are nearly equal.

    keep(p) = first(p) - second(p) >= margin,   the two largest values of the belief at p

After a CRF the values are probabilities and the margin is the CRF's; straight after a resolver they are
scores, and the margin is the distance to the background's score or to the next class.

Source: own choice; Ahn and Kwak 2018 (arXiv 1803.10464) and IRN leave unsure pixels out of their training.
"""

from __future__ import annotations

from torch import Tensor

from pseudolabel.records import Belief
from pseudolabel.registry import SAME, Parameters, brick, parameter


class Unsure(Parameters):
    """How near is too near."""

    margin: float = parameter(
        0.1, ge=0, le=1, unit="difference of values 0..1", help="smaller differences become 255"
    )


@brick(Unsure, takes=SAME, gives=SAME, flips=True, strength={"margin": 0.0})
def unsure(belief: Belief, image: Tensor, params: Unsure) -> Belief:
    """The same belief, fewer pixels kept.

    Args:
        belief: values (K+1, H, W) float32, K >= 1.
        image: (H, W, 3) uint8 RGB; not looked at.
        params: see `Unsure`.

    Returns:
        Belief of the same values; `keep` false where the margin is smaller than wanted, and where it was.
    """
    first, second = belief.values.topk(2, dim=0).values
    return Belief(belief.ids, belief.values.clone(), belief.keep & (first - second >= params.margin))
