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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from pseudolabel import draws
from pseudolabel.explain.method import BoundMethod, Key, reduced
from pseudolabel.explain.model import Explained
from pseudolabel.explain.resize import Resize
from pseudolabel.explain.views import Means, See, View, each, projected, rows_of
from pseudolabel.records import Attribution, Targets
from pseudolabel.registry import RAW, Parameters, component, parameter

TRIES = 10  # torchvision's RandomResizedCrop
SHARED = ("scale", "ratio", "size", "antialias")  # what decides the crops themselves
Weight = Literal["sigmoid", "none", "softmax"]
Several = Callable[[Explained, Tensor, Targets, Sequence[Key]], list[Attribution]]
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


@component(RandomCrop, gives=RAW, small={"count": 3, "size": 20, "chunk": 2}, drawn=drawn)
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
    return BoundMethod(
        explain=partial(_one, several(inner, [params])),
        reduce=reduced,
        project=inner.project,
        views=inner.views * params.count,
        inner=inner,
        rebuilt=partial(random_crop.run, params=params),
    )


def several(inner: BoundMethod, wanted: Sequence[RandomCrop]) -> Several:
    """Attribution of several parameter sets from one pass over the crops.

    Crop k is the same whatever the count, so a smaller count is the beginning of the largest, and only
    that one is run.

    Args:
        inner: the method that explains a crop.
        wanted: parameter sets that differ in count, weight, chunk, accumulate and per_visit alone.

    Returns:
        A function like a method's `explain` that gives a list: the attribution of each set, up to rounding
        what `random_crop` gives for it alone.

    Raises:
        ValueError: no set, or two that do not share their crops.
    """
    if not wanted:
        raise ValueError("random_crop: no parameters, no crops")
    largest = max(wanted, key=lambda params: params.count)
    for params in wanted:
        for name in SHARED:
            if getattr(params, name) != getattr(largest, name):
                raise ValueError(
                    f"random_crop: {name} {getattr(params, name)} and {getattr(largest, name)} "
                    "are other crops; run them apart"
                )
    return partial(_explain, inner, tuple(wanted), largest)


def _one(
    explain: Several, model: Explained, images: Tensor, targets: Targets, keys: Sequence[Key]
) -> Attribution:
    return explain(model, images, targets, keys)[0]


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


def _explain(
    inner: BoundMethod,
    wanted: Sequence[RandomCrop],
    largest: RandomCrop,
    model: Explained,
    images: Tensor,
    targets: Targets,
    keys: Sequence[Key],
) -> list[Attribution]:
    size = int(images.shape[2]), int(images.shape[3])
    images = images.to(model.device)
    labels = rows_of(targets)
    windows = {image: draw(keys[image], size, largest) for image in labels}
    resizes: dict[View, Resize] = {}  # of the crops that are on their way

    def see(view: View) -> See:
        window = windows[view[0]][view[1]]
        source, target = (window.height, window.width), (largest.size, largest.size)
        resizes[view] = Resize(source, target, largest.antialias)
        return lambda input_image: resizes[view](window.of(input_image))

    def made(view: View) -> Tensor:
        return see(view)(images[view[0]])

    sums = [_Sum(inner, params, len(targets.images), size, model.device) for params in wanted]
    views = [(image, index) for image in labels for index in range(largest.count)]
    for view, attribution in each(inner, model, targets, keys, views, made, see):
        image, index = view
        crop = _Crop(inner, windows[image][index], resizes.pop(view), attribution)
        for one in sums:
            if index < one.params.count:
                one.add(labels[image], index, crop)
    return [one.attribution(windows, labels) for one in sums]


class _Crop:
    """Attribution of one crop and its window; weighted and placed once for each kind of weight."""

    def __init__(self, inner: BoundMethod, window: Window, resize: Resize, attribution: Attribution) -> None:
        self.inner, self.window, self.resize, self.attribution = inner, window, resize, attribution
        self._placed: dict[str, Tensor] = {}

    def projected(self, weight: Weight) -> Tensor:
        """(T, c, window's height, width), times the crop's weight for each target."""
        if weight not in self._placed:
            values = self.attribution.values * _weights(self.attribution, weight)[:, None, None, None]
            self._placed[weight] = projected(self.inner, values, self.resize)
        return self._placed[weight]


class _Sum:
    """Maps of all targets so far, and the signed sum of the chunk that is open."""

    def __init__(
        self, inner: BoundMethod, params: RandomCrop, count: int, size: tuple[int, int], device: torch.device
    ) -> None:
        self.inner, self.params, self.size = inner, params, size
        self.maps = torch.zeros(count, *size, device=device)
        self.means = Means(count, params.count, device)
        self.chunk: dict[int, Tensor] = {}  # by first target of an image: one image's chunk is open at a time

    def add(self, rows: range, index: int, crop: _Crop) -> None:
        """One crop of one image: attribution of its targets `rows`."""
        chosen, window = slice(rows.start, rows.stop), crop.window
        self.means.add(rows, crop.attribution)
        values = crop.projected(self.params.weight)
        if self.params.accumulate == "abs_per_crop":
            reduce = self.inner.seen(window.of).reduce
            window.of(self.maps[chosen]).add_(reduce(values))
            return
        if rows.start not in self.chunk:
            self.chunk[rows.start] = values.new_zeros(len(rows), values.shape[1], *self.size)
        window.of(self.chunk[rows.start]).add_(values)
        if (index + 1) % self.params.chunk == 0 or index + 1 == self.params.count:
            self.maps[chosen] += self.inner.reduce(self.chunk.pop(rows.start))

    def attribution(self, windows: dict[int, list[Window]], labels: dict[int, range]) -> Attribution:
        """The sums as attribution; uncovered by these crops, whatever the inner method left out of each."""
        uncovered = torch.zeros_like(self.means.logits)
        for image, rows in labels.items():
            visits = torch.zeros(self.size, device=self.maps.device)
            for window in windows[image][: self.params.count]:
                window.of(visits).add_(1)
            chosen = slice(rows.start, rows.stop)
            uncovered[chosen] = (visits == 0).float().mean()
            if self.params.per_visit:
                self.maps[chosen] /= visits.clamp(min=1)
        return Attribution(self.maps[:, None], self.means.logits, self.means.totals, uncovered)


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
