"""A map as colours over its grey image, and the bar that tells what the colours mean."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

COLOURS = "inferno"  # even in lightness, so that it also tells high from low without colours
WEIGHTS = (77, 150, 29)  # of 256: Rec. 601 luma
SHARE = 0.62  # of the colours; the rest is the image


def grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) uint8 luma of an image (H, W, 3) uint8."""
    luma = (image.astype(np.uint32) @ np.array(WEIGHTS, np.uint32) + 128) >> 8
    return luma.astype(np.uint8)


def heat(
    image: NDArray[np.uint8], values: NDArray[np.float32], low: float, high: float, share: float = SHARE
) -> NDArray[np.uint8]:
    """Lay a map over its image made grey: dark where it is low, pale yellow where it is high.

    Args:
        image: (H, W, 3) uint8 image.
        values: (H, W) float32, finite.
        low, high: values that get the first and the last colour; what lies beyond gets the nearer one.
            Where high is not above low, all is low.
        share: 0..1 of the colours.

    Returns:
        (H, W, 3) uint8, a new array.

    Raises:
        ValueError: image and map differ in size.
    """
    if image.shape != (*values.shape, 3):
        raise ValueError(f"heat: image is {image.shape[:2]}, its map {values.shape}")
    span = high - low
    level = (values.astype(np.float64) - low) / span if span > 0 else np.zeros(values.shape)
    colours = ramp()[(level.clip(0, 1) * 255 + 0.5).astype(np.uint8)].astype(np.float64)
    mixed = share * colours + (1 - share) * grey(image)[:, :, None]
    return (mixed + 0.5).astype(np.uint8)


@functools.cache
def ramp() -> NDArray[np.uint8]:
    """(256, 3) uint8 colours from low to high."""
    from matplotlib import colormaps

    colours: NDArray[np.uint8] = colormaps[COLOURS](np.arange(256), bytes=True)[:, :3].copy()
    colours.flags.writeable = False
    return colours
