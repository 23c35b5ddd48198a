"""Oracles of the metrics: a pixel at a time, plain Python numbers."""

import math

import numpy as np


def confusion(truth, prediction, names):
    counts = [[0] * (names + 1) for _ in range(names)]
    for y, x in np.ndindex(truth.shape):
        if truth[y, x] == 255:
            continue
        column = names if prediction[y, x] == 255 else int(prediction[y, x])
        counts[int(truth[y, x])][column] += 1
    return counts


def masked(truth, prediction, region, names):
    """Confusion over foreground pixels of a region."""
    kept = truth.copy()
    for y, x in np.ndindex(truth.shape):
        if not region[y, x] or truth[y, x] == 0:
            kept[y, x] = 255
    return confusion(kept, prediction, names)


def discriminative(truth, maps, ids, threshold, rule):
    region = np.zeros(truth.shape, bool)
    tops = [max(float(v) for v in values.ravel()) for values in maps]
    for y, x in np.ndindex(truth.shape):
        c = int(truth[y, x])
        if c in (0, 255):
            continue
        shares = {i: float(maps[k][y, x]) / (tops[k] + 1e-5) for k, i in enumerate(ids)}
        looked = shares.get(c, 0.0) if rule == "own" else max(shares.values(), default=0.0)
        region[y, x] = looked > threshold
    return region


def scored(truth, prediction, names, reading):
    """IoU, recall, precision of every class and the pixels counted, straight from the pixels."""
    pairs = []
    for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if t == 255 or (p == 255 and reading == "ignore"):
            continue
        if p == 255:
            p = 0 if reading == "background" else -1
        pairs.append((t, p))
    out = []
    for c in range(names):
        hit = sum(t == c and p == c for t, p in pairs)
        row = sum(t == c for t, p in pairs)
        col = sum(p == c for t, p in pairs)
        union = row + col - hit
        out.append(
            (
                hit / union if union else math.nan,
                hit / row if row else math.nan,
                hit / col if col else math.nan,
            )
        )
    return out, pairs


def nanmean(values):
    kept = [v for v in values if not math.isnan(v)]
    return sum(kept) / len(kept) if kept else math.nan


def miou(matrix, names, reading, classes):
    rows = [list(row) for row in matrix]
    for row in rows:
        extra = row[names]
        if reading == "background":
            row[0] += extra
        if reading != "wrong":
            row[names] = 0
    values = []
    for c in classes:
        union = sum(rows[c]) + sum(row[c] for row in rows) - rows[c][c]
        values.append(rows[c][c] / union if union else math.nan)
    return nanmean(values)


def miou_interval(matrices, draws, level, seed, reading, classes):
    """Percentile interval, an image at a time."""
    names = len(matrices[0])
    ordered = sorted(matrices.tolist(), key=lambda m: [v for row in m for v in row])
    picks = np.random.default_rng(seed).integers(0, len(ordered), size=(draws, len(ordered)))
    mious = []
    for row in picks.tolist():
        total = [[0] * (names + 1) for _ in range(names)]
        for pick in row:
            for i in range(names):
                for j in range(names + 1):
                    total[i][j] += ordered[pick][i][j]
        mious.append(miou(total, names, reading, classes))
    kept = sorted(v for v in mious if not math.isnan(v))
    if not kept:
        return math.nan, math.nan

    def quantile(share):
        place = share * (len(kept) - 1)
        below = math.floor(place)
        above = min(below + 1, len(kept) - 1)
        return kept[below] + (kept[above] - kept[below]) * (place - below)

    return quantile((1 - level) / 2), quantile((1 + level) / 2)


def bilinear(values, height, width):
    """(h, w) to (H, W), half-pixel centres, edges repeated (align_corners=False)."""
    h, w = values.shape
    out = np.empty((height, width))
    for y, x in np.ndindex(out.shape):
        v = min(max((y + 0.5) * h / height - 0.5, 0), h - 1)
        u = min(max((x + 0.5) * w / width - 0.5, 0), w - 1)
        top, left = math.floor(v), math.floor(u)
        low, right = min(top + 1, h - 1), min(left + 1, w - 1)
        a, b = v - top, u - left
        upper = values[top, left] * (1 - b) + values[top, right] * b
        lower = values[low, left] * (1 - b) + values[low, right] * b
        out[y, x] = upper * (1 - a) + lower * a
    return out
