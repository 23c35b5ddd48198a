"""Random crops: a method's evidence of many crops, weighted by their class score, summed in place.

    G_chunk = sum_{k in chunk} w(y_k) * place_k( g(crop_k) ),   w = sigmoid | 1 | softmax, a constant
    S_c     = sum over chunks of finish(G_chunk)                (signed_in_chunk)
    S_c     = sum over crops of finish(w(y_k) * place_k(g))     (abs_per_crop)

Crops are drawn as torchvision's RandomResizedCrop draws them (area share uniform, aspect log-uniform, 10
tries, then a central crop) and resized to size x size. place_k is the adjoint of that resize for
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
from pseudolabel.maps._bound import BoundMethod, Key, finished
from pseudolabel.maps._explained import Explained
from pseudolabel.maps.aggregate._resize import Resize
from pseudolabel.maps.aggregate._views import Means, See, View, each, placed, rows_of
from pseudolabel.records import Evidence, Targets
from pseudolabel.registry import RAW, Parameters, brick, parameter

TRIES = 10  # torchvision's RandomResizedCrop
SHARED = ("scale", "ratio", "size", "antialias")  # what decides the crops themselves
Weight = Literal["sigmoid", "none", "softmax"]
Several = Callable[[Explained, Tensor, Targets, Sequence[Key]], list[Evidence]]
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
        "signed_in_chunk", help="finish the sum of a chunk (authors), or each crop"
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
    """What is random, for the twin: `windows`, a list of (top, left, height, width)."""
    return {"windows": [(w.top, w.left, w.height, w.width) for w in draw(key, size, params)]}


@brick(RandomCrop, gives=RAW, small={"count": 3, "size": 20, "chunk": 2}, drawn=drawn)
def random_crop(inner: BoundMethod, params: RandomCrop) -> BoundMethod:
    """A method whose evidence is that of random crops of the image.

    Args:
        inner: the method that explains a crop.
        params: see `RandomCrop`.

    Returns:
        A method whose evidence has values (T, 1, H, W), maps at the image's size, the crops' mean logit
        and the share of pixels that no crop covered. Crops follow from each image's key alone. Crops of
        all images share forwards of at most the model's batch; the batch does not decide the result.
    """
    return BoundMethod(
        explain=partial(_one, several(inner, [params])),
        finish=finished,
        place=inner.place,
        views=inner.views * params.count,
        inner=inner,
        rebuilt=partial(random_crop.run, params=params),
    )


def several(inner: BoundMethod, wanted: Sequence[RandomCrop]) -> Several:
    """Evidence of several parameter sets from one pass over the crops.

    Crop k is the same whatever the count, so a smaller count is the beginning of the largest, and only
    that one is run.

    Args:
        inner: the method that explains a crop.
        wanted: parameter sets that differ in count, weight, chunk, accumulate and per_visit alone.

    Returns:
        A function like a method's `explain` that gives a list: the evidence of each set, up to rounding
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
) -> Evidence:
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
) -> list[Evidence]:
    size = int(images.shape[2]), int(images.shape[3])
    images = images.to(model.device)
    labels = rows_of(targets)
    windows = {image: draw(keys[image], size, largest) for image in labels}
    resizes: dict[View, Resize] = {}  # of the crops that are on their way

    def see(view: View) -> See:
        window = windows[view[0]][view[1]]
        source, target = (window.height, window.width), (largest.size, largest.size)
        resizes[view] = Resize(source, target, largest.antialias)
        return lambda picture: resizes[view](window.of(picture))

    def made(view: View) -> Tensor:
        return see(view)(images[view[0]])

    sums = [_Sum(inner, params, len(targets.images), size, model.device) for params in wanted]
    views = [(image, index) for image in labels for index in range(largest.count)]
    for view, evidence in each(inner, model, targets, keys, views, made, see):
        image, index = view
        crop = _Crop(inner, windows[image][index], resizes.pop(view), evidence)
        for one in sums:
            if index < one.params.count:
                one.add(labels[image], index, crop)
    return [one.evidence(windows, labels) for one in sums]


class _Crop:
    """Evidence of one crop and its window; weighted and placed once for each kind of weight."""

    def __init__(self, inner: BoundMethod, window: Window, resize: Resize, evidence: Evidence) -> None:
        self.inner, self.window, self.resize, self.evidence = inner, window, resize, evidence
        self._placed: dict[str, Tensor] = {}

    def placed(self, weight: Weight) -> Tensor:
        """(T, c, window's height, width), times the crop's weight for each target."""
        if weight not in self._placed:
            values = self.evidence.values * _weights(self.evidence, weight)[:, None, None, None]
            self._placed[weight] = placed(self.inner, values, self.resize)
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
        """One crop of one image: evidence of its targets `rows`."""
        chosen, window = slice(rows.start, rows.stop), crop.window
        self.means.add(rows, crop.evidence)
        values = crop.placed(self.params.weight)
        if self.params.accumulate == "abs_per_crop":
            finish = self.inner.seen(window.of).finish
            window.of(self.maps[chosen]).add_(finish(values))
            return
        if rows.start not in self.chunk:
            self.chunk[rows.start] = values.new_zeros(len(rows), values.shape[1], *self.size)
        window.of(self.chunk[rows.start]).add_(values)
        if (index + 1) % self.params.chunk == 0 or index + 1 == self.params.count:
            self.maps[chosen] += self.inner.finish(self.chunk.pop(rows.start))

    def evidence(self, windows: dict[int, list[Window]], labels: dict[int, range]) -> Evidence:
        """The sums as evidence; uncovered by these crops, whatever the inner method left out of each."""
        uncovered = torch.zeros_like(self.means.logits)
        for image, rows in labels.items():
            visits = torch.zeros(self.size, device=self.maps.device)
            for window in windows[image][: self.params.count]:
                window.of(visits).add_(1)
            chosen = slice(rows.start, rows.stop)
            uncovered[chosen] = (visits == 0).float().mean()
            if self.params.per_visit:
                self.maps[chosen] /= visits.clamp(min=1)
        return Evidence(self.maps[:, None], self.means.logits, self.means.totals, uncovered)


def _weights(evidence: Evidence, weight: Weight) -> Tensor:
    """Weight (T,) of a crop for each of its targets."""
    match weight:
        case "sigmoid":
            return evidence.logits.sigmoid()
        case "none":
            return torch.ones_like(evidence.logits)
        case "softmax":
            if evidence.totals is None:
                raise ValueError("random_crop: weight softmax needs a method that tells all logits")
            return (evidence.logits - evidence.totals).exp()
