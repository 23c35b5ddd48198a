"""A map method with its parameters filled in, and what aggregators make of it: a method again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor

from pseudolabel.explain.model import Explained
from pseudolabel.records import Attribution, Targets
from pseudolabel.registry import Component, Parameters

Key = tuple[int | str, ...]  # root of an image's random draws: (seed, id), then the index of each view
Projection = Literal["adjoint", "paste"]
Reduce = Callable[[Tensor], Tensor]  # (T, c, h', w') -> (T, h', w')
View = tuple[int, int]  # image in the batch, index of the view


class Explain(Protocol):
    """(model, images (B, 3, h, w) normalised, targets, a key per image) -> attribution of the targets."""

    def __call__(
        self, model: Explained, images: Tensor, targets: Targets, keys: Sequence[Key]
    ) -> Attribution: ...


@dataclass(frozen=True, eq=False)
class ImageReduce:
    """A reduce that looks at the image which the attribution is of, as a gradient to a mask does.

    Attributes:
        function: (values (T, c, H, W), image) -> (T, H, W), linear in the values; the map is its absolute
            value.
        image: (3, H, W), that of all targets.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    image: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        return self.signed(values).abs()

    def signed(self, values: Tensor) -> Tensor:
        """The same before its absolute value is taken."""
        return self.function(values, self.image)


@dataclass(frozen=True, eq=False)
class ViewGroup:
    """Views of one size, which share forwards.

    Attributes:
        key: equal for equal views, so that several methods share them; the views of one group may be the
            first of
            the other's.
        views: in the order in which they are explained.
        size: (h, w) of a view.
        make: (3, h, w) of a view.
        see: where views are other regions of the image: what a view sees of (..., H, W).
    """

    key: Hashable
    views: Sequence[View]
    size: tuple[int, int]
    make: Callable[[View], Tensor]
    see: Callable[[View], Callable[[Tensor], Tensor]] | None = None


class Aggregation(Protocol):
    """One call of an aggregator: which views it wants, and the sum of what comes back."""

    @property
    def inner(self) -> BoundMethod:
        """Explains a view."""

    def groups(self) -> Sequence[ViewGroup]:
        """The views, in groups of one size."""

    def add(self, group: ViewGroup, view: View, attribution: Attribution) -> None:
        """The attribution of the targets of a view's image. Views that it did not ask for are passed over."""

    def result(self) -> Attribution:
        """Of all targets."""


Aggregate = Callable[[Explained, Tensor, Targets, Sequence[Key]], Aggregation]


@dataclass(frozen=True)
class BoundMethod:
    """A method ready to run.

    Attributes:
        explain: gives attribution, signed unless an aggregator has already reduced it.
        reduce: (T, c, h', w') -> (T, h', w'), one map of the channels; runs once on every path.
        project: how the attribution of a view comes back onto the image: `adjoint` of the resize for
            gradients, `paste` (resize) for feature maps.
        views: forwards that one image costs.
        inner: the method that this one is made of, or None.
        rebuilt: makes this method again of another inner one.
        aggregation: begins a call of an aggregator whose views may be shared with other methods; None of a
            method
            that makes its own forwards.
    """

    explain: Explain
    reduce: Reduce
    project: Projection
    views: int = 1
    inner: BoundMethod | None = None
    rebuilt: Callable[[BoundMethod], BoundMethod] | None = None
    aggregation: Aggregate | None = None

    @property
    def done(self) -> bool:
        """Whether `explain` gives reduced maps: an aggregator within has called the reduce."""
        return self.reduce is reduced

    @property
    def innermost(self) -> Reduce:
        """The reduce of the method component at the bottom, whoever calls it."""
        return self.reduce if self.inner is None else self.inner.innermost

    def with_reduce(self, reduce: Reduce) -> BoundMethod:
        """The same method, its innermost attribution reduced by another function."""
        if self.inner is None or self.rebuilt is None:
            return replace(self, reduce=reduce)
        return self.rebuilt(self.inner.with_reduce(reduce))

    def of_view(self, view: Callable[[Tensor], Tensor]) -> BoundMethod:
        """The same method for a view (crop, resize, flip) of the image: a reduce that looks at the image
        looks at the view of it; any other stays."""
        reduce = self.innermost
        if not isinstance(reduce, ImageReduce):
            return self
        return self.with_reduce(ImageReduce(reduce.function, view(reduce.image)))


def build(
    method: tuple[Component, Parameters], aggregators: Sequence[tuple[Component, Parameters]] = ()
) -> BoundMethod:
    """A method component and its aggregators, innermost first, as one method."""
    component, params = method
    views = component.traits.get("views")
    bound = BoundMethod(
        explain=partial(component.run, params=params),
        reduce=partial(component.traits["reduce"], params=params),
        project=component.traits["project"],
        views=1 if views is None else views(params),
    )
    for aggregator, own in aggregators:
        bound = aggregator.run(bound, own)
    return bound


def reduced(values: Tensor) -> Tensor:
    """The reduce of attribution that is a map already: (T, 1, h', w') -> (T, h', w')."""
    return values[:, 0]


def on_image(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (T, h', w') on the image: (T, H, W), bilinear straight to its size (align_corners=False)."""
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    return torch.nn.functional.interpolate(
        maps[:, None], size=tuple(size), mode="bilinear", align_corners=False
    )[:, 0]
