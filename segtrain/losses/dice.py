"""Soft Dice of a forward: one minus the overlap of probabilities and labels, averaged over present classes.

    L = mean over present c of (1 - 2 sum p_c y_c / (sum p_c + sum y_c))
    p = softmax(z),   y = onehot of the labels

Sums run over the labelled pixels of one forward, all images together. A class is present if the labels of
this forward hold it; background is a class like any other. The denominator is linear (V-Net squares it), and
nothing is added to it, because a present class has at least one pixel. The loss does not add up over pixels:
with several forwards a batch, their losses are averaged, weighted by labelled pixels.

Written here because DiceLoss of segmentation-models-pytorch averages over all classes, absent ones as 0; the
two are equal where every class is present.

Source: Milletari et al. 2016 (arXiv 1606.04797) with the linear denominator of Sudre et al. 2017 (arXiv
1707.03237).
"""

from __future__ import annotations

from torch import Tensor

from pseudolabel.registry import Parameters, component
from segtrain.loss import LossState
from segtrain.losses._classes import mean_over_classes, of_present_classes


class Dice(Parameters):
    """No parameters."""


@component(Dice, additive=False)
def dice(logits: Tensor, labels: Tensor, state: LossState, params: Dice) -> Tensor:
    """The soft Dice loss of one forward.

    Args:
        logits: (B, C+1, h, w) float.
        labels: (B, h, w) int64, 0..C or 255.
        state: not used by this loss.
        params: see `Dice`.

    Returns:
        Scalar in [0, 1].
    """
    probabilities, truth = of_present_classes(logits, labels)
    both = (probabilities * truth).sum(dim=1)
    total = probabilities.sum(dim=1) + truth.sum(dim=1)
    return mean_over_classes(1 - 2 * both / total)
