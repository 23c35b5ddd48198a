"""A map method with its parameters filled in, and what aggregators make of it: a method again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor

from pseudolabel.maps._explained import Explained
from pseudolabel.records import Evidence, Targets
from pseudolabel.registry import Brick, Parameters

Key = tuple[int | str, ...]  # root of an image's random draws: (seed, id), then the index of each view
Place = Literal["adjoint", "paste"]


class Explain(Protocol):
    """(model, images (B, 3, h, w) normalised, targets, a key per image) -> evidence of the targets."""

    def __call__(
        self, model: Explained, images: Tensor, targets: Targets, keys: Sequence[Key]
    ) -> Evidence: ...


@dataclass(frozen=True)
class BoundMethod:
    """A method ready to run.

    Attributes:
        explain: gives evidence, signed unless an aggregator has already finished it.
        finish: (T, c, h', w') -> (T, h', w'), one map of the channels; runs once on every path.
        place: how the evidence of a view comes back onto the image: `adjoint` of the resize for
            gradients, `paste` (resize) for feature maps.
        views: forwards that one image costs.
    """

    explain: Explain
    finish: Callable[[Tensor], Tensor]
    place: Place
    views: int = 1


def build(
    method: tuple[Brick, Parameters], aggregators: Sequence[tuple[Brick, Parameters]] = ()
) -> BoundMethod:
    """A method brick and its aggregators, innermost first, as one method."""
    brick, params = method
    bound = BoundMethod(
        explain=partial(brick.run, params=params),
        finish=partial(brick.traits["finish"], params=params),
        place=brick.traits["place"],
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
