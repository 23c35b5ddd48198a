"""Map methods over again, in float64.

A twin is handed the network as functions of one image (3, h, w): `features(image)` (D, h', w'), `weight`
(C, D), `logit(image, c)` and `gradient(image, c)` (3, h, w); it gives the finished map of class c.
"""

from __future__ import annotations

import numpy as np


def cam(network, image, label):
    features = network.features(image)
    depth, height, width = features.shape
    out = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        vote = sum(network.weight[label - 1, k] * features[k, y, x] for k in range(depth))
        out[y, x] = max(vote, 0.0)
    return out


def saliency(network, image, label, channels):
    gradient = network.gradient(image, label)
    out = np.zeros(image.shape[1:])
    for y, x in np.ndindex(out.shape):
        red, green, blue = gradient[:, y, x]
        if channels == "max_abs":
            out[y, x] = max(abs(red), abs(green), abs(blue))
        elif channels == "mean_abs":
            out[y, x] = (abs(red) + abs(green) + abs(blue)) / 3
        elif channels == "l2":
            out[y, x] = (red**2 + green**2 + blue**2) ** 0.5
        else:
            out[y, x] = red + green + blue
    return out
