"""Generalized cross entropy: between cross entropy (q near 0) and mean absolute error (q = 1).

    L = mean (1 - p_t ** q) / q,   p_t = softmax(z)_y

The gradient of a pixel is p_t ** q times that of cross entropy, so pixels whose label the network finds
unlikely count less. The loss is made for labels that are wrong at random; the errors of pseudo-masks have
structure. The truncated form of the paper is not part of it.

Source: Zhang and Sabuncu 2018 (arXiv 1805.07836), L_q; their experiments take q = 0.7.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pseudolabel.registry import Parameters, component, parameter
from segtrain.loss import LossState, labelled, mean_over_groups
from segtrain.losses._cross_entropy import cross_entropy_of_pixels


class GeneralizedCrossEntropy(Parameters):
    """How much an unlikely label counts."""

    q: float = parameter(0.7, gt=0, le=1, help="near 0: as in cross entropy; 1: mean absolute error, halved")


@component(GeneralizedCrossEntropy, additive=True)
def generalized_cross_entropy(
    logits: Tensor, labels: Tensor, state: LossState, params: GeneralizedCrossEntropy
) -> Tensor:
    """This forward's part of the batch's generalized cross entropy.

    Args:
        logits: (B, C+1, h, w) float.
        labels: (B, h, w) int64, 0..C or 255.
        state: counts (1,) of labelled pixels in the whole batch.
        params: see `GeneralizedCrossEntropy`.

    Returns:
        Scalar.
    """
    log_p = -cross_entropy_of_pixels(logits, labels)
    pixels = -torch.expm1(params.q * log_p) / params.q  # expm1: no cancellation at a small q
    return mean_over_groups(pixels, labelled(labels), state)
