"""Aggregators over again, in float64, a pixel at a time.

`inner(view)` gives (signed attribution (c, h', w'), logit, logsumexp of all logits) of one view (3, h, w) and
`reduce` makes one map of its channels. An oracle gives the reduced map and the share of the image that no
view covered, or None where every view is the whole image; what is random is handed in.
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
    half, out = np.zeros((channels, size[0], width)), np.zeros((channels, *size))
    for y, row in enumerate(taps(height, size[0], antialias)):
        for q, weight in row:
            half[:, y] += weight * image[:, q]
    for x, column in enumerate(taps(width, size[1], antialias)):
        for r, weight in column:
            out[:, :, x] += weight * half[:, :, r]
    return out


def adjoint(gradient, size, antialias=False):
    """Each output pixel hands its gradient back to the input pixels that made it."""
    channels, height, width = gradient.shape
    half, out = np.zeros((channels, height, size[1])), np.zeros((channels, *size))
    for x, column in enumerate(taps(size[1], width, antialias)):
        for r, weight in column:
            half[:, :, r] += weight * gradient[:, :, x]
    for y, row in enumerate(taps(size[0], height, antialias)):
        for q, weight in row:
            out[:, q] += weight * half[:, y]
    return out


def random_crop(
    inner,
    reduce,
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
            total += reduce(full)
            continue
        open_chunk = full if open_chunk is None else open_chunk + full
        if (index + 1) % chunk == 0:
            total += reduce(open_chunk)
            open_chunk = None
    if open_chunk is not None:
        total += reduce(open_chunk)
    if per_visit:
        total = total / np.maximum(visits, 1)
    return total, (visits == 0).mean()


def multiscale(inner, reduce, place, image, scales, flip, divide, accumulate, antialias):
    _, height, width = image.shape
    total = 0.0
    for scale in scales:
        size = max(1, round(height * scale)), max(1, round(width * scale))
        for mirrored in (False, True) if flip else (False,):
            view = resize(image, size, antialias)
            values = inner(view[:, :, ::-1].copy() if mirrored else view)[0]
            if mirrored:
                values = values[:, :, ::-1]
            if accumulate == "signed":
                part = values
            elif place == "adjoint":
                part = reduce(adjoint(values, (height, width), antialias))[None]
            else:
                part = reduce(values)[None]
            if place == "paste":
                part = resize(part, (height, width))
            elif accumulate == "signed":
                part = adjoint(part, (height, width), antialias)
            if divide == "max" and part.max() > 0:
                part = part / part.max()
            total = total + part
    return (reduce(total) if accumulate == "signed" else total[0]), None


def smoothgrad(inner, reduce, place, image, noises, count, sigma, mean_of):
    spread = image.max() - image.min()
    samples = []
    for index in range(count):
        values = inner(image + sigma * spread * noises[index])[0]
        samples.append(np.maximum(values, 0) if place == "paste" and mean_of != "signed" else values)
    out = np.zeros(samples[0].shape)
    for at in np.ndindex(*out.shape):
        here = [sample[at] for sample in samples]
        mean = sum(here) / count
        out[at] = {
            "absolute": sum(abs(value) for value in here) / count,
            "squared": sum(value * value for value in here) / count,
            "signed": mean,
            "variance": sum((value - mean) ** 2 for value in here) / count,
        }[mean_of]
    return reduce(out), None


def gradient_to_mask(values, image):
    out = np.zeros(image.shape[1:])
    for y, x in np.ndindex(*out.shape):
        out[y, x] = abs(sum(image[channel, y, x] * values[channel, y, x] for channel in range(3)))
    return out


def binary_mask(inner, reduce, place, image, masks, count, keep, gradient_to):
    assert all(0 < mask.mean() <= 1 for mask in masks)
    assert keep < 1 or all(mask.all() for mask in masks)
    total = 0.0
    for index in range(count):
        values = inner(image * masks[index])[0]
        if place == "paste":
            total = total + reduce(values)
        elif gradient_to == "mask":
            total = total + gradient_to_mask(values, image)
        else:
            total = total + abs(values * masks[index])
    if place == "adjoint" and gradient_to == "image":
        total = reduce(total)  # positively homogeneous: dividing before or after is the same
    return total / count, None


def masked_crops(inner, image, masks, windows, crops):
    """Crops of each masked image, the gradient to the mask taken of every chunk."""
    total = 0.0
    for mask, own in zip(masks, windows, strict=True):

        def reduce(values):
            return gradient_to_mask(values, image)

        total = total + random_crop(inner, reduce, "adjoint", image * mask, own, **crops)[0]
    return total / len(masks)
