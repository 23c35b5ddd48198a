"""Margin: a class must be ahead of the next one.

    b(p) = min(1, s_second(p) + margin),   s_second = 0 where there is one class

Source: ours, an example.
"""

from __future__ import annotations

from torch import Tensor

from pseudolabel.records import LabelScores, Scores
from pseudolabel.registry import UNIT, Parameters, component, parameter


class Margin(Parameters):
    """How far ahead."""

    margin: float = parameter(0.1, ge=0, le=1, unit="share 0..1", help="lead over the second class")


@component(
    Margin,
    kind="backgrounds",
    takes=UNIT,
    gives=UNIT,
    swept="margin",
    flips=True,
    oracles="acme_components.oracles",
)
def margin(scores: Scores, image: Tensor, params: Margin) -> LabelScores:
    """Background beside the classes of one image.

    Raises:
        ValueError: scores and image differ in size.
    """
    size, wanted = tuple(scores.values.shape[1:]), tuple(image.shape[:2])
    if size != wanted:
        raise ValueError(f"margin: scores are {size}, the image {wanted}; resize the scores first")
    second = scores.values.sort(dim=0).values[-2] if len(scores.ids) > 1 else scores.values[0] * 0
    return LabelScores.join((second + params.margin).clamp(max=1), scores)
