"""Smoothing by a box or a Gaussian, zero beyond the border.

    out = (g outer g) * S,   box: g = 1/size,   gaussian: g(d) ~ exp(-d^2 / (2 sigma^2)), summing to 1

Source: authors' code (sammarfy/WS3_lib). Meant there is a 13 x 13 Gaussian with sigma 5; as written it is
a box with a gain of 40.04, which the normalisation after it cancels. Here the weights sum to 1, so that
scores stay in their range whatever follows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import field_validator
from torch import Tensor

from pseudolabel.records import Scores
from pseudolabel.registry import SAME, Parameters, component, parameter

BLOCK = 64  # output lines of one product: a dense (H, H) matrix would grow with the square of the side


class Smooth(Parameters):
    """The kernel's shape and size."""

    kernel: Literal["box", "gaussian"] = parameter("box", help="all weights equal, or falling off")
    size: int = parameter(13, ge=1, unit="pixels of the original image", help="side of the kernel, odd")
    sigma: float = parameter(5.0, gt=0, unit="pixels of the original image", help="of the Gaussian")

    @field_validator("size")
    @classmethod
    def _has_a_middle(cls, size: int) -> int:
        if size % 2 == 0:
            raise ValueError(f"{size} is even and has no middle; take {size - 1} or {size + 1}")
        return size


@component(Smooth, takes=SAME, gives=SAME, strength={"size": 1}, tile="BLOCK", flips=True)
def smooth(scores: Scores, image: Tensor, params: Smooth) -> Scores:
    """Scores of one image, each map smoothed.

    Args:
        scores: values (K, H, W) float32 of the K >= 1 classes present, in any range.
        image: (H, W, 3) uint8 RGB; not looked at.
        params: see `Smooth`; the kernel may be larger than the image.

    Returns:
        Scores (K, H, W) float32 in the range they had, together with 0 (which stands beyond the border).
    """
    taps = _taps(params)
    # the kernel is a product of two: first within the lines, then across them
    return scores.replace(_across(_within(scores.values.contiguous(), taps), taps))


def _taps(params: Smooth) -> list[float]:
    """Weights of one axis, summing to 1."""
    if params.kernel == "box":
        return [1 / params.size] * params.size
    middle = params.size // 2
    raw = [math.exp(-((place - middle) ** 2) / (2 * params.sigma**2)) for place in range(params.size)]
    return [weight / sum(raw) for weight in raw]


def _within(values: Tensor, taps: list[float]) -> Tensor:
    """Correlate each line of (K, H, W) with the taps, zeros beyond its ends."""
    out = torch.empty_like(values)
    lines, filtered = values.flatten(0, 1), out.flatten(0, 1)
    for first, last, low, high, band in _bands(values, taps, values.shape[2]):
        torch.mm(lines[:, low:high], band, out=filtered[:, first:last])
    return out


def _across(values: Tensor, taps: list[float]) -> Tensor:
    """Correlate each column of (K, H, W) with the taps, zeros beyond its ends."""
    out = torch.empty_like(values)
    for first, last, low, high, band in _bands(values, taps, values.shape[1]):
        for plane, filtered in zip(values, out, strict=True):
            torch.mm(band.T, plane[low:high], out=filtered[first:last])
    return out


def _bands(values: Tensor, taps: list[float], length: int) -> Iterator[tuple[int, int, int, int, Tensor]]:
    """An axis in blocks: [first, last) of the output, [low, high) of the input, the matrix between them.

    On a CPU a product with a small band matrix is several times faster than a convolution of few channels,
    and slices of a matrix go into it as they lie.
    """
    reach = len(taps) // 2
    block = max(BLOCK, len(taps))
    band = torch.zeros(block + 2 * reach, block, dtype=torch.float64)
    for offset, weight in enumerate(taps):
        band.diagonal(-offset).fill_(weight)
    band = band.to(values)
    for first in range(0, length, block):
        last = min(first + block, length)
        low, high = max(0, first - reach), min(length, last + reach)
        above = first - reach
        yield first, last, low, high, band[low - above : high - above, : last - first]
