"""Superpixels decide what is background, pixels decide the class.

    m_c(R)  = mean of s_c over superpixel R
    kept absolute: m_c(R) > t;   kept relative: m_c(R) > t * mean over R' of m_c(R')
    M_c(p)  = s_c(p) inside kept superpixels, else 0
    label(p) = argmax(1e-8, M_1(p), ..., M_K(p)),   the background wins a tie

A pixel of score 0 inside a kept superpixel stays background. By hand: superpixels [0, 0, 1, 1], scores
[0.4, 0.0, 0.1, 0.05], t = 0.1: means 0.2 and 0.075, labels [1, 0, 0, 0].

Source: authors' code (sammarfy/WS3_lib), superpixel-based background resolve; their superpixels were
shipped as arrays, engine and parameters are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor

from pseudolabel.records import LabelScores, Scores
from pseudolabel.registry import UNIT, component, parameter
from pseudolabel.superpixels.engine import NEEDS, Superpixels, segments

BACKGROUND_SCORE = 1e-8  # the authors' constant: loses to every score that is worth the name


class Superpixel(Superpixels):
    """Which superpixels may hold a class, and how the superpixels are made."""

    threshold: float = parameter(0.1, ge=0, unit="score 0..1", help="mean that a superpixel must exceed")
    mode: Literal["absolute", "relative"] = parameter(
        "absolute", help="relative: the threshold is a multiple of the mean over all superpixels"
    )

    @model_validator(mode="after")
    def _reachable(self) -> Superpixel:
        if self.mode == "absolute" and self.threshold > 1:
            raise ValueError(
                f"threshold {self.threshold} is above every mean; take at most 1, or mode relative"
            )
        return self


def sweep(scores: Scores, image: Tensor, params: Superpixel, thresholds: Sequence[float]) -> Tensor:
    """Masks (len(thresholds), H, W) uint8; superpixels and means are made once for all thresholds."""
    regions, means = _means(scores, image, params)
    return torch.stack(
        [_label_scores(scores, regions, means, params.mode, level).mask() for level in thresholds]
    )


@component(
    Superpixel,
    takes=UNIT,
    gives=UNIT,
    device="cpu",
    swept="threshold",
    sweep=sweep,
    packages_for={"engine": NEEDS},
)
def superpixel(scores: Scores, image: Tensor, params: Superpixel) -> LabelScores:
    """Background outside the superpixels of each class of one image.

    Args:
        scores: values (K, H, W) float32 in [0, 1] of the K >= 1 classes present.
        image: (H, W, 3) uint8 RGB as shown.
        params: see `Superpixel`.

    Returns:
        LabelScores of (K+1, H, W) float32 in [0, 1], row 0 all 1e-8; every pixel is kept.

    Raises:
        ValueError: scores and image differ in size.
        MachineError: the engine's package is not installed.
    """
    return _label_scores(scores, *_means(scores, image, params), params.mode, params.threshold)


def _means(
    scores: Scores, image: Tensor, params: Superpixel
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Superpixels (H, W) and the mean of each class in each of them (K, R)."""
    size, wanted = tuple(scores.values.shape[1:]), tuple(image.shape[:2])
    if size != wanted:
        raise ValueError(f"superpixel: scores are {size}, the image {wanted}; resize the scores first")
    regions = segments(image.cpu().numpy(), params)
    flat, values = regions.ravel(), scores.values.cpu().double().numpy()
    sums = np.stack([np.bincount(flat, weights=row.ravel()) for row in values])
    return regions, sums / np.bincount(flat)


def _label_scores(
    scores: Scores, regions: NDArray[np.int32], means: NDArray[np.float64], mode: str, threshold: float
) -> LabelScores:
    level = threshold * (means.mean(axis=1, keepdims=True) if mode == "relative" else 1.0)
    kept = torch.from_numpy((means > level)[:, regions]).to(scores.values.device)
    background = scores.values.new_full(scores.values.shape[1:], BACKGROUND_SCORE)
    return LabelScores.join(background, scores.replace(torch.where(kept, scores.values, 0.0)))
