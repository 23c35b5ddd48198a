"""Aggregators over again, in float64, a pixel at a time.

`inner(view)` gives (signed evidence (c, h', w'), logit, logsumexp of all logits) of one view (3, h, w) and
`finish` makes one map of its channels.
"""

from __future__ import annotations

import math

import numpy as np


def draw(height, width, scale, ratio, uniform, below):
    """(top, left, height, width) of a crop, as torchvision's RandomResizedCrop documents it."""
    for _ in range(10):
        area = height * width * uniform(*scale)
        aspect = math.exp(uniform(math.log(ratio[0]), math.log(ratio[1])))
        wide, tall = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < wide <= width and 0 < tall <= height:
            top = below(height - tall + 1)
            return top, below(width - wide + 1), tall, wide
    if width / height < ratio[0]:
        wide, tall = width, max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        wide, tall = max(1, round(height * ratio[1])), height
    else:
        wide, tall = width, height
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def taps(source, target, antialias=False):
    """For each output place a list of (input place, weight) of a bilinear resize, half-pixel centres."""
    out = []
    for place in range(target):
        centre = (place + 0.5) * source / target
        if antialias and source > target:
            reach = source / target
            row = [(q, max(0.0, 1 - abs(q + 0.5 - centre) / reach)) for q in range(source)]
            total = sum(weight for _, weight in row)
            out.append([(q, weight / total) for q, weight in row if weight > 0])
            continue
        position = max(centre - 0.5, 0.0)
        low = min(int(position), source - 1)
        share = position - low
        out.append([(low, 1 - share), (min(low + 1, source - 1), share)])
    return out


def resize(image, size, antialias=False):
    channels, height, width = image.shape
    out = np.zeros((channels, *size))
    rows, columns = taps(height, size[0], antialias), taps(width, size[1], antialias)
    for y, x in np.ndindex(*size):
        for q, a in rows[y]:
            for r, b in columns[x]:
                out[:, y, x] += a * b * image[:, q, r]
    return out


def adjoint(gradient, size, antialias=False):
    """Each output pixel hands its gradient back to the input pixels that made it."""
    channels, height, width = gradient.shape
    out = np.zeros((channels, *size))
    rows, columns = taps(size[0], height, antialias), taps(size[1], width, antialias)
    for y, x in np.ndindex(height, width):
        for q, a in rows[y]:
            for r, b in columns[x]:
                out[:, q, r] += a * b * gradient[:, y, x]
    return out


def random_crop(
    inner,
    finish,
    place,
    image,
    windows,
    count,
    scale,
    ratio,
    size,
    weight,
    chunk,
    accumulate,
    per_visit,
    antialias,
):
    _, height, width = image.shape
    total, visits, open_chunk = np.zeros((height, width)), np.zeros((height, width)), None
    for index in range(count):
        top, left, tall, wide = windows[index]
        view = image[:, top : top + tall, left : left + wide]
        values, logit, logsumexp = inner(resize(view, (size, size), antialias))
        factor = {"sigmoid": 1 / (1 + math.exp(-logit)), "none": 1.0, "softmax": math.exp(logit - logsumexp)}[
            weight
        ]
        if place == "adjoint":
            patch = adjoint(values, (tall, wide), antialias)
        else:
            patch = resize(values, (tall, wide))
        full = np.zeros((len(patch), height, width))
        full[:, top : top + tall, left : left + wide] = factor * patch
        visits[top : top + tall, left : left + wide] += 1
        if accumulate == "abs_per_crop":
            total += finish(full)
            continue
        open_chunk = full if open_chunk is None else open_chunk + full
        if (index + 1) % chunk == 0:
            total += finish(open_chunk)
            open_chunk = None
    if open_chunk is not None:
        total += finish(open_chunk)
    if per_visit:
        total = total / np.maximum(visits, 1)
    return total, (visits == 0).mean()
