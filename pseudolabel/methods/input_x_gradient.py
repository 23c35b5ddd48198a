"""Input times gradient: what each pixel adds to the logit, to first order.

    e = I * dy_c/dI   (of the normalised image, signed, three channels)
    max_abs: max_rgb |e|   mean_abs: mean_rgb |e|   l2: sqrt(sum_rgb e^2)   signed_sum: sum_rgb e

The image is the normalised one, whose 0 is the mean colour of the training set: a pixel of that colour gets
nothing. On a network of ReLU and pooling without biases signed_sum adds up to the logit.

Source: Shrikumar et al. 2016 (arXiv 1605.01713), gradient * input; the channels are ours.
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
def input_x_gradient(
    model: Explained, images: Tensor, targets: Targets, keys: Sequence[Key], params: OneMap
) -> Attribution:
    """Product of each target's image and the gradient of its logit.

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
    gradient = input_gradient(model, images, targets)
    values = gradient.values * images.to(model.device)[list(targets.images)]
    return Attribution(values, gradient.logits, gradient.totals)
