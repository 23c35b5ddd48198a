"""Several maps of one image made one: each has been normalised, so that they can be compared.

    mean       sum_i w_i s_i / sum_i w_i
    max        max_i s_i
    geometric  prod_i s_i ^ (w_i / sum_i w_i)

Source: ours; the two halves of arXiv 2308.11052, CAM for the discriminative region and saliency for the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pseudolabel.records import Scores

By = Literal["mean", "max", "geometric"]


def fused(maps: Sequence[Scores], by: By, weights: Sequence[float] | None = None) -> Scores:
    """One map of several.

    Args:
        maps: one or more Scores (K, H, W) float32 in 0..1 of the same classes and size; left as they are.
        by: how, see above.
        weights: one a map, >= 0 and not all 0; None weighs all alike. `max` takes none.

    Returns:
        Scores (K, H, W) float32 in 0..1.

    Raises:
        ValueError: classes, sizes or the number of weights differ.
    """
    import torch

    first = maps[0]
    for other in maps[1:]:
        if other.ids != first.ids or other.values.shape != first.values.shape:
            raise ValueError(
                f"fuse: maps of classes {first.ids} {tuple(first.values.shape)} and of "
                f"{other.ids} {tuple(other.values.shape)}; they must be of one image"
            )
    shares = [1.0] * len(maps) if weights is None else list(weights)
    if len(shares) != len(maps):
        raise ValueError(f"fuse: {len(shares)} weights for {len(maps)} maps")
    if len(maps) == 1:
        return first
    if by == "max":
        return first.replace(torch.stack([scores.values for scores in maps]).amax(dim=0))
    shares = [share / sum(shares) for share in shares]
    if by == "mean":
        values = torch.zeros_like(first.values)
        for scores, share in zip(maps, shares, strict=True):
            values += share * scores.values
        return first.replace(values)
    values = torch.ones_like(first.values)
    for scores, share in zip(maps, shares, strict=True):
        values *= scores.values.clamp(min=0) ** share  # 0 ** 0 is 1: a map of weight 0 says nothing
    return first.replace(values)
