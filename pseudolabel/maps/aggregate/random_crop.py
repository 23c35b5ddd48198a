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
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from pseudolabel import draws
from pseudolabel.maps._bound import BoundMethod, Key, finished, on_image
from pseudolabel.maps._explained import Explained
from pseudolabel.maps.aggregate._resize import adjoint, resize, resize_matrix
from pseudolabel.records import Evidence, Targets
from pseudolabel.registry import RAW, Parameters, brick, parameter

TRIES = 10  # torchvision's RandomResizedCrop
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
    size: int = parameter(224, ge=1, unit="pixels", help="crops are resized to size x size")
    weight: Literal["sigmoid", "none", "softmax"] = parameter(
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


@brick(RandomCrop, gives=RAW, small={"count": 5, "size": 24, "chunk": 2})
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
    return BoundMethod(partial(_explain, inner, params), finished, inner.place, inner.views * params.count)


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
    params: RandomCrop,
    model: Explained,
    images: Tensor,
    targets: Targets,
    keys: Sequence[Key],
) -> Evidence:
    size = int(images.shape[2]), int(images.shape[3])
    images = images.to(model.device)
    labels = _rows(targets)
    windows = {image: draw(keys[image], size, params) for image in labels}
    views = [(image, index) for image in labels for index in range(params.count)]
    total = _Sum(inner, params, len(targets.images), size, model.device)
    start = 0
    while start < len(views):
        # asked anew each time: it shrinks where memory ran out
        part = views[start : start + max(1, model.batch // inner.views)]
        start += len(part)
        axes = [_axes(windows[image][index], params, model.device) for image, index in part]
        crops = torch.stack(
            [
                resize(windows[image][index].of(images[image]), *axis)
                for (image, index), axis in zip(part, axes, strict=True)
            ]
        )
        wanted = Targets.of([targets.classes[t] for t in labels[image]] for image, _ in part)
        evidence = inner.explain(model, crops, wanted, [(*keys[image], index) for image, index in part])
        at = 0
        for (image, index), axis in zip(part, axes, strict=True):
            rows = slice(at, at + len(labels[image]))
            at = rows.stop
            total.add(labels[image], index, windows[image][index], axis, _part(evidence, rows))
    return total.evidence(windows, labels)


class _Sum:
    """Maps of all targets so far, and the signed sum of the chunk that is open."""

    def __init__(
        self, inner: BoundMethod, params: RandomCrop, count: int, size: tuple[int, int], device: torch.device
    ) -> None:
        self.inner, self.params, self.size = inner, params, size
        self.maps = torch.zeros(count, *size, device=device)
        self.logits = torch.zeros(count, device=device)
        self.totals: Tensor | None = torch.zeros(count, device=device)
        self.chunk: dict[int, Tensor] = {}  # by first target of an image: one image's chunk is open at a time

    def add(
        self, rows: range, index: int, window: Window, axes: tuple[Tensor, Tensor], evidence: Evidence
    ) -> None:
        """One crop of one image: evidence of its targets `rows`."""
        chosen = slice(rows.start, rows.stop)
        self.logits[chosen] += evidence.logits / self.params.count
        if evidence.totals is None:
            self.totals = None
        elif self.totals is not None:
            self.totals[chosen] += evidence.totals / self.params.count
        values = evidence.values * _weights(evidence, self.params)[:, None, None, None]
        if self.inner.place == "adjoint":
            placed = adjoint(values, *axes)
        else:
            size = window.height, window.width
            placed = on_image(values.flatten(0, 1), size).reshape(*values.shape[:2], *size)
        if self.params.accumulate == "abs_per_crop":
            window.of(self.maps[chosen]).add_(self.inner.finish(placed))
            return
        if rows.start not in self.chunk:
            self.chunk[rows.start] = placed.new_zeros(len(rows), placed.shape[1], *self.size)
        window.of(self.chunk[rows.start]).add_(placed)
        if (index + 1) % self.params.chunk == 0 or index + 1 == self.params.count:
            self.maps[chosen] += self.inner.finish(self.chunk.pop(rows.start))

    def evidence(self, windows: dict[int, list[Window]], labels: dict[int, range]) -> Evidence:
        """The sums as evidence."""
        uncovered = torch.zeros_like(self.logits)
        for image, rows in labels.items():
            visits = torch.zeros(self.size, device=self.maps.device)
            for window in windows[image]:
                window.of(visits).add_(1)
            chosen = slice(rows.start, rows.stop)
            uncovered[chosen] = (visits == 0).float().mean()
            if self.params.per_visit:
                self.maps[chosen] /= visits.clamp(min=1)
        return Evidence(self.maps[:, None], self.logits, self.totals, uncovered)


def _rows(targets: Targets) -> dict[int, range]:
    """Targets of each image that has some; they stand together."""
    rows: dict[int, range] = {}
    for target, image in enumerate(targets.images):
        start = rows[image].start if image in rows else target
        rows[image] = range(start, target + 1)
    return rows


def _axes(window: Window, params: RandomCrop, device: torch.device) -> tuple[Tensor, Tensor]:
    """The matrices that resize a window to size x size."""
    rows = resize_matrix(window.height, params.size, antialias=params.antialias, device=device)
    columns = resize_matrix(window.width, params.size, antialias=params.antialias, device=device)
    return rows, columns


def _weights(evidence: Evidence, params: RandomCrop) -> Tensor:
    """Weight (T,) of a crop for each of its targets."""
    match params.weight:
        case "sigmoid":
            return evidence.logits.sigmoid()
        case "none":
            return torch.ones_like(evidence.logits)
        case "softmax":
            if evidence.totals is None:
                raise ValueError("random_crop: weight softmax needs a method that tells all logits")
            return (evidence.logits - evidence.totals).exp()


def _part(evidence: Evidence, rows: slice) -> Evidence:
    totals = None if evidence.totals is None else evidence.totals[rows]
    return Evidence(evidence.values[rows], evidence.logits[rows], totals)
