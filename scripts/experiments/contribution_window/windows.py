"""The exact-zero theorem: outside the windows of the activated cells the gradient is 0."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pseudolabel.explain.model import Explained
from pseudolabel.records import Targets
from scripts.experiments.contribution_window.digits import Digits, Variant
from scripts.experiments.voc_maps import bound


def targets_of(digits: Digits) -> Targets:
    """Each image's own class."""
    return Targets.of((int(digit) + 1,) for digit in digits.digits)


def keys_of(digits: Digits) -> list[tuple[int, int]]:
    """A key of random draws for each image; the methods used here draw nothing."""
    return [(0, index) for index in range(len(digits.digits))]


@contextlib.contextmanager
def direct_convolution() -> Iterator[None]:
    """Convolutions without the accelerated back end, whose rounding leaves no exact zeros in a gradient."""
    before = torch.backends.mkldnn.enabled  # `flags()` would set more, and warn on a machine without a GPU
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


def exact_zeros(network: nn.Module, variant: Variant, digits: Digits) -> dict[str, float | int]:
    """The theorem on some images, in float64 by direct convolution.

    Returns:
        `images`, `pixels` outside the zone, `largest` |gradient| there, `zero_share` of all pixels,
        `control_pixels` outside a zone one pixel too narrow and `control_nonzero` of them (-1 where the
        window has one pixel), `beyond_active`: pixels with a gradient that are not activated themselves.
    """
    model = Explained(copy.deepcopy(network).double(), batch=4)
    method = bound("saliency", params={"channels": "signed_sum"})
    images = digits.images.double()
    with direct_convolution():
        attribution = method.explain(model, images, targets_of(digits), keys_of(digits))
        gradient = method.reduce(attribution.values)
        with torch.no_grad():
            active = torch.cat([(model.features(part) > 0).any(dim=1) for part in torch.split(images, 4)])
    radius = (variant.window - 1) // 2
    outside = ~_grown(active, radius)
    measured: dict[str, float | int] = {
        "images": len(images),
        "pixels": int(outside.sum()),
        "largest": float(gradient[outside].abs().max()) if bool(outside.any()) else 0.0,
        "largest_anywhere": float(gradient.abs().max()),
        "zero_share": float((gradient == 0).double().mean()),
        "active_share": float(active.double().mean()),
        "control_pixels": -1,
        "control_nonzero": -1,
        "beyond_active": int(((gradient != 0) & ~active).sum()),
    }
    if radius > 0:
        narrow = ~_grown(active, radius - 1)
        measured["control_pixels"] = int(narrow.sum())
        measured["control_nonzero"] = int((gradient[narrow] != 0).sum())
    return measured


def _grown(active: Tensor, radius: int) -> Tensor:
    """Pixels (N, h, w) within a Chebyshev distance of an active one."""
    side = 2 * radius + 1
    return nn.functional.max_pool2d(active[:, None].float(), side, stride=1, padding=radius)[:, 0] > 0
