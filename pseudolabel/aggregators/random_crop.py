"""Random crops: a method's attribution of many crops, weighted by their class score, summed in place.

    G_chunk = sum_{k in chunk} w(y_k) * project_k( g(crop_k) ),   w = sigmoid | 1 | softmax, a constant
    S_c     = sum over chunks of reduce(G_chunk)                (signed_in_chunk)
    S_c     = sum over crops of reduce(w(y_k) * project_k(g))     (abs_per_crop)

Crops are drawn as torchvision's RandomResizedCrop draws them (area share uniform, aspect log-uniform, 10
tries, then a central crop) and resized to size x size. project_k is the adjoint of that resize for
gradients, so that G is a gradient of the whole image, and a resize into the window for feature maps. Signs
are summed inside a chunk, absolute values between chunks, so the chunk is a value of the recipe and never
the batch of memory. A pixel that no crop covered is 0.

Source: authors' code (sammarfy/WS3_lib); arXiv 2308.11052, section 7. abs_per_crop, per_visit and
antialias are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from pseudolabel import draws
from pseudolabel.explain.method import BoundMethod, Key, View, ViewGroup, reduced
from pseudolabel.explain.model import Explained
from pseudolabel.explain.resize import Resize
from pseudolabel.explain.views import Means, See, aggregated, projected, rows_of
from pseudolabel.records import Attribution, Targets
from pseudolabel.registry import RAW, Parameters, component, parameter

TRIES = 10  # torchvision's RandomResizedCrop
SHARED = ("scale", "ratio", "size", "antialias")  # what decides the crops themselves
Weight = Literal["sigmoid", "none", "softmax"]
Share = Annotated[float, Field(gt=0, le=1)]
Aspect = Annotated[float, Field(gt=0)]


class RandomCrop(Parameters):
    """How many crops, of which sizes, and how they are summed."""

    count: int = parameter(200, ge=1, unit="crops", help="the authors take 100, 150 and 200")
    scale: tuple[Share, Share] = parameter(
        (0.05, 0.30), unit="share of the image's area", help="a crop's area is drawn uniformly from it"
    )
    ratio: tuple[Aspect, Aspect] = parameter(
        (0.85, 1.25), unit="width / height", help="a crop's aspect is drawn log-uniformly from it"
    )
    size: int = parameter(224, ge=1, le=4096, unit="pixels", help="crops are resized to size x size")
    weight: Weight = parameter(
        "sigmoid", help="of a crop: its class probability, 1, or its share among all classes"
    )
    chunk: int = parameter(100, ge=1, unit="crops", help="signs are summed inside a chunk, maps between")
    accumulate: Literal["signed_in_chunk", "abs_per_crop"] = parameter(
        "signed_in_chunk", help="reduce the sum of a chunk (authors), or each crop"
    )
    per_visit: bool = parameter(False, help="divide each pixel by the number of crops that covered it")
    antialias: bool = parameter(False, help="antialias crops that are made smaller")

    @model_validator(mode="after")
    def _ascending(self) -> RandomCrop:
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: {[low, high]} is not ascending; write {[high, low]}")
        return self


@dataclass(frozen=True, slots=True)
class Window:
    """A crop: top left corner and size, in pixels of the image."""

    top: int
    left: int
    height: int
    width: int

    def of(self, images: Tensor) -> Tensor:
        """The window of (..., H, W), not copied."""
        return images[..., self.top : self.top + self.height, self.left : self.left + self.width]


def drawn(key: Key, size: tuple[int, int], params: RandomCrop) -> dict[str, Any]:
    """What is random, for the oracle: `windows`, a list of (top, left, height, width)."""
    return {"windows": [(w.top, w.left, w.height, w.width) for w in draw(key, size, params)]}


@component(RandomCrop, gives=RAW, small={"count": 3, "size": 20, "chunk": 2}, drawn=drawn, side="size")
def random_crop(inner: BoundMethod, params: RandomCrop) -> BoundMethod:
    """A method whose attribution is that of random crops of the image.

    Args:
        inner: the method that explains a crop.
        params: see `RandomCrop`.

    Returns:
        A method whose attribution has values (T, 1, H, W), maps at the image's size, the crops' mean logit
        and the share of pixels that no crop covered. Crops follow from each image's key alone. Crops of
        all images share forwards of at most the model's batch; the batch does not decide the result.
    """
    return aggregated(
        inner,
        partial(_Crops, inner, params),
        reduce=reduced,
        count=params.count,
        rebuilt=partial(random_crop.run, params=params),
    )


def draw(key: Key, size: tuple[int, int], params: RandomCrop) -> list[Window]:
    """The crops of one image (H, W); crop k is the same whatever the count."""
    return [_draw((*key, index), size, params) for index in range(params.count)]


def _draw(key: Key, size: tuple[int, int], params: RandomCrop) -> Window:
    height, width = size
    source = draws.generator(*key)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), dtype=torch.float64, generator=source))

    def below(count: int) -> int:
        return int(torch.randint(count, (), generator=source))

    low, high = params.ratio
    for _ in range(TRIES):
        area = height * width * uniform(*params.scale)
        aspect = math.exp(uniform(math.log(low), math.log(high)))
        wide, tall = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            return Window(below(height - tall + 1), below(width - wide + 1), tall, wide)
    # no such crop fits: the whole image, cut to the nearest aspect, from its middle
    wide, tall = width, height
    if width / height < low:
        tall = max(1, round(width / low))
    elif width / height > high:
        wide = max(1, round(height * high))
    return Window((height - tall) // 2, (width - wide) // 2, tall, wide)


class _Crops:
    """The sum over crops of the images of one call; see `Aggregation`."""

    def __init__(
        self,
        inner: BoundMethod,
        params: RandomCrop,
        model: Explained,
        images: Tensor,
        targets: Targets,
        keys: Sequence[Key],
    ) -> None:
        self.inner, self.params = inner, params
        self.size = int(images.shape[2]), int(images.shape[3])
        self.images = images.to(model.device)
        self.labels = rows_of(targets)
        self.windows = {image: draw(keys[image], self.size, params) for image in self.labels}
        self.maps = torch.zeros(len(targets.images), *self.size, device=model.device)
        self.means = Means(len(targets.images), params.count, model.device)
        # signed sum of the open chunk, by first target of an image: one image's chunk is open at a time
        self.chunk: dict[int, Tensor] = {}

    def groups(self) -> list[ViewGroup]:
        """All crops of all images: crop k is the same whatever the count."""
        views = [(image, index) for image in self.labels for index in range(self.params.count)]
        size = self.params.size, self.params.size
        key = ("random_crop", *(getattr(self.params, name) for name in SHARED))
        return [ViewGroup(key, views, size, self._crop, self._see)]

    def add(self, group: ViewGroup, view: View, attribution: Attribution) -> None:
        """One crop of one image."""
        image, index = view
        if index >= self.params.count:
            return
        rows, window, params = self.labels[image], self.windows[image][index], self.params
        self.means.add(rows, attribution)
        weighted = attribution.values * _weights(attribution, params.weight)[:, None, None, None]
        values = projected(self.inner, weighted, self._resize(window))
        if params.accumulate == "abs_per_crop":
            reduce = self.inner.of_view(window.of).reduce
            window.of(self.maps[rows.start : rows.stop]).add_(reduce(values))
            return
        if rows.start not in self.chunk:
            self.chunk[rows.start] = values.new_zeros(len(rows), values.shape[1], *self.size)
        window.of(self.chunk[rows.start]).add_(values)
        if (index + 1) % params.chunk == 0 or index + 1 == params.count:
            self.maps[rows.start : rows.stop] += self.inner.reduce(self.chunk.pop(rows.start))

    def result(self) -> Attribution:
        """The sums; uncovered by these crops, whatever the inner method left out of each."""
        uncovered = torch.zeros_like(self.means.logits)
        for image, rows in self.labels.items():
            visits = torch.zeros(self.size, device=self.maps.device)
            for window in self.windows[image]:
                window.of(visits).add_(1)
            chosen = slice(rows.start, rows.stop)
            uncovered[chosen] = (visits == 0).float().mean()
            if self.params.per_visit:
                self.maps[chosen] /= visits.clamp(min=1)
        return Attribution(self.maps[:, None], self.means.logits, self.means.totals, uncovered)

    def _resize(self, window: Window) -> Resize:
        target = self.params.size, self.params.size
        return Resize((window.height, window.width), target, self.params.antialias)

    def _see(self, view: View) -> See:
        window = self.windows[view[0]][view[1]]
        return lambda image: self._resize(window)(window.of(image))

    def _crop(self, view: View) -> Tensor:
        return self._see(view)(self.images[view[0]])


def _weights(attribution: Attribution, weight: Weight) -> Tensor:
    """Weight (T,) of a crop for each of its targets."""
    match weight:
        case "sigmoid":
            return attribution.logits.sigmoid()
        case "none":
            return torch.ones_like(attribution.logits)
        case "softmax":
            if attribution.totals is None:
                raise ValueError("random_crop: weight softmax needs a method that tells all logits")
            return (attribution.logits - attribution.totals).exp()
