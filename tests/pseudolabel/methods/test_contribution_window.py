"""The exact-zero theorem: a gradient reaches (R - 1) / 2 pixels from an activated cell, and no further.

R = 1 + layers * (F - 1) for convolutions of F x F with stride 1. Activated: some feature channel that the
class looks at is above 0 there. Float64 and direct convolution: Winograd and FFT
leave dust where the value is 0.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from pseudolabel import draws, registry
from pseudolabel.explain.method import build
from pseudolabel.explain.model import Explained
from pseudolabel.records import Targets

LAYERS, SIDE, CHANNELS, CLASSES = 3, 56, 3, 2
LEFT = 2  # cells that stay activated in each feature channel, of SIDE x SIDE


class Convolutions(nn.Module):
    """Bias-free convolutions, ReLU after each, global average pooling, a linear head."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        widths = (3, 6, 6, CHANNELS)
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)
            for before, after in itertools.pairwise(widths)
        )
        self.head = nn.Linear(CHANNELS, CLASSES, bias=False)
        source = draws.generator("contribution window", kernel)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=source))
        self.double().eval()

    def before_last(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 6, h, w), active everywhere on noise."""
        for layer in list(self.layers)[:-1]:
            images = layer(images).relu()
        return images

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, CHANNELS, h, w) >= 0."""
        grid: Tensor = self.layers[-1](self.before_last(images)).relu()
        return grid

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, CLASSES)."""
        logits: Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return logits

    def thin_out(self, images: Tensor) -> None:
        """Lower all last weights of a channel alike, until LEFT cells of it are above 0: no bias needed."""
        last = self.layers[-1]
        assert isinstance(last, nn.Conv2d)
        with torch.no_grad():
            inner = self.before_last(images)
            weight = last.weight.detach()
            value, total = (
                nn.functional.conv2d(inner, w, padding=last.padding)
                for w in (weight, torch.ones_like(weight))
            )
            share = (value / total)[0].flatten(1).sort(dim=1, descending=True).values
            last.weight -= ((share[:, LEFT - 1] + share[:, LEFT]) / 2)[:, None, None, None]


@pytest.fixture(autouse=True)
def _direct_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)


def measured(kernel: int, label: int) -> tuple[Tensor, Tensor]:
    """Saliency (h, w) of a class and the activated cells (h, w)."""
    images = torch.randn(1, 3, SIDE, SIDE, dtype=torch.float64, generator=draws.generator("noise", kernel))
    network = Convolutions(kernel)
    network.thin_out(images)
    model = Explained(network, batch=1)
    component = registry.get("methods", "saliency")
    method = build((component, component.params()))
    attribution = method.explain(model, images, Targets((0,), (label,)), [(0, "noise")])
    with torch.no_grad():
        active = (model.features(images) > 0).any(dim=1)[0]
    return method.reduce(attribution.values)[0], active


def outside(active: Tensor, radius: int) -> Tensor:
    """Pixels (h, w) further than `radius` rows or columns from every activated cell."""
    far = torch.ones_like(active)
    for row, column in active.nonzero().tolist():
        far[max(0, row - radius) : row + radius + 1, max(0, column - radius) : column + radius + 1] = False
    return far


@pytest.mark.parametrize("label", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_the_gradient_is_exactly_zero_outside_the_window(kernel: int, label: int) -> None:
    radius = LAYERS * (kernel - 1) // 2
    gradient, active = measured(kernel, label)
    assert gradient.dtype == torch.float64
    far = outside(active, radius)
    checked = int(far.sum())
    print(f"F = {kernel}: {int(active.sum())} activated cells, {checked} pixels checked")
    assert 0 < int(active.sum()) <= LEFT * CHANNELS
    assert checked > SIDE * SIDE // 4, "not tested: the zone covers the image"
    assert bool((~far).any())
    assert float(gradient[~far].max()) > 0
    assert float(gradient[far].abs().max()) == 0.0


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_window_one_pixel_too_narrow_misses_gradients(kernel: int) -> None:
    radius = LAYERS * (kernel - 1) // 2
    gradient, active = measured(kernel, 1)
    missed = int((gradient[outside(active, radius - 1)] != 0).sum())
    print(f"F = {kernel}: {missed} gradients outside a zone one pixel too narrow")
    assert missed > 0


def test_with_one_pixel_kernels_only_activated_pixels_have_a_gradient() -> None:
    gradient, active = measured(1, 2)
    assert bool(((gradient != 0) == active).all())
