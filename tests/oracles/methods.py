"""Map methods over again, in float64.

An oracle is handed the network as functions of one image (3, h, w): `features(image)` (D, h', w'), `weight`
(C, D), `logit(image, c)`, `gradient(image, c)` (3, h, w) and `layer(image, c, name)`, a module's output and
the logit's gradient by it, (D, h', w') both (None: the features); it gives the reduced map of class c.
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


def grad_cam(network, image, label, layer):
    output, gradient = network.layer(image, label, layer)
    depth, height, width = output.shape
    alpha = [gradient[k].sum() / (height * width) for k in range(depth)]
    out = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        out[y, x] = max(sum(alpha[k] * output[k, y, x] for k in range(depth)), 0.0)
    return out


def grad_cam_pp(network, image, label, layer):
    output, gradient = network.layer(image, label, layer)
    depth, height, width = output.shape
    weight = np.zeros(depth)
    for k, y, x in np.ndindex(depth, height, width):
        slope = gradient[k, y, x]
        if slope > 0:
            share = slope**2 / (2 * slope**2 + output[k].sum() * slope**3)
            weight[k] += share * slope
    out = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        out[y, x] = max(sum(weight[k] * output[k, y, x] for k in range(depth)), 0.0)
    return out


def layer_cam(network, image, label, layer):
    output, gradient = network.layer(image, label, layer)
    out = np.zeros(output.shape[1:])
    for y, x in np.ndindex(out.shape):
        pairs = zip(output[:, y, x], gradient[:, y, x], strict=True)
        out[y, x] = max(sum(value * slope for value, slope in pairs if slope > 0), 0.0)
    return out


def hires_cam(network, image, label, layer):
    output, gradient = network.layer(image, label, layer)
    out = np.zeros(output.shape[1:])
    for y, x in np.ndindex(out.shape):
        pairs = zip(output[:, y, x], gradient[:, y, x], strict=True)
        out[y, x] = max(sum(value * slope for value, slope in pairs), 0.0)
    return out


def saliency(network, image, label, channels):
    return one_map(network.gradient(image, label), channels)


def input_x_gradient(network, image, label, channels):
    return one_map(image * network.gradient(image, label), channels)


def integrated_gradients(network, image, label, steps, rule, baseline, channels):
    empty = np.zeros_like(image)
    if baseline == "own_colour":
        for channel in range(3):
            empty[channel] = image[channel].sum() / image[channel].size
    total = np.zeros_like(image)
    for place, count in legendre(steps) if rule == "gauss_legendre" else midpoints(steps):
        total += count * network.gradient(empty + place * (image - empty), label)
    return one_map((image - empty) * total, channels)


def midpoints(steps):
    return [((2 * step + 1) / (2 * steps), 1 / steps) for step in range(steps)]


def legendre(steps):
    """Places and weights on 0..1 from the eigenvalues of the polynomials' recurrence (Golub and Welsch)."""
    matrix = np.zeros((steps, steps))
    for k in range(1, steps):
        matrix[k, k - 1] = matrix[k - 1, k] = k / (4 * k * k - 1) ** 0.5
    places, vectors = np.linalg.eigh(matrix)
    return [((place + 1) / 2, vectors[0, index] ** 2) for index, place in enumerate(places)]


def one_map(attribution, channels):
    out = np.zeros(attribution.shape[1:])
    for y, x in np.ndindex(out.shape):
        red, green, blue = attribution[:, y, x]
        if channels == "max_abs":
            out[y, x] = max(abs(red), abs(green), abs(blue))
        elif channels == "mean_abs":
            out[y, x] = (abs(red) + abs(green) + abs(blue)) / 3
        elif channels == "l2":
            out[y, x] = (red**2 + green**2 + blue**2) ** 0.5
        else:
            out[y, x] = red + green + blue
    return out
