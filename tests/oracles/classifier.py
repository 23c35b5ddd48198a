"""Slow oracles of the classifier's arithmetic: NumPy, float64, a number at a time."""

from __future__ import annotations

import numpy as np


def average_precision(scores, present):
    """Precision at every threshold that a score gives, weighted by the recall it adds."""
    positives = sum(bool(p) for p in present)
    if not positives:
        return None
    total, before = 0.0, 0.0
    for threshold in sorted({float(s) for s in scores}, reverse=True):
        taken = [bool(p) for s, p in zip(scores, present, strict=True) if float(s) >= threshold]
        recall = sum(taken) / positives
        total += (recall - before) * sum(taken) / len(taken)
        before = recall
    return total


def crop(image, side, top, left, ground):
    """A square of an image whose corner (0, 0) lies at (top, left) of the image; negative is outside."""
    out = np.empty((side, side, 3))
    for y, x in np.ndindex(side, side):
        inside = 0 <= y + top < image.shape[0] and 0 <= x + left < image.shape[1]
        out[y, x] = image[y + top, x + left] if inside else ground
    return out


def soft_margin(logits, targets):
    """Multi-label soft margin: mean over classes and images of the binary cross entropy."""
    total = 0.0
    for row, wanted in zip(logits, targets, strict=True):
        for logit, target in zip(row, wanted, strict=True):
            probability = 1 / (1 + np.exp(-float(logit)))
            total -= target * np.log(probability) + (1 - target) * np.log(1 - probability)
    return total / logits.size


def sgd(start, gradients, rates, momentum, weight_decay, clip):
    """Parameters after steps of SGD: the gradient clipped as a whole, then decay, then momentum."""
    values = [np.array(value, float) for value in start]
    speeds = [np.zeros_like(value) for value in values]
    for step, (gradient, rate) in enumerate(zip(gradients(values), rates, strict=False)):
        norm = np.sqrt(sum(float((g * g).sum()) for g in gradient))
        factor = min(1.0, clip / (norm + 1e-6)) if clip else 1.0
        for index, value in enumerate(values):
            change = gradient[index] * factor + weight_decay * value
            speeds[index] = change if step == 0 else momentum * speeds[index] + change
            value -= rate[index] * speeds[index]
    return values
