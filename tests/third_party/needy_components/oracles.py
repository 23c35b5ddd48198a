"""The same things over again, and what their callers hand over; the contract suites compare."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
CLASSES = 36
WEIGHTS = [label / CLASSES for label in range(1, CLASSES + 1)]


def confidence_needs(height, width):
    def network(inputs):
        return inputs.mean(dim=(2, 3)).repeat(1, CLASSES // 3) * inputs.new_tensor(WEIGHTS)

    return {"classifier": SimpleNamespace(mean=MEAN, std=STD, network=network)}


def confidence(ids, values, image, run):
    means = [(image[..., c].mean() / 255 - MEAN[c]) / STD[c] for c in range(3)]
    weights = [1 / (1 + math.exp(-means[(label - 1) % 3] * label / CLASSES)) for label in ids]
    return np.stack([weight * plane for weight, plane in zip(weights, values, strict=True)])


def painted_needs(height, width):
    return {"paint": bytes((y + x) % 3 == 0 for y in range(height) for x in range(width))}


def painted(values, keep, image, folder):
    kept = keep.copy()
    for y, x in np.ndindex(kept.shape):
        kept[y, x] &= (y + x) % 3 != 0
    return values, kept
