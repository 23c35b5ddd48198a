"""A mask laid over its image, in the colours that the mask file itself has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pseudolabel.masks import colour
from pseudolabel.records import BACKGROUND

SHARE = 250  # an outline is one pixel wide for each so many pixels of the short side


def overlay(image: NDArray[np.uint8], mask: NDArray[np.uint8], alpha: float = 0.5) -> NDArray[np.uint8]:
    """Colour the regions of a mask on an image, each with an outline of full colour.

    Args:
        image: (H, W, 3) uint8 image.
        mask: (H, W) uint8 class ids; background stays as it is, 255 has the palette's pale colour.
        alpha: share 0..1 of the mask's colour inside a region.

    Returns:
        (H, W, 3) uint8, a new array.

    Raises:
        ValueError: image and mask differ in size, or alpha is no share.
    """
    if image.shape != (*mask.shape, 3):
        raise ValueError(f"overlay: image is {image.shape[:2]}, its mask {mask.shape}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"overlay: alpha {alpha} is not in 0..1")
    colours, region = colour(mask), mask != BACKGROUND
    # Integer shares of 256 round alike on every machine.
    share = round(alpha * 256)
    blended = (image.astype(np.uint32) * (256 - share) + colours.astype(np.uint32) * share + 128) >> 8
    out = np.where(region[:, :, None], blended.astype(np.uint8), image)
    edge = outlines(mask, max(1, round(min(mask.shape) / SHARE)))
    out[edge] = colours[edge]
    return out


def outlines(mask: NDArray[np.uint8], width: int = 1) -> NDArray[np.bool_]:
    """Pixels (H, W) bool of regions that lie within `width` pixels of another id; background has none.

    Args:
        mask: (H, W) uint8 class ids.
        width: pixels, at least 1; counted along rows and columns.
    """
    differs = np.zeros(mask.shape, dtype=np.bool_)
    for step in range(1, width + 1):
        rows, columns = mask[step:] != mask[:-step], mask[:, step:] != mask[:, :-step]
        differs[step:] |= rows
        differs[:-step] |= rows
        differs[:, step:] |= columns
        differs[:, :-step] |= columns
    edge: NDArray[np.bool_] = differs & (mask != BACKGROUND)
    return edge
