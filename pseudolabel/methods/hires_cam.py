"""HiResCAM: a layer's output times its gradient, place by place.

    map = ReLU( sum_k dy_c/dA_k(p) A_k(p) ),   h' x w'

The gradient is not averaged first, so that on any network that is linear from the layer to the logit the
signed map sums to the logit (less the bias). On global average pooling and a linear head, at the last
features, it is CAM / (h' w').

Source: Draelos and Carin 2020 (arXiv 2011.08891); the ReLU as in Grad-CAM.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pseudolabel.explain.method import Key
from pseudolabel.explain.model import Explained
from pseudolabel.methods._activation_map import OfLayer, activation_map, always, positive
from pseudolabel.records import Attribution, Targets
from pseudolabel.registry import RAW, component


@component(OfLayer, gives=RAW, project="paste", reduce=positive, positive=always)
def hires_cam(
    model: Explained, images: Tensor, targets: Targets, keys: Sequence[Key], params: OfLayer
) -> Attribution:
    """Signed HiResCAM of each target at the layer's size.

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
    return (gradient * output).sum(dim=1)
