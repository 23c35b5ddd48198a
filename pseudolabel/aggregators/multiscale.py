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

from pseudolabel.explain.method import BoundMethod, Key, View, ViewGroup, on_image, reduced
from pseudolabel.explain.model import Explained
from pseudolabel.explain.resize import Resize
from pseudolabel.explain.views import Means, See, aggregated, projected, rows_of
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
    return aggregated(
        inner,
        partial(_Copies, inner, params),
        reduce=inner.reduce if params.accumulate == "signed" else reduced,
        count=params.copies,
        rebuilt=partial(multiscale.run, params=params),
    )


class _Copies:
    """The sum over copies of the images of one call; see `Aggregation`."""

    def __init__(
        self,
        inner: BoundMethod,
        params: Multiscale,
        model: Explained,
        images: Tensor,
        targets: Targets,
        keys: Sequence[Key],
    ) -> None:
        self.inner, self.params = inner, params
        self.images = images.to(model.device)
        self.size = int(images.shape[2]), int(images.shape[3])
        self.count = len(targets.images)
        self.labels = rows_of(targets)
        self.means = Means(self.count, params.copies, model.device)
        self.total: Tensor | None = None

    def groups(self) -> list[ViewGroup]:
        """Copies of one scale and their mirror images; odd indices are flipped."""
        groups = []
        for number, scale in enumerate(self.params.scales):
            target = max(1, round(self.size[0] * scale)), max(1, round(self.size[1] * scale))
            see = partial(_see, resize=self._resize(target))
            indices = [2 * number, 2 * number + 1][: 1 + self.params.flip]

            def make(view: View, see: partial[See] = see) -> Tensor:
                return see(view)(self.images[view[0]])

            views = [(image, index) for image in self.labels for index in indices]
            key = ("multiscale", target, tuple(indices), self.params.antialias)
            groups.append(ViewGroup(key, views, target, make, see))
        return groups

    def add(self, group: ViewGroup, view: View, attribution: Attribution) -> None:
        """One copy of one image."""
        rows = self.labels[view[0]]
        self.means.add(rows, attribution)
        resize, flipped = self._resize(group.size), view[1] % 2 == 1
        values = _on_image(self.inner, self.params, attribution.values, resize, flipped=flipped)
        if self.total is None:
            self.total = values.new_zeros(self.count, *values.shape[1:])
        self.total[rows.start : rows.stop] += values

    def result(self) -> Attribution:
        """The sums."""
        assert self.total is not None  # there is a scale, and a call without a target is refused
        return Attribution(self.total, self.means.logits, self.means.totals, self.means.uncovered)

    def _resize(self, target: tuple[int, int]) -> Resize:
        return Resize(self.size, target, self.params.antialias)


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
