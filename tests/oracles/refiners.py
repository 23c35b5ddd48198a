"""Refiners over again, in float64, a pixel at a time where that is bearable."""

from __future__ import annotations

import math

import numpy as np

from tests.oracles.superpixels import ENGINES


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


def superpixel_mean(ids, values, image, engine, segments, compactness, sigma):
    regions = ENGINES[engine](image, segments, compactness, sigma)
    out = np.empty_like(values)
    for k in range(len(ids)):
        for region in np.unique(regions):
            out[k][regions == region] = values[k][regions == region].mean()
    return out


def affinity(ids, values, image, dilations, iterations):
    colours = image.astype(np.float64) / 255
    height, width = colours.shape[:2]
    places = [(d * y, d * x) for d in dilations for y in (-1, 0, 1) for x in (-1, 0, 1)]
    weights, sources = {}, {}
    for y, x in np.ndindex(height, width):
        near = [(min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)) for dy, dx in places]
        around = np.array([colours[place] for place in near])
        spread = around.std(axis=0, ddof=1)
        others = [index for index, offset in enumerate(places) if offset != (0, 0)]
        raised = np.exp(-(np.abs(around[others] - colours[y, x]) / (0.1 * spread + 1e-8)).mean(axis=1))
        weights[y, x], sources[y, x] = raised / raised.sum(), [near[index] for index in others]
    for _ in range(iterations):
        before = values
        values = np.empty_like(before)
        for (y, x), shares in weights.items():
            rows, columns = zip(*sources[y, x], strict=True)
            values[:, y, x] = before[:, rows, columns] @ shares
    return values


def random_walk(ids, values, image, steps, radius, sigma, cell):
    if steps == 0:
        return values
    height, width = values.shape[1:]
    rows, columns = math.ceil(height / cell), math.ceil(width / cell)
    down, across = _averaging(height, rows), _averaging(width, columns)
    colours = np.einsum("ay,yxc,bx->abc", down, image.astype(np.float64), across).reshape(-1, 3)
    places = np.array(list(np.ndindex(rows, columns)))
    apart = ((places[:, None] - places) ** 2).sum(-1)
    unlike = ((colours[:, None] - colours) ** 2).sum(-1)
    affinities = np.where(apart <= radius**2, np.exp(-unlike / (2 * sigma**2)), 0)
    moves = np.linalg.matrix_power(affinities / affinities.sum(1, keepdims=True), steps)
    coarse = np.einsum("ay,kyx,bx->kab", down, values, across).reshape(len(ids), -1)
    walked = (coarse @ moves.T).reshape(len(ids), rows, columns)
    return np.einsum("ya,kab,xb->kyx", _between(height, rows), walked, _between(width, columns))


def _averaging(length, cells):
    """(cells, length): each row takes the mean of the pixels that its cell touches."""
    out = np.zeros((cells, length))
    for row in range(cells):
        first, last = row * length // cells, -(-(row + 1) * length // cells)
        out[row, first:last] = 1 / (last - first)
    return out


def _between(length, cells):
    """(length, cells): each row mixes the two cells whose centres lie around its pixel's."""
    out = np.zeros((length, cells))
    for row in range(length):
        place = min(max((row + 0.5) * cells / length - 0.5, 0), cells - 1)
        low = min(int(place), max(cells - 2, 0))
        out[row, low] += 1 - (place - low)
        out[row, min(low + 1, cells - 1)] += place - low
    return out
