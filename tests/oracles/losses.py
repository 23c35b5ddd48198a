"""Losses a pixel at a time in float64: logits (B, C+1, h, w), labels (B, h, w) with 255, the parameters."""

from __future__ import annotations

import math

import numpy as np


def _labelled(logits, labels):
    """[logits of the pixel, label] for each labelled pixel."""
    return [
        ([float(v) for v in logits[b, :, y, x]], int(labels[b, y, x]))
        for b, y, x in np.ndindex(labels.shape)
        if labels[b, y, x] != 255
    ]


def _mean(values):
    """0 without any."""
    return math.fsum(values) / len(values) if values else 0.0


def _probabilities(values):
    top = max(values)
    powers = [math.exp(v - top) for v in values]
    return [power / math.fsum(powers) for power in powers]


def _pixel(values, label, smoothing):
    top = max(values)
    total = top + math.log(sum(math.exp(v - top) for v in values))
    share = smoothing / len(values)
    return sum(
        (share + (1 - smoothing if index == label else 0)) * (total - v) for index, v in enumerate(values)
    )


def cross_entropy(logits, labels, label_smoothing=0.0):
    """Mean over labelled pixels, 0 without any."""
    return _mean([_pixel(values, label, label_smoothing) for values, label in _labelled(logits, labels)])


def balanced_cross_entropy(logits, labels, label_smoothing=0.0):
    """Mean of two means, over the background and over the classes; one without pixels is 0."""
    ground = np.where(labels == 0, labels, 255)
    classes = np.where(labels == 0, 255, labels)
    return (
        cross_entropy(logits, ground, label_smoothing) + cross_entropy(logits, classes, label_smoothing)
    ) / 2


def generalized_cross_entropy(logits, labels, q):
    """The Box-Cox transform of the probability of the label."""
    return _mean(
        [(1 - _probabilities(values)[label] ** q) / q for values, label in _labelled(logits, labels)]
    )


def symmetric_cross_entropy(logits, labels, alpha, beta, log_zero):
    """Both directions as sums over the classes, with log 1 = 0 and log 0 = log_zero."""
    losses = []
    for values, label in _labelled(logits, labels):
        probabilities = _probabilities(values)
        backwards = -math.fsum(p * (0 if c == label else log_zero) for c, p in enumerate(probabilities))
        losses.append(alpha * _pixel(values, label, 0.0) + beta * backwards)
    return _mean(losses)


def dice(logits, labels):
    """One minus twice the common mass over the sum of both, a class that is present at a time."""
    pixels = [(_probabilities(values), label) for values, label in _labelled(logits, labels)]
    losses = []
    for c in sorted({label for _, label in pixels}):
        both = math.fsum(p[c] for p, label in pixels if label == c)
        total = math.fsum(p[c] for p, _ in pixels) + sum(label == c for _, label in pixels)
        losses.append(1 - 2 * both / total)
    return _mean(losses)


def lovasz(logits, labels):
    """The extension of J(mistaken pixels) = 1 - IoU by its definition: sets that grow by one pixel."""
    pixels = [(_probabilities(values), label) for values, label in _labelled(logits, labels)]
    losses = []
    for c in sorted({label for _, label in pixels}):
        truth = {i for i, (_, label) in enumerate(pixels) if label == c}
        mistakes = [1 - p[c] if label == c else p[c] for p, label in pixels]
        mistaken, before, loss = set(), 0.0, 0.0
        for i in sorted(range(len(pixels)), key=lambda i: -mistakes[i]):
            mistaken.add(i)
            now = 1 - len(truth - mistaken) / len(truth | mistaken)
            loss += mistakes[i] * (now - before)
            before = now
        losses.append(loss)
    return _mean(losses)
