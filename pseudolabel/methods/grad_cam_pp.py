"""Grad-CAM++: a layer's channels, weighted by their positive gradients, places apart.

    w_ck = sum_p a_ck(p) ReLU( g_ck(p) ),   g = dy_c/dA
    a_ck(p) = g^2 / ( 2 g^2 + g^3 sum_q A_k(q) ) = 1 / ( 2 + g_ck(p) sum_q A_k(q) )
    map = ReLU( sum_k w_ck A_k(p) ),   h' x w'

The paper's second and third derivatives are those of exp(y_c), whose common factor exp(y_c) is left out, as
it is in the implementations at hand: it scales the whole map. Cancelling g^2 needs no epsilon: only places
with g > 0 count, and after a ReLU their denominator is at least 2. (Others add 1e-6 to the uncancelled
denominator, which fades maps whose gradients are near 1e-3.) The formula is made for outputs >= 0: where a
layer's may be negative, the denominator can pass 0 and one channel outweigh all others; a place within 1e-6
of that gets no weight.

Source: Chattopadhay et al. 2018 (arXiv 1710.11063), the closed form for an exponential score.
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

EPSILON = 1e-6  # no unit; a denominator is 2 where the layer votes for nothing


@component(OfLayer, gives=RAW, project="paste", reduce=positive, positive=always, rectified=True)
def grad_cam_pp(
    model: Explained, images: Tensor, targets: Targets, keys: Sequence[Key], params: OfLayer
) -> Attribution:
    """Signed Grad-CAM++ of each target at the layer's size.

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
    denominator = 2 + gradient * output.sum(dim=(2, 3), keepdim=True)
    shares = torch.where(denominator.abs() > EPSILON, denominator.reciprocal(), 0.0)
    return torch.einsum("ndhw,nd->nhw", output, (shares * gradient.relu()).sum(dim=(2, 3)))
