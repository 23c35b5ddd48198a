"""Symmetric cross entropy: cross entropy plus its reverse, in which labels and predictions swap roles.

    L = mean (alpha CE + beta RCE),   CE = -log p_t,   RCE = -A (1 - p_t),   p_t = softmax(z)_y

RCE = -sum_c softmax(z)_c log onehot(y)_c with log 0 = A < 0; A = -2 makes it the mean absolute error. The
loss is made for labels that are wrong at random; the errors of pseudo-masks have structure.

Source: Wang et al. 2019 (arXiv 1908.06112). The defaults are theirs for CIFAR-10 (CIFAR-100: alpha 6, beta
1); A is log 1e-4, where HanxunH/SCELoss-Reproduce clamps the labels.
"""

from __future__ import annotations

import math

import torch
from pydantic import model_validator
from torch import Tensor

from pseudolabel.registry import Parameters, component, parameter
from segtrain.loss import LossState, labelled, mean_over_groups
from segtrain.losses._cross_entropy import cross_entropy_of_pixels


class SymmetricCrossEntropy(Parameters):
    """Weights of both directions."""

    alpha: float = parameter(0.1, ge=0, help="weight of cross entropy")
    beta: float = parameter(1.0, ge=0, help="weight of reverse cross entropy")
    log_zero: float = parameter(math.log(1e-4), lt=0, help="A of the paper: the value that stands for log 0")

    @model_validator(mode="after")
    def _not_zero(self) -> SymmetricCrossEntropy:
        if self.alpha == 0 and self.beta == 0:
            raise ValueError("alpha and beta are both 0; one of them must be above 0")
        return self


@component(SymmetricCrossEntropy, additive=True)
def symmetric_cross_entropy(
    logits: Tensor, labels: Tensor, state: LossState, params: SymmetricCrossEntropy
) -> Tensor:
    """This forward's part of the batch's symmetric cross entropy.

    Args:
        logits: (B, C+1, h, w) float.
        labels: (B, h, w) int64, 0..C or 255.
        state: counts (1,) of labelled pixels in the whole batch.
        params: see `SymmetricCrossEntropy`.

    Returns:
        Scalar.
    """
    forwards = cross_entropy_of_pixels(logits, labels)
    backwards = params.log_zero * torch.expm1(-forwards)  # -A (1 - p_t)
    return mean_over_groups(params.alpha * forwards + params.beta * backwards, labelled(labels), state)
