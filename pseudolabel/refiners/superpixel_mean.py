"""Superpixel smoothing: every pixel becomes the mean of its superpixel.

    out_c(p) = mean of S_c over the superpixel of p

Source: named beside kernel smoothing in the authors' study (sammarfy/WS3_lib), where no code of it is found;
this is the plain reading. The background rule `superpixel` differs: there superpixels decide on the
background only. By hand: superpixels [0, 0, 1, 1], scores [0.4, 0.0, 0.1, 0.05]: [0.2, 0.2, 0.075, 0.075].
"""

from __future__ import annotations

import torch
from torch import Tensor

from pseudolabel.records import Scores
from pseudolabel.registry import SAME, component
from pseudolabel.superpixels.engine import NEEDS, Superpixels, segments


class SuperpixelMean(Superpixels):
    """How the superpixels are made."""


@component(SuperpixelMean, takes=SAME, gives=SAME, device="cpu", packages_for={"engine": NEEDS})
def superpixel_mean(scores: Scores, image: Tensor, params: SuperpixelMean) -> Scores:
    """Scores of one image, the same everywhere in a superpixel.

    Args:
        scores: values (K, H, W) float32 of the K >= 1 classes present, in any range.
        image: (H, W, 3) uint8 RGB as shown.
        params: see `SuperpixelMean`.

    Returns:
        Scores (K, H, W) float32 in the range they had.

    Raises:
        ValueError: scores and image differ in size.
        MachineError: the engine's package is not installed.
    """
    size, wanted = tuple(scores.values.shape[1:]), tuple(image.shape[:2])
    if size != wanted:
        raise ValueError(f"superpixel_mean: scores are {size}, the image {wanted}; resize the scores first")
    regions = torch.from_numpy(segments(image.cpu().numpy(), params)).to(torch.int64)
    flat = regions.flatten()
    values = scores.values.flatten(1).cpu().double()
    sums = values.new_zeros(len(values), int(flat.max()) + 1).index_add_(1, flat, values)
    means = (sums / torch.bincount(flat)).float()
    return scores.replace(means[:, regions].to(scores.values.device))
