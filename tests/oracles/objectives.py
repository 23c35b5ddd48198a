"""Objectives over again: NumPy, float64, a logit at a time. `logit` gives the logits (B, C) of images."""

from __future__ import annotations

import math

import numpy as np


def soft_margin(logit, images, targets):
    total = 0.0
    logits = logit(images)
    for b, c in np.ndindex(logits.shape):
        right = _right(logits[b, c], targets[b, c])
        total -= math.log(right)
    return total / logits.size


def bce(logit, images, targets, positive_weight, label_smoothing, over):
    logits = logit(images)
    total = 0.0
    for b, c in np.ndindex(logits.shape):
        wanted = (1 - label_smoothing) * targets[b, c] + label_smoothing / 2
        yes = _right(logits[b, c], 1)
        total -= positive_weight * wanted * math.log(yes) + (1 - wanted) * math.log(1 - yes)
    return total / (len(logits) if over == "sum" else logits.size)


def focal(logit, images, targets, gamma, alpha):
    logits = logit(images)
    total = 0.0
    for b, c in np.ndindex(logits.shape):
        right = _right(logits[b, c], targets[b, c])
        weight = 1.0 if alpha is None else alpha if targets[b, c] else 1 - alpha
        total -= weight * (1 - right) ** gamma * math.log(right)
    return total / logits.size


def _right(value, target):
    """Probability of the right answer."""
    yes = 1 / (1 + math.exp(-value))
    return yes if target else 1 - yes
