"""Losses a pixel at a time in float64."""

from __future__ import annotations

import math

import numpy as np


def _pixel(values, label, smoothing):
    top = max(values)
    total = top + math.log(sum(math.exp(v - top) for v in values))
    share = smoothing / len(values)
    return sum(
        (share + (1 - smoothing if index == label else 0)) * (total - v) for index, v in enumerate(values)
    )


def cross_entropy(logits, labels, label_smoothing=0.0):
    """Mean over labelled pixels, 0 without any; logits (B, C+1, h, w), labels (B, h, w)."""
    found = [
        _pixel([float(v) for v in logits[b, :, y, x]], labels[b, y, x], label_smoothing)
        for b, y, x in np.ndindex(labels.shape)
        if labels[b, y, x] != 255
    ]
    return math.fsum(found) / len(found) if found else 0.0


def balanced_cross_entropy(logits, labels, label_smoothing=0.0):
    """Mean of two means, over the background and over the classes; one without pixels is 0."""
    ground = np.where(labels == 0, labels, 255)
    classes = np.where(labels == 0, 255, labels)
    return (
        cross_entropy(logits, ground, label_smoothing) + cross_entropy(logits, classes, label_smoothing)
    ) / 2
