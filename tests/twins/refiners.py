"""Refiners over again, in float64, a pixel at a time where that is bearable."""

from __future__ import annotations

import math

import numpy as np


def competition(ids, values, image, weight):
    out = np.zeros_like(values)
    for k, y, x in np.ndindex(values.shape):
        rivals = sum(values[other, y, x] for other in range(len(ids)) if other != k)
        out[k, y, x] = max(0.0, values[k, y, x] - weight * rivals)
    return out


def normalise(ids, values, image, method, quantile, per):
    groups = [values[k : k + 1] for k in range(len(ids))] if per == "class" else [values]
    return np.concatenate([_normalise(group, method, quantile) for group in groups])


def _normalise(group, method, quantile):
    ordered = sorted(group.ravel().tolist())
    if method == "max":
        return np.maximum(group, 0) / (max(ordered[-1], 0) + 1e-5)
    low, high = ordered[0], ordered[-1]
    if method == "quantile":
        place = quantile * (len(ordered) - 1)
        below, above = math.floor(place), math.ceil(place)
        nearest_even = below if below % 2 == 0 else above
        index = below if place - below < 0.5 else above if place - below > 0.5 else nearest_even
        high = ordered[index]
    if high == low:
        return np.zeros_like(group)
    return (np.minimum(group, high) - low) / (high - low)


def smooth(ids, values, image, kernel, size, sigma):
    middle = size // 2
    weights = np.empty((size, size))
    for dy, dx in np.ndindex(weights.shape):
        squares = (dy - middle) ** 2 + (dx - middle) ** 2
        weights[dy, dx] = 1.0 if kernel == "box" else np.exp(-squares / (2 * sigma**2))
    weights /= weights.sum()
    padded = np.pad(values, ((0, 0), (middle, middle), (middle, middle)))
    out = np.empty_like(values)
    for k, y, x in np.ndindex(values.shape):
        out[k, y, x] = (padded[k, y : y + size, x : x + size] * weights).sum()
    return out
