"""Several scales and their mirror images: the attribution of resized copies, summed on the image.

    S_c = sum over scales s and flips of  project( reduce( unflip g(resize_s I) ) )    feature maps, reduced
    S_c = sum over scales s and flips of  reduce( R_s^T unflip g(R_s I) )            gradients, reduced
    S_c = reduce( sum over scales s and flips of  project( unflip g ) )                signed

A copy is round(H s) x round(W s) pixels, at least 1 x 1, bilinear. Feature maps are reduced (ReLU) and
resized to the image; gradients take the adjoint R_s^T of the resize, so that each is one of the whole
image. The sum is not divided by the number of copies: the normalisation that follows cancels it.
divide max gives each copy the same say: its map on the image is divided by its maximum.

Source: Ahn et al. 2019, IRN (arXiv 1904.05044), scales 1, 0.5, 1.5, 2 with flips, sum of ReLU maps (there
the copies are resized bicubically from the 8 bit image). divide, signed and gradients are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from pseudolabel.explain.method import BoundMethod, Key, on_image, reduced
from pseudolabel.explain.model import Explained
from pseudolabel.explain.resize import Resize
from pseudolabel.explain.views import Means, See, View, each, projected, rows_of
from pseudolabel.records import Attribution, Targets
from pseudolabel.registry import RAW, Parameters, component, parameter

Scale = Annotated[float, Field(gt=0, le=8)]


class Multiscale(Parameters):
    """Which copies of the image, and how their maps are summed."""

    scales: tuple[Scale, ...] = parameter(
        (1.0, 0.5, 1.5, 2.0),
        min_length=1,
        unit="times the image's size",
        help="the field takes 1, .5, 1.5, 2",
    )
    flip: bool = parameter(True, help="every scale's mirror image too")
    divide: Literal["none", "max"] = parameter(
        "none", help="max divides each copy's map by its maximum before the sum"
    )
    accumulate: Literal["reduced", "signed"] = parameter(
        "reduced", help="reduce each copy's map (field), or their signed sum"
    )
    antialias: bool = parameter(True, help="antialias copies that are made smaller")

    @model_validator(mode="after")
    def _dividable(self) -> Multiscale:
        if self.divide == "max" and self.accumulate == "signed":
            raise ValueError("divide: max is of reduced maps; write accumulate: reduced")
        return self

    @property
    def copies(self) -> int:
        """How many copies of the image are looked at."""
        return len(self.scales) * (1 + self.flip)


@component(Multiscale, gives=RAW, small={"scales": (1.0, 0.6)})
def multiscale(inner: BoundMethod, params: Multiscale) -> BoundMethod:
    """A method whose attribution is summed over scales and flips of the image.

    Args:
        inner: the method that explains a copy.
        params: see `Multiscale`.

    Returns:
        A method whose attribution is at the image's size: (T, 1, H, W) maps where `reduced`, else
        (T, c, H, W) signed, for inner's reduce. Logits and uncovered shares are means over the copies.
        A random inner method draws anew for each copy.
    """
    signed = params.accumulate == "signed"
    return BoundMethod(
        explain=partial(_explain, inner, params),
        reduce=inner.reduce if signed else reduced,
        project=inner.project,
        views=inner.views * params.copies,
        inner=inner,
        rebuilt=partial(multiscale.run, params=params),
    )


def _explain(
    inner: BoundMethod,
    params: Multiscale,
    model: Explained,
    images: Tensor,
    targets: Targets,
    keys: Sequence[Key],
) -> Attribution:
    size = int(images.shape[2]), int(images.shape[3])
    images = images.to(model.device)
    labels = rows_of(targets)
    means = Means(len(targets.images), params.copies, model.device)
    total: Tensor | None = None
    for number, scale in enumerate(params.scales):
        target = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
        resize = Resize(size, target, params.antialias)
        see = partial(_see, resize=resize)
        # copies of one size share forwards; the index is that of the copy, odd ones are flipped
        indices = [2 * number, 2 * number + 1][: 1 + params.flip]
        views = [(image, index) for image in labels for index in indices]

        def made(view: View, see: partial[See] = see) -> Tensor:
            return see(view)(images[view[0]])

        for view, attribution in each(inner, model, targets, keys, views, made, see):
            rows = labels[view[0]]
            means.add(rows, attribution)
            found = _on_image(inner, params, attribution.values, resize, flipped=view[1] % 2 == 1)
            if total is None:
                total = found.new_zeros(len(targets.images), *found.shape[1:])
            total[rows.start : rows.stop] += found
    assert total is not None  # there is a scale, and `each` has refused a call without a target
    return Attribution(total, means.logits, means.totals, means.uncovered)


def _see(view: View, resize: Resize) -> See:
    """What a copy sees of (..., H, W)."""
    if view[1] % 2:
        return lambda image: resize(image).flip(-1)
    return lambda image: resize(image)


def _on_image(
    inner: BoundMethod,
    params: Multiscale,
    values: Tensor,
    resize: Resize,
    *,
    flipped: bool,
) -> Tensor:
    """Attribution (T, c, h', w') of a copy on the image: (T, 1, H, W) a map, or (T, c, H, W) signed."""
    if flipped:
        values = values.flip(-1)
    if params.accumulate == "signed":
        return projected(inner, values, resize)
    if inner.project == "adjoint":
        maps = inner.reduce(projected(inner, values, resize))
    else:
        maps = on_image(inner.reduce(values), resize.source)
    if params.divide == "max":
        largest = maps.amax(dim=(1, 2), keepdim=True)
        maps = maps / torch.where(largest > 0, largest, torch.ones_like(largest))  # an empty map stays so
    return maps[:, None]
