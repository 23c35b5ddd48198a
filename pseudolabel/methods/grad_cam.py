"""Grad-CAM: a layer's channels, each weighted by its mean gradient.

    alpha_ck = mean_p dy_c/dA_k(p),   map = ReLU( sum_k alpha_ck A_k(p) ),   h' x w'

A is the output of the layer, y_c the logit before the sigmoid. One forward, and a backward from the logits
to the layer for each label slot, no further. On global average pooling and a linear head, at the last
features, it is CAM / (h' w').

Source: Selvaraju et al. 2017 (arXiv 1610.02391), equations 1 and 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pseudolabel.explain.method import Key
from pseudolabel.explain.model import Explained
from pseudolabel.methods._activation_map import OfLayer, activation_map, always, positive
from pseudolabel.records import Attribution, Targets
from pseudolabel.registry import RAW, component


@component(OfLayer, gives=RAW, project="paste", reduce=positive, positive=always)
def grad_cam(
    model: Explained, images: Tensor, targets: Targets, keys: Sequence[Key], params: OfLayer
) -> Attribution:
    """Signed Grad-CAM of each target at the layer's size.

    Args:
        model: the frozen classifier.
        images: (B, 3, h, w) float32, normalised.
        targets: T >= 1 pairs of image and class id 1..C.
        keys: not looked at; nothing is drawn.
        params: see `OfLayer`.

    Returns:
        values (T, 1, h', w') float32 before the ReLU, logits (T,).

    Raises:
        DataError: no such layer, or its output is no grid.
    """
    return activation_map(model, images, targets, params.layer, _combined)


def _combined(output: Tensor, gradient: Tensor) -> Tensor:
    return torch.einsum("ndhw,nd->nhw", output, gradient.mean(dim=(2, 3)))
