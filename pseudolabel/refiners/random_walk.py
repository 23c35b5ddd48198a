"""A random walk between places of like colour, on a coarse grid: scores spread until they meet an edge.

    w_ij = exp(-|I_i - I_j|^2 / (2 sigma^2)) for cells i, j at most `radius` apart, w_ii = 1
    S    <- (D^-1 W)^steps S,   D = the sums of the rows of W

I_i and S_i are the means over the pixels of a cell; the result comes back to the pixels bilinearly, so edges
are as sharp as the cells are small. Nothing is trained.

Source: Ahn and Kwak 2018 (arXiv 1803.10464), with a network's affinities: (D^-1 W^beta)^t at 1/8 of the size,
radius 5, t = 256. Here colours stand in for their AffinityNet; a power beta of such a W is the W of
sigma / sqrt(beta), so that it is no parameter of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pseudolabel.records import Scores
from pseudolabel.registry import SAME, Parameters, component, parameter


class RandomWalk(Parameters):
    """How far scores spread, and what stops them."""

    steps: int = parameter(32, ge=0, help="of the walk; 0 leaves the scores as they are")
    radius: float = parameter(5.0, ge=1, unit="cells", help="longest step, from centre to centre")
    sigma: float = parameter(8.0, gt=0, unit="steps of 0..255", help="reach in colour; lower stops sooner")
    cell: int = parameter(4, ge=1, unit="pixels of the original image", help="side of a cell")


@component(RandomWalk, takes=SAME, gives=SAME, strength={"steps": 0}, flips=True)
def random_walk(scores: Scores, image: Tensor, params: RandomWalk) -> Scores:
    """Scores of one image after a walk over its colours.

    Args:
        scores: values (K, H, W) float32 of the K >= 1 classes present, in any range.
        image: (H, W, 3) uint8 RGB as shown.
        params: see `RandomWalk`.

    Returns:
        Scores (K, H, W) float32 in the range they had: every step takes means.

    Raises:
        ValueError: scores and image differ in size.
    """
    size, wanted = tuple(scores.values.shape[1:]), tuple(image.shape[:2])
    if size != wanted:
        raise ValueError(f"random_walk: scores are {size}, the image {wanted}; resize the scores first")
    if params.steps == 0:
        return scores.replace(scores.values.clone())
    cells = (-(-size[0] // params.cell), -(-size[1] // params.cell))
    pixels = image.permute(2, 0, 1).to(scores.values)
    # windows of near-equal size that mirror when the image is mirrored, whatever remains of a cell
    colours = functional.adaptive_avg_pool2d(pixels, cells)
    values = functional.adaptive_avg_pool2d(scores.values, cells)
    offsets = _offsets(params.radius, cells)
    weights = _weights(colours, offsets, params.sigma)
    for _ in range(params.steps):
        values = _step(values, offsets, weights)
    out = functional.interpolate(values[None], size, mode="bilinear", align_corners=False)[0]
    # means stay within the range; their rounding, step by step, may not
    low, high = scores.values.amin(dim=(1, 2), keepdim=True), scores.values.amax(dim=(1, 2), keepdim=True)
    return scores.replace(out.clamp(low, high))


def _offsets(radius: float, cells: tuple[int, int]) -> list[tuple[int, int]]:
    """(down, across) of one half of the neighbours; the other half mirrors it, and W is symmetric."""
    reach = int(radius)
    return [
        (y, x)
        for y in range(min(reach, cells[0] - 1) + 1)
        for x in range(-min(reach, cells[1] - 1), min(reach, cells[1] - 1) + 1)
        if (y > 0 or x > 0) and y * y + x * x <= radius * radius
    ]


def _weights(colours: Tensor, offsets: list[tuple[int, int]], sigma: float) -> tuple[Tensor, list[Tensor]]:
    """1 / D (h, w), and for every offset the affinity of each pair that lies so."""
    sums = torch.ones_like(colours[0])
    weights = []
    for offset in offsets:
        here, there = _pair(colours, offset)
        weight = torch.exp((here - there).square().sum(dim=0) / (-2 * sigma**2))
        for side in _pair(sums, offset):
            side += weight
        weights.append(weight)
    return 1 / sums, weights


def _step(values: Tensor, offsets: list[tuple[int, int]], walk: tuple[Tensor, list[Tensor]]) -> Tensor:
    """(K, h, w) after one step."""
    shares, weights = walk
    out = values.clone()
    for offset, weight in zip(offsets, weights, strict=True):
        here, there = _pair(values, offset)
        to_here, to_there = _pair(out, offset)
        to_here.addcmul_(weight, there)
        to_there.addcmul_(weight, here)
    return out * shares


def _pair(values: Tensor, offset: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Views of all cells that have a neighbour at the offset, and of these neighbours, pair by pair."""
    down, across = offset
    height, width = values.shape[-2:]
    left, right = max(0, -across), max(0, across)
    here = values[..., : height - down, left : width - right]
    there = values[..., down:, left + across : width - right + across]
    return here, there
