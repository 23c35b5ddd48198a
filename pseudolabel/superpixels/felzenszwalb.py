"""Felzenszwalb and Huttenlocher's segments by scikit-image.

    two components join where the weakest edge between them <= min over both of (Int(C) + k / |C|)

Large in calm areas, small in busy ones, shaped by the image alone. Of the shared parameters `segments` sets
the area a = H * W / segments, and with it k = compactness * a / 100 (`scale`) and the smallest segment,
a / 4: with the defaults about as many segments come out of an image as with `slic`.

Source: Felzenszwalb and Huttenlocher 2004, "Efficient graph-based image segmentation";
`skimage.segmentation.felzenszwalb`, whose segments hang together by edges and corners. The two rules for k
and the smallest segment are ours.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pseudolabel.superpixels.labels import numbered


def felzenszwalb(
    image: NDArray[np.uint8], segments: int = 200, compactness: float = 10, sigma: float = 1
) -> NDArray[np.int32]:
    """Cut an image into segments that are alike inside.

    Args:
        image: (H, W, 3) uint8 RGB.
        segments: about how many; at most four times as many come.
        compactness: higher joins more, so that segments are fewer and larger.
        sigma: of the Gaussian smoothing before, in pixels.

    Returns:
        (H, W) int32 labels 0..n-1, none left out, 1 <= n <= H * W.
    """
    from skimage.segmentation import felzenszwalb as skimage_felzenszwalb

    height, width = image.shape[:2]
    # the library's graph needs two lines each way; a line beside itself has the segments of one
    doubled = np.pad(image, ((0, int(height < 2)), (0, int(width < 2)), (0, 0)), mode="edge")
    area = doubled.shape[0] * doubled.shape[1] / segments
    labels = skimage_felzenszwalb(
        doubled,
        scale=compactness * area / 100,
        sigma=sigma,
        min_size=math.ceil(area / 4),
        channel_axis=-1,
    )
    return numbered(labels[:height, :width])
