"""Local affinity: each pixel becomes a mean of its neighbours, those of like colour first, several times.

    k(p, q)  = -1/3 * sum over channels of |I(p) - I(q)| / (0.1 * sigma(p) + 1e-8)
    a(p, q)  = exp k(p, q) / sum over q' of exp k(p, q')
    S(p)    <- sum over q of a(p, q) S(q),   `iterations` times

q are the eight neighbours of p at every distance of `dilations`; beyond the border the border's pixels go on.
sigma(p) is the standard deviation of each channel over these neighbours and p itself (once a dilation), for
an image in 0..1: colours count in units of how much they vary nearby.

Source: Araslanov and Roth 2020 (arXiv 2005.08104), PAMR, 10 iterations at dilations 1, 2, 4, 8, 12, 24
(visinf/1-stage-wseg). There it refines masks while a network learns; here scores, without a background row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pseudolabel.records import Scores
from pseudolabel.registry import SAME, Parameters, component, parameter

SHARPNESS = 0.1  # of a standard deviation: the unit that colour differences are told in
FLOOR = 1e-8 * 255  # where nothing varies, in steps of 0..255
AROUND = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


class Affinity(Parameters):
    """How far and how often scores are handed on."""

    dilations: tuple[Annotated[int, Field(ge=1)], ...] = parameter(
        (1, 2, 4, 8, 12, 24),
        min_length=1,
        max_length=20,
        unit="pixels of the original image",
        help="distances of the neighbours",
    )
    iterations: int = parameter(10, ge=0, help="how often; 0 leaves the scores as they are")


@component(Affinity, takes=SAME, gives=SAME, strength={"iterations": 0}, flips=True)
def affinity(scores: Scores, image: Tensor, params: Affinity) -> Scores:
    """Scores of one image, handed on between neighbours of like colour.

    Args:
        scores: values (K, H, W) float32 of the K >= 1 classes present, in any range.
        image: (H, W, 3) uint8 RGB as shown.
        params: see `Affinity`.

    Returns:
        Scores (K, H, W) float32 in the range they had: weights are positive and sum to 1.

    Raises:
        ValueError: scores and image differ in size.
    """
    size, wanted = tuple(scores.values.shape[1:]), tuple(image.shape[:2])
    if size != wanted:
        raise ValueError(f"affinity: scores are {size}, the image {wanted}; resize the scores first")
    if params.iterations == 0:
        return scores.replace(scores.values.clone())
    weights = _weights(image.to(scores.values.device), params.dilations)
    values = scores.values
    for _ in range(params.iterations):
        out = torch.zeros_like(values)
        for weight, near in zip(weights, _neighbours(values, params.dilations), strict=True):
            out.addcmul_(weight, near)
        values = out
    # means stay within the range; their rounding, over some hundred products, may not
    low, high = scores.values.amin(dim=(1, 2), keepdim=True), scores.values.amax(dim=(1, 2), keepdim=True)
    return scores.replace(values.clamp(low, high))


def _weights(image: Tensor, dilations: tuple[int, ...]) -> Tensor:
    """(8 * D, H, W) float32 affinities to each neighbour, summing to 1 over the first axis."""
    pixels = image.permute(2, 0, 1).float()
    count = 9 * len(dilations)
    # sums of whole numbers below 2^24: exact, whichever way an image is turned
    total, squares = len(dilations) * pixels, len(dilations) * pixels * pixels
    for near in _neighbours(pixels, dilations):
        total.add_(near)
        squares.addcmul_(near, near)
    variance = (count * squares.long() - total.long() ** 2).float() / (count * (count - 1))
    unit = 1 / (SHARPNESS * variance.sqrt() + FLOOR) / len(pixels)
    unlike = pixels.new_empty(8 * len(dilations), *pixels.shape[1:])
    for plane, near in zip(unlike, _neighbours(pixels, dilations), strict=True):
        torch.sum((pixels - near).abs_().mul_(unit), dim=0, out=plane)
    return unlike.neg_().softmax(dim=0)


def _neighbours(values: Tensor, dilations: tuple[int, ...]) -> Iterator[Tensor]:
    """Views (N, H, W) of the values, shifted to each neighbour in turn; the border goes on beyond itself."""
    height, width = values.shape[1:]
    reach = max(dilations)
    down = torch.arange(-reach, height + reach, device=values.device).clamp(0, height - 1)
    across = torch.arange(-reach, width + reach, device=values.device).clamp(0, width - 1)
    wide = values[:, down][:, :, across]
    for step in dilations:
        for y, x in AROUND:
            top, left = reach + step * y, reach + step * x
            yield wide[:, top : top + height, left : left + width]
