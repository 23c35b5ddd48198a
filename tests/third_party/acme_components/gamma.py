"""Gamma: the higher the exponent, the more a map keeps to its peak.

    out = S ** exponent

Source: the gamma curve of photography.
"""

from __future__ import annotations

from torch import Tensor

from pseudolabel.records import Scores
from pseudolabel.registry import UNIT, Parameters, component, parameter


class Gamma(Parameters):
    """How strongly."""

    exponent: float = parameter(2.0, gt=0, help="above 1 narrows a map, below 1 widens it")


@component(
    Gamma,
    kind="refiners",
    takes=UNIT,
    gives=UNIT,
    strength={"exponent": 1.0},
    flips=True,
    oracles="acme_components.oracles",
)
def gamma(scores: Scores, image: Tensor, params: Gamma) -> Scores:
    """Raise scores (K, H, W) in 0..1 to a power."""
    return scores.replace(scores.values.clamp(0, 1) ** params.exponent)
