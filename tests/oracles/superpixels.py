"""Superpixels by the library called by hand, whether each hangs together, and how good they are."""

from __future__ import annotations

import math

import numpy as np
from skimage.segmentation import felzenszwalb as library_felzenszwalb
from skimage.segmentation import slic as library_slic


def slic(image, segments, compactness, sigma):
    return library_slic(image, n_segments=segments, compactness=compactness, sigma=sigma, start_label=0)


def felzenszwalb(image, segments, compactness, sigma):
    area = image.shape[0] * image.shape[1] / segments
    scale, smallest = compactness * area / 100, math.ceil(area / 4)
    return library_felzenszwalb(image, scale=scale, sigma=sigma, min_size=smallest)


def cv_slic(image, segments, compactness, sigma):
    import cv2

    side = round(math.sqrt(image.shape[0] * image.shape[1] / segments))
    soft = cv2.GaussianBlur(image, (0, 0), sigma) if sigma else image
    engine = cv2.ximgproc.createSuperpixelSLIC(
        cv2.cvtColor(soft, cv2.COLOR_RGB2LAB), cv2.ximgproc.SLIC, side, 2.55 * compactness
    )
    engine.iterate(10)
    engine.enforceLabelConnectivity(25)
    return engine.getLabels()


def seeds(image, segments, compactness, sigma):
    import cv2

    soft = cv2.GaussianBlur(image, (0, 0), sigma) if sigma else image
    height, width = image.shape[:2]
    prior = min(5, int(compactness / 5 + 0.5))
    engine = cv2.ximgproc.createSuperpixelSEEDS(width, height, 3, segments, 3, prior)
    engine.iterate(cv2.cvtColor(soft, cv2.COLOR_RGB2HSV), 10)
    return engine.getLabels()


ENGINES = {"slic": slic, "felzenszwalb": felzenszwalb, "cv_slic": cv_slic, "seeds": seeds}


def under_segmentation_error(segments, truth):
    leaks, known = 0, 0
    for label in np.unique(segments):
        ids = [g for g in truth[segments == label].tolist() if g != 255]
        known += len(ids)
        leaks += sum(min(ids.count(g), len(ids) - ids.count(g)) for g in set(ids))
    return leaks, known


def achievable_accuracy(segments, truth):
    right, known = 0, 0
    for label in np.unique(segments):
        ids = [g for g in truth[segments == label].tolist() if g != 255]
        known += len(ids)
        right += max((ids.count(g) for g in set(ids)), default=0)
    return right, known


def pieces(labels, corners=False):
    """How many pieces of equal label there are, by flooding from pixel to pixel, over corners or not."""
    steps = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    if corners:
        steps += [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    visited = np.zeros(labels.shape, bool)
    count = 0
    for start in np.ndindex(labels.shape):
        if visited[start]:
            continue
        count += 1
        visited[start] = True
        front = [start]
        while front:
            y, x = front.pop()
            for near in [(y + down, x + across) for down, across in steps]:
                inside = 0 <= near[0] < labels.shape[0] and 0 <= near[1] < labels.shape[1]
                if inside and not visited[near] and labels[near] == labels[start]:
                    visited[near] = True
                    front.append(near)
    return count
