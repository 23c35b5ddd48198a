"""SEEDS superpixels by OpenCV: the fastest engine here, about a seventh of scikit-image's SLIC.

A grid of rectangles whose borders move by blocks and then by pixels, as long as the colour histograms of the
superpixels become purer. HSV colours (purer at VOC's borders than RGB and Lab), three block levels, five
bins a channel, ten iterations; the shape prior (0..5) is a fifth of the compactness. Pieces of a superpixel
may lie apart. Where an image is too small or too narrow for two levels of blocks, the grid stays as it is
(the library crashes there, or does not end).

Source: Van den Bergh et al. 2015 (arXiv 1309.3848); `cv2.ximgproc.createSuperpixelSEEDS`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pseudolabel.superpixels._opencv import opencv, smoothed
from pseudolabel.superpixels.labels import grid, numbered

LEVELS = 3  # of blocks; 4 and 5 were slower and worse on VOC
BINS = 5  # a channel; the library's default
ITERATIONS = 10
FEWEST = 10  # the library raises any smaller number of superpixels to this


def seeds(
    image: NDArray[np.uint8], segments: int = 200, compactness: float = 10, sigma: float = 1
) -> NDArray[np.int32]:
    """Cut an image into superpixels of like colour.

    Args:
        image: (H, W, 3) uint8 RGB.
        segments: about how many are made, rather fewer; less than 10 counts as 10.
        compactness: a fifth of it is the shape prior, at most 5.
        sigma: of the Gaussian smoothing before, in pixels.

    Returns:
        (H, W) int32 labels 0..n-1, none left out, 1 <= n <= H * W.

    Raises:
        MachineError: OpenCV with its extra modules is not installed.
    """
    cv2 = opencv("seeds")
    height, width = image.shape[:2]
    if not _fits(height, width, segments):
        return grid(height, width, segments)
    hsv = cv2.cvtColor(smoothed(cv2, image, sigma), cv2.COLOR_RGB2HSV)
    prior = min(5, max(0, round(compactness / 5)))
    engine = cv2.ximgproc.createSuperpixelSEEDS(width, height, 3, segments, LEVELS, prior, BINS)
    engine.iterate(hsv, ITERATIONS)
    return numbered(engine.getLabels())


def _fits(height: int, width: int, segments: int) -> bool:
    """Whether there are two superpixels each way with blocks of at least two pixels."""
    down = int(math.sqrt(max(segments, FEWEST) * height / width))
    across = down * width // height
    return down >= 2 and across >= 2 and width >= 2 * across and height >= 2 * down
