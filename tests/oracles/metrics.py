"""Oracles of the metrics: a pixel at a time, plain Python numbers."""

import itertools
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


def figure(matrices, which, reading, classes):
    """One figure of one data set, from matrices {whole, dr, ndr} as nested lists."""
    names = len(matrices["whole"])
    part = {"dr_recall": "dr", "ndr_recall": "ndr", "dr_miou_legacy": "dr", "ndr_miou_legacy": "ndr"}
    rows = [list(row) for row in matrices[part.get(which, "whole")]]
    everything = sum(sum(row) for row in rows)
    if which == "coverage":
        abstained = sum(row[names] for row in rows)
        return (everything - abstained) / everything if everything else math.nan
    if which in ("miou", "dr_miou_legacy", "ndr_miou_legacy"):
        return miou(rows, names, reading, classes)
    for row in rows:
        if reading == "background":
            row[0] += row[names]
        if reading in ("background", "ignore"):
            row[names] = 0
    if which == "pixel_accuracy":
        total = sum(sum(row) for row in rows)
        return sum(rows[c][c] for c in range(names)) / total if total else math.nan
    if which == "fg_hit":
        total = sum(sum(row) for row in rows[1:])
        return sum(sum(row[1:names]) for row in rows[1:]) / total if total else math.nan
    shares = []
    for c in classes:
        if c == 0:
            continue
        total = sum(row[c] for row in rows) if which == "fg_precision" else sum(rows[c])
        shares.append(rows[c][c] / total if total else math.nan)
    return nanmean(shares)


def quantile(values, share):
    """Linear between the two nearest of the sorted values."""
    kept = sorted(v for v in values if not math.isnan(v))
    if not kept:
        return math.nan
    place = share * (len(kept) - 1)
    below = math.floor(place)
    above = min(below + 1, len(kept) - 1)
    return kept[below] + (kept[above] - kept[below]) * (place - below)


def paired_difference(first, second, which, samples, level, seed, reading, classes):
    """First minus second in one figure with its interval, an image at a time.

    first, second: a list of {whole, dr, ndr} of nested lists, an image an entry.
    """

    def numbers(image):
        return [v for name in image for row in image[name] for v in row]

    pairs = list(zip(first, second, strict=True))
    # whichever method comes first: the smaller counts of an image, then the larger ones, then the first's
    pairs.sort(key=lambda pair: (*sorted([numbers(pair[0]), numbers(pair[1])]), numbers(pair[0])))
    times = np.random.default_rng(seed).multinomial(len(pairs), [1 / len(pairs)] * len(pairs), size=samples)

    def value(method, weights):
        total = {}
        for pair, weight in zip(pairs, weights, strict=True):
            for name, rows in pair[method].items():
                old = total.setdefault(name, [[0] * len(rows[0]) for _ in rows])
                for i, row in enumerate(rows):
                    for j, v in enumerate(row):
                        old[i][j] += v * weight
        return figure(total, which, reading, classes)

    drawn = [value(0, row) - value(1, row) for row in times.tolist()]
    ones = [1] * len(pairs)
    here = value(0, ones) - value(1, ones)
    return here, quantile(drawn, (1 - level) / 2), quantile(drawn, (1 + level) / 2)


def largest(values):
    """Place of the largest defined value, of equal ones the first."""
    best = None
    for place, value in enumerate(values):
        if not math.isnan(value) and (best is None or value > values[best]):
            best = place
    return best


def at_precision(precisions, values, wanted):
    """The figure at the lowest threshold of the piecewise linear curve that has this precision.

    By bisection of each segment, so that no formula is shared with the metric.
    """
    points = [(p, v) for p, v in zip(precisions, values, strict=True) if not math.isnan(p)]
    if len(points) == 1 and points[0][0] == wanted:
        return points[0][1]
    for (p, f), (q, g) in itertools.pairwise(points):
        if p == wanted:
            return f
        if q == wanted:
            return g
        if (p - wanted) * (q - wanted) > 0:
            continue
        low, high = 0.0, 1.0
        for _ in range(200):
            middle = (low + high) / 2
            if (p + (q - p) * middle - wanted) * (p - wanted) > 0:
                low = middle
            else:
                high = middle
        return f + (g - f) * low
    return None


def largest_with_precision(precisions, values, wanted):
    kept = [v for p, v in zip(precisions, values, strict=True) if p >= wanted and not math.isnan(v)]
    return max(kept) if kept else None
