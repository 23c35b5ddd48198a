"""How well superpixels keep to the borders of a true segmentation; pixels of truth 255 are left out.

    UE  = 1/N * sum over (S, G) that meet of min(|S & G|, |S \\ G|)
    ASA = 1/N * sum over S of max over G of |S & G|

S are superpixels, G the true segments (all pixels of one id), N the pixels with a truth. UE is what leaks
over the borders, 0 at best; ASA is the share that is right where every superpixel takes its best id, 1 at
best. Both get better with more superpixels, so compare equal numbers of them.

Source: Neubert and Protzel 2012, "Superpixel benchmark and comparison" (UE without its bias towards small
superpixels); Liu et al. 2011, "Entropy rate superpixel segmentation" (ASA); both as in Stutz et al. 2018
(arXiv 1612.01601).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pseudolabel.records import IGNORE


def under_segmentation_error(segments: NDArray[np.int32], truth: NDArray[np.uint8]) -> tuple[int, int]:
    """Pixels that leak over a true border.

    Args:
        segments: (H, W) labels 0..n-1.
        truth: (H, W) ids; 255 is left out.

    Returns:
        Leaking pixels and all pixels with a truth: their quotient is UE in 0..1; add both over a data set.
        (0, 0) where no pixel has a truth.

    Raises:
        ValueError: the sizes differ.
    """
    shared = _shared(segments, truth)
    inside = shared.sum(axis=1, keepdims=True)
    return int(np.minimum(shared, inside - shared).sum()), int(shared.sum())


def achievable_accuracy(segments: NDArray[np.int32], truth: NDArray[np.uint8]) -> tuple[int, int]:
    """Pixels that are right where every superpixel takes the id that most of its pixels have.

    Args:
        segments: (H, W) labels 0..n-1.
        truth: (H, W) ids; 255 is left out.

    Returns:
        Right pixels and all pixels with a truth: their quotient is ASA in 0..1; add both over a data set.
        (0, 0) where no pixel has a truth.

    Raises:
        ValueError: the sizes differ.
    """
    shared = _shared(segments, truth)
    return int(shared.max(axis=1, initial=0).sum()), int(shared.sum())


def _shared(segments: NDArray[np.int32], truth: NDArray[np.uint8]) -> NDArray[Any]:
    """(n, 255) pixels that a superpixel and a true segment have in common."""
    if segments.shape != truth.shape:
        raise ValueError(f"superpixels are {segments.shape}, the truth {truth.shape}")
    known = truth != IGNORE
    pairs = segments[known].astype(np.int64) * IGNORE + truth[known]
    count = int(segments.max()) + 1
    return np.bincount(pairs, minlength=count * IGNORE).reshape(count, IGNORE)
