"""Integrated gradients: the logit's rise from an empty image to the image, pixel by pixel.

    e = (I - B) * integral_0^1 dy_c/dI( B + a (I - B) ) da,   sum of e = y_c(I) - y_c(B)
    max_abs: max_rgb |e|   mean_abs: mean_rgb |e|   l2: sqrt(sum_rgb e^2)   signed_sum: sum_rgb e

The integral by Gauss-Legendre or by midpoints, a gradient a step. The baseline B is the normalised image's 0,
the mean colour of the training set, or the image's own mean colour; a pixel of that colour gets nothing.
(Black or white has no one value in a normalised image, and gives nothing to dark or bright objects.)

Source: Sundararajan et al. 2017 (arXiv 1703.01365), equation 1; 20 to 300 steps there. The channels are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pseudolabel.explain.method import Key
from pseudolabel.explain.model import Explained
from pseudolabel.methods._channels import Channels, one_map, unsigned
from pseudolabel.methods._input_gradient import input_gradient
from pseudolabel.records import Attribution, Targets
from pseudolabel.registry import RAW, Parameters, component, parameter


class IntegratedGradients(Parameters):
    """The path, how it is sampled, and how three channels become one map."""

    steps: int = parameter(32, ge=1, unit="gradients", help="places on the path from baseline to image")
    rule: Literal["gauss_legendre", "midpoint"] = parameter(
        "gauss_legendre", help="where the places are and what each counts"
    )
    baseline: Literal["mean_colour", "own_colour"] = parameter(
        "mean_colour", help="the empty image: the training set's mean colour, or the image's own"
    )
    channels: Channels = parameter(
        "max_abs", help="one map of the three channels' shares; signed_sum keeps the sign"
    )


@component(
    IntegratedGradients,
    gives=RAW,
    project="adjoint",
    reduce=one_map,
    positive=unsigned,
    views=lambda params: params.steps + 1,  # and the image itself, for its logit
    small={"steps": 3},
)
def integrated_gradients(
    model: Explained, images: Tensor, targets: Targets, keys: Sequence[Key], params: IntegratedGradients
) -> Attribution:
    """Integrated gradient of each target's logit from baseline to image.

    Args:
        model: the frozen classifier.
        images: (B, 3, h, w) float32, normalised.
        targets: T >= 1 pairs of image and class id 1..C.
        keys: not looked at; nothing is drawn.
        params: see `IntegratedGradients`.

    Returns:
        values (T, 3, h, w) float32, signed; logits (T,) of the images. Places of all images share
        forwards of at most the model's batch.

    Raises:
        DataError: no gradient reaches the input.
    """
    outputs = _outputs(model, images, targets)
    images = images.to(model.device)
    if params.baseline == "mean_colour":
        empty = torch.zeros_like(images[:, :, :1, :1])
    else:
        empty = images.mean(dim=(2, 3), keepdim=True)
    owned: dict[int, list[int]] = {}
    for target, image in enumerate(targets.images):
        owned.setdefault(image, []).append(target)
    at, counts = _rule(params)
    places = [(image, step) for image in owned for step in range(params.steps)]
    values = images.new_zeros(len(targets.images), *images.shape[1:])
    start = 0
    while start < len(places):
        # asked anew each time: it shrinks where memory ran out
        some = places[start : start + model.batch]
        start += len(some)
        path = torch.stack([torch.lerp(empty[image], images[image], at[step]) for image, step in some])
        wanted = Targets.of([targets.classes[target] for target in owned[image]] for image, _ in some)
        gradients = iter(input_gradient(model, path, wanted).values)
        for image, step in some:
            for target in owned[image]:
                values[target] += counts[step] * next(gradients)
    values *= (images - empty)[list(targets.images)]
    return Attribution(values, outputs.logits, outputs.totals)


def _rule(params: IntegratedGradients) -> tuple[list[float], list[float]]:
    """Places 0..1 on the path, and what each counts; they sum to 1."""
    if params.rule == "midpoint":
        return [(step + 0.5) / params.steps for step in range(params.steps)], [
            1 / params.steps
        ] * params.steps
    at, counts = np.polynomial.legendre.leggauss(params.steps)  # on -1..1
    return ((at + 1) / 2).tolist(), (counts / 2).tolist()


def _outputs(model: Explained, images: Tensor, targets: Targets) -> Attribution:
    """Logits and totals of the targets, without a map."""

    def part(images: Tensor, wanted: Targets) -> Attribution:
        rows, columns = model.index(wanted)
        with torch.no_grad():
            logits, totals = model.outputs(model.on_device(images))
        return Attribution(logits[rows], logits[rows, columns], totals[rows])

    return model.in_parts(images, targets, part)
