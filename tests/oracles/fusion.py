"""Fusion over again, a pixel at a time."""

from __future__ import annotations

import numpy as np


def fused(maps, by, weights):
    weights = [1.0] * len(maps) if weights is None else weights
    out = np.empty_like(maps[0])
    for place in np.ndindex(out.shape):
        values = [branch[place] for branch in maps]
        if by == "max":
            out[place] = max(values)
        elif by == "mean":
            out[place] = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
        else:
            product = 1.0
            for w, v in zip(weights, values, strict=True):
                product *= v**w
            out[place] = product ** (1 / sum(weights))
    return out
