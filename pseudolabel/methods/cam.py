"""Class activation map: where the features vote for the class.

    CAM_c(p) = ReLU( sum_k W_ck A_k(p) ),   h' x w'

With a class map of several logits to a class, W_c is the mean of their rows, weighted by their softmax
within the class. One forward serves any number of classes; no gradient. On the image: bilinear,
align_corners=False.

Source: Zhou et al. 2016, "Learning deep features for discriminative localization" (arXiv 1512.04150);
single scale and no flip as in the authors' study (sammarfy/WS3_lib).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pseudolabel.errors import DataError
from pseudolabel.explain.method import Key
from pseudolabel.explain.model import Explained
from pseudolabel.methods._activation_map import always, positive
from pseudolabel.records import Attribution, Targets
from pseudolabel.registry import RAW, Parameters, component


class Cam(Parameters):
    """Nothing to set: single scale, no flip."""


def fits(network: nn.Module) -> None:
    """Refuse a network that has no class activation map, before any image is read.

    Raises:
        DataError: the network has no linear head on pooled features.
    """
    if not getattr(network, "pooled", True):
        raise DataError(
            "cam: the network's head is not linear on the mean of a grid of features, so that it has no "
            "class activation map; take grad_cam, hires_cam or layer_cam"
        )


@component(Cam, gives=RAW, project="paste", reduce=positive, positive=always, fits=fits)
def cam(model: Explained, images: Tensor, targets: Targets, keys: Sequence[Key], params: Cam) -> Attribution:
    """Signed class activation of each target at feature size.

    Args:
        model: the frozen classifier.
        images: (B, 3, h, w) float32, normalised.
        targets: T >= 1 pairs of image and class id 1..C.
        keys: not looked at; nothing is drawn.
        params: see `Cam`.

    Returns:
        values (T, 1, h', w') float32 before the ReLU, logits (T,).

    Raises:
        DataError: the network has no linear head on pooled features.
    """
    fits(model.network)

    def part(images: Tensor, wanted: Targets) -> Attribution:
        (at, columns), slots = model.index(wanted), _slots(wanted, model.device)
        with torch.no_grad():
            features, raw = model.features_and_raw(model.on_device(images))
            rows = model.rows(raw[at], columns)
            # (B, S, D) x (B, D, h'w'): no image's features are copied for its other labels
            weights = rows.new_zeros(len(features), int(slots.max()) + 1, rows.shape[1])
            weights[at, slots] = rows
            votes = weights @ features.flatten(2)
            values = votes[at, slots].view(-1, 1, *features.shape[2:])
            logits, totals = model.grouped(raw)
        return Attribution(values, logits[at, columns], totals[at])

    return model.in_parts(images, targets, part)


def _slots(targets: Targets, device: torch.device) -> Tensor:
    """(T,) the how-manieth label of its image each target is, from 0."""
    slots = torch.empty(len(targets.images), dtype=torch.long)
    for number, slot in enumerate(targets.slots()):
        slots[slot] = number
    return slots.to(device)
