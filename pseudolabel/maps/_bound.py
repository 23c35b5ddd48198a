"""A map method with its parameters filled in, and what aggregators make of it: a method again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor

from pseudolabel.maps._explained import Explained
from pseudolabel.records import Evidence, Targets
from pseudolabel.registry import Brick, Parameters

Key = tuple[int | str, ...]  # root of an image's random draws: (seed, id), then the index of each view
Place = Literal["adjoint", "paste"]
Finish = Callable[[Tensor], Tensor]  # (T, c, h', w') -> (T, h', w')


class Explain(Protocol):
    """(model, images (B, 3, h, w) normalised, targets, a key per image) -> evidence of the targets."""

    def __call__(
        self, model: Explained, images: Tensor, targets: Targets, keys: Sequence[Key]
    ) -> Evidence: ...


@dataclass(frozen=True, eq=False)
class ImageFinish:
    """A finish that looks at the image which the evidence is of, as a gradient to a mask does.

    Attributes:
        function: (values (T, c, H, W), image) -> (T, H, W); positively homogeneous in the values.
        image: (3, H, W), that of all targets.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    image: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        return self.function(values, self.image)


@dataclass(frozen=True)
class BoundMethod:
    """A method ready to run.

    Attributes:
        explain: gives evidence, signed unless an aggregator has already finished it.
        finish: (T, c, h', w') -> (T, h', w'), one map of the channels; runs once on every path.
        place: how the evidence of a view comes back onto the image: `adjoint` of the resize for
            gradients, `paste` (resize) for feature maps.
        views: forwards that one image costs.
        inner: the method that this one is made of, or None.
        rebuilt: makes this method again of another inner one.
    """

    explain: Explain
    finish: Finish
    place: Place
    views: int = 1
    inner: BoundMethod | None = None
    rebuilt: Callable[[BoundMethod], BoundMethod] | None = None

    @property
    def done(self) -> bool:
        """Whether `explain` gives finished maps: an aggregator within has called the finish."""
        return self.finish is finished

    @property
    def innermost(self) -> Finish:
        """The finish of the method brick at the bottom, whoever calls it."""
        return self.finish if self.inner is None else self.inner.innermost

    def with_finish(self, finish: Finish) -> BoundMethod:
        """The same method, its innermost evidence finished by another function."""
        if self.inner is None or self.rebuilt is None:
            return replace(self, finish=finish)
        return self.rebuilt(self.inner.with_finish(finish))

    def seen(self, view: Callable[[Tensor], Tensor]) -> BoundMethod:
        """The same method for a view (crop, resize, flip) of the image: a finish that looks at the image
        looks at the view of it; any other stays."""
        finish = self.innermost
        if not isinstance(finish, ImageFinish):
            return self
        return self.with_finish(ImageFinish(finish.function, view(finish.image)))


def build(
    method: tuple[Brick, Parameters], aggregators: Sequence[tuple[Brick, Parameters]] = ()
) -> BoundMethod:
    """A method brick and its aggregators, innermost first, as one method."""
    brick, params = method
    views = brick.traits.get("views")
    bound = BoundMethod(
        explain=partial(brick.run, params=params),
        finish=partial(brick.traits["finish"], params=params),
        place=brick.traits["place"],
        views=1 if views is None else views(params),
    )
    for aggregator, own in aggregators:
        bound = aggregator.run(bound, own)
    return bound


def finished(values: Tensor) -> Tensor:
    """The finish of evidence that is a map already: (T, 1, h', w') -> (T, h', w')."""
    return values[:, 0]


def on_image(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (T, h', w') on the image: (T, H, W), bilinear straight to its size (align_corners=False)."""
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    return torch.nn.functional.interpolate(
        maps[:, None], size=tuple(size), mode="bilinear", align_corners=False
    )[:, 0]
