"""What the contract suites feed to components: one scene that shows every outcome, and the odd cases."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import torch
from pydantic import ValidationError
from torch import Tensor

from pseudolabel.records import Scores
from pseudolabel.registry import Component, Parameters

BOUNDS = {"gt": 0, "ge": -1, "lt": 0, "le": 1}  # the nearest whole step that each bound must refuse


@dataclass(frozen=True)
class Chosen:
    """A component with parameters as a step of `pseudolabel.pipeline.postprocessing`."""

    component: Component
    params: Parameters

    @property
    def component_name(self) -> str:
        """The component's name in its kind."""
        return self.component.name


def image(height: int, width: int, seed: int = 0) -> Tensor:
    """(H, W, 3) uint8: coloured patches with a little noise, so that superpixels have something to follow."""
    draw = torch.Generator().manual_seed(seed)
    patches = torch.randint(30, 220, (-(-height // 9), -(-width // 9), 3), generator=draw)
    large = patches.repeat_interleave(9, 0).repeat_interleave(9, 1)[:height, :width]
    return (large + torch.randint(-20, 21, (height, width, 3), generator=draw)).to(torch.uint8)


def scene(classes: int = 3, height: int = 41, width: int = 59) -> tuple[Scores, Tensor]:
    """Scores in [0, 1] whose maximum ramps down through every level along x, each class winning in a band
    of y; the last sixth is 0.

    Returns:
        Scores of `classes` ids that are neither consecutive nor begin at 1, and an image (H, W, 3) uint8.
    """
    draw = torch.Generator().manual_seed(classes)
    ramp = torch.linspace(1, -0.2, width)
    rows = torch.linspace(0, 1, height)[:, None]
    maps = []
    for place in range(classes):
        centre = (place + 0.5) / classes
        band = torch.exp(-(((rows - centre) * classes) ** 2))
        noise = 0.03 * torch.rand(height, width, generator=draw)
        maps.append((ramp * band + noise) * (ramp > 0))
    values = torch.stack(maps).clamp(0, 1).float()
    return Scores(tuple(2 + 3 * place for place in range(classes)), values), image(height, width)


def raw(scores: Scores) -> Scores:
    """The same scores in another unit and shifted below zero, as signed maps may be."""
    return scores.replace(0.004 * (scores.values - 0.2))


def raw_scene() -> tuple[Scores, Tensor]:
    """The scene as raw scores, a third of it below zero."""
    scores, image = scene()
    return raw(scores), image


def no_class() -> tuple[Scores, Tensor]:
    """Scores of an image without a class: no row at all."""
    return Scores((), torch.zeros(0, 20, 30)), image(20, 30)


def odd_inputs() -> dict[str, tuple[Scores, Tensor]]:
    """Scores in [0, 1] that have broken things before, by a name for the test's id."""
    inputs = {"one class": scene(1), "ten classes": scene(10), "1 x 1": scene(2, 1, 1)}
    inputs["3 x 500"], inputs["500 x 2"] = scene(2, 3, 500), scene(2, 500, 2)
    scores, image = scene(2, 20, 30)
    inputs["constant"] = scores.replace(torch.full_like(scores.values, 0.5)), image
    inputs["empty"] = scores.replace(torch.zeros_like(scores.values)), image
    inputs["all ones"] = scores.replace(torch.ones_like(scores.values)), image
    levels = torch.tensor([0.04, 0.1, 0.15, 0.5, 1.0]).repeat_interleave(6)  # ties with usual thresholds
    inputs["levels"] = scores.replace(levels.expand(2, 20, 30).clone()), image
    inputs["flat image"] = scores, torch.full_like(image, 128)
    return inputs


def variants(component: Component, base: Mapping[str, Any] | None = None) -> Iterator[Parameters]:
    """The defaults under every combination of named options, then every number and every switch moved once.

    Options whose package is not installed are left out (trait `packages_for`: key -> option -> module).

    Args:
        component: whose parameters.
        base: values that stand in for the defaults.
    """
    fields, own = component.params.model_fields, dict(base or {})
    options = {
        key: [option for option in get_args(f.annotation) if _is_there(component, key, option)]
        for key, f in fields.items()
        if get_origin(f.annotation) is Literal
    }
    for chosen in itertools.product(*options.values()):
        try:
            variant = component.params.model_validate({**own, **dict(zip(options, chosen, strict=True))})
        except ValidationError:  # two options that exclude each other
            continue
        yield variant
    start = component.params.model_validate(own).as_dict()
    for key, value in start.items():
        if isinstance(value, bool):
            yield component.params.model_validate({**start, key: not value})
        elif isinstance(value, (int, float)):
            moved = (
                (value // 2, value // 2 + 1, 2 * value + 1) if isinstance(value, int) else (value / 2 or 0.5,)
            )
            for candidate in moved:
                try:
                    variant = component.params.model_validate({**start, key: candidate})
                except ValidationError:
                    continue
                yield variant
                break


def _is_there(component: Component, key: str, option: Any) -> bool:
    module = component.traits.get("packages_for", {}).get(key, {}).get(option)
    return module is None or importlib.util.find_spec(module) is not None


def at_strength(component: Component) -> Iterator[Parameters]:
    """`variants`, each at the strength that the component declares as none."""
    for params in variants(component):
        yield component.params.model_validate({**params.as_dict(), **component.traits["strength"]})


def beyond_bounds(component: Component) -> Iterator[tuple[str, Any]]:
    """(key, value) just beyond each bound that a parameter declares."""
    for key, field in component.params.model_fields.items():
        integer = field.annotation is int
        for mark in field.metadata:
            for name, direction in BOUNDS.items():
                bound = getattr(mark, name, None)
                if bound is None:
                    continue
                if direction == 0 or integer:
                    yield key, bound + direction if integer else float(bound)
                else:
                    yield key, math.nextafter(bound, direction * math.inf)
