"""Superpixels by the library called by hand, and whether each hangs together."""

from __future__ import annotations

import numpy as np
from skimage.segmentation import slic as library_slic


def slic(image, segments, compactness, sigma):
    return library_slic(image, n_segments=segments, compactness=compactness, sigma=sigma, start_label=0)


def pieces(labels):
    """How many 4-connected pieces of equal label there are, by flooding from pixel to pixel."""
    seen = np.zeros(labels.shape, bool)
    count = 0
    for start in np.ndindex(labels.shape):
        if seen[start]:
            continue
        count += 1
        seen[start] = True
        front = [start]
        while front:
            y, x = front.pop()
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= near[0] < labels.shape[0] and 0 <= near[1] < labels.shape[1]
                if inside and not seen[near] and labels[near] == labels[start]:
                    seen[near] = True
                    front.append(near)
    return count
