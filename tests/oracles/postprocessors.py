"""Postprocessors over again, in float64: the dense CRF with its whole matrices, the others a pixel at a time.

An oracle gives (values, keep).
"""

from __future__ import annotations

import numpy as np

PRESETS = {  # unary, position (xy, weight), colour (xy, rgb, weight)
    "irn": ("labels", (3, 3), (50, 5, 10)),
    "psa": ("scores", (3, 3), (80, 13, 10)),
    "deeplab": ("scores", (1, 3), (67, 3, 4)),
}


def crf(
    values,
    keep,
    image,
    preset,
    unary=None,
    confidence=None,
    iterations=None,
    position_xy=None,
    position_weight=None,
    colour_xy=None,
    colour_rgb=None,
    colour_weight=None,
):
    start, (near, near_weight), (far, colour, far_weight) = PRESETS[preset]
    start, confidence, iterations = unary or start, confidence or 0.7, iterations or 10
    near, far, colour = position_xy or near, colour_xy or far, colour_rgb or colour
    near_weight = near_weight if position_weight is None else position_weight
    far_weight = far_weight if colour_weight is None else colour_weight
    rows, height, width = values.shape
    ys, xs = np.mgrid[:height, :width]
    places = np.stack([ys.ravel(), xs.ravel()], 1).astype(float)
    colours = image.reshape(-1, 3).astype(float)
    kernels = near_weight * _normal([*(places / near).T])
    kernels += far_weight * _normal([*(places / far).T, *(colours / colour).T])
    if start == "scores":
        energy = -np.log(np.clip(values.reshape(rows, -1), 1e-5, 1))
    else:
        energy = np.full((rows, height * width), -np.log((1 - confidence) / (rows - 1)))
        energy[values.reshape(rows, -1).argmax(0), np.arange(height * width)] = -np.log(confidence)
    energy[:, ~keep.ravel()] = np.log(rows)
    q = _softmax(-energy)
    for _ in range(iterations):
        q = _softmax(-energy + q @ kernels)
    return q.reshape(values.shape), keep


def crf_exact(values, keep, image, long_side, pixels_on_cpu, **settings):
    assert long_side is None, "the oracle runs at full size"
    return crf(values, keep, image, **settings)


def unsure(values, keep, image, margin):
    kept = keep.copy()
    for y, x in np.ndindex(keep.shape):
        *_, second, first = sorted(values[:, y, x])
        kept[y, x] &= first - second >= margin
    return values, kept


def boundary(values, keep, image, width):
    labels, kept = values.argmax(0), keep.copy()
    for y, x in np.ndindex(keep.shape):
        window = np.s_[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
        kept[y, x] &= set(labels[window][keep[window]]) <= {labels[y, x]}
    return values, kept


def small_regions(values, keep, image, share, to):
    labels = np.where(keep, values.argmax(0), 255)
    regions = _regions(labels)
    small = [cells for cells in regions if len(cells) < share * keep.size and labels[cells[0]] != 255]
    if to == "ignore":
        kept = keep.copy()
        for cells in small:
            kept[tuple(zip(*cells, strict=True))] = False
        return values, kept
    after = labels.copy()
    unknown = {cell for cells in small for cell in cells}
    while small:
        known, waiting = {}, []
        for cells in small:
            around = [after[q] for p in cells for q in _beside(p, labels.shape) if q not in unknown]
            votes = {label: around.count(label) for label in sorted(set(around))}
            if votes:
                known[tuple(cells)] = max(votes, key=votes.get)
            else:
                waiting.append(cells)
        if not known:
            break
        for cells, label in known.items():
            after[tuple(zip(*cells, strict=True))] = label
            unknown -= set(cells)
        small = waiting
    out = values.copy()
    for y, x in zip(*np.nonzero((after != labels) & (after != 255)), strict=True):
        out[:, y, x] = 0
        out[after[y, x], y, x] = 1
    return out, after != 255


def _regions(labels):
    visited, regions = np.zeros(labels.shape, bool), []
    for start in np.ndindex(labels.shape):
        if visited[start]:
            continue
        cells, ahead = [], [start]
        visited[start] = True
        while ahead:
            cell = ahead.pop()
            cells.append(cell)
            for near in _beside(cell, labels.shape):
                if not visited[near] and labels[near] == labels[start]:
                    visited[near] = True
                    ahead.append(near)
        regions.append(cells)
    return regions


def _beside(cell, shape):
    y, x = cell
    near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
    return [(y, x) for y, x in near if 0 <= y < shape[0] and 0 <= x < shape[1]]


def _normal(features):
    squares = sum((feature[:, None] - feature[None]) ** 2 for feature in features)
    kernel = np.exp(-squares / 2)
    root = np.sqrt(kernel.sum(1))
    return kernel / root[:, None] / root[None]


def _softmax(logits):
    powers = np.exp(logits - logits.max(0))
    return powers / powers.sum(0)
