"""The same three things over again, slowly, in NumPy and float64; the contract suite compares."""

from __future__ import annotations

import numpy as np


def strongest_votes(network, image, label, top):
    features = network.features(image)
    out = np.zeros(features.shape[1:])
    for y, x in np.ndindex(out.shape):
        votes = sorted(
            weight * value for weight, value in zip(network.weight[label - 1], features[:, y, x], strict=True)
        )
        loudest = votes[-top:]
        out[y, x] = max(sum(loudest) / len(loudest), 0.0)
    return out


def gamma(ids, values, image, exponent):
    return np.exp(exponent * np.log(np.maximum(values, 1e-300)))


def margin(ids, values, image, margin):
    background = np.empty(values.shape[1:])
    for y, x in np.ndindex(background.shape):
        behind = sorted(values[:, y, x])[-2] if len(ids) > 1 else 0.0
        background[y, x] = min(1.0, behind + margin)
    return np.stack([background, *values])
