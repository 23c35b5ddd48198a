"""LayerCAM: a layer's output where raising it raises the class.

    map = ReLU( sum_k ReLU( dy_c/dA_k(p) ) A_k(p) ),   h' x w'

Each place has its own weights, so that layers well before the last give maps too: name one in `layer`. (The
authors then scale the maps of early layers and merge several; that is for refiners and fusion.)

Source: Jiang et al. 2021, "LayerCAM: exploring hierarchical class activation maps for localization" (IEEE
Transactions on Image Processing 30).
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
def layer_cam(
    model: Explained, images: Tensor, targets: Targets, keys: Sequence[Key], params: OfLayer
) -> Attribution:
    """Signed LayerCAM of each target at the layer's size.

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
    return (gradient.relu() * output).sum(dim=1)
