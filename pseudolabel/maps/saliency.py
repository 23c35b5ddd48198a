"""Saliency: how much each pixel moves the logit of the class.

    g = dy_c / dI   (of the normalised image, signed, three channels)
    max_abs: max_rgb |g|   mean_abs: mean_rgb |g|   l2: sqrt(sum_rgb g^2)   signed_sum: sum_rgb g

The logit before the sigmoid, at the image's own size. One forward, and one backward for each label slot
(slot s is the s-th label of every image).

Source: Simonyan et al. 2013 (arXiv 1312.6034) for max_abs, as in the authors' code (sammarfy/WS3_lib);
signed_sum is Baehrens' explanation vector (JMLR 11, 2010) summed over RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from pseudolabel.maps._bound import Key
from pseudolabel.maps._explained import Explained
from pseudolabel.records import Evidence, Targets
from pseudolabel.registry import RAW, Parameters, brick, parameter


class Saliency(Parameters):
    """How three channels become one map."""

    channels: Literal["max_abs", "mean_abs", "l2", "signed_sum"] = parameter(
        "max_abs", help="one map of the three channels' gradients; signed_sum keeps the sign"
    )


def finish(values: Tensor, params: Saliency) -> Tensor:
    """Gradients (T, 3, h, w) -> (T, h, w)."""
    match params.channels:
        case "max_abs":
            return values.abs().amax(dim=1)
        case "mean_abs":
            return values.abs().mean(dim=1)
        case "l2":
            return values.square().sum(dim=1).sqrt()
        case "signed_sum":
            return values.sum(dim=1)


@brick(Saliency, gives=RAW, place="adjoint", finish=finish)
def saliency(
    model: Explained, images: Tensor, targets: Targets, keys: Sequence[Key], params: Saliency
) -> Evidence:
    """Gradient of each target's logit with respect to its image.

    Args:
        model: the frozen classifier.
        images: (B, 3, h, w) float32, normalised.
        targets: T >= 1 pairs of image and class id 1..C.
        keys: not looked at; nothing is drawn.
        params: see `Saliency`.

    Returns:
        values (T, 3, h, w) float32, signed; logits (T,).

    Raises:
        DataFault: no gradient reaches the input.
    """
    model.probe()

    def part(pictures: Tensor, wanted: Targets) -> Evidence:
        rows = torch.tensor(wanted.images, device=model.device)
        columns = torch.tensor(wanted.classes, device=model.device) - 1
        with torch.enable_grad():
            inputs = model.place(pictures).detach().requires_grad_()
            logits, totals = model.outputs(inputs)
            values = inputs.new_empty((len(rows), *inputs.shape[1:]))
            slots = wanted.slots()
            for number, slot in enumerate(slots):
                # images do not mix, so the gradient of the sum holds each image's own
                chosen = logits[rows[slot], columns[slot]].sum()
                more = number + 1 < len(slots)
                (gradient,) = torch.autograd.grad(chosen, inputs, retain_graph=more)
                values[slot] = gradient[rows[slot]]
        return Evidence(values, logits.detach()[rows, columns], totals.detach()[rows])

    return model.in_parts(images, targets, part)
