"""BinaryMask: gradients of copies of the image with a tenth of the pixels removed, averaged.

    m_k(p) ~ Bernoulli(keep), one for all three channels,   g_k = dy_c / d(I m)  at  I m_k
    mask:  S_c = mean_k | sum_rgb I g_k |                  the gradient to the mask, dy_c / dm
    image: S_c = reduce( mean_k |m_k g_k| )                the gradient to the image, for each channel
    feature maps: S_c = mean_k reduce( g_k )

A removed pixel is 0, the mean colour of a normalised image. Around an aggregator the gradient to the mask
goes in where that one reduces: of random_crop the chunk,

    S_c = mean_k  sum over chunks of | sum_rgb I sum_{j in chunk} w(y_j) project_j( g(crop_j(I m_k)) ) |

with new crops for each mask, and of smoothgrad each noisy copy, since the mean of |g| has no sign left to sum
over RGB (`mean_of: signed` is linear, so that its mean comes first). That takes attribution which is a
gradient; around a method that has multiplied it by its input already (input_x_gradient) take `image`.

Source: authors' code (sammarfy/WS3_lib), 50 masks that keep 0.9, gradient to the mask, and its combination
with crops; arXiv 2308.11052. Gradients to the image and feature maps are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from pseudolabel import draws
from pseudolabel.explain.method import BoundMethod, ImageReduce, Key, View, ViewGroup, reduced
from pseudolabel.explain.model import Explained
from pseudolabel.explain.views import Means, each, rows_of
from pseudolabel.records import Attribution, Targets
from pseudolabel.registry import RAW, Parameters, component, parameter


class BinaryMask(Parameters):
    """How many masks, how much they keep, and what the gradient is taken to."""

    count: int = parameter(50, ge=1, unit="masks", help="masked copies of the image")
    keep: float = parameter(0.9, gt=0, le=1, unit="share 0..1", help="probability that a pixel stays")
    gradient_to: Literal["mask", "image"] = parameter(
        "mask", help="mask: sum over RGB of image times gradient (authors); image: the gradient itself"
    )


def mask(key: Key, index: int, size: tuple[int, int], keep: float) -> Tensor:
    """(1, H, W) float32 of 0 and 1, a copy's; drawn on the CPU from its key alone."""
    return (torch.rand(1, *size, generator=draws.generator(*key, index)) < keep).float()


def drawn(key: Key, size: tuple[int, int], params: BinaryMask) -> dict[str, Any]:
    """What is random, for the oracle: `masks`, an array (1, H, W) for each copy."""
    masks = (mask(key, index, size, params.keep) for index in range(params.count))
    return {"masks": [drawn_mask.double().numpy() for drawn_mask in masks]}


@component(BinaryMask, gives=RAW, small={"count": 2}, drawn=drawn)
def binary_mask(inner: BoundMethod, params: BinaryMask) -> BoundMethod:
    """A method whose attribution is a mean over masked copies of the image.

    Args:
        inner: the method that explains a copy.
        params: see `BinaryMask`.

    Returns:
        A method whose attribution is (T, 1, h', w') maps at the size of inner's; with the gradient to the
        image (T, c, h', w') >= 0 for inner's reduce. Logits, totals and uncovered shares are means over
        the copies. Masks follow from each image's key alone.
    """
    to_image = inner.project == "adjoint" and params.gradient_to == "image"
    return BoundMethod(
        explain=partial(_explain, inner, params),
        reduce=inner.reduce if to_image else reduced,
        project=inner.project,
        views=inner.views * params.count,
        inner=inner,
        rebuilt=partial(binary_mask.run, params=params),
    )


def to_mask(values: Tensor, image: Tensor) -> Tensor:
    """dy/dm (T, H, W) of the gradient (T, 3, H, W) to the masked image."""
    return (values * image).sum(dim=1)


def _explain(
    inner: BoundMethod,
    params: BinaryMask,
    model: Explained,
    images: Tensor,
    targets: Targets,
    keys: Sequence[Key],
) -> Attribution:
    size = int(images.shape[2]), int(images.shape[3])
    images = images.to(model.device)
    labels = rows_of(targets)
    masks: dict[View, Tensor] = {}  # of the copies that are on their way

    def masked(view: View) -> Tensor:
        image, index = view
        masks[view] = mask(keys[image], index, size, params.keep).to(images)
        return images[image] * masks[view]

    means = Means(len(targets.images), params.count, model.device)
    total: Tensor | None = None
    for method, lot in _lots(inner, params, images, list(labels)):
        views = [(image, index) for image in lot for index in range(params.count)]
        group = ViewGroup("binary_mask", views, size, masked)
        for view, (attribution,) in each([method], model, images, targets, keys, group):
            rows = labels[view[0]]
            means.add(rows, attribution)
            gradients = _said(method, inner, params, attribution.values, images[view[0]], masks.pop(view))
            if total is None:
                total = gradients.new_zeros(len(targets.images), *gradients.shape[1:])
            total[rows.start : rows.stop] += gradients / params.count
    assert total is not None
    return Attribution(total, means.logits, means.totals, means.uncovered)


def _lots(
    inner: BoundMethod, params: BinaryMask, images: Tensor, present: list[int]
) -> list[tuple[BoundMethod, list[int]]]:
    """Which images share forwards, and the method for them.

    Maps that are reduced inside have met the image there, so that each image has a method of its own.
    """
    if _meets_image(inner, params):
        methods = [inner.with_reduce(ImageReduce(to_mask, images[image])) for image in present]
        if all(method.done for method in methods):
            return [(method, [image]) for method, image in zip(methods, present, strict=True)]
    return [(inner, present)]


def _meets_image(inner: BoundMethod, params: BinaryMask) -> bool:
    """Whether this is the aggregator that turns a gradient to the image into one to a mask.

    Masks around masks: the outermost does, since dy/dm = sum I dy/dI needs the image before any mask.
    """
    if inner.project == "paste" or params.gradient_to == "image":
        return False
    return not isinstance(inner.innermost, ImageReduce)


def _said(
    method: BoundMethod, inner: BoundMethod, params: BinaryMask, values: Tensor, image: Tensor, mask: Tensor
) -> Tensor:
    """What a copy brings to the mean, of the attribution (T, c, h', w') that came back from the method."""
    if inner.project == "paste":
        return inner.reduce(values)[:, None]
    if params.gradient_to == "image":
        return (values * mask).abs()
    if not _meets_image(inner, params):
        # that reduce is positively homogeneous: the chain rule's factor may follow it
        return inner.reduce(values)[:, None] * mask
    return values if method.done else to_mask(values, image).abs()[:, None]
