"""Model-noise: a classifier that learns on perturbed images, for maps that are taken from perturbed ones.

    gaussian   x + n,   n ~ N(0, (sigma * (max x - min x))^2) for each number
    bernoulli  x * m,   m ~ Bernoulli(keep) for each pixel, one for all three channels

of the normalised and cropped image, so that a removed pixel is the mean colour; the loss sees the
perturbed image only. Source: authors' code (sammarfy/WS3_lib) for bernoulli, keep 0.9; arXiv 2308.11052
names the Gaussian classifier and publishes no script, sigma is SmoothGrad's (arXiv 1706.03825).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pseudolabel.draws import generator
from pseudolabel.recipes.schema import Noise

Key = tuple[int | str, ...]


def perturbed(images: Tensor, keys: Sequence[Key], noise: Noise) -> Tensor:
    """Images with noise.

    Args:
        images: (B, 3, h, w) float32, normalised, any device; left as they are.
        keys: of each image, what its draws follow from.
        noise: see `Noise`.

    Returns:
        (B, 3, h, w) float32 on the same device; an image's noise does not depend on the others.
    """
    rows = [_perturbed(image, generator(*key), noise) for image, key in zip(images, keys, strict=True)]
    return torch.stack(rows)


def _perturbed(image: Tensor, source: torch.Generator, noise: Noise) -> Tensor:
    if noise.kind == "gaussian":
        spread = noise.sigma * (image.amax() - image.amin())
        return image + spread * torch.randn(image.shape, generator=source).to(image.device)
    shape = image.shape if noise.per_channel else image.shape[1:]
    return image * (torch.rand(shape, generator=source) < noise.keep).to(image.device)
