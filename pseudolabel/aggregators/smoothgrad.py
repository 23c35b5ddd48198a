"""SmoothGrad: a method's attribution of noisy copies of the image, averaged.

    I_k = I + sigma (max I - min I) n_k,   n_k ~ N(0, 1) for every value,   g_k = g(I_k)
    absolute: mean |g_k|   squared: mean g_k^2   signed: mean g_k   variance: mean (g_k - mean g)^2

For each channel, before they become one map. Of feature maps all but `signed` take the positive part
max(g_k, 0), which is what is left of them when they are reduced. I is the normalised image, max and min
over its three channels. At count 1 and sigma 0 signed is the inner method, and so is absolute where the
inner method takes absolute values. Inside binary_mask with the gradient to the mask, every copy's gradient
becomes the one to the mask, sum_rgb I g_k, before its absolute value, square or variance is taken.

Source: Smilkov et al. 2017 (arXiv 1706.03825), which advises a noise of 10 to 20 %; sigma as in PAIR's
reference code (there 25 copies, squared); squared as in Hooker et al. 2018 (arXiv 1806.10758), variance
as in Adebayo et al. 2018 (arXiv 1810.03292). absolute is our default, as BinaryMask and plain saliency
take absolute values; 50 copies are BinaryMask's budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from pydantic import model_validator
from torch import Tensor

from pseudolabel import draws
from pseudolabel.explain.method import BoundMethod, ImageReduce, Key, View, ViewGroup, reduced
from pseudolabel.explain.model import Explained
from pseudolabel.explain.views import Means, aggregated, rows_of
from pseudolabel.records import Attribution, Targets
from pseudolabel.registry import RAW, Parameters, component, parameter


class Smoothgrad(Parameters):
    """How many noisy copies, how much noise, and which mean."""

    count: int = parameter(50, ge=1, unit="copies", help="noisy copies of the image")
    sigma: float = parameter(
        0.15, ge=0, unit="share of max - min of the image", help="standard deviation of the noise"
    )
    mean_of: Literal["absolute", "squared", "signed", "variance"] = parameter(
        "absolute", help="what is averaged over the copies; variance needs at least 2"
    )

    @model_validator(mode="after")
    def _several(self) -> Smoothgrad:
        if self.mean_of == "variance" and self.count < 2:
            raise ValueError("mean_of: one copy has no variance; write count: 2 or more")
        return self


def noise(key: Key, index: int, size: tuple[int, int]) -> Tensor:
    """(3, H, W) float32 standard normal of one copy; drawn on the CPU from its key alone."""
    return torch.randn(3, *size, generator=draws.generator(*key, index))


def drawn(key: Key, size: tuple[int, int], params: Smoothgrad) -> dict[str, Any]:
    """What is random, for the oracle: `noises`, an array (3, H, W) for each copy."""
    return {"noises": [noise(key, index, size).double().numpy() for index in range(params.count)]}


@component(Smoothgrad, gives=RAW, small={"count": 2}, drawn=drawn)
def smoothgrad(inner: BoundMethod, params: Smoothgrad) -> BoundMethod:
    """A method whose attribution is a mean over noisy copies of the image.

    Args:
        inner: the method that explains a copy.
        params: see `Smoothgrad`.

    Returns:
        A method whose attribution has the shape of inner's and its reduce, or is reduced to (T, 1, h', w')
        inside masks; logits, totals and uncovered shares are means over the copies. Noise follows from each
        image's key alone.
    """
    return aggregated(
        inner,
        partial(_NoisyCopies, inner, params),
        reduce=inner.reduce if _inside(inner, params) is None else reduced,
        count=params.count,
        rebuilt=partial(smoothgrad.run, params=params),
    )


def _inside(inner: BoundMethod, params: Smoothgrad) -> ImageReduce | None:
    """The reduce to a mask that every copy goes through, where the mean is not linear in the gradient."""
    if params.mean_of == "signed" or inner.done or not isinstance(inner.reduce, ImageReduce):
        return None
    return inner.reduce


class _NoisyCopies:
    """The mean over noisy copies of the images of one call; see `Aggregation`."""

    def __init__(
        self,
        inner: BoundMethod,
        params: Smoothgrad,
        model: Explained,
        images: Tensor,
        targets: Targets,
        keys: Sequence[Key],
    ) -> None:
        self.inner, self.params, self.keys = inner, params, keys
        self.images = images.to(model.device)
        self.size = int(images.shape[2]), int(images.shape[3])
        self.count = len(targets.images)
        self.labels = rows_of(targets)
        self.spread = params.sigma * (self.images.amax(dim=(1, 2, 3)) - self.images.amin(dim=(1, 2, 3)))
        self.means = Means(self.count, params.count, model.device)
        self.mean: Tensor | None = None
        self.squares: Tensor | None = None  # sum of squared differences from the mean so far

    def groups(self) -> list[ViewGroup]:
        """All copies of all images."""
        views = [(image, index) for image in self.labels for index in range(self.params.count)]
        return [ViewGroup(("smoothgrad", self.params.sigma), views, self.size, self._copy)]

    def add(self, group: ViewGroup, view: View, attribution: Attribution) -> None:
        """One copy of one image."""
        image, index = view
        if index >= self.params.count:
            return
        rows = self.labels[image]
        self.means.add(rows, attribution)
        values = _contribution(attribution.values, self.inner, self.params)
        if self.mean is None:
            self.mean = values.new_zeros(self.count, *values.shape[1:])
            self.squares = torch.zeros_like(self.mean) if self.params.mean_of == "variance" else None
        chosen = self.mean[rows.start : rows.stop]
        if self.squares is None:
            chosen += values / self.params.count
            return
        # Welford's update: differences of large sums would drown a small variance
        before = values - chosen
        chosen += before / (index + 1)
        self.squares[rows.start : rows.stop] += before * (values - chosen)

    def result(self) -> Attribution:
        """The mean, or the variance."""
        assert self.mean is not None
        values = self.mean if self.squares is None else self.squares / self.params.count
        return Attribution(values, self.means.logits, self.means.totals, self.means.uncovered)

    def _copy(self, view: View) -> Tensor:
        image, index = view
        drawn_noise = noise(self.keys[image], index, self.size).to(self.images)
        return self.images[image] + self.spread[image] * drawn_noise


def _contribution(values: Tensor, inner: BoundMethod, params: Smoothgrad) -> Tensor:
    """What a copy brings to the mean."""
    if params.mean_of == "signed":
        return values
    if inner.project == "paste":
        values = values.relu()
    to_mask = _inside(inner, params)
    if to_mask is not None:
        values = to_mask.signed(values)[:, None]
    match params.mean_of:
        case "absolute":
            return values.abs()
        case "squared":
            return values.square()
        case "variance":
            return values
