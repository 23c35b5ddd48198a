"""Backgrounds over again, in float64, a pixel or a superpixel at a time: rows of background and classes.

A background rule that gives up pixels gives (rows, keep).
"""

from __future__ import annotations

import numpy as np

from tests.oracles.superpixels import ENGINES


def constant(ids, values, image, threshold):
    background = np.empty(values.shape[1:])
    for y, x in np.ndindex(background.shape):
        background[y, x] = threshold
    return np.stack([background, *values])


def power(ids, values, image, alpha):
    background = np.empty(values.shape[1:])
    for y, x in np.ndindex(background.shape):
        background[y, x] = (1 - max(values[:, y, x])) ** alpha
    return np.stack([background, *values])


def double_threshold(ids, values, image, high, low):
    keep = np.empty(values.shape[1:], bool)
    for y, x in np.ndindex(keep.shape):
        sure_of_class = max(values[:, y, x]) > high
        sure_of_background = max(values[:, y, x]) <= low
        keep[y, x] = sure_of_class or sure_of_background
    return np.stack([np.full(keep.shape, high), *values]), keep


def superpixel(ids, values, image, threshold, mode, engine, segments, compactness, sigma):
    regions = ENGINES[engine](image, segments, compactness, sigma)
    kept = np.zeros_like(values)
    for k in range(len(ids)):
        means = {r: values[k][regions == r].mean() for r in np.unique(regions)}
        level = threshold
        if mode == "relative":
            level = threshold * sum(means.values()) / len(means)
        for y, x in np.ndindex(regions.shape):
            if means[regions[y, x]] > level:
                kept[k, y, x] = values[k, y, x]
    return np.stack([np.full(regions.shape, 1e-8), *kept])
