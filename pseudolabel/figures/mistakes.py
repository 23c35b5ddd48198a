"""Where a mask is right and where it is wrong, in four colours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pseudolabel.figures.heat import grey
from pseudolabel.records import BACKGROUND, IGNORE

# Okabe and Ito 2008, the four that lie farthest apart (CIE Lab distance above 30) for normal sight,
# protanopia, deuteranopia and tritanopia, white kept for the image.
COLOURS = {
    "right": (86, 180, 233),
    "missed": (213, 94, 0),
    "false": (240, 228, 66),
    "wrong class": (0, 0, 0),
}
MEANING = {
    "right": "right class",
    "missed": "missed: truth has a class, the mask background",
    "false": "false: truth is background, the mask has a class",
    "wrong class": "another class than the truth",
}
SHARE = 0.8  # of the colours; the rest is the image
PALE = 0.55  # of white in the image around them, so that black and blue stand out


def kinds(mask: NDArray[np.uint8], truth: NDArray[np.uint8]) -> dict[str, NDArray[np.bool_]]:
    """Pixels (H, W) bool of each kind; background that is right, and truth that nobody knows, in none.

    Args:
        mask: (H, W) uint8 class ids; 255, which abstains, is read as background.
        truth: (H, W) uint8 class ids, 255 where nobody knows.

    Raises:
        ValueError: they differ in size.
    """
    if mask.shape != truth.shape:
        raise ValueError(f"mistakes: mask is {mask.shape}, its truth {truth.shape}")
    known, there = truth != IGNORE, truth != BACKGROUND
    predicted = (mask != BACKGROUND) & (mask != IGNORE)
    return {
        "right": known & there & (mask == truth),
        "missed": known & there & ~predicted,
        "false": known & ~there & predicted,
        "wrong class": known & there & predicted & (mask != truth),
    }


def mistakes(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], truth: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Colour each kind of pixel over the pale grey image.

    Args:
        image: (H, W, 3) uint8 image.
        mask, truth: as for `kinds`.

    Returns:
        (H, W, 3) uint8, a new array.

    Raises:
        ValueError: sizes differ.
    """
    if image.shape != (*mask.shape, 3):
        raise ValueError(f"mistakes: image is {image.shape[:2]}, its mask {mask.shape}")
    luma = np.repeat(grey(image)[:, :, None], 3, axis=2).astype(np.float64)
    out = PALE * 255 + (1 - PALE) * luma
    for kind, place in kinds(mask, truth).items():
        out[place] = SHARE * np.array(COLOURS[kind]) + (1 - SHARE) * luma[place]
    return (out + 0.5).astype(np.uint8)
