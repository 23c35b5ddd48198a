"""Lovász-Softmax of a forward: a convex extension of one minus IoU, averaged over present classes.

    m_c(i) = 1 - p_c(i) where the label is c, else p_c(i);   pixels sorted so that m_c(1) >= m_c(2) >= ...
    L = mean over present c of sum_i m_c(i) (J_c(i) - J_c(i - 1)),   J_c(0) = 0
    J_c(i) = 1 - (n_c - hits) / (n_c + misses),   hits, misses: pixels of c and of others among the first i

Pixels are the labelled pixels of one forward, all images together, n_c of them of class c. A class is present
if the labels of this forward hold it; background is a class like any other. The loss does not add up over
pixels: with several forwards a batch, their losses are averaged, weighted by labelled pixels.

Written here because LovaszLoss of segmentation-models-pytorch gives no graph without a labelled pixel and
makes a GPU wait at every class.

Source: Berman et al. 2018 (arXiv 1705.08790), algorithm 1, classes present.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pseudolabel.registry import Parameters, component
from segtrain.loss import LossState
from segtrain.losses._classes import mean_over_classes, of_present_classes


class Lovasz(Parameters):
    """No parameters."""


@component(Lovasz, additive=False)
def lovasz(logits: Tensor, labels: Tensor, state: LossState, params: Lovasz) -> Tensor:
    """The Lovász-Softmax loss of one forward.

    Args:
        logits: (B, C+1, h, w) float.
        labels: (B, h, w) int64, 0..C or 255.
        state: not used by this loss.
        params: see `Lovasz`.

    Returns:
        Scalar in [0, 1].
    """
    probabilities, truth = of_present_classes(logits, labels)
    mistakes, order = (probabilities - truth).abs().sort(dim=1, descending=True)  # 0 at pixels of 255: last
    steps = _jaccard_steps(truth.gather(1, order))
    return mean_over_classes((mistakes * steps).sum(dim=1))


def _jaccard_steps(hits: Tensor) -> Tensor:
    """J_c(i) - J_c(i - 1) in column i - 1: (K, P), from `hits`, 1 where the pixel is of the class.

    In closed form: differences of neighbouring J lose their digits where a forward has a million pixels.
    """
    count = hits.sum(dim=1, keepdim=True)
    left = count - hits.cumsum(dim=1)
    union = count + (1 - hits).cumsum(dim=1)
    return torch.where(hits > 0, 1 / union, left / (union * (union - 1)))  # at a miss, union is 2 or more
