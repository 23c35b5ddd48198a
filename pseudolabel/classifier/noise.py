"""Model-noise: a classifier that learns on perturbed pictures, for maps that are taken from perturbed ones.

    gaussian   x + n,   n ~ N(0, (sigma * (max x - min x))^2) for each number
    bernoulli  x * m,   m ~ Bernoulli(keep) for each pixel, one for all three channels

of the normalised and cropped picture, so that a removed pixel is the mean colour; the loss sees the
perturbed picture only. Source: authors' code (sammarfy/WS3_lib) for bernoulli, keep 0.9; arXiv 2308.11052
names the Gaussian classifier and publishes no script, sigma is SmoothGrad's (arXiv 1706.03825).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pseudolabel.draws import generator
from pseudolabel.schema import Noise

Key = tuple[int | str, ...]


def perturbed(pictures: Tensor, keys: Sequence[Key], noise: Noise) -> Tensor:
    """Pictures with noise.

    Args:
        pictures: (B, 3, h, w) float32, normalised, any device; left as they are.
        keys: of each picture, what its draws follow from.
        noise: see `Noise`.

    Returns:
        (B, 3, h, w) float32 on the same device; a picture's noise does not depend on the others.
    """
    rows = [_one(picture, generator(*key), noise) for picture, key in zip(pictures, keys, strict=True)]
    return torch.stack(rows)


def _one(picture: Tensor, source: torch.Generator, noise: Noise) -> Tensor:
    if noise.kind == "gaussian":
        spread = noise.sigma * (picture.amax() - picture.amin())
        return picture + spread * torch.randn(picture.shape, generator=source).to(picture.device)
    shape = picture.shape if noise.per_channel else picture.shape[1:]
    return picture * (torch.rand(shape, generator=source) < noise.keep).to(picture.device)
