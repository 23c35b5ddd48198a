"""Multi-label soft margin: each class is a yes or no of its own.

    L = -mean_{b,c} ( y log s(z) + (1 - y) log(1 - s(z)) ),   z logits (B, C), y in {0, 1}, s the sigmoid

Source: torch's `multilabel_soft_margin_loss`, the objective of IRN (arXiv 1904.05044) and of most later work.
By hand: z = 0 gives log 2 whatever y.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from pseudolabel.records import ObjectiveValue
from pseudolabel.registry import ObjectiveParameters, component


class SoftMargin(ObjectiveParameters):
    """It has no parameter of its own."""


def classification(logits: Tensor, targets: Tensor, params: SoftMargin) -> Tensor:
    """Loss, scalar float32, of logits (B, C) and targets (B, C) of 0 and 1."""
    return functional.multilabel_soft_margin_loss(logits.float(), targets)


@component(SoftMargin, adds_up=True, classification=classification)
def soft_margin(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    draws: Callable[[int], torch.Generator],
    params: SoftMargin,
) -> ObjectiveValue:
    """Loss of one forward.

    Args:
        network: images to logits (B, C).
        images: (B, 3, h, w) float32, normalised.
        targets: (B, C) float32, 1 where the image has the class.
        draws: not used.
        params: see `SoftMargin`.
    """
    return ObjectiveValue(classification(network(images), targets, params))
