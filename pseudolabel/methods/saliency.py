"""Saliency: how much each pixel moves the logit of the class.

    g = dy_c / dI   (of the normalised image, signed, three channels)
    max_abs: max_rgb |g|   mean_abs: mean_rgb |g|   l2: sqrt(sum_rgb g^2)   signed_sum: sum_rgb g

The logit before the sigmoid, at the image's own size. One forward, and one backward for each label slot
(slot s is the s-th label of every image).

Source: Simonyan et al. 2013 (arXiv 1312.6034) for max_abs, as in the authors' code (sammarfy/WS3_lib);
signed_sum is Baehrens' explanation vector (JMLR 11, 2010) summed over RGB.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pseudolabel.explain.method import Key
from pseudolabel.explain.model import Explained
from pseudolabel.methods._channels import OneMap, one_map, unsigned
from pseudolabel.methods._input_gradient import input_gradient
from pseudolabel.records import Attribution, Targets
from pseudolabel.registry import RAW, component


@component(OneMap, gives=RAW, project="adjoint", reduce=one_map, positive=unsigned)
def saliency(
    model: Explained, images: Tensor, targets: Targets, keys: Sequence[Key], params: OneMap
) -> Attribution:
    """Gradient of each target's logit with respect to its image.

    Args:
        model: the frozen classifier.
        images: (B, 3, h, w) float32, normalised.
        targets: T >= 1 pairs of image and class id 1..C.
        keys: not looked at; nothing is drawn.
        params: see `OneMap`.

    Returns:
        values (T, 3, h, w) float32, signed; logits (T,).

    Raises:
        DataError: no gradient reaches the input.
    """
    return input_gradient(model, images, targets)
