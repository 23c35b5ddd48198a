"""Binary cross entropy with its usual variations; at its defaults it is the soft margin.

    L = -mean_b over_c ( p t log s(z) + (1 - t) log(1 - s(z)) ),   t = (1 - e) y + e / 2

with logits z (B, C), y in {0, 1}, s the sigmoid, p `positive_weight`, e `label_smoothing`, and the mean or
the sum over the classes.

Source: torch's `binary_cross_entropy_with_logits`; label smoothing of Szegedy et al. 2016 (1512.00567).
By hand: z = 0, p = 3, e = 0 gives 3 log 2 where y = 1 and log 2 where y = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pseudolabel.records import ObjectiveValue
from pseudolabel.registry import ObjectiveParameters, component, parameter


class Bce(ObjectiveParameters):
    """How the classes and the answers yes and no weigh."""

    positive_weight: float = parameter(1.0, gt=0, help="factor on the part of the classes that are present")
    label_smoothing: float = parameter(
        0.0, ge=0, lt=1, unit="share 0..1", help="share of each target that is moved to one half"
    )
    over: Literal["mean", "sum"] = parameter("mean", help="mean or sum over the classes of an image")


def classification(logits: Tensor, targets: Tensor, params: Bce) -> Tensor:
    """Loss, scalar float32, of logits (B, C) and targets (B, C) of 0 and 1."""
    wanted = (1 - params.label_smoothing) * targets + params.label_smoothing / 2
    factor = torch.full((targets.shape[1],), params.positive_weight, device=targets.device)
    each = functional.binary_cross_entropy_with_logits(
        logits.float(), wanted, pos_weight=factor, reduction="none"
    )
    return (each.sum(dim=1) if params.over == "sum" else each.mean(dim=1)).mean()


@component(Bce, adds_up=True, classification=classification)
def bce(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    draws: Callable[[int], torch.Generator],
    params: Bce,
) -> ObjectiveValue:
    """Loss of one forward.

    Args:
        network: images to logits (B, C).
        images: (B, 3, h, w) float32, normalised.
        targets: (B, C) float32, 1 where the image has the class.
        draws: not used.
        params: see `Bce`.
    """
    return ObjectiveValue(classification(network(images), targets, params))
