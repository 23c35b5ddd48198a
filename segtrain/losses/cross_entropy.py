"""Cross entropy: the mean over all labelled pixels.

    L = mean CE,   CE = -sum_c q_c log softmax(z)_c
    q = (1 - e) onehot(y) + e / classes,   e = label_smoothing

Source: cross entropy that ignores 255, as in kazuto1011/deeplab-pytorch; label smoothing by Szegedy et al.
2016 (arXiv 1512.00567).
"""

from __future__ import annotations

from torch import Tensor

from pseudolabel.registry import component
from segtrain.loss import LossState, labelled, mean_over_groups
from segtrain.losses._cross_entropy import Smoothed, cross_entropy_of_pixels


@component(Smoothed, additive=True)
def cross_entropy(logits: Tensor, labels: Tensor, state: LossState, params: Smoothed) -> Tensor:
    """This forward's part of the batch's cross entropy.

    Args:
        logits: (B, C+1, h, w) float.
        labels: (B, h, w) int64, 0..C or 255.
        state: counts (1,) of labelled pixels in the whole batch.
        params: see `Smoothed`.

    Returns:
        Scalar.
    """
    pixels = cross_entropy_of_pixels(logits, labels, params.label_smoothing)
    return mean_over_groups(pixels, labelled(labels), state)
