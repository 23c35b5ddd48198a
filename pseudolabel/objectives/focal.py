"""Focal loss: what the network already answers well counts little.

    L = -mean_{b,c} a_t (1 - p_t) ** gamma log p_t

with p_t = s(z), a_t = alpha where y = 1 and p_t = 1 - s(z), a_t = 1 - alpha where y = 0; logits z (B, C), s
the sigmoid. Without alpha a_t = 1. The mean is taken over all classes and images; the authors, who detect
objects, divide by the number of positive anchors.

Source: Lin et al. 2017 (arXiv 1708.02002); the authors take gamma 2 with alpha 0.25.
By hand: gamma = 0 without alpha is the soft margin; z = 0 gives log 2 / 16 where y = 1, with the defaults.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from pseudolabel.records import ObjectiveValue
from pseudolabel.registry import ObjectiveParameters, component, parameter


class Focal(ObjectiveParameters):
    """How little a good answer counts."""

    gamma: float = parameter(2.0, ge=0, help="exponent; 0 counts every answer alike")
    alpha: float | None = parameter(
        0.25, gt=0, lt=1, unit="share 0..1", help="weight of classes present; null weighs both answers 1"
    )


def classification(logits: Tensor, targets: Tensor, params: Focal) -> Tensor:
    """Loss, scalar float32, of logits (B, C) and targets (B, C) of 0 and 1."""
    margin = logits.float() * (2 * targets - 1)  # positive where the answer is right
    # (1 - p_t) ** gamma in logarithms: a power of 0 has no finite gradient where gamma is below 1
    modulation = torch.exp(params.gamma * functional.logsigmoid(-margin))
    each = -modulation * functional.logsigmoid(margin)
    if params.alpha is not None:
        each = each * (params.alpha * targets + (1 - params.alpha) * (1 - targets))
    return each.mean()


@component(Focal, adds_up=True, classification=classification)
def focal(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    draws: Callable[[int], torch.Generator],
    params: Focal,
) -> ObjectiveValue:
    """Loss of one forward.

    Args:
        network: images to logits (B, C).
        images: (B, 3, h, w) float32, normalised.
        targets: (B, C) float32, 1 where the image has the class.
        draws: not used.
        params: see `Focal`.
    """
    return ObjectiveValue(classification(network(images), targets, params))
